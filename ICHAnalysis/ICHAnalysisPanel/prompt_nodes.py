"""Markups as prompts: regions of interest are boxes, control points are positive or negative points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import vtk

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.prompts import Box, Point, Prompts
from ICHAnalysisPanel.volume_nodes import to_world

NEGATIVE_ATTRIBUTE = "ICHAnalysis.negative"
POINTS_ATTRIBUTE = "ICHAnalysis.points"
EDGE_VOXELS = 1.0


def read_prompts(boxes: Sequence[Any], positive: Sequence[Any] = (), negative: Sequence[Any] = ()) -> Prompts:
    """Prompts of ROI nodes and point lists, in world RAS mm; points that are not placed yet are left out."""
    points = [Point(tuple(ras), True) for node in positive for ras in placed_points(node)]
    points += [Point(tuple(ras), False) for node in negative for ras in placed_points(node)]
    return Prompts(tuple(box_of(node) for node in boxes), tuple(points))


def box_of(roi: Any) -> Box:
    """The box that encloses a ROI in world RAS. Raises UsageError where the ROI is not drawn yet."""
    bounds = [0.0] * 6
    roi.GetRASBounds(bounds)
    if not is_drawn(roi):
        raise UsageError(f"{roi.GetName()} is not drawn yet: draw it around the hemorrhage, or uncheck it.")
    return Box(tuple(bounds[0::2]), tuple(bounds[1::2]))


def is_drawn(roi: Any) -> bool:
    """True where a ROI has an extent along all axes."""
    size = [0.0, 0.0, 0.0]
    roi.GetSizeWorld(size)
    return min(size) > 0


def placed_points(node: Any) -> list[tuple[float, float, float]]:
    """World RAS of the control points that have a place."""
    found = []
    position = [0.0, 0.0, 0.0]
    for index in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(index) == slicer.vtkMRMLMarkupsNode.PositionDefined:
            node.GetNthControlPointPositionWorld(index, position)
            found.append(tuple(position))
    return found


def check_inside(prompts: Prompts, geometry: CTVolume, names: Sequence[str] = ()) -> None:
    """Refuse prompts outside the scan, judged in its voxels. Raises UsageError naming the first."""
    depth, rows, columns = geometry.shape
    last = np.array([columns - 1, rows - 1, depth - 1], float)
    for number, point in enumerate(prompts.points):
        ijk = geometry.ras_to_ijk_points(np.array(point.ras))[0]
        if (ijk < -EDGE_VOXELS).any() or (ijk > last + EDGE_VOXELS).any():
            sign = "Positive" if point.positive else "Negative"
            place = ", ".join(f"{value:.0f}" for value in point.ras)
            raise UsageError(f"{sign} point {number + 1} at ({place}) mm lies outside the scan: move or delete it.")
    for number, box in enumerate(prompts.boxes):
        ijk = geometry.ras_to_ijk_points(box.corners)
        if (ijk.max(axis=0) < 0).any() or (ijk.min(axis=0) > last).any():
            name = names[number] if number < len(names) else box.name
            raise UsageError(f"{name} lies outside the scan: move it onto the hemorrhage, or uncheck it.")


def add_box(name: str, center: Sequence[float] | None = None, size: Sequence[float] | None = None) -> Any:
    """A ROI node; with center and size in RAS mm it is placed."""
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", slicer.mrmlScene.GenerateUniqueName(name))
    roi.CreateDefaultDisplayNodes()
    display = roi.GetDisplayNode()
    display.SetFillOpacity(0.05)
    display.SetSelectedColor(0.2, 0.7, 1.0)
    display.SetPropertiesLabelVisibility(False)
    display.SetUseGlyphScale(False)
    display.SetGlyphSize(2.0)  # mm: the center lies on the hemorrhage
    if center is not None:
        roi.SetCenter(*center)
        roi.SetSize(*size)
    return roi


def add_points(name: str, is_positive: bool) -> Any:
    """A point list: green for blood, red for not blood."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    color = (0.1, 0.8, 0.3) if is_positive else (0.9, 0.2, 0.2)
    display.SetSelectedColor(*color)
    display.SetColor(*color)
    display.SetPointLabelsVisibility(False)
    node.SetControlPointLabelFormat("+%d" if is_positive else "-%d")
    node.SetAttribute(POINTS_ATTRIBUTE, "1")
    if not is_positive:
        node.SetAttribute(NEGATIVE_ATTRIBUTE, "1")
    return node


def remove_unused_points(used: set[Any]) -> None:
    """Remove empty point lists of ours that nothing refers to, as stay behind when a scene is loaded."""
    for node in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"):
        if node.GetAttribute(POINTS_ATTRIBUTE) and node not in used and not node.GetNumberOfControlPoints():
            slicer.mrmlScene.RemoveNode(node)


def box_from_segment(segmentation: Any, segment_id: str, margin_mm: float = 5.0) -> Any:
    """A ROI around an existing segment. Raises UsageError where the segment is empty."""
    image = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(segment_id, image)
    extent = [0] * 6
    if not slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent(image, extent):
        name = segmentation.GetSegmentation().GetSegment(segment_id).GetName()
        raise UsageError(f"The segment {name} is empty: no box can be drawn around it.")
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    affine = slicer.util.arrayFromVTKMatrix(matrix)
    limits = [(extent[2 * axis] - 0.5, extent[2 * axis + 1] + 0.5) for axis in range(3)]
    corners = np.array([[i, j, k, 1.0] for i in limits[0] for j in limits[1] for k in limits[2]])
    ras = to_world(segmentation, (affine @ corners.T)[:3].T)
    low, high = ras.min(axis=0) - margin_mm, ras.max(axis=0) + margin_mm
    return add_box("Box from segment", (low + high) / 2, high - low)


def snapshot(boxes: Sequence[Any], points: Sequence[Any]) -> dict[str, Any]:
    """Where the prompts stand now, to be put back by `restore`."""
    places: dict[str, Any] = {}
    for roi in boxes:
        center, size = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
        roi.GetCenterWorld(center)
        roi.GetSizeWorld(size)
        places[roi.GetID()] = (tuple(center), tuple(size))
    return {
        "boxes": places,
        "points": {node.GetID(): placed_points(node) for node in points if node is not None},
    }


def restore(taken: dict[str, Any]) -> None:
    """Put the prompts back; nodes that were deleted since stay deleted."""
    for node_id, (center, size) in taken["boxes"].items():
        roi = slicer.mrmlScene.GetNodeByID(node_id)
        if roi is not None:
            roi.SetCenterWorld(*center)
            roi.SetSizeWorld(*size)
    for node_id, places in taken["points"].items():
        node = slicer.mrmlScene.GetNodeByID(node_id)
        if node is not None:
            slicer.util.updateMarkupsControlPointsFromArray(node, np.array(places).reshape(-1, 3), world=True)
