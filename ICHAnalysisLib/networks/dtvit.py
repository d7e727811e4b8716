"""DTViT, the dual-task vision transformer of paper 002: one encoder, two decoders.

Legend: B slices, C channels (HU windows), H = W pixels, N = h * w patches, E width of the encoder, L locations.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.config.dtvit import DTViTConfig
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.quick_imports import compiler_put_off

with compiler_put_off():
    from timm.models.vision_transformer import VisionTransformer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class DTViT(nn.Module):
    """Slices to the logit of "hemorrhage", the logits of its location and, where built, of each patch's blood.

    encoder: timm's VisionTransformer without a head, its parameter names kept, so that its checkpoints load.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, cfg: DTViTConfig) -> None:
        super().__init__()
        self.cfg = cfg
        register_pixel_statistics(self, cfg.normalize)
        self.encoder = VisionTransformer(
            img_size=cfg.img_size,
            patch_size=cfg.patch_size,
            in_chans=cfg.in_chans,
            num_classes=0,
            embed_dim=cfg.embed_dim,
            depth=cfg.depth,
            num_heads=cfg.num_heads,
            mlp_ratio=cfg.mlp_ratio,
            drop_path_rate=cfg.drop_path,
            embed_layer=ConvStem if cfg.stem == "conv" else _patch_embed(),
        )
        features = cfg.embed_dim if cfg.pool == "cls" else 2 * cfg.embed_dim
        self.presence_decoder = decoder(features, cfg.decoder_dim, 1, cfg.dropout)
        self.location_decoder = decoder(features, cfg.decoder_dim, cfg.num_locations, cfg.dropout)
        self.patch_head = nn.Linear(cfg.embed_dim, 1) if cfg.patch_head else None
        if self.patch_head is not None:
            nn.init.constant_(self.patch_head.bias, -3.0)  # most patches hold no blood

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) patches."""
        side = self.cfg.img_size // self.cfg.patch_size
        return side, side

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) in [0, 1] to presence_logits (B,), location_logits (B, L) and patch_logits (B, h, w) if built.

        A positive presence logit means hemorrhage (decision V5).
        """
        tokens = self.encoder.forward_features((image - self.pixel_mean) / self.pixel_std)  # (B, 1 + N, E)
        cls, patches = tokens[:, 0], tokens[:, 1:]
        if self.patch_head is None:
            return self._decode(cls)
        patch_logits = self.patch_head(patches).squeeze(-1).float()  # (B, N)
        if self.cfg.pool == "evidence":
            weights = patch_logits.softmax(dim=1).to(patches.dtype)  # the likeliest patches decide where
            output = self._decode(torch.cat([cls, torch.einsum("bn,bne->be", weights, patches)], dim=1))
            strongest = patch_logits.topk(min(3, patch_logits.shape[1]), dim=1).values.mean(dim=1)
            output["presence_logits"] = output["presence_logits"] + strongest
        else:
            output = self._decode(cls)
        output["patch_logits"] = patch_logits.reshape(-1, *self.grid)
        return output

    def _decode(self, features: Tensor) -> dict[str, Tensor]:
        """(B, features) through both decoders."""
        return {
            "presence_logits": self.presence_decoder(features).squeeze(-1).float(),
            "location_logits": self.location_decoder(features).float(),
        }

    @property
    def cam_layer(self) -> str:
        """Name of the layer whose tokens Grad-CAM explains, the last whose patches still matter.

        Where the decoders read patches these are their inputs; else the class token alone is read, and the patches
        speak last where the last block attends to them.
        """
        return "encoder.norm" if self.cfg.pool == "evidence" else f"encoder.blocks.{self.cfg.depth - 1}.norm1"

    def cam_map(self, tokens: Tensor) -> Tensor:
        """(B, 1 + N, E) tokens as (B, E, h, w) feature maps; the class token is dropped."""
        patches = tokens[:, 1:]
        return patches.transpose(1, 2).reshape(patches.shape[0], patches.shape[2], *self.grid)


