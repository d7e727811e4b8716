"""Tables 1 and 2 and figures 2 to 5 of paper 003 (volume net)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ICHAnalysisLib.holder import HEAD_THRESHOLD_HU
from Training.papers.base import Column, PaperFigure, PaperTable, TableRow
from Training.papers.drawing import column, evaluation_rows, has_column, panels, task_on
from Training.watch import TRAIN_CSV, VALIDATION_CSV

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ERRORS = (
    Column("MAE", "mae_ml", digits=2),
    Column("MSE", "mse_ml2", digits=2),
    Column("MAPE(%)", "mape_percent", digits=2),
)
_READERS = tuple(TableRow((f"Clinician {n}",), not_built="--readings CSV") for n in range(1, 9))
_METHODS = (
    TableRow(("X3D",)),
    TableRow(("R(2+1)D",), "volume_net/{size}_r2plus1d"),
    TableRow(("P3D",)),
    TableRow(("TSM",)),
    TableRow(("TimeSformer",)),
    TableRow(("TIN-ResNet-18",)),
    TableRow(("TIN-ResNet-34",)),
    TableRow(("TIN-ResNet-50",)),
    TableRow(("Uniformizing-3D",)),
    TableRow(("MC3 (not in the paper)",), "volume_net/{size}_mc3"),
    TableRow(("R3D-18 (not in the paper)",), "volume_net/{size}_r3d"),
    TableRow(("S3D (not in the paper)",), "volume_net/{size}_s3d"),
    TableRow(("MViT v2 (not in the paper)",), "volume_net/{size}_mvit"),
    TableRow(("Swin3D (not in the paper)",), "volume_net/{size}_swin3d"),
    TableRow(("DenseNet-121 3D (not in the paper)",), "volume_net/{size}_densenet"),
    TableRow(("EfficientNet-B0 3D (not in the paper)",), "volume_net/{size}_efficientnet"),
    TableRow(("Regression alone (not in the paper)",), "volume_net/{size}_regression"),
    TableRow(("Multi-task (ours)",), "volume_net/{size}"),
)

TABLES = {
    "1": PaperTable(
        "Errors of the volume, mL (paper 003, table 1)",
        ("Methods",),
        _ERRORS,
        _READERS + _METHODS,
        "Scans with a hematoma; the percentage error counts hematomas of at least 1 mL.",
    ),
    "2": PaperTable(
        "Single and multi-task prediction of the outcome (paper 003, table 2)",
        ("Methods",),
        (
            Column("ACC (Accuracy)", "outcome_accuracy", 100, 2),
            Column("AUC", "outcome_auc", 100, 2),
            Column("ACC of saying the commoner outcome", "outcome_commoner", 100, 2),
        ),
        (
            TableRow(("ResNet (single-task)",), "volume_net/{size}_classification"),
            TableRow(("ResNet (multi-task, ours)",), "volume_net/{size}"),
        ),
        "Accuracy at probability 0.5, to be read beside the last column: with few deaths, a network that never "
        "predicts one reaches it.",
    ),
}


def draw_volumes(folders: Sequence[Path], overrides: Sequence[str]) -> Figure:
    """Figure 2: distribution of the volume and of its cube root among the run's training cases."""
    cases = task_on(folders[0], overrides)[0].cases()["train"]
    volumes = np.array([case.meta["volume_ml"] for case in cases if case.meta.get("volume_ml")], dtype=float)
    figure, axes = panels(1, 2)
    axes[0][0].hist(volumes, bins=20)
    axes[0][0].set(xlabel="volume, mL", ylabel="scans")
    axes[0][1].hist(np.cbrt(1000 * volumes), bins=20)
    axes[0][1].set(xlabel="cube root of the volume, mm", ylabel="scans")
    for axis in axes[0]:
        axis.locator_params(axis="y", integer=True)
    return figure


def draw_training(folders: Sequence[Path], overrides: Sequence[str]) -> Figure:
    """Figure 3: loss of the size, MAE and MSE, in training and validation."""
    figure, axes = panels(1, 3)
    shown = (("size_loss", "loss of the size"), ("scan_mae_ml", "MAE, mL"), ("scan_mse_ml2", "MSE, mL²"))
    for axis, (key, title) in zip(axes[0], shown, strict=True):
        for name, label in ((TRAIN_CSV, "training"), (VALIDATION_CSV, "validation")):
            if has_column(folders[0] / name, key):
                axis.plot(*column(folders[0] / name, key), marker=".", label=label)
        axis.set(title=title, xlabel="step")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
    return figure


