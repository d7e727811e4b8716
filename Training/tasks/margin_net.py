"""Training of the margin net on boxes over cached scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from ICHAnalysisLib.config.margin_net import PREPROCESS, PRESETS, MarginNetConfig
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.networks.margin_net import MarginNet
from Training.config import RunConfig, refine
from Training.data.augment import AugmentConfig
from Training.data.cache import CacheCase
from Training.data.margin_dataset import BOXES, MarginDataset
from Training.data.prompt_simulation import PromptSimulationConfig
from Training.deepening import deepened
from Training.losses.ich_scnet import masked_bce, overlap_loss
from Training.tasks.base import Batch, Export, Row, Task, network_config


@dataclass(frozen=True)
class MarginNetOptions:
    """What the task can vary."""

    prompts: PromptSimulationConfig = BOXES
    unboxed: float = 0.5  # of the training crops are asked without a box
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.unboxed <= 1:
            raise UsageError(f"Margin net: unboxed {self.unboxed} is a share of the crops, between 0 and 1.")


class MarginNetTask(Task):
    """Boxes in, outlines out; metrics by scan."""

    name = "margin_net"
    Options: ClassVar[type] = MarginNetOptions
    monitor = "dice"

    def __init__(self, cfg: RunConfig) -> None:
        super().__init__(cfg)
        if "unboxed" in cfg.task.network:
            raise UsageError("config.task.network.unboxed follows from task.options.unboxed; give that alone.")
        network: MarginNetConfig = network_config(PRESETS, cfg.task)
        self.network = replace(network, unboxed=self.options.unboxed > 0)
        self.preprocess = refine(PREPROCESS[cfg.task.preset], cfg.preprocess, "config.preprocess")

    def build_model(self) -> nn.Module:
        """From random weights."""
        return MarginNet(self.network)

    def initial_state(self, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a network with narrower or fewer levels are fitted."""
        return deepened(state, model.state_dict())

    def build_dataset(self, cases: Sequence[CacheCase], split: str) -> Dataset:
        """Boxes on the slices that hold hemorrhage; in training also just beyond them."""
        training = split == "train"
        return MarginDataset(
            cases,
            self.preprocess,
            self.network,
            training=training,
            augment=self.options.augment if training else None,
            prompts=self.options.prompts,
            unboxed=self.options.unboxed,
            seed=self.cfg.loop.seed,
        )

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """overlap_loss and cross_entropy_loss, of the known pixels."""
        logits = _answer(model, batch)
        return {
            "overlap_loss": overlap_loss(logits, batch["target"], batch["known"], overlap="mixed"),
            "cross_entropy_loss": masked_bce(logits, batch["target"], batch["known"]),
        }

    def predict(self, model: nn.Module, batch: Batch) -> list[Row]:
        """One row a slice: volumes of truth, answer and overlap inside the crop, mL."""
        known = batch["known"] > 0
        found, truth = (_answer(model, batch) > 0) & known, (batch["target"] > 0) & known
        areas = [mask.sum(dim=(1, 2, 3)).cpu().numpy() for mask in (truth, found, truth & found)]
        return [
            {
                "case_id": case_id,
                "slice_index": int(batch["slice_index"][n]),
                "found": found[n, 0].cpu().numpy(),
                **{
                    f"{name}_ml": float(area[n] * batch["pixel_ml"][n])
                    for name, area in zip(("truth", "found", "both"), areas, strict=True)
                },
            }
            for n, case_id in enumerate(batch["case_id"])
        ]

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Mean and 10th percentile of the scans' Dice, and the mean error of their volume, mL."""
        scans = self.case_rows(rows)
        dice = np.array([row["dice"] for row in scans])
        errors = np.array([abs(row["found_ml"] - row["truth_ml"]) for row in scans])
        return {
            "dice": float(dice.mean()),
            "dice_p10": float(np.percentile(dice, 10)),
            "volume_error_ml": float(errors.mean()),
        }

    def case_rows(self, rows: Sequence[Row]) -> list[Row]:
        """One row a scan: volumes summed, Dice in 3-D."""
        joined: dict[str, Row] = {}
        for row in rows:
            scan = joined.setdefault(row["case_id"], {"case_id": row["case_id"]})
            for key in ("truth_ml", "found_ml", "both_ml"):
                scan[key] = scan.get(key, 0.0) + row[key]
        for scan in joined.values():
            total = scan["truth_ml"] + scan["found_ml"]
            scan["dice"] = 2 * scan["both_ml"] / total if total else 1.0
        return list(joined.values())

    def failure_score(self, case_row: Row) -> float:
        """Lack of overlap."""
        return max(0.0, 0.8 - case_row["dice"])

    def picture(self, items: Sequence[Batch], rows: Sequence[Row]) -> np.ndarray | None:
        """The crops with the reference and what was found."""
        from Training.pictures import montage

        found = {row["slice_index"]: row["found"] for row in rows}
        return montage([{**item, "found": found[item["slice_index"]]} for item in items])

    def export(self, model: nn.Module) -> Export:
        """Config and windows."""
        return Export("margin_net", self.network, self.preprocess, {})


def _answer(model: nn.Module, batch: Batch) -> Tensor:
    """(N, 1, H, W) logits."""
    return model(batch["image"], batch["box"], batch["log_height"])
