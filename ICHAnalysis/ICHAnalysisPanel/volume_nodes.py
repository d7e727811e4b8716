"""Volume nodes as scans with the true place of every slice, and where results belong in the scene.

A node's own matrix is not the truth where it hangs under a transform, or where it was loaded from a tilted or uneven
DICOM series: then Slicer stores an upright regular matrix and a grid transform above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import slicer
import vtk

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisPanel.scan_source import ScanSource, note

#: SOP instance UID to file path, None where the database does not know it.
FileLookUp = Callable[[str], "str | None"]
UIDS_ATTRIBUTE = "DICOM.instanceUIDs"
SIMULATED_ATTRIBUTE = "ICHAnalysis.simulated"
#: "1" on a copy whose transforms were hardened by us.
HARDENED_ATTRIBUTE = "ICHAnalysis.hardened"
SLICE_TOLERANCE_MM = 0.05


class BentSlicesError(UsageError):
    """A transform above the volume bends its slices: it can be analyzed on a hardened copy alone."""


def database_file(uid: str) -> str | None:
    """The file of an instance in Slicer's DICOM database; None without a database."""
    database = getattr(slicer, "dicomDatabase", None)
    return (database.fileForInstance(uid) or None) if database is not None and database.isOpen else None


def read_node(node: Any, look_up: FileLookUp = database_file) -> ScanSource:
    """The scan of a scalar volume node.

    Raises UsageError for a node without voxels, with several components, or deleted from the scene.
    """
    _require_volume(node)
    origins, column, row, is_planar = slice_geometry(node)
    array = slicer.util.arrayFromVolume(node)
    shape = array.shape
    uids = tuple((node.GetAttribute(UIDS_ATTRIBUTE) or "").split())
    files = tuple(path for uid in uids if (path := look_up(uid)))
    simulated = node.GetAttribute(SIMULATED_ATTRIBUTE) == "1"
    notes = []
    if uids and len(files) == len(uids) and (len(files) in (1, shape[0])):
        notes.append(
            note("dicom_reread", f"Read again from its {len(files)} DICOM files for the true slice positions.")
        )
        return ScanSource(shape, origins, column, row, files, uids, None, tuple(notes), simulated)
    parent = node.GetParentTransformNode()
    if parent is not None and not is_planar:
        raise BentSlicesError(
            f"{node.GetName()} hangs under a transform that bends its slices. Harden the transform on a copy of "
            "the volume (Transforms module), and analyze the copy."
        )
    notes = _geometry_notes(node, parent, bool(uids) and not files)
    return ScanSource(shape, origins, column, row, (), uids, array, notes, simulated)


def _geometry_notes(node: Any, parent: Any, files_are_gone: bool) -> tuple[Finding, ...]:
    """Where the positions of the slices come from, where that is not the node's own matrix and files alone."""
    notes = []
    if files_are_gone and parent is not None and not parent.IsLinear():
        message = (
            "The DICOM files of this volume are not in the database; the positions of its slices are those of the "
            "transform that Slicer put above it when it was loaded."
        )
        notes.append(note("dicom_files_missing", message, level=Level.NOTE))
    elif files_are_gone:
        message = "The DICOM files of this volume are not in the database; its geometry is taken from the scene."
        notes.append(note("dicom_files_missing", message, "Import the series again if it was tilted.", Level.NOTE))
    if parent is not None:
        notes.append(note("transform_applied", "The transform above the volume is taken into account."))
    if node.GetAttribute(HARDENED_ATTRIBUTE) == "1":
        message = (
            "A transform that bends slices was hardened on this copy: its voxels are interpolated, so edges are softer "
            "and thin blood is less dense than in the scan."
        )
        notes.append(note("transform_hardened", message, "Read volumes on the scan itself where you can."))
    return tuple(notes)


