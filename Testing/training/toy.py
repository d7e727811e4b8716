"""A task as small as a task can be: a line of numbers through a few weights, with dropout to make randomness matter."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ICHAnalysisLib.config.preprocess import PreprocessConfig
from Training.tasks.base import Batch, Export, Row, Task

NAME = "Testing.training.toy:ToyTask"


@dataclass(frozen=True)
class ToyCase:
    case_id: str
    patient_id: str
    seed: int


@dataclass(frozen=True)
class ToyOptions:
    train_cases: int = 22
    val_cases: int = 7  # odd, so that two processes cannot share them evenly
    slices: int = 3
    bad_case: str = ""  # its target is not a number
    unreadable_case: str = ""  # "all": every one
    plain: bool = False  # without dropout and batch normalization


class ToyDataset(Dataset):
    """Slices of the cases: 4 numbers each, noise by (epoch, index) in training."""

    def __init__(self, cases: Sequence[ToyCase], options: ToyOptions, augment: bool) -> None:
        self.items = [(case, k) for case in cases for k in range(options.slices)]
        self.options, self.augment, self.epoch = options, augment, 0
        self.fetched = 0  # in this epoch
        self.sample_weights = torch.tensor([1.0 + (case.seed % 2) for case, _ in self.items])

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.fetched = epoch, 0

    def __getitem__(self, index: int) -> Batch:
        case, k = self.items[index]
        self.fetched += 1
        if self.augment and self.fetched == 20 and os.environ.get("TOY_KILL_IN_EPOCH") == str(self.epoch):
            os.kill(os.getpid(), getattr(signal, os.environ.get("TOY_SIGNAL", "SIGKILL")))
        if self.options.unreadable_case in (case.case_id, "all"):
            raise OSError(f"{case.case_id}: cannot be read")
        generator = torch.Generator().manual_seed(case.seed * 100 + k)
        x = torch.randn(4, generator=generator)
        y = x.sum() * 0.5 + 0.1
        if self.augment:
            noise = torch.Generator().manual_seed(self.epoch * 10_000 + index)
            x = x + 0.01 * torch.randn(4, generator=noise)
        if case.case_id == self.options.bad_case:
            y = torch.tensor(float("nan"))
        return {"case_id": case.case_id, "slice_index": k, "x": x, "y": y, "note": ("kept", index)}


class ToyModel(nn.Module):
    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.Identity() if plain else nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.0 if plain else 0.2)
        self.last = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4) -> (B,)"""
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))[:, 0]


class ToyTask(Task):
    name = "toy"
    Options = ToyOptions
    monitor = "mae"
    higher_is_better = False

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.mean = 0.0

    def cases(self) -> dict[str, list]:
        train, val = self.options.train_cases, self.options.val_cases
        cases = [ToyCase(f"case{n:03d}", f"patient{n:03d}", n) for n in range(train + val)]
        if self.cfg.data.folds is not None:
            held_out = [case for case in cases if case.seed % 3 == self.cfg.data.fold]
            others = [case for case in cases if case not in held_out]
            return {"train": others[3:], "val": others[:3], "test": held_out}
        return {"train": cases[:train], "val": cases[train:], "test": cases[train:]}

    def fit_to_training_fold(self, cases: Sequence[Any]) -> None:
        self.mean = float(np.mean([case.seed for case in cases]))

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean = state["mean"]

    def build_model(self) -> nn.Module:
        return ToyModel(self.options.plain)

    def build_dataset(self, cases: Sequence[Any], split: str) -> Dataset:
        return ToyDataset(cases, self.options, augment=split == "train")

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        error = model(batch["x"]) - batch["y"]
        return {"square_loss": (error**2).mean(), "small_loss": 0.1 * error.abs().mean(), "largest": error.abs().max()}

    def predict(self, model: nn.Module, batch: Batch) -> list[Row]:
        out = model(batch["x"])
        return [
            {"case_id": case, "slice_index": int(k), "truth": float(y), "prediction": float(p)}
            for case, k, y, p in zip(batch["case_id"], batch["slice_index"], batch["y"], out, strict=True)
        ]

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        errors = [abs(row["truth"] - row["prediction"]) for row in rows]
        return {"mae": float(np.mean(errors)), "worst": float(np.max(errors)), "count": float(len(rows))}

    def case_rows(self, rows: Sequence[Row]) -> list[Row]:
        cases = sorted({row["case_id"] for row in rows})
        return [
            {
                "case_id": case,
                "truth": float(np.mean([r["truth"] for r in rows if r["case_id"] == case])),
                "prediction": float(np.mean([r["prediction"] for r in rows if r["case_id"] == case])),
            }
            for case in cases
        ]

    def failure_score(self, case_row: Row) -> float:
        return abs(case_row["truth"] - case_row["prediction"]) - 0.05

    def picture(self, items: Sequence[Batch], rows: Sequence[Row]) -> np.ndarray | None:
        return np.full((8, 8, 3), 128, dtype=np.uint8)

    def calibration(self, case_rows: Sequence[Row]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        outcome = np.array([row["truth"] > 0.1 for row in case_rows], dtype=int)
        return {"above": (1 / (1 + np.exp(-np.array([row["prediction"] for row in case_rows]))), outcome)}

    def export(self, model: nn.Module) -> Export:
        return Export("dtvit", PreprocessConfig(), PreprocessConfig(), {"mean": self.mean})
