"""Training of DTViT on single slices (paper 002): presence, location and the blood fraction of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset

from ICHAnalysisLib.config.dtvit import PREPROCESS, PRESETS, DTViTConfig
from ICHAnalysisLib.config.preprocess import LOCATIONS
from ICHAnalysisLib.discrimination import (
    auc,
    binary_measures,
    calibration_error,
    class_measures,
    fit_temperature,
    youden_threshold,
)
from ICHAnalysisLib.location import scan_location, scan_presence
from ICHAnalysisLib.networks.dtvit import build_dtvit, encoder_state_dict
from ICHAnalysisLib.weights.registry import file_sha256
from Training.config import RunConfig, refine
from Training.data.augment import AugmentConfig
from Training.data.cache import ICH, UNKNOWN, CacheCase
from Training.data.datasets import SliceDataset
from Training.losses.dtvit import dtvit_losses, masked_mean
from Training.tasks.base import Batch, Export, Row, Task, network_config, sigmoid


@dataclass(frozen=True)
class DTViTOptions:
    """What the task can vary."""

    location_weight: float = 1.0  # of the location loss (decision V9)
    patch_weight: float = 1.0  # of the patch loss; without a patch head it does not exist
    smallest_mm2: float = 8.0  # slices with less blood than this, but some, teach presence nothing
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)  # None: slices as they are
    encoder_checkpoint: str | None = None  # timm's or torchvision's file to start the encoder from; None: random


class DTViTTask(Task):
    """Slices in, presence and location out; metrics by slice and by scan."""

    name = "dtvit"
    Options: ClassVar[type] = DTViTOptions
    monitor = "scan_score"

    def __init__(self, cfg: RunConfig) -> None:
        super().__init__(cfg)
        self.network: DTViTConfig = network_config(PRESETS, cfg.task)
        self.preprocess = refine(PREPROCESS[cfg.task.preset], cfg.preprocess, "config.preprocess")
        self.temperature = 1.0
        self.location_temperature = 1.0
        self.threshold = 0.5
        self.encoder_file: dict[str, str] | None = None
        self._starts = False  # only a run that starts reads `encoder_checkpoint`; later the checkpoint holds it

    def fit_to_training_fold(self, cases: Sequence[CacheCase]) -> None:
        """Nothing is learned from the fold; the run starts."""
        self._starts = True

    def state_dict(self) -> dict[str, Any]:
        """Temperatures and threshold, fitted on the validation split, and the file the encoder started from."""
        found: dict[str, Any] = {
            "temperature": self.temperature,
            "location_temperature": self.location_temperature,
            "threshold": self.threshold,
        }
        return found if self.encoder_file is None else {**found, "encoder_file": self.encoder_file}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for key, value in state.items():
            setattr(self, key, dict(value) if key == "encoder_file" else float(value))

    def build_model(self) -> nn.Module:
        """DTViT or a comparator, its encoder from a published file where a run that starts names one."""
        model: Any = build_dtvit(self.network)
        if self.options.encoder_checkpoint is not None and self._starts:
            from ICHAnalysisLib.networks.tower_checkpoints import load_strictly, read_state_dict

            path = Path(self.options.encoder_checkpoint)
            state = encoder_state_dict(read_state_dict(path), self.network)
            load_strictly(model.encoder, state, path, f"{self.network.encoder} encoder")
            self.encoder_file = {"file": path.name, "sha256": file_sha256(path)}
        return model

    def build_dataset(self, cases: Sequence[CacheCase], split: str) -> Dataset:
        """Single slices; each item knows its split, so that only validation decides temperatures and threshold."""
        augment = self.options.augment if split == "train" else None
        return SplitSlices(SliceDataset(cases, self.preprocess, augment=augment, seed=self.cfg.loop.seed), split)

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """presence_loss, location_loss, patch_loss; and presence_accuracy at probability 0.5, for the curves."""
        labels, presence = batch["labels"], batch["has_ich"]
        output = model(batch["image"])
        pixels = (labels == ICH).sum(dim=(1, 2))
        faint = (pixels > 0) & (pixels * self.preprocess.spacing_mm**2 < self.options.smallest_mm2)
        presence = torch.where(faint, -1, presence)
        location = torch.where(presence == 1, batch["location"], -1)
        grid = output["patch_logits"].shape[1:] if "patch_logits" in output else (1, 1)
        losses = dtvit_losses(
            output,
            presence,
            location,
            patch_fraction(labels, (int(grid[0]), int(grid[1]))),
            location_weight=self.options.location_weight,
            patch_weight=self.options.patch_weight,
        )
        right = (output["presence_logits"].detach() >= 0) == (presence == 1)
        return {**losses, "presence_accuracy": masked_mean(right.float(), presence >= 0)}

    def predict(self, model: nn.Module, batch: Batch) -> list[Row]:
        """One row a slice: logits, not yet calibrated, and the truth (-1 unknown)."""
        output = model(batch["image"])
        presence = output["presence_logits"].double().cpu().numpy()
        location = output["location_logits"].double().cpu().numpy()
        pixels = (batch["labels"] == ICH).sum(dim=(1, 2)).cpu().numpy()
        rows = []
        for n, case_id in enumerate(batch["case_id"]):
            has_ich, place = int(batch["has_ich"][n]), int(batch["location"][n])
            rows.append(
                {
                    "case_id": case_id,
                    "slice_index": int(batch["slice_index"][n]),
                    "split": batch["split"][n],
                    "has_ich": has_ich,
                    "case_has_ich": int(batch["case_has_ich"][n]),
                    "location": place if has_ich == 1 else -1,
                    "case_location": place,
                    "ich_mm2": float(pixels[n]) * self.preprocess.spacing_mm**2,
                    "presence_logit": float(presence[n]),
                    **{f"logit_{name}": float(location[n, m]) for m, name in enumerate(LOCATIONS)},
                }
            )
        return rows

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Slice and scan measures. Rows of the validation split first decide temperatures and threshold."""
        if rows and rows[0]["split"] == "val":
            self._calibrate(rows)
        known = [row for row in rows if row["has_ich"] >= 0]
        truth = np.array([row["has_ich"] for row in known])
        probability = sigmoid(np.array([row["presence_logit"] for row in known]) / self.temperature)
        found = {f"slice_{k}": v for k, v in binary_measures(truth, probability >= self.threshold).items()}
        found["slice_auc"] = auc(truth, probability)
        found["slice_ece"] = calibration_error(truth, probability) if len(truth) else float("nan")
        placed = [row for row in known if row["location"] >= 0]
        if placed:
            chosen = self._locations(placed).argmax(axis=1)
            measures = class_measures(np.array([row["location"] for row in placed]), chosen, LOCATIONS)["macro"]
            found.update({f"location_{k}": v for k, v in measures.items()})
        return {**found, **self._scan_metrics(self.case_rows(rows))}

    def _scan_metrics(self, scans: Sequence[Row]) -> dict[str, float]:
        """Presence AUC, location accuracy and their mean, the monitor, over whole scans."""
        known = [row for row in scans if row["case_has_ich"] >= 0]
        truth = np.array([row["case_has_ich"] for row in known], dtype=int)
        probability = np.array([row["probability"] for row in known])
        found = {"scan_auc": auc(truth, probability)}
        found["scan_accuracy"] = float(np.mean((probability >= self.threshold) == truth)) if known else float("nan")
        placed = [row for row in scans if row["case_location"] >= 0 and row["case_has_ich"] == 1]
        right = [row["location_label"] == LOCATIONS[row["case_location"]] for row in placed]
        found["scan_location_accuracy"] = float(np.mean(right)) if right else float("nan")
        found["scan_score"] = float(np.nanmean([found["scan_auc"], found["scan_location_accuracy"]])) if known else 0.0
        return found

    def _calibrate(self, rows: Sequence[Row]) -> None:
        """Temperatures by maximum likelihood, threshold by Youden's index, on validation slices."""
        known = [row for row in rows if row["has_ich"] >= 0]
        truth = np.array([row["has_ich"] for row in known])
        logits = np.array([row["presence_logit"] for row in known])
        self.temperature = fit_temperature(truth, logits)
        if 0 < truth.sum() < len(truth):
            self.threshold = youden_threshold(truth, sigmoid(logits / self.temperature))
        placed = [row for row in known if row["location"] >= 0]
        if placed:
            table = np.array([[row[f"logit_{name}"] for name in LOCATIONS] for row in placed])
            self.location_temperature = fit_temperature(np.array([row["location"] for row in placed]), table)

    def _locations(self, rows: Sequence[Row]) -> np.ndarray:
        """(N, L) calibrated location probabilities."""
        logits = np.array([[row[f"logit_{name}"] for name in LOCATIONS] for row in rows]) / self.location_temperature
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def case_rows(self, rows: Sequence[Row]) -> list[Row]:
        """One row a scan: mean of the highest slice probabilities, location weighted by presence (decision V16)."""
        scans: dict[str, list[Row]] = {}
        for row in rows:
            scans.setdefault(row["case_id"], []).append(row)
        joined = []
        for case_id, members in scans.items():
            logits = np.array([row["presence_logit"] for row in members])
            probability = sigmoid(logits / self.temperature)
            weights = np.where(probability >= min(self.threshold, float(probability.max())), probability, 0.0)
            location = scan_location(self._locations(members), weights)
            places = np.full(len(LOCATIONS), np.nan) if location is None else location
            joined.append(
                {
                    "case_id": case_id,
                    "case_has_ich": members[0]["case_has_ich"],
                    "case_location": members[0]["case_location"],
                    "probability": scan_presence(probability, self.network.top_k),
                    "location_label": LOCATIONS[int(np.nan_to_num(places, nan=-1.0).argmax())],
                    **{f"p_{name}": float(p) for name, p in zip(LOCATIONS, places, strict=True)},
                }
            )
        return joined

    def failure_score(self, case_row: Row) -> float:
        """Probability on the wrong side; a wrong location counts half."""
        if case_row["case_has_ich"] < 0:
            return 0.0
        wrong = abs(case_row["case_has_ich"] - case_row["probability"])
        missed = wrong if wrong > 0.5 else 0.0
        place = case_row["case_location"]
        misplaced = case_row["case_has_ich"] == 1 and place >= 0 and case_row["location_label"] != LOCATIONS[place]
        return missed + (0.5 if misplaced else 0.0)

    def calibration(self, case_rows: Sequence[Row]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Presence of the scan."""
        known = [row for row in case_rows if row["case_has_ich"] >= 0]
        return {
            "presence": (
                np.array([row["probability"] for row in known]),
                np.array([row["case_has_ich"] for row in known]),
            )
        }

    def export(self, model: nn.Module) -> Export:
        """Config, preprocessing, classes, temperatures and threshold."""
        card = {"locations": list(LOCATIONS), "top_k": self.network.top_k, **self.state_dict()}
        return Export("dtvit", replace(self.network), self.preprocess, card)


class SplitSlices(Dataset):
    """A slice data set whose items also name their split."""

    varies_visits = True

    def __init__(self, slices: SliceDataset, split: str) -> None:
        self.slices, self.split = slices, split
        self.sample_weights = slices.sample_weights

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.slices[index], "split": self.split}

    def set_epoch(self, epoch: int) -> None:
        """As the slices do."""
        self.slices.set_epoch(epoch)


def patch_fraction(labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h, w) blood fraction of each patch of uint8 labels (B, H, W); -1 where a pixel of it is unknown."""
    fraction = F.adaptive_avg_pool2d((labels == ICH).float().unsqueeze(1), grid).squeeze(1)
    unknown = F.adaptive_max_pool2d((labels == UNKNOWN).float().unsqueeze(1), grid).squeeze(1)
    return torch.where(unknown > 0, -1.0, fraction)
