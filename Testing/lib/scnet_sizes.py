"""Small sizes of ICH-SCNet for tests: 64 x 64 slices, towers of a few tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ICHAnalysisLib.config.ich_scnet import (
    TEMPLATE_TOKENS,
    TINY,
    ClassifierConfig,
    ClipConfig,
    ICHSCNetConfig,
    SamConfig,
)

CLIP = ClipConfig(
    image_size=32, patch_size=8, vision_width=16, vision_layers=1, vision_heads=2, text_width=8, text_layers=1,
    text_heads=2, embed_dim=8, vocabulary=TEMPLATE_TOKENS, quick_gelu=True,
)  # fmt: skip
SAM = SamConfig(
    image_size=64, patch_size=16, embed_dim=16, depth=1, heads=2, global_attention=(0,), window_size=0,
    relative_positions=False, prompt_dim=16, mask_channels=4, decoder_heads=2, decoder_mlp_dim=16,
    multimask_outputs=3, iou_hidden_dim=8,
)  # fmt: skip
CLASSIFIER = ClassifierConfig(growth_rate=4, block_config=(1, 1), init_features=4, bn_size=2)


def frozen(**changes: Any) -> ICHSCNetConfig:
    """As `base`: pretrained towers, frozen, seen once."""
    cfg = ICHSCNetConfig(
        clip=CLIP,
        sam=SAM,
        classifier=CLASSIFIER,
        widths=(8, 8, 8, 8),
        feature_channels=8,
        attention_dim=8,
        attention_heads=2,
    )
    return replace(cfg, **changes)


def trained(**changes: Any) -> ICHSCNetConfig:
    """As `compact`: everything from scratch, prompts drawn into the stem, two classes."""
    return replace(TINY, **changes)