def straight(node: Any, look_up: FileLookUp = database_file) -> Any:
    """The node itself, or a hardened copy in the scene where a transform bends its slices."""
    try:
        read_node(node, look_up)
    except BentSlicesError:
        return hardened_copy(node)
    return node


def hardened_copy(node: Any) -> Any:
    """A copy of the volume with its transform hardened (resampled where it bends); the node itself stays as it is."""
    logic = slicer.modules.volumes.logic()
    copy = logic.CloneVolume(slicer.mrmlScene, node, f"{node.GetName()} hardened")
    copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    is_bent = not node.GetParentTransformNode().IsTransformToWorldLinear() if node.GetTransformNodeID() else False
    copy.HardenTransform()
    copy.RemoveAttribute(UIDS_ATTRIBUTE)
    if is_bent:
        copy.SetAttribute(HARDENED_ATTRIBUTE, "1")
    into_study(copy, node)
    return copy


def slice_geometry(node: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Origins (K, 3), column step (3,), row step (3,) of the node's slices in world RAS mm, and whether that is exact.

    Exact: every slice stays a plane with the same steps under the transforms above, to SLICE_TOLERANCE_MM.
    """
    depth, rows, columns = slicer.util.arrayFromVolume(node).shape
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    k = np.arange(depth, dtype=float)
    corners = [(0, 0), (columns - 1, 0), (0, rows - 1), (columns - 1, rows - 1)]
    placed = []
    for i, j in corners:
        ijk = np.stack([np.full(depth, float(i)), np.full(depth, float(j)), k, np.ones(depth)])
        placed.append(to_world(node, (ijk_to_ras @ ijk)[:3].T))
    origin, right, down, far = placed
    column = (right - origin).mean(axis=0) / max(columns - 1, 1)
    row = (down - origin).mean(axis=0) / max(rows - 1, 1)
    if columns == 1 or rows == 1:
        raise UsageError(f"{node.GetName()} is {columns} x {rows} pixels wide: no CT.")
    expected = [origin + column * (columns - 1), origin + row * (rows - 1)]
    expected.append(expected[0] + row * (rows - 1))
    error = max(float(np.abs(found - wanted).max()) for found, wanted in zip((right, down, far), expected))
    return origin, column, row, error <= SLICE_TOLERANCE_MM


def to_world(node: Any, points: np.ndarray) -> np.ndarray:
    """(N, 3) points of the node in world RAS."""
    parent = node.GetParentTransformNode()
    if parent is None:
        return points
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, None, transform)
    return np.array([transform.TransformPoint(point) for point in points])


def _require_volume(node: Any) -> None:
    """Refuse what is no loaded gray-value volume, in words."""
    if node is None or slicer.mrmlScene.GetNodeByID(node.GetID() or "") is not node:
        raise UsageError("The input volume is no longer in the scene; choose another.")
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise UsageError(f"{node.GetName()} is a label map; choose the CT itself.")
    image = node.GetImageData()
    if image is None or 0 in image.GetDimensions():
        raise UsageError(f"{node.GetName()} holds no voxels; load the scan again.")
    if image.GetNumberOfScalarComponents() != 1:
        raise UsageError(f"{node.GetName()} is a color image; choose a CT volume.")


def place_beside(node: Any, volume: Any) -> None:
    """Put a result under the volume's transform and into the volume's study in the subject hierarchy."""
    if node.IsA("vtkMRMLTransformableNode"):
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    into_study(node, volume)


def into_study(node: Any, volume: Any) -> None:
    """Put a node into the volume's study in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = study_of(volume)
    hierarchy.SetItemParent(item_of(node, study), study)


def study_of(volume: Any) -> int:
    """The item above the volume in the subject hierarchy; that of the scene where the volume stands nowhere."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volume)
    return hierarchy.GetItemParent(item) if item else hierarchy.GetSceneItemID()


def item_of(node: Any, parent: int) -> int:
    """The node's item in the subject hierarchy; made below `parent` where there is none yet."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    return hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
