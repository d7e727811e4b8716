"""A, B and C of ABC/2 as lines in the views, in a folder of the subject hierarchy."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisPanel.abc_lines import KEY
from ICHAnalysisPanel.lesions import shown_lines
from ICHAnalysisPanel.volume_nodes import item_of, study_of

#: "1" on a line of ours, so that the next run finds and removes it, also in a loaded scene.
LINE_ATTRIBUTE = "ICHAnalysis.abc2"
FOLDER_NAME = "ABC/2"
#: Lines of more lesions than these would hide the scan.
MOST_LESIONS = 3
COLORS = {"A": (1.0, 0.85, 0.2), "B": (0.3, 0.9, 1.0), "C": (1.0, 0.55, 0.9)}


def write_lines(analysis: Analysis, volume: Any) -> list[Any]:
    """Draw A, B and C of the largest lesions in world RAS in place of all earlier lines; returns the line nodes.

    A and B lie on the index slice, C stands across it. Nothing is drawn where ABC/2 is not defined.
    """
    remove_lines()
    nodes = []
    lines = shown_lines(analysis)[:MOST_LESIONS]
    for number, line in enumerate(lines, start=1):
        suffix = f" {number}" if len(lines) > 1 else ""
        for name, key in (("A", "a_line_ras_mm"), ("B", "b_line_ras_mm"), ("C", KEY)):
            if key in line:
                nodes.append(_add_line(name, suffix, line[key]))
    if nodes:
        _group(nodes, volume)
    return nodes


def remove_lines() -> None:
    """Remove every line of ours, and their folder."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    folders = set()
    for node in find_lines():
        item = hierarchy.GetItemByDataNode(node)
        if item:
            folders.add(hierarchy.GetItemParent(item))
            hierarchy.RemoveItem(item, False, False)
        slicer.mrmlScene.RemoveNode(node)
    for folder in folders:
        if hierarchy.GetItemName(folder) == FOLDER_NAME and hierarchy.GetNumberOfItemChildren(folder) == 0:
            hierarchy.RemoveItem(folder)


def find_lines() -> list[Any]:
    """Our line nodes in the scene."""
    nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode")
    return [node for node in nodes if node.GetAttribute(LINE_ATTRIBUTE) == "1"]


def _add_line(name: str, suffix: str, ends: Any) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", f"{name}{suffix}")
    node.SetAttribute(LINE_ATTRIBUTE, "1")
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSelectedColor(*COLORS[name])
    display.SetColor(*COLORS[name])
    display.SetTextScale(2.5)
    display.SetUseGlyphScale(False)
    display.SetGlyphSize(2.0)
    display.SetPropertiesLabelVisibility(False)  # all three would stand at the crossing, one over the other
    display.SetPointLabelsVisibility(True)
    display.SetOccludedVisibility(True)
    display.SetOccludedOpacity(0.6)
    ends = sorted(ends, key=lambda end: -end[0])  # the text runs to the right of the end that is right in axial views
    for end, label in zip(ends, (" ", f"{name} {np.linalg.norm(np.subtract(*ends)):.0f} mm")):
        node.AddControlPointWorld(vtk.vtkVector3d(*end), label)
    node.SetLocked(True)
    return node


def _group(nodes: list[Any], volume: Any) -> None:
    """Put the lines into one folder of the volume's study."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    folder = hierarchy.CreateFolderItem(study_of(volume), FOLDER_NAME)
    for node in nodes:
        hierarchy.SetItemParent(item_of(node, folder), folder)
