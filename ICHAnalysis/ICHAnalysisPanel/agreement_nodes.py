"""Agreement of two ways to measure the same bleeds, as table and plot nodes: Bland-Altman and scatter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer

from ICHAnalysisPanel.result_tables import add_series, fill_table, number_column, text_column

#: "1" on nodes of an agreement, so that the next one takes their place.
AGREEMENT_ATTRIBUTE = "ICHAnalysis.agreement"
POINTS, LINES = (0.2, 0.4, 0.9), (0.4, 0.4, 0.4)


def write_bland_altman(
    names: Sequence[str],
    model_ml: np.ndarray,
    reference_ml: np.ndarray,
    title: str,
    labels: tuple[str, str] = ("model", "reference"),
) -> tuple[Any, Any]:
    """Table and chart of difference over mean with bias and limits of agreement.

    Cases with an unknown volume (NaN) are left out. Raises UsageError below three cases.
    """
    from ICHAnalysisLib.agreement import bland_altman

    limits = bland_altman(model_ml, reference_ml)
    names, model_ml, reference_ml = _known(names, model_ml, reference_ml)
    mean, difference = (model_ml + reference_ml) / 2, model_ml - reference_ml
    order = np.argsort(mean)
    lines = {"Bias": limits.bias.value, "Lower limit": limits.lower.value, "Upper limit": limits.upper.value}
    columns = {
        "Case": text_column([names[index] for index in order]),
        "Mean (mL)": number_column(mean[order]),
        "Difference (mL)": number_column(difference[order]),
        **{name: number_column([value] * len(mean)) for name, value in lines.items()},
    }
    axes = (f"Mean of {labels[0]} and {labels[1]} (mL)", f"{labels[0]} - {labels[1]} (mL)")
    return _write(title, columns, axes, "Mean (mL)", "Difference (mL)", list(lines))


def write_scatter(
    names: Sequence[str],
    model_ml: np.ndarray,
    reference_ml: np.ndarray,
    title: str,
    labels: tuple[str, str] = ("model", "reference"),
) -> tuple[Any, Any]:
    """Table and chart of one measure over the other, with the line of identity; unknown volumes are left out."""
    names, model_ml, reference_ml = _known(names, model_ml, reference_ml)
    order = np.argsort(reference_ml)
    columns = {
        "Case": text_column([names[index] for index in order]),
        "Reference (mL)": number_column(reference_ml[order]),
        "Model (mL)": number_column(model_ml[order]),
        "Identity": number_column(reference_ml[order]),
    }
    axes = (f"{labels[1]} (mL)", f"{labels[0]} (mL)")
    return _write(title, columns, axes, "Reference (mL)", "Model (mL)", ["Identity"])


def remove_agreement() -> None:
    """Remove the tables, charts and series of an earlier agreement."""
    for kind in ("vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLTableNode"):
        for node in slicer.util.getNodesByClass(kind):
            if node.GetAttribute(AGREEMENT_ATTRIBUTE) == "1":
                slicer.mrmlScene.RemoveNode(node)


def _write(
    title: str, columns: dict[str, Any], axes: tuple[str, str], x: str, points: str, lines: list[str]
) -> tuple[Any, Any]:
    """A table and its chart: one series of points, the others as lines."""
    table = fill_table(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", title), columns)
    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", title)
    chart.SetTitle(title)
    chart.SetXAxisTitle(axes[0])
    chart.SetYAxisTitle(axes[1])
    series = [add_series(points, table, x, POINTS, points=True)]
    series += [add_series(name, table, x, LINES) for name in lines]
    for one in series:
        chart.AddAndObservePlotSeriesNodeID(one.GetID())
    for node in (table, chart, *series):
        node.SetAttribute(AGREEMENT_ATTRIBUTE, "1")
    return table, chart


def _known(names: Sequence[str], first: np.ndarray, second: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The cases that both measures know."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    known = np.isfinite(first) & np.isfinite(second)
    return [name for name, is_known in zip(names, known) if is_known], first[known], second[known]
