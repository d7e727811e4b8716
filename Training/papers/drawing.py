"""Reading runs and laying out panels, for the papers' figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ICHAnalysisLib.errors import UsageError
from Training.checkpoint import read_checkpoint
from Training.config import config_from_dict, config_to_dict, merge_overrides
from Training.distributed import World
from Training.results import chosen_checkpoint, find_evaluation
from Training.run import load_trained
from Training.watch import read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(down: int, across: int, width: float = 4.0, height: float = 3.2) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure and its axes by row and column, in type that fits panels of 4 inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    with rc_context({"axes.titlesize": 10, "axes.labelsize": 9, "axes.formatter.useoffset": False}):
        axes = figure.subplots(down, across, squeeze=False)
    return figure, [list(row) for row in axes]


def has_column(path: Path, name: str) -> bool:
    """Whether a record holds a column; validation losses are there with loop.validation_loss alone."""
    return path.exists() and name in read_rows(path)[1]


def column(path: Path, name: str) -> tuple[list[float], list[float]]:
    """Steps and values of a column of train.csv or validation.csv. Raises UsageError where it is not there."""
    if not path.exists():
        raise UsageError(f"{path}: the run has no such record yet.")
    rows, columns = read_rows(path)
    if name not in columns:
        raise UsageError(f"{path}: no column {name!r}; there are {', '.join(columns)}.")
    pairs = [(float(row["step"]), float(row[name])) for row in rows if row[name]]
    return [x for x, _ in pairs], [y for _, y in pairs]


def evaluation_rows(folder: Path, name: str = "rows.csv") -> list[dict[str, str]]:
    """rows.csv or cases.csv of a run's evaluation. Raises UsageError where it was not evaluated."""
    evaluation = find_evaluation(folder)
    if evaluation is None:
        raise UsageError(f"{folder} was not evaluated; add --run.")
    return read_rows(evaluation / name)[0]


def task_state(folder: Path) -> dict[str, Any]:
    """What the task of a run learned besides the weights."""
    return read_checkpoint(chosen_checkpoint(folder), peek=True)["task"]


def task_on(folder: Path, overrides: Sequence[str]) -> tuple[Any, Any]:
    """A run's task and its network in eval mode on the CPU; `data.*` overrides name other cases."""
    _, task, model, state = load_trained(chosen_checkpoint(folder), "auto", World(torch.device("cpu")))
    data = [item for item in overrides if item.startswith("data.")]
    task.cfg = config_from_dict(merge_overrides(config_to_dict(config_from_dict(state["config"])), data))
    return task, model
