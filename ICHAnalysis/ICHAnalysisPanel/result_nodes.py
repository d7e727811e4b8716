"""Attention map, lesion labels and ABC/2 lines of an analysis as nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisPanel.abc_lines import crossing
from ICHAnalysisPanel.lesions import shown_lesions
from ICHAnalysisPanel.volume_nodes import place_beside

HEATMAP_THRESHOLD_PERCENT = 40.0
#: How far below its lesion a label stands: at the lesion's center it would cover the lines of ABC/2.
LABEL_GAP_MM = 8.0
COLOR_NODE = "ICHAnalysis attention"


def write_heatmap(node: Any, volume: Any, percent: np.ndarray) -> Any:
    """The attention map (K, J, I) uint8 0 to 100 % on the volume's voxels; a new node where `node` is None."""
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"{volume.GetName()} attention")
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    depth, rows, columns = percent.shape
    image = vtk.vtkImageData()
    image.SetDimensions(columns, rows, depth)
    scalars = numpy_support.numpy_to_vtk(np.ascontiguousarray(percent).reshape(-1), deep=True)
    image.GetPointData().SetScalars(scalars)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveImageData(image)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(color_table().GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 100.0)
    display.AutoThresholdOff()
    display.SetThreshold(HEATMAP_THRESHOLD_PERCENT, 100.0)
    display.ApplyThresholdOn()
    place_beside(node, volume)
    return node


def color_table() -> Any:
    """Dark red to yellow, one node a scene."""
    found = slicer.mrmlScene.GetFirstNodeByName(COLOR_NODE)
    if found is not None:
        return found
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", COLOR_NODE)
    node.SetTypeToUser()
    node.SetNumberOfColors(256)
    for index in range(256):
        share = index / 255
        node.SetColor(index, str(index), min(1.0, 0.35 + share), max(0.0, 1.6 * share - 0.6), 0.05, 1.0)
    node.GetLookupTable().SetRange(0, 255)
    node.SetSaveWithScene(True)
    return node


def write_lesion_labels(node: Any, analysis: Analysis, scan: str = "") -> Any:
    """A label with its volume below each lesion, in world RAS."""
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", f"{scan} lesion labels".strip())
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetTextScale(3.5)
        display.SetGlyphScale(1.0)
        display.SetSelectedColor(1.0, 0.95, 0.4)
        display.SetOccludedVisibility(True)
        display.SetOccludedOpacity(1.0)
    node.SetLocked(False)
    node.RemoveAllControlPoints()
    for lesion in shown_lesions(analysis):
        right, anterior, _superior = lesion.centroid_ras_mm
        place = vtk.vtkVector3d(right, anterior, lesion.box_ras_mm[2] - LABEL_GAP_MM)
        node.AddControlPointWorld(place, f"{lesion.volume_ml:.1f} mL")
    node.SetLocked(True)
    return node


def show_overlay(volume: Any, heatmap: Any | None, opacity: float = 0.35) -> None:
    """The volume behind, the attention map in front, in every slice view."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        composite.SetBackgroundVolumeID(volume.GetID())
        composite.SetForegroundVolumeID(heatmap.GetID() if heatmap is not None else None)
        composite.SetForegroundOpacity(opacity if heatmap is not None else 0.0)


def show_scan(volume: Any) -> None:
    """The volume alone in every slice view, fitted; nothing where the views show it already."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    if any(one.GetBackgroundVolumeID() != volume.GetID() for one in composites):
        slicer.util.setSliceViewerLayers(background=volume, foreground=None, fit=True)


def show_lesion(analysis: Analysis) -> None:
    """Slice views at the largest lesion, through the crossing of its A and B where they are known; no view moves."""
    center = lesion_center(analysis)
    if center is not None:
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            node.JumpSliceByOffsetting(*center)


def lesion_center(analysis: Analysis) -> tuple[float, ...] | None:
    """RAS mm where A and B of the largest lesion cross, else its centroid; None without a lesion."""
    if analysis.abc2_lines:
        line = analysis.abc2_lines[0]
        return tuple(crossing(*(np.asarray(line[f"{name}_line_ras_mm"], float) for name in "ab")))
    if not analysis.lesions:
        return None
    return max(analysis.lesions, key=lambda lesion: lesion.volume_ml).centroid_ras_mm
