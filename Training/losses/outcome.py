"""Cross-entropy of an outcome that is known, or of which the chance is known (decision S29; paper 000, Eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def outcome_cross_entropy(logits: Tensor, outcome: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """(B,) values of logits (B, 2), good and poor. outcome (B,): 1 poor, 0 good, the chance of a poor one between them;
    below 0 unknown, whose value is for the caller to mask. class_weights (2,) scale the two terms."""
    poor = outcome.float().clamp(0, 1)
    weights = None if class_weights is None else class_weights.float()
    return F.cross_entropy(logits.float(), torch.stack([1 - poor, poor], dim=1), weight=weights, reduction="none")
