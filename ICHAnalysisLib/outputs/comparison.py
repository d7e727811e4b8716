"""Files of a comparison: table 1 of paper 003, Bland-Altman and scatter plots, the worst cases, JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ICHAnalysisLib.compare import MaskPair, MethodAgreement, VolumeTable, worst_disagreements
from ICHAnalysisLib.outputs.atomic import atomic_path, write_text
from ICHAnalysisLib.outputs.tables import write_csv
from ICHAnalysisLib.overlap import summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Plots show at most this many methods; the table shows all.
MOST_PANELS = 12


def write_comparison(
    table: VolumeTable,
    reference: str,
    agreements: Sequence[MethodAgreement],
    folder: Path,
    pairs: Sequence[MaskPair] = (),
) -> dict[str, Path]:
    """Write table_1.csv and .md, worst.csv, comparison.json, bland_altman.png, scatter.png, and cases.csv of masks."""
    rows = [agreement.row() for agreement in agreements]
    worst = worst_disagreements(table, reference)
    files = {
        "table": write_csv(folder / "table_1.csv", rows, list(rows[0])),
        "table_text": write_text(folder / "table_1.md", markdown_table(agreements, reference)),
        "worst": write_csv(folder / "worst.csv", worst, list(worst[0])),
        "bland_altman": save_figure(bland_altman_figure(table, reference, agreements), folder / "bland_altman.png"),
        "scatter": save_figure(scatter_figure(table, reference, agreements), folder / "scatter.png"),
    }
    summary: dict[str, Any] = {"reference": reference, "methods": {a.method: asdict(a) for a in agreements}}
    if pairs:
        cases = [pair.row() for pair in pairs]
        files["cases"] = write_csv(folder / "cases.csv", cases, list(cases[0]))
        summary["overlap"] = summarize([pair.overlap for pair in pairs])
    text = json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n"
    return {**files, "json": write_text(folder / "comparison.json", text)}


def markdown_table(agreements: Sequence[MethodAgreement], reference: str) -> str:
    """Table 1 of paper 003 as text, with limits of agreement and ICC beside it."""
    lines = [
        f"Reference: {reference}. Volumes in mL; MAPE over reference volumes of at least 1 mL.",
        "",
        "| Methods | MAE | MSE | MAPE (%) | Bias (95 % limits of agreement) | ICC(2,1) (95 % CI) | Cases |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for item in agreements:
        errors, limits, icc = item.errors, item.limits, item.icc
        spread = f"{errors.bias_ml:.2f}" + (
            f" ({limits.lower.value:.2f} to {limits.upper.value:.2f})" if limits else ""
        )
        agreement = f"{icc.value:.3f} ({icc.lower:.3f} to {icc.upper:.3f})" if icc and np.isfinite(icc.value) else "n/a"
        mape = f"{errors.mape_percent:.2f}" if np.isfinite(errors.mape_percent) else "n/a"
        name = item.method.replace("|", "\\|")
        cells = (name, f"{errors.mae_ml:.2f}", f"{errors.mse_ml2:.2f}", mape, spread, agreement, str(errors.cases))
        lines.append(f"| {' | '.join(cells)} |")
    grown = [(item.method, item.limits.ratio) for item in agreements if item.limits and item.limits.ratio]
    if grown:
        ratios = "; ".join(f"{name} {ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})" for name, ratio in grown)
        lines += ["", f"Differences grow with the volume, so ratios (95 % limits of agreement) say more: {ratios}."]
    return "\n".join(lines) + "\n"


def bland_altman_figure(table: VolumeTable, reference: str, agreements: Sequence[MethodAgreement]) -> Figure:
    """One panel a method, all to one scale: difference over mean, bias and limits of agreement with their intervals."""
    figure, panels = _panels(len(agreements))
    for axes, item in zip(panels, agreements, strict=False):
        method, truth = table.volumes_ml[item.method], table.volumes_ml[reference]
        axes.scatter((method + truth) / 2, method - truth, s=12, color="#1f4e79", alpha=0.7, linewidths=0)
        if item.limits is not None:
            for estimate, style in ((item.limits.bias, "-"), (item.limits.lower, "--"), (item.limits.upper, "--")):
                axes.axhline(estimate.value, color="#b03a2e", linestyle=style, linewidth=1)
                axes.axhspan(estimate.lower, estimate.upper, color="#b03a2e", alpha=0.12, linewidth=0)
        axes.axhline(0, color="0.6", linewidth=0.6)
        _label(axes, item.method, f"mean of it and {reference} (mL)", "difference (mL)")
    return figure


def scatter_figure(table: VolumeTable, reference: str, agreements: Sequence[MethodAgreement]) -> Figure:
    """One panel a method, all to one scale: method over reference, with the line of identity and the 30 mL limits."""
    figure, panels = _panels(len(agreements))
    shown = [table.volumes_ml[name] for name in (reference, *(item.method for item in agreements[: len(panels)]))]
    top = float(np.nanmax(shown)) * 1.05 + 1e-6
    for axes, item in zip(panels, agreements, strict=False):
        method, truth = table.volumes_ml[item.method], table.volumes_ml[reference]
        axes.plot([0, top], [0, top], color="0.5", linewidth=0.8)
        for draw in (axes.axvline, axes.axhline):
            draw(30, color="0.8", linewidth=0.6)
        axes.scatter(truth, method, s=12, color="#1f4e79", alpha=0.7, linewidths=0)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        text = f"CCC {item.concordance:.3f}" if np.isfinite(item.concordance) else ""
        axes.text(0.04, 0.92, text, transform=axes.transAxes, fontsize=8)
        _label(axes, item.method, f"{reference} (mL)", "method (mL)")
    return figure


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> Path:
    """Write a figure as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png")
    return path


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with one panel a method, at most MOST_PANELS."""
    from matplotlib.figure import Figure

    count = min(count, MOST_PANELS)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.2 * columns + 0.4, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for spare in axes[count:]:
        spare.set_visible(False)
    for last in axes[max(0, count - columns) : count]:  # above an empty place too
        last.tick_params(labelbottom=True)
    return figure, list(axes[:count])


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, axis names and small ticks of a panel."""
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)


def _plain(value: Any) -> Any:
    """JSON values; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
