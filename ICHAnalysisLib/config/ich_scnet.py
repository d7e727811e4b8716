"""ICH-SCNet's sizes: frozen dataclasses and the three presets `compact`, `base` and `paper` (paper 000, ICH-SCNet)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ICHAnalysisLib.config.preprocess import BONE_ISH, BRAIN, PreprocessConfig
from ICHAnalysisLib.errors import UsageError

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SAM_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
SAM_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)

SLICE_CHANNELS = 3  # of the slice itself, as the towers read it

#: Ids of open_clip's SimpleTokenizer that the clinical template can produce, plus start and end of text, in rising
#: order; `ICHAnalysisLib.clinical.template_token_ids` recomputes them. Trained weights depend on this order.
TEMPLATE_TOKENS: tuple[int, ...] = (
    78, 267, 269, 271, 272, 273, 274, 275, 276, 277, 278, 279, 280, 531, 539, 549, 651, 710, 769, 805, 871, 1122,
    1161, 1240, 1783, 1958, 2277, 2382, 2411, 2419, 2801, 3120, 3383, 3590, 3970, 4372, 4869, 4927, 5344, 5780,
    5879, 5937, 7363, 8284, 8648, 8685, 9511, 10005, 10130, 11421, 15028, 16584, 17907, 18505, 18730, 19467, 19554,
    19620, 20922, 30527, 31309, 43044, 44501, 45674, 46195, 47585, 49406, 49407,
)  # fmt: skip


@dataclass(frozen=True)
class ClipConfig:
    """The CLIP towers, built from open_clip's own classes.

    quick_gelu: x * sigmoid(1.702 x) as in OpenAI's weights; the wrong activation loads without an error.
    vocabulary: None for the tokenizer's 49,408 ids, else the ids that keep an embedding of their own; others are
    "unknown". A vocabulary of the template's tokens keeps 49,000 unused rows out of small weights.
    """

    image_size: int = 224
    patch_size: int = 16
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    embed_dim: int = 512  # of the joint space; only there so that checkpoints load strictly
    context_length: int = 77
    vocabulary: tuple[int, ...] | None = None
    quick_gelu: bool = True
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD


@dataclass(frozen=True)
class SamConfig:
    """The SAM image encoder, prompt encoder and mask decoder, built from segment-anything's own classes."""

    image_size: int = 1024
    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    heads: int = 12
    global_attention: tuple[int, ...] = (2, 5, 8, 11)  # blocks that attend globally; the others in windows
    window_size: int = 14  # 0: every block attends globally
    relative_positions: bool = True
    prompt_dim: int = 256  # channels of image embedding, prompts and decoder
    mask_channels: int = 16
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    multimask_outputs: int = 3  # tokens of the official decoder beside token 0, the only one used (decision S18)
    iou_hidden_dim: int = 256
    mean: tuple[float, float, float] = SAM_MEAN
    std: tuple[float, float, float] = SAM_STD

    @property
    def grid(self) -> int:
        """Tokens a side of the image embedding."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class ClassifierConfig:
    """The DenseNet that reads the feature output F (decision S25); DenseNet-121 by default.

    pool: F is averaged over blocks of this many pixels first (1: as in the paper).
    late_text: the mean text token also enters the last linear layer (decision S26).
    rgb_stem: F becomes three channels first, for ImageNet's weights (decision S25).
    """

    growth_rate: int = 32
    block_config: tuple[int, ...] = (6, 12, 24, 16)
    init_features: int = 64
    bn_size: int = 4
    dropout: float = 0.0
    pool: int = 1
    late_text: bool = False
    rgb_stem: bool = False


@dataclass(frozen=True)
class ICHSCNetConfig:
    """ICH-SCNet, its variants (tables I and II of the paper) and its sizes.

    tasks: "both", "seg" (no classifier) or "cla" (no masks). interaction: what makes the valid masks.
    fusion: group aggregation bridges ("mtff") or direct concatenation ("concat").
    towers: "frozen" (loaded from published checkpoints) or "trained" (from scratch with the rest).
    per_scale: the image towers run on each of I^0..I^3 with gradients through them; else once on I^0 (decision S8).
    widths: channels of the four scales as the bridges see them, divisible by 4.
    fold: the stem reads blocks of fold x fold pixels as channels and the heads unfold them again, so that all scales
    are that much coarser at the same field of view; 1 as in the paper. 2 makes a network for CPUs four times cheaper.
    stem_in_trunk: the first down-sampling layer reads the stem's features instead of the image itself (decision S6).
    residual_blocks: residual blocks of the stem and of the three down-sampling layers. refine_blocks: ordinary 3x3
    residual blocks after each bridge. finest_pool: the finest bridge works on averages over blocks of this many pixels.
    norm: of the convolution blocks and of the bridges.
    shared_decoder: one mask decoder serves all four scales, else four copies are fine-tuned.
    neighbor_channels: channels of the slices below and above, behind the slice's own three; only the stem reads them,
    so that the towers keep the three channels of their published weights.
    dense_prompts: prompts are also drawn as extra channels of the stem's input; see `ICHSCNet`.
    num_classes: 1: hemorrhage (S); 2: hemorrhage and intraventricular blood, channel 0 being S.
    max_boxes, max_points: prompts a slice is padded to, so that the answer does not depend on its batch.
    """

    clip: ClipConfig = field(default_factory=ClipConfig)
    sam: SamConfig = field(default_factory=SamConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    tasks: Literal["both", "seg", "cla"] = "both"
    interaction: Literal["sam_clip", "sam", "clip"] = "sam_clip"
    fusion: Literal["mtff", "concat"] = "mtff"
    towers: Literal["frozen", "trained"] = "frozen"
    per_scale: bool = False
    widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    feature_channels: int = 32
    dilations: tuple[int, int, int, int] = (1, 3, 5, 7)
    fold: int = 1
    stem_in_trunk: bool = False
    residual_blocks: tuple[int, int, int, int] = (0, 0, 0, 0)
    refine_blocks: tuple[int, int, int, int] = (0, 0, 0, 0)
    finest_pool: int = 1
    norm: Literal["layer", "batch", "group"] = "layer"
    attention_dim: int = 512
    attention_heads: int = 8
    shared_decoder: bool = False
    neighbor_channels: int = 0
    dense_prompts: bool = False
    num_classes: int = 1
    max_boxes: int = 4
    max_points: int = 8

    def __post_init__(self) -> None:
        if any(width % 4 for width in self.widths):
            raise UsageError(f"ICH-SCNet: widths {self.widths} must be divisible by 4, the groups of a bridge.")
        if self.attention_dim % self.attention_heads:
            raise UsageError(
                f"ICH-SCNet: attention_dim {self.attention_dim} is not divisible by {self.attention_heads} heads."
            )
        if self.fold < 1 or (self.fold > 1 and self.per_scale):
            raise UsageError(f"ICH-SCNet: fold is {self.fold}; it must be at least 1, and 1 with per_scale.")
        if self.neighbor_channels < 0:
            raise UsageError(f"ICH-SCNet: neighbor_channels is {self.neighbor_channels}; it must be 0 or more.")
        if self.num_classes not in (1, 2):
            raise UsageError(f"ICH-SCNet: num_classes is {self.num_classes}; 1 (ICH) and 2 (ICH, IVH) exist.")
        if self.per_scale and self.interaction == "sam_clip" and self.towers == "trained":
            raise UsageError("ICH-SCNet: per_scale is the reading with frozen towers; use towers = frozen with it.")

    @property
    def image_channels(self) -> int:
        """Channels of the image: the slice's own, then its neighbors'."""
        return SLICE_CHANNELS + self.neighbor_channels


COMPACT = ICHSCNetConfig(
    clip=ClipConfig(
        image_size=256,
        vision_width=64,
        vision_layers=2,
        vision_heads=4,
        text_width=32,
        text_layers=2,
        text_heads=4,
        embed_dim=32,
        vocabulary=TEMPLATE_TOKENS,
        quick_gelu=False,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    sam=SamConfig(
        image_size=256,
        embed_dim=80,
        depth=3,
        heads=4,
        global_attention=(0, 1, 2),
        window_size=0,
        relative_positions=False,
        prompt_dim=64,
        mask_channels=8,
        decoder_heads=4,
        decoder_mlp_dim=128,
        multimask_outputs=0,
        iou_hidden_dim=8,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    classifier=ClassifierConfig(growth_rate=12, block_config=(3, 4, 4, 3), init_features=24, bn_size=2, late_text=True),
    towers="trained",
    widths=(32, 48, 96, 128),
    feature_channels=24,
    fold=2,
    stem_in_trunk=True,
    residual_blocks=(1, 1, 1, 1),
    refine_blocks=(1, 1, 1, 1),
    norm="batch",
    attention_dim=64,
    attention_heads=4,
    shared_decoder=True,
    dense_prompts=True,
    num_classes=2,
)

#: ViT-B/16 CLIP and ViT-B SAM, frozen, run once a slice.
BASE = ICHSCNetConfig()

#: ViT-L/14 CLIP and ViT-H SAM, frozen, run on each of the four scales: the literal reading of the paper.
PAPER = ICHSCNetConfig(
    clip=ClipConfig(
        patch_size=14,
        vision_width=1024,
        vision_layers=24,
        vision_heads=16,
        text_width=768,
        text_heads=12,
        embed_dim=768,
    ),
    sam=SamConfig(embed_dim=1280, depth=32, heads=16, global_attention=(7, 15, 23, 31)),
    per_scale=True,
)

#: For trying things out: 64 x 64 slices, their neighbors beside them, and towers of a few tokens.
TINY = replace(
    COMPACT,
    clip=replace(
        COMPACT.clip, image_size=32, patch_size=8, vision_width=16, vision_layers=1, text_width=8, text_layers=1
    ),
    sam=replace(COMPACT.sam, image_size=64, embed_dim=16, depth=1, prompt_dim=16, mask_channels=4, decoder_mlp_dim=16),
    classifier=ClassifierConfig(growth_rate=4, block_config=(1, 1), init_features=4, bn_size=2, late_text=True),
    widths=(8, 8, 8, 8),
    feature_channels=8,
    attention_dim=8,
    attention_heads=2,
    neighbor_channels=4,
)

PRESETS: dict[str, ICHSCNetConfig] = {"compact": COMPACT, "base": BASE, "paper": PAPER, "tiny": TINY}

#: What each preset's slices look like before the network (decision S33).
PREPROCESS: dict[str, PreprocessConfig] = {
    "compact": PreprocessConfig(),
    "base": PreprocessConfig(),
    "paper": PreprocessConfig(layout="square", size=256),
    "tiny": PreprocessConfig(spacing_mm=3.6, size=64, neighbor_windows=(BRAIN, BONE_ISH)),
}
