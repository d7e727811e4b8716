"""Configuration of DTViT (paper 002) and of the encoders it was compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ICHAnalysisLib.config.preprocess import BRAIN, LOCATIONS, PreprocessConfig
from ICHAnalysisLib.errors import UsageError


@dataclass(frozen=True)
class DTViTConfig:
    """One slice network with two decoders: is there a hemorrhage, and where does it lie.

    The sizes from `patch_size` to `patch_head` describe the transformer; the other encoders have fixed sizes.
    """

    encoder: Literal["vit", "resnet18", "resnet34", "vgg16", "alexnet"] = "vit"
    img_size: int = 224  # pixels of a side
    in_chans: int = 3  # HU windows
    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    stem: Literal["patch", "conv"] = "patch"  # "conv": stride-2 convolutions to the patch grid; learns from few images
    pool: Literal["cls", "evidence"] = "cls"  # "evidence": the class token and the patches that look like blood
    patch_head: bool = False  # blood fraction of each patch; gives a small encoder dense supervision
    decoder_dim: int = 256  # hidden width of both decoders
    dropout: float = 0.1
    num_locations: int = len(LOCATIONS)
    normalize: Literal["none", "imagenet"] = "none"  # of channels in [0, 1]
    top_k: int = 3  # a scan's presence is the mean of its k highest slice probabilities (decision V16)

    def __post_init__(self) -> None:
        if self.encoder == "vit":
            if self.img_size % self.patch_size:
                raise UsageError(f"DTViT: img_size {self.img_size} is no multiple of patch_size {self.patch_size}.")
            if self.embed_dim % self.num_heads:
                raise UsageError(f"DTViT: embed_dim {self.embed_dim} is no multiple of num_heads {self.num_heads}.")
            if self.stem == "conv" and self.patch_size != 16:
                raise UsageError(f"DTViT: the convolutional stem makes patches of 16 pixels, not {self.patch_size}.")
            if self.pool == "evidence" and not self.patch_head:
                raise UsageError("DTViT: pool 'evidence' needs patch_head true.")
        elif self.pool != "cls" or self.patch_head:
            raise UsageError(f"DTViT: pool 'evidence' and patch_head belong to encoder 'vit', not {self.encoder!r}.")
        if self.normalize == "imagenet" and self.in_chans != 3:
            raise UsageError(f"DTViT: ImageNet normalization needs 3 channels, not {self.in_chans}.")
        if self.top_k < 1:
            raise UsageError(f"DTViT: top_k {self.top_k} must be at least 1.")


_COMPACT = DTViTConfig(img_size=256, embed_dim=128, depth=4, num_heads=4, stem="conv", pool="evidence", patch_head=True)
_PAPER = DTViTConfig(normalize="imagenet")
#: The encoders of paper 002, table 3, and of its discussion.
_COMPARATORS: tuple[Literal["resnet18", "resnet34", "vgg16", "alexnet"], ...] = (
    "resnet18", "resnet34", "vgg16", "alexnet",
)  # fmt: skip

PRESETS: dict[str, DTViTConfig] = {
    "compact": _COMPACT,  # shipped; about 1 M parameters
    "small": replace(_COMPACT, embed_dim=192, depth=6, num_heads=6, drop_path=0.05),
    "paper": _PAPER,  # ViT-B/16
    **{f"paper_{name}": replace(_PAPER, encoder=name) for name in _COMPARATORS},
    **{f"compact_{name}": DTViTConfig(encoder=name, img_size=256) for name in _COMPARATORS},
    "tiny": DTViTConfig(
        img_size=64, embed_dim=16, depth=1, num_heads=2, decoder_dim=8, stem="conv", pool="evidence", patch_head=True
    ),
}

#: One window, replicated (V13, V14); the head's box, padded to a square, fills the 224 pixels. The paper cuts the
#: central 224 pixels out of what was 512: of a whole head that would be its middle 100 mm (V12). Scaling the box to 256
#: and cutting 224 would still take the poles of the brain, where clots lie, so nothing is cut here; in training the
#: random scale of the augmentation is the random crop.
_PAPER_PREPROCESS = PreprocessConfig(size=224, layout="square", windows=(BRAIN, BRAIN, BRAIN))

#: Preprocessing of each preset.
PREPROCESS: dict[str, PreprocessConfig] = {
    **{name: _PAPER_PREPROCESS if name.startswith("paper") else PreprocessConfig() for name in PRESETS},
    "tiny": PreprocessConfig(spacing_mm=3.6, size=64),
}
