"""Training of the candidate net on crops of `Training.data.candidate_pool`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset

from ICHAnalysisLib.config.candidate_net import PREPROCESS, PRESETS, CandidateNetConfig
from ICHAnalysisLib.discrimination import auc
from ICHAnalysisLib.networks.candidate_net import CandidateNet
from Training.config import RunConfig, refine
from Training.data.augment import AugmentConfig
from Training.data.cache import CacheCase
from Training.data.candidate_dataset import CandidateDataset
from Training.data.candidate_pool import open_crops
from Training.tasks.base import Batch, Export, Row, Task, network_config, sigmoid


@dataclass(frozen=True)
class CandidateNetOptions:
    """What the task can vary."""

    missed_weight: float = 0.5  # of crops around hemorrhages that nobody outlined
    smoothing: float = 0.02  # no candidate is surer than this: some outlines hold both
    # The tissue stays as it is: a calcification drawn into an outline would make a look-alike of a clot.
    augment: AugmentConfig | None = field(default_factory=lambda: AugmentConfig(tissue=0.0, new_clot=0.0))


class CandidateNetTask(Task):
    """Crops in, log-odds out; metrics by candidate and by scan."""

    name = "candidate_net"
    Options: ClassVar[type] = CandidateNetOptions
    monitor = "auc"

    def __init__(self, cfg: RunConfig) -> None:
        super().__init__(cfg)
        self.network: CandidateNetConfig = network_config(PRESETS, cfg.task)
        self.preprocess = refine(PREPROCESS[cfg.task.preset], cfg.preprocess, "config.preprocess")

    def build_model(self) -> nn.Module:
        """From random weights."""
        return CandidateNet(self.network)

    def build_dataset(self, cases: Sequence[CacheCase], split: str) -> Dataset:
        """The crops of all scans that have any."""
        augment = self.options.augment if split == "train" else None
        return CandidateDataset(open_crops(list(cases)), self.preprocess, augment=augment, seed=self.cfg.loop.seed)

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """candidate_loss: binary cross-entropy with smoothed targets; and its accuracy at probability 0.5."""
        truth = batch["is_ich"].float()
        logits = model(batch["image"], batch["outline"], batch["log_height"])
        low = self.options.smoothing / 2
        weight = 1.0 - (1.0 - self.options.missed_weight) * batch["missed"].float()
        loss = F.binary_cross_entropy_with_logits(logits, truth * (1 - 2 * low) + low, reduction="none")
        right = ((logits.detach() >= 0) == (truth > 0.5)).float()
        return {"candidate_loss": (loss * weight).mean(), "accuracy": right.mean()}

    def predict(self, model: nn.Module, batch: Batch) -> list[Row]:
        """One row a candidate."""
        logits = model(batch["image"], batch["outline"], batch["log_height"])
        return [
            {
                "case_id": case_id,
                "slice_index": int(batch["candidate"][n]),  # orders the rows of a scan
                "is_ich": int(batch["is_ich"][n]),
                "missed": int(batch["missed"][n]),
                "volume_ml": float(batch["volume_ml"][n]),
                "case_has_ich": int(batch["case_has_ich"][n]),
                "logit": float(logits[n]),
            }
            for n, case_id in enumerate(batch["case_id"])
        ]

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """AUC of the candidates that an analysis would have, of those below 1 mL, and of scans by their likeliest."""
        outlined = [row for row in rows if not row["missed"]]
        small = [row for row in outlined if row["volume_ml"] < 1]
        scans = [row for row in self.case_rows(outlined) if row["case_has_ich"] >= 0]
        return {
            "auc": _auc(outlined, "is_ich"),
            "auc_below_1_ml": _auc(small, "is_ich"),
            "scan_auc": _auc(scans, "case_has_ich"),
        }

    def case_rows(self, rows: Sequence[Row]) -> list[Row]:
        """One row a scan: its likeliest candidate."""
        best: dict[str, Row] = {}
        for row in rows:
            if row["case_id"] not in best or row["logit"] > best[row["case_id"]]["logit"]:
                best[row["case_id"]] = row
        return list(best.values())

    def failure_score(self, case_row: Row) -> float:
        """Log-odds on the wrong side."""
        wrong = case_row["logit"] if not case_row["case_has_ich"] else -case_row["logit"]
        return max(0.0, wrong) if case_row["case_has_ich"] >= 0 else 0.0

    def picture(self, items: Sequence[Batch], rows: Sequence[Row]) -> np.ndarray | None:
        """Every slice of the crops in the brain window, what was outlined in blue."""
        from Training.pictures import montage

        return montage([{**item, "found": item["outline"]} for item in items])

    def calibration(self, case_rows: Sequence[Row]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Presence of the scan by its likeliest candidate."""
        known = [row for row in case_rows if row["case_has_ich"] >= 0]
        logits = np.array([row["logit"] for row in known])
        return {"presence": (sigmoid(logits), np.array([row["case_has_ich"] for row in known]))}

    def export(self, model: nn.Module) -> Export:
        """Config and windows."""
        return Export("candidate_net", self.network, self.preprocess, {})


def _auc(rows: Sequence[Row], truth: str) -> float:
    """Of the logits; NaN where one kind is missing."""
    return auc(np.array([row[truth] for row in rows], dtype=int), np.array([row["logit"] for row in rows], dtype=float))