class ConvStem(nn.Module):
    """Four stride-2 convolutions in the place of timm's PatchEmbed: the same 16-pixel patches, learned from few images.

    The signature is what VisionTransformer passes to its `embed_layer`.
    """

    def __init__(
        self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, bias: bool = True, **unused: object
    ) -> None:
        super().__init__()
        self.num_patches = (img_size // patch_size) ** 2
        widths = [in_chans, embed_dim // 8, embed_dim // 4, embed_dim // 2]
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, 2, 1, bias=False), nn.GroupNorm(1, wide), nn.GELU()]
        self.proj = nn.Sequential(*layers, nn.Conv2d(widths[-1], embed_dim, 3, 2, 1, bias=bias))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) to (B, N, E)."""
        return self.proj(image).flatten(2).transpose(1, 2)


def decoder(features: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """The paper's MLP decoder: two linear layers behind a norm (decision V10)."""
    return nn.Sequential(
        nn.LayerNorm(features), nn.Linear(features, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)
    )


def register_pixel_statistics(module: nn.Module, normalize: str) -> None:
    """Buffers pixel_mean and pixel_std (1, C or 1, 1, 1): part of the network, not of its weights."""
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if normalize == "imagenet" else ((0.0,), (1.0,))
    module.register_buffer("pixel_mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
    module.register_buffer("pixel_std", torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)


def build_dtvit(cfg: DTViTConfig) -> nn.Module:
    """The network of `cfg`: DTViT, or a comparator with the same two decoders."""
    if cfg.encoder == "vit":
        return DTViT(cfg)
    from ICHAnalysisLib.networks.comparators import DualTaskCNN

    return DualTaskCNN(cfg)


def encoder_state_dict(state: dict[str, Tensor], cfg: DTViTConfig) -> dict[str, Tensor]:
    """A published state dict, timm's or torchvision's, as that of `DTViT.encoder` or of a comparator's (strict).

    Heads are dropped; position embeddings are resized bicubically where the grid differs. Raises UsageError for a
    state dict that is none of a vision transformer where one is asked for.
    """
    if cfg.encoder != "vit":
        from ICHAnalysisLib.networks.comparators import cnn_state_dict

        return cnn_state_dict(state, cfg.encoder)
    if "class_token" in state:
        state = _from_torchvision(state)
    state = {key: value for key, value in state.items() if not key.startswith(("head.", "pre_logits."))}
    if "pos_embed" not in state:
        raise UsageError(
            "DTViT's encoder: the state dict has no pos_embed or class_token; it is no vision transformer."
        )
    side = cfg.img_size // cfg.patch_size
    position = state["pos_embed"]
    if position.shape[1] != side * side + 1:
        old = round((position.shape[1] - 1) ** 0.5)
        grid = position[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        state["pos_embed"] = torch.cat([position[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    return state


def _from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's VisionTransformer names to timm's."""
    names = {"class_token": "cls_token", "encoder.pos_embedding": "pos_embed"}
    parts = [
        ("conv_proj.", "patch_embed.proj."),
        ("encoder.layers.encoder_layer_", "blocks."),
        ("encoder.ln.", "norm."),
        ("heads.head.", "head."),
        (".ln_1.", ".norm1."),
        (".ln_2.", ".norm2."),
        (".self_attention.in_proj_", ".attn.qkv."),
        (".self_attention.out_proj.", ".attn.proj."),
        (".mlp.linear_1.", ".mlp.fc1."),
        (".mlp.linear_2.", ".mlp.fc2."),
        (".mlp.0.", ".mlp.fc1."),
        (".mlp.3.", ".mlp.fc2."),
    ]
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name = names.get(key, key)
        for old, new in parts:
            name = name.replace(old, new)
        renamed[name] = value
    return renamed


def _patch_embed() -> type[nn.Module]:
    """timm's patch embedding, the default of its VisionTransformer."""
    from timm.layers import PatchEmbed

    return PatchEmbed
