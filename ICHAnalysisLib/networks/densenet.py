"""The outcome classifier: torchvision's DenseNet on the feature output F (paper 000, section II; decision S25)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.config.ich_scnet import ClassifierConfig
from ICHAnalysisLib.networks.encoders import TextFeatures
from ICHAnalysisLib.quick_imports import compiler_put_off

with compiler_put_off():
    from torchvision.models import DenseNet

OUTCOMES = 2  # good, poor


class OutcomeClassifier(nn.Module):
    """DenseNet whose first convolution reads the C_F channels of F; optionally joined by the mean text token.

    rgb_stem: instead a 1x1 convolution makes three channels of F and DenseNet's own first convolution stays, so that
    ImageNet's weights fit (decision S25).

    late_width: channels of the text token, 0 for none (decision S26: off in the paper).
    """

    def __init__(self, cfg: ClassifierConfig, in_channels: int, late_width: int = 0) -> None:
        super().__init__()
        dense = DenseNet(
            growth_rate=cfg.growth_rate,
            block_config=cfg.block_config,  # type: ignore[arg-type]
            num_init_features=cfg.init_features,
            bn_size=cfg.bn_size,
            drop_rate=cfg.dropout,
            num_classes=OUTCOMES,
        )
        self.to_rgb = nn.Conv2d(in_channels, 3, 1) if cfg.rgb_stem else None
        if self.to_rgb is None:
            dense.features.conv0 = nn.Conv2d(in_channels, cfg.init_features, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(dense.features.conv0.weight)
        self.features = dense.features
        self.classifier = nn.Linear(dense.classifier.in_features + late_width, OUTCOMES)
        nn.init.zeros_(self.classifier.bias)
        self.pool = cfg.pool
        self.late_width = late_width

    def forward(self, feature: Tensor, text: TextFeatures | None = None) -> Tensor:
        """F (B, C_F, H, W) to logits (B, 2): good, poor."""
        if self.pool > 1:
            feature = F.avg_pool2d(feature, self.pool)
        if self.to_rgb is not None:
            feature = self.to_rgb(feature)
        pooled = torch.relu(self.features(feature)).mean(dim=(2, 3))  # (B, C)
        if self.late_width and text is not None:
            weight = text.valid.unsqueeze(-1).to(text.tokens.dtype)
            words = (text.tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)  # (B, T)
            pooled = torch.cat([pooled, words.to(pooled.dtype)], dim=1)
        return self.classifier(pooled)
