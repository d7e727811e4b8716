"""Training of the volume net on whole scans (paper 003): size, outcome and the blood fraction of cells."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset

from ICHAnalysisLib.config.volume_net import PREPROCESS, PRESETS, VolumeNetConfig
from ICHAnalysisLib.discrimination import auc, binary_measures, brier, fit_temperature
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.interval import SizeBands, fit_size_bands, size_of_volume, volume_of_size
from ICHAnalysisLib.networks.volume_net import build_volume_net
from Training.config import RunConfig, refine
from Training.data.augment import AugmentConfig
from Training.data.cache import ICH, UNKNOWN, CacheCase
from Training.data.datasets import ScanDataset
from Training.losses.dtvit import masked_mean
from Training.losses.volume_net import volume_net_losses
from Training.tasks.base import Batch, Export, Row, Task, network_config, sigmoid
from Training.widening import widened

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VolumeNetOptions:
    """What the task can vary."""

    event: Literal["dead_30d", "poor_outcome"] = "poor_outcome"  # class 1 of the outcome head
    outcome_weight: float = 1.0  # of the outcome loss (decision R10)
    density_weight: float = 1.0  # of the blood-fraction loss; without that head it does not exist
    balance_outcome: bool = True  # class weights N / (2 N_c) of the training fold
    regression_epochs: int = 0  # so many first epochs teach the size alone (decision R11)
    bias_correction: bool = False  # volumes are corrected for the convexity of the cube (decision R5)
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)  # None: scans as they are


class VolumeNetTask(Task):
    """Scans in, size and outcome out."""

    name = "volume_net"
    Options: ClassVar[type] = VolumeNetOptions
    monitor = "score"

    def __init__(self, cfg: RunConfig) -> None:
        super().__init__(cfg)
        self.network: VolumeNetConfig = network_config(PRESETS, cfg.task)
        self.preprocess = refine(PREPROCESS[cfg.task.preset], cfg.preprocess, "config.preprocess")
        if (self.preprocess.layout == "stretch") != self.network.voxel_volume:
            raise UsageError(
                "volume_net: a stretched scan (preprocess.layout) cannot tell its volume without "
                "task.network.voxel_volume, and needs it nowhere else; preset paper_stretch sets both."
            )
        self.target_mean, self.target_sd = 25.0, 12.0
        self.class_weights = [1.0, 1.0]
        self.temperature = 1.0
        self.bands: SizeBands | None = None
        self.error_sd_mm = 0.0
        batch_norm = self.network.norm == "batch" or self.network.backbone != "resnet34"
        if batch_norm and cfg.loop.micro_batch_size < 4:
            log.warning(
                "Batch norm on %d scans at a time is unreliable (decision R17); set task.network.norm=group, or take "
                "4 scans or more.", cfg.loop.micro_batch_size,
            )  # fmt: skip

    def fit_to_training_fold(self, cases: Sequence[CacheCase]) -> None:
        """Mean and sd of the size, class weights of the outcome."""
        volumes = [case.meta["volume_ml"] for case in cases if case.meta.get("volume_ml") is not None]
        if len(volumes) > 1:
            sizes = size_of_volume(np.array(volumes, dtype=float))
            self.target_mean, self.target_sd = float(sizes.mean()), max(float(sizes.std()), 1.0)
        outcomes = [(case.meta.get("outcome") or {}).get(self.options.event) for case in cases]
        counts = np.array([sum(o is not None and int(o) == c for o in outcomes) for c in (0, 1)], dtype=float)
        if self.options.balance_outcome and counts.all():
            self.class_weights = list(map(float, counts.sum() / (2 * counts)))

    def state_dict(self) -> dict[str, Any]:
        """Size statistics, class weights, and what the validation split decided."""
        return {
            "target_mean": self.target_mean,
            "target_sd": self.target_sd,
            "class_weights": self.class_weights,
            "temperature": self.temperature,
            "bands": None if self.bands is None else asdict(self.bands),
            "error_sd_mm": self.error_sd_mm,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        bands = state["bands"]
        self.bands = None if bands is None else SizeBands.from_dict(bands)
        for key in ("target_mean", "target_sd", "temperature"):
            setattr(self, key, float(state[key]))
        self.class_weights = [float(weight) for weight in state["class_weights"]]
        self.error_sd_mm = float(state.get("error_sd_mm", 0.0))

    def build_model(self) -> nn.Module:
        """The 3D ResNet-34 or a comparator, with the size statistics of the training fold."""
        model: Any = build_volume_net(self.network)
        model.target_mean.fill_(self.target_mean)
        model.target_sd.fill_(self.target_sd)
        return model

    def initial_state(self, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a network with narrower stages are widened."""
        wide, behind = model.state_dict(), int(self.network.voxel_volume)
        told = {"size_head.weight": behind, "outcome_head.weight": behind + int(self.network.outcome_from_size)}
        places = {  # numbers stand behind the channels
            name: [*range(state[name].shape[1] - count), *range(wide[name].shape[1] - count, wide[name].shape[1])]
            for name, count in told.items()
            if name in state and name in wide
        }
        return widened(state, wide, places)

    def build_dataset(self, cases: Sequence[CacheCase], split: str) -> Dataset:
        """Whole scans; each item knows its split, so that only validation decides temperature and bands."""
        augment = self.options.augment if split == "train" else None
        return SplitScans(ScanDataset(cases, self.preprocess, augment=augment, seed=self.cfg.loop.seed), split)

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """size_loss, outcome_loss, density_loss, as the network has heads; and scan_mae_ml and scan_mse_ml2 over all
        scans of known volume, those without blood included, for the curves."""
        output = model(*inputs_of(batch))
        density = output.get("density_logits")
        depth, height, width = (1, 1, 1) if density is None else density.shape[1:]
        weights = torch.tensor(self.class_weights, device=batch["image"].device)
        losses = volume_net_losses(
            output,
            (1000.0 * batch["volume_ml"].float()).clamp_min(0).pow(1 / 3),
            batch[f"chance_{self.options.event}"],
            density_fraction(batch["labels"], (depth, height, width)),
            size_sd=self.target_sd,
            outcome_weight=self.options.outcome_weight if epoch >= self.options.regression_epochs else 0.0,
            density_weight=self.options.density_weight,
            outcome_class_weights=weights,
        )
        if "size_mm" not in output:
            return losses
        true_ml = batch["volume_ml"].float()
        error = output["size_mm"].detach().float().clamp_min(0).pow(3) / 1000.0 - torch.nan_to_num(true_ml)
        known = torch.isfinite(true_ml)
        return {
            **losses,
            "scan_mae_ml": masked_mean(error.abs(), known),
            "scan_mse_ml2": masked_mean(error.square(), known),
        }

    def predict(self, model: nn.Module, batch: Batch) -> list[Row]:
        """One row a scan; NaN or -1 where a head or a truth is missing."""
        output = model(*inputs_of(batch))
        count = len(batch["case_id"])
        sizes = _numbers(output.get("size_mm"), count)
        logits = output.get("outcome_logits")
        differences = _numbers(None if logits is None else logits[:, 1] - logits[:, 0], count)
        return [
            {
                "case_id": batch["case_id"][n],
                "split": batch["split"][n],
                "case_has_ich": int(batch["case_has_ich"][n]),
                "volume_ml": float(batch["volume_ml"][n]),
                "size_mm": float(sizes[n]),
                "predicted_ml": float(volume_of_size(sizes[n], self.error_sd_mm)),
                "outcome": int(batch[self.options.event][n]),
                "outcome_logit": float(differences[n]),
            }
            for n in range(count)
        ]

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Errors in mL and of the outcome. Rows of the validation split first decide temperature and bands."""
        if rows and rows[0]["split"] == "val":
            self._calibrate(rows)
        found: dict[str, float] = {}
        bled = [row for row in rows if row["volume_ml"] > 0 and np.isfinite(row["size_mm"])]
        if bled:
            true = np.array([row["volume_ml"] for row in bled])
            predicted = np.array([row["predicted_ml"] for row in bled])
            error = predicted - true
            found = {
                "mae_ml": float(np.abs(error).mean()),
                "mse_ml2": float((error**2).mean()),
                "rmse_ml": float(np.sqrt((error**2).mean())),
                "bias_ml": float(error.mean()),
                "size_mae_mm": float(np.abs(size_of_volume(predicted) - size_of_volume(true)).mean()),
            }
            large = true >= 1
            if large.any():
                found["mape_percent"] = float(100 * (np.abs(error[large]) / true[large]).mean())
        clean = [row for row in rows if row["volume_ml"] == 0 and np.isfinite(row["size_mm"])]
        if clean:
            found["no_blood_ml"] = float(np.mean([row["predicted_ml"] for row in clean]))
        found.update(self._outcome_metrics(rows))
        found["score"] = self._score(found)
        return found

    def _outcome_metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """AUC, accuracy and Brier score of the outcome."""
        known = [row for row in rows if row["outcome"] >= 0 and np.isfinite(row["outcome_logit"])]
        if not known:
            return {}
        truth = np.array([row["outcome"] for row in known])
        probability = self._outcome_probability(known)
        measures = binary_measures(truth, probability >= 0.5)
        return {
            "outcome_auc": auc(truth, probability),
            "outcome_brier": brier(truth, probability),
            **{f"outcome_{key}": value for key, value in measures.items()},
            "outcome_commoner": float(max(truth.mean(), 1 - truth.mean())),  # what saying one class always scores (R15)
        }

    def _score(self, found: dict[str, float]) -> float:
        """The monitor: minus the size's error in its sd, plus a fifth of the outcome's AUC; heads that are not built
        do not count."""
        parts = []
        if "size_mae_mm" in found:
            parts.append(-found["size_mae_mm"] / self.target_sd)
        if np.isfinite(found.get("outcome_auc", np.nan)):
            parts.append((0.2 if self.network.regression else 1.0) * found["outcome_auc"])
        return float(sum(parts)) if parts else float("nan")

    def _calibrate(self, rows: Sequence[Row]) -> None:
        """Bands of the size's error and the outcome's temperature, on validation scans."""
        bled = [row for row in rows if row["volume_ml"] > 0]
        sizes = np.array([row["size_mm"] for row in bled])
        true = size_of_volume(np.array([row["volume_ml"] for row in bled]))
        self.bands = fit_size_bands(sizes, true)
        errors = (sizes - true)[np.isfinite(sizes - true)]
        self.error_sd_mm = float(errors.std()) if self.options.bias_correction and errors.size > 1 else 0.0
        known = [row for row in rows if row["outcome"] >= 0 and np.isfinite(row["outcome_logit"])]
        if known:
            self.temperature = fit_temperature(
                np.array([row["outcome"] for row in known]), np.array([row["outcome_logit"] for row in known])
            )

    def _outcome_probability(self, rows: Sequence[Row]) -> np.ndarray:
        """(N,) calibrated probability of the event."""
        logits = np.array([row["outcome_logit"] for row in rows]) / self.temperature
        return sigmoid(logits)

    def case_rows(self, rows: Sequence[Row]) -> list[Row]:
        """Rows with the calibrated probability of the event."""
        return [{**row, "probability": float(p)} for row, p in zip(rows, self._outcome_probability(rows), strict=True)]

    def failure_score(self, case_row: Row) -> float:
        """Error of the size, mm, beyond 3 mm."""
        if not (case_row["volume_ml"] >= 0 and np.isfinite(case_row["size_mm"])):
            return 0.0
        return abs(float(size_of_volume(case_row["volume_ml"])) - case_row["size_mm"]) - 3.0

    def calibration(self, case_rows: Sequence[Row]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The outcome."""
        known = [row for row in case_rows if row["outcome"] >= 0 and np.isfinite(row["outcome_logit"])]
        truth = np.array([row["outcome"] for row in known])
        return {"outcome": (self._outcome_probability(known), truth)} if known else {}

    def export(self, model: nn.Module) -> Export:
        """Config, preprocessing, event, temperature and bands."""
        card = {
            "event": self.options.event,
            "temperature": self.temperature,
            "bands": None if self.bands is None else asdict(self.bands),
            "target_mean_mm": self.target_mean,
            "target_sd_mm": self.target_sd,
        }
        if self.error_sd_mm:
            card["error_sd_mm"] = self.error_sd_mm
        return Export("volume_net", self.network, self.preprocess, card)


