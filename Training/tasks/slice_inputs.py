"""What ICH-SCNet reads of a batch: prompts, and what frozen towers said about its slices."""

from __future__ import annotations

import torch

from ICHAnalysisLib.networks.encoders import TowerFeatures
from ICHAnalysisLib.prompts import PromptBatch
from Training.tasks.base import Batch


def features_of(batch: Batch) -> TowerFeatures | None:
    """What the towers said about the slices of a batch, where that was cached."""
    found = {name: batch.get(f"features_{name}") for name in ("sam", "clip")}
    if all(value is None for value in found.values()):
        return None
    return TowerFeatures(
        **{name: None if value is None else value.to(batch["image"].dtype) for name, value in found.items()}
    )


def prompts_of(batch: Batch) -> PromptBatch:
    """The prompts of a batch's items."""
    return PromptBatch(batch["boxes"], batch["box_valid"], batch["points"], batch["point_labels"], batch["prior"])


def oracle_prompts(batch: Batch) -> PromptBatch:
    """A box around the reference hemorrhage of each slice that has one, and no other prompt."""
    boxes, valid = torch.zeros_like(batch["boxes"]), torch.zeros_like(batch["box_valid"])
    boxes[:, 0] = batch["oracle_box"]
    valid[:, 0] = batch["oracle_box"][:, 2] >= 0
    labels = torch.full_like(batch["point_labels"], -1)
    return PromptBatch(boxes, valid, torch.zeros_like(batch["points"]), labels, torch.zeros_like(batch["prior"]))
