"""Numbers of an analysis as table and plot nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from ICHAnalysisLib.analysis import LABEL_ICH, Analysis
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisPanel.segments import ICH, labelmap_volume_ml, surface_volume_ml
from ICHAnalysisPanel.session import LabelBox

NAMES = {
    "network": ("Volume net", "read from the whole scan, without the outline"),
    "abc2": ("ABC/2", "C as the full height"),
    "abc2_kothari": ("ABC/2 (Kothari)", "C with weighted slices"),
    "abc2_4": ("ABC/2.4", "hand formula"),
    "abc3": ("ABC/3", "hand formula"),
    "two_thirds_sh": ("2/3 Sh", "largest area times height"),
    "half_sh": ("1/2 Sh", "largest area times height"),
    "ivh": ("Ventricular blood", "not part of the ICH volume"),
}


#: A labelmap further from the true volume than this share lies on a grid that is not the scan's.
GRID_TOLERANCE = 0.005


@dataclass(frozen=True)
class VolumeRow:
    """One line of the volume table, mL."""

    name: str
    volume_ml: float
    how: str
    lower_ml: float | None = None
    upper_ml: float | None = None


def volume_rows(analysis: Analysis, segmentation: Any | None, reference: tuple[Any, str] | None) -> list[VolumeRow]:
    """The mask's volume first, then every other way to measure the same bleed."""
    rows = []
    model = analysis.volumes_ml.get("segmentation")
    if model is not None:
        interval = analysis.intervals.get("segmentation")
        rows.append(_row("Segmentation", model, "voxels with true slice heights", interval))
    if segmentation is not None:
        rows += _segment_rows("Slicer", segmentation, ICH.segment_id, model)
    if reference is not None:
        rows += _segment_rows("Reference", *reference)
    for key, (name, how) in NAMES.items():
        value = analysis.volumes_ml.get(key)
        if value is not None and not (key == "ivh" and value == 0):
            rows.append(_row(name, value, how, analysis.intervals.get(key)))
    return rows


def _segment_rows(name: str, segmentation: Any, segment_id: str, true_ml: float | None = None) -> list[VolumeRow]:
    """A segment as Segment Statistics measures it. true_ml: of the same voxels, with the true heights of the slices."""
    labelmap = labelmap_volume_ml(segmentation, segment_id)
    is_off = bool(true_ml) and abs(labelmap / true_ml - 1) > GRID_TOLERANCE
    how = "its grid knows no tilt and uneven slices" if is_off else "voxels of the segment's own grid"
    rows = [VolumeRow(f"{name} labelmap", labelmap, how)]
    surface = surface_volume_ml(segmentation, segment_id)
    if surface is not None:
        rows.append(VolumeRow(f"{name} closed surface", surface, "smoothed surface, usually smaller"))
    return rows


def _row(name: str, volume_ml: float, how: str, interval: Any | None) -> VolumeRow:
    """A row with the limits of an interval and what kind of interval it is."""
    if interval is None or interval.lower is None or interval.upper is None:
        return VolumeRow(name, volume_ml, how)
    return VolumeRow(name, volume_ml, f"{how}; {interval.kind}", interval.lower, interval.upper)


def write_volume_table(node: Any, rows: list[VolumeRow], scan: str = "") -> Any:
    """The rows with their difference to the first in mL and percent. scan: its name, for a new node."""
    node = node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"{scan} hemorrhage volumes".strip())
    first = rows[0].volume_ml if rows else 0.0
    texts = [[row.name for row in rows], [row.how for row in rows]]
    differences = [row.volume_ml - first for row in rows]
    percents = [100 * difference / first if first else float("nan") for difference in differences]
    columns = {
        "Measure": text_column(texts[0]),
        "mL": number_column([row.volume_ml for row in rows]),
        "range (mL)": text_column([_interval(row) for row in rows]),
        "diff. mL": number_column(differences),
        "diff. %": number_column(percents, 1),
        "How": text_column(texts[1]),
    }
    return fill_table(node, columns)


def _interval(row: VolumeRow) -> str:
    """The limits where both are known."""
    return "" if row.lower_ml is None or row.upper_ml is None else f"{row.lower_ml:.1f} to {row.upper_ml:.1f}"


def fill_table(node: Any, columns: dict[str, Any]) -> Any:
    """Replace a table node's columns."""
    state = node.StartModify()
    node.RemoveAllColumns()
    for name, column in columns.items():
        column.SetName(name)
        node.AddColumn(column)
    node.EndModify(state)
    return node


def text_column(values: list[str]) -> Any:
    """A column of words."""
    column = vtk.vtkStringArray()
    for value in values:
        column.InsertNextValue(value)
    return column


def number_column(values: Any, decimals: int = 3) -> Any:
    """A column of rounded numbers."""
    column = vtk.vtkDoubleArray()
    for value in values:
        column.InsertNextValue(round(float(value), decimals) + 0.0)  # no -0
    return column


def write_slice_table(node: Any, probability: np.ndarray, mask: LabelBox, geometry: CTVolume, scan: str = "") -> Any:
    """Slice number, position, probability of hemorrhage and volume of the outline, one row a slice of the node.

    probability: (K,), NaN where a slice was not looked at.
    """
    node = node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"{scan} hemorrhage by slice".strip())
    volumes = mask.slice_counts(LABEL_ICH) * geometry.voxel_volumes_ml
    columns = {
        "Slice": number_column(range(1, len(volumes) + 1)),
        "Position (mm)": number_column(geometry.positions_mm, 2),
        "Probability": number_column(probability, 4),
        "Outline (mL)": number_column(volumes),
    }
    return fill_table(node, columns)


def write_slice_plot(chart: Any, table: Any, scan: str = "") -> Any:
    """Probability of hemorrhage along the head, and the outline's volume in each slice."""
    if chart is None:
        name = f"{scan} hemorrhage along the head".strip()
        chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", name)
        chart.SetTitle("Hemorrhage along the head")
        chart.SetXAxisTitle("Slice")
        chart.SetYAxisTitle("Probability; outline in mL")
        for name, color in (("Probability", (0.2, 0.4, 0.9)), ("Outline (mL)", (0.74, 0.25, 0.11))):
            chart.AddAndObservePlotSeriesNodeID(add_series(name, table, "Slice", color).GetID())
    for number in range(chart.GetNumberOfPlotSeriesNodes()):
        chart.GetNthPlotSeriesNode(number).SetAndObserveTableNodeID(table.GetID())  # the table may be a new one
    return chart


def add_series(name: str, table: Any, x: str, color: tuple[float, float, float], points: bool = False) -> Any:
    """A plot series of the column `name` over the column `x`, as a line or as points."""
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(x)
    series.SetYColumnName(name)
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetColor(*color)
    if points:
        series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleNone)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
    else:
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
    return series