class SplitScans(Dataset):
    """A scan data set whose items also name their split."""

    varies_visits = True

    def __init__(self, scans: ScanDataset, split: str) -> None:
        self.scans, self.split = scans, split
        self.sample_weights = scans.sample_weights

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.scans[index], "split": self.split}

    def set_epoch(self, epoch: int) -> None:
        """As the scans do."""
        self.scans.set_epoch(epoch)


def inputs_of(batch: Batch) -> tuple[Tensor, ...]:
    """What the network takes: the image, and the volume of a stretched scan's voxels."""
    return (batch["image"],) if "voxel_ml" not in batch else (batch["image"], batch["voxel_ml"].float())


def density_fraction(labels: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """(B, d, h, w) blood fraction of each cell of uint8 labels (B, D, H, W); -1 where a voxel of it is unknown."""
    fraction = F.adaptive_avg_pool3d((labels == ICH).float().unsqueeze(1), grid).squeeze(1)
    unknown = F.adaptive_max_pool3d((labels == UNKNOWN).float().unsqueeze(1), grid).squeeze(1)
    return torch.where(unknown > 0, -1.0, fraction)


def _numbers(values: Tensor | None, count: int) -> np.ndarray:
    """(count,) floats; NaN where the head is not built."""
    return np.full(count, np.nan) if values is None else values.double().cpu().numpy()