def draw_roc(folders: Sequence[Path], overrides: Sequence[str]) -> Figure:
    """Figure 4: ROC curves of the multi-task and the single-task network."""
    figure, axes = panels(1, 1, 4.2, 4.2)
    for folder, name in zip(folders, ("multi-task", "single-task"), strict=True):
        rows = [row for row in evaluation_rows(folder, "cases.csv") if row["outcome"] in ("0", "1")]
        truth = np.array([int(row["outcome"]) for row in rows])
        rates = roc(truth, np.array([float(row["probability"]) for row in rows]))
        area = float(np.trapezoid(rates[1], rates[0]))
        axes[0][0].plot(*rates, label=f"{name}, AUC {area:.3f}")
    axes[0][0].plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes[0][0].set(xlabel="1 - specificity", ylabel="sensitivity")
    axes[0][0].legend()
    return figure


def roc(truth: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1); ties move together."""
    order = np.argsort(-probability, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(probability[order])), len(order) - 1)
    hits, misses = np.cumsum(truth[order] == 1)[ends], np.cumsum(truth[order] == 0)[ends]
    return np.append(0, misses / max(1, misses[-1])), np.append(0, hits / max(1, hits[-1]))


def draw_attention(folders: Sequence[Path], overrides: Sequence[str]) -> Figure:
    """Figure 5: Grad-CAM of the size on five slices, each fifth, around the largest held-out hematoma."""
    from ICHAnalysisLib.gradcam import volume_heatmap

    task, model = task_on(folders[0], overrides)
    cases = task.cases()
    held_out = cases["test"] or cases["val"]
    case = max(held_out, key=lambda case: case.meta.get("volume_ml") or 0.0)
    item: Any = task.build_dataset([case], "test")[0]
    scan = torch.as_tensor(item["image"])[None]
    voxel = torch.tensor([item["voxel_ml"]]) if "voxel_ml" in item else None
    heat = np.asarray(volume_heatmap(model, scan, voxel_ml=voxel))
    middle = int(np.asarray(item["labels"] == 1).sum(axis=(1, 2)).argmax())
    shown = spread_slices(np.flatnonzero((np.asarray(item["hu"]) > HEAD_THRESHOLD_HU).any(axis=(1, 2))), middle)
    figure, axes = panels(2, len(shown), 2.0, 2.1)
    for n, k in enumerate(shown):
        for row in axes:
            row[n].imshow(item["hu"][k], cmap="gray", vmin=0, vmax=80)
            row[n].set_axis_off()
        axes[1][n].imshow(
            heat[k],
            cmap="jet",
            alpha=0.4,
            vmin=0,
            vmax=1,
            extent=(-0.5, item["hu"].shape[2] - 0.5, item["hu"].shape[1] - 0.5, -0.5),
        )
        axes[0][n].set_title(f"slice {k + 1}", fontsize=8)
    figure.suptitle("Model attention, not a segmentation", fontsize=8)
    return figure


def spread_slices(inside: np.ndarray, middle: int, count: int = 5, step: int = 5) -> list[int]:
    """Up to `count` slices of `inside` (ascending), each `step`-th or nearer, about `middle`; none beyond the head."""
    if not inside.size:
        return [middle]
    place = int(np.abs(inside - middle).argmin())
    count = min(count, inside.size)
    step = min(step, (inside.size - 1) // max(1, count - 1)) or 1
    first = min(max(place - (count // 2) * step, 0), inside.size - 1 - (count - 1) * step)
    return inside[first : first + (count - 1) * step + 1 : step].tolist()


FIGURES = {
    "2": PaperFigure("Distribution of the volume (paper 003, figure 2)", ("volume_net/{size}",), draw_volumes),
    "3": PaperFigure("Training of the volume (paper 003, figure 3)", ("volume_net/{size}",), draw_training),
    "4": PaperFigure(
        "ROC of single and multi-task (paper 003, figure 4)",
        ("volume_net/{size}", "volume_net/{size}_classification"),
        draw_roc,
    ),
    "5": PaperFigure("Model attention (paper 003, figure 5)", ("volume_net/{size}",), draw_attention),
}
