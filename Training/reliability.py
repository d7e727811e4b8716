"""Calibration: how often what is given a probability comes true."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.discrimination import brier, calibration_error, reliability
from Training.watch import write_rows

Curve = dict[str, np.ndarray]


def calibration_measures(probability: np.ndarray, outcome: np.ndarray) -> dict[str, float]:
    """Brier score, expected calibration error over ten bins, mean probability and prevalence.

    probability: float (N,) in [0, 1]; outcome: 0 or 1 (N,).
    """
    return {
        "count": len(probability),
        "brier": brier(outcome, probability),
        "calibration_error": calibration_error(outcome, probability),
        "mean_probability": float(probability.mean()),
        "prevalence": float(outcome.mean()),
    }


def write_calibration(out: Path, outputs: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """calibration.csv and calibration.png of every binary output that has cases; returns their measures."""
    known = {name: (p, y) for name, (p, y) in outputs.items() if len(p)}
    if not known:
        return {}
    curves = {name: reliability(y, p) for name, (p, y) in known.items()}
    rows = [{"output": name, **row} for name, curve in curves.items() for row in _bins(curve)]
    write_rows(out / "calibration.csv", rows)
    _draw(out / "calibration.png", curves)
    return {name: calibration_measures(p, y) for name, (p, y) in known.items()}


def _bins(curve: Curve) -> list[dict[str, float]]:
    """One row a bin that holds a case."""
    return [
        {"count": int(count), "mean_probability": float(mean), "observed": float(rate)}
        for count, mean, rate in zip(curve["count"], curve["probability"], curve["rate"], strict=True)
    ]


def _draw(path: Path, curves: dict[str, Curve]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(curves), 3.4), layout="constrained")
    for n, (name, curve) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), n + 1)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axes.plot(curve["probability"], curve["rate"], marker="o")
        for row in _bins(curve):
            place = (row["mean_probability"], row["observed"])
            axes.annotate(f"{row['count']:.0f}", place, (5, 3), textcoords="offset points", fontsize=7)
        axes.set(title=name, xlabel="predicted probability", ylabel="observed share", xlim=(0, 1), ylim=(-0.02, 1.02))
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    figure.savefig(temporary, dpi=100)
    temporary.replace(path)
