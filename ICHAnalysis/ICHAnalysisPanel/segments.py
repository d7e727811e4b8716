"""The segmentation of an analysis: two coded segments, written without touching any other segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from ICHAnalysisLib.analysis import LABEL_ICH, LABEL_IVH
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisPanel.session import LabelBox
from ICHAnalysisPanel.volume_nodes import place_beside


@dataclass(frozen=True)
class SegmentKind:
    """One of our segments: its ID and name, the label it stands for, its color and its coded region."""

    segment_id: str
    name: str
    label: int
    color: tuple[float, float, float]
    region: str

    @property
    def terminology(self) -> str:
        """Slicer's terminology entry: a hemorrhage, in the region."""
        return (
            "Segmentation category and type - DICOM master list"
            "~SCT^49755003^Morphologically Altered Structure~SCT^50960005^Hemorrhage~^^"
            f"~Anatomic codes - DICOM master list~SCT^{self.region}~^^"
        )


ICH = SegmentKind(
    "ICHAnalysis_ICH", "Intracerebral hemorrhage", LABEL_ICH, (188 / 255, 65 / 255, 28 / 255), "12738006^Brain"
)
IVH = SegmentKind(
    "ICHAnalysis_IVH", "Intraventricular hemorrhage", LABEL_IVH, (0.45, 0.35, 0.85), "35764002^Brain ventricle"
)
KINDS = (ICH, IVH)


def new_segmentation(volume: Any) -> Any:
    """A segmentation node on the volume's grid."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume.GetName()} hemorrhage")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetSliceIntersectionThickness(2)  # to be seen over the attention map
    return node


def prepare(segmentation: Any, volume: Any) -> None:
    """Geometry, transform, study and coded segments; segments of others stay as they are."""
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    if segmentation.GetNodeReference(role) is not volume:
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    place_beside(segmentation, volume)
    contents = segmentation.GetSegmentation()
    for kind in KINDS:
        if contents.GetSegment(kind.segment_id) is None:
            contents.AddEmptySegment(kind.segment_id, kind.name, list(kind.color))
            segment = contents.GetSegment(kind.segment_id)
            segment.SetTag(segment.GetTerminologyEntryTagName(), kind.terminology)


def check_fits(segmentation: Any | None, volume: Any) -> None:
    """Raises UsageError where writing would move segments of others: they lie under another transform."""
    if segmentation is None or segmentation.GetTransformNodeID() == volume.GetTransformNodeID():
        return
    contents = segmentation.GetSegmentation()
    own = {kind.segment_id for kind in KINDS}
    others = [n for n in range(contents.GetNumberOfSegments()) if contents.GetNthSegmentID(n) not in own]
    if others:
        raise UsageError(
            f"{segmentation.GetName()} lies under another transform than {volume.GetName()}; choose another "
            "segmentation under Outputs, or none to make a new one."
        )


def write_labels(segmentation: Any, volume: Any, mask: LabelBox) -> None:
    """Replace our two segments by a label map on the volume's voxels; only its box is copied.

    The closed surface goes: Slicer would make it anew at every change. `CreateClosedSurfaceRepresentation` brings it
    back when all is written.
    """
    prepare(segmentation, volume)
    segmentation.RemoveClosedSurfaceRepresentation()
    state = segmentation.StartModify()
    try:
        for kind in KINDS:
            clear(segmentation, kind.segment_id)
            part = mask.labels == kind.label
            if part.any():
                _set_segment(segmentation, volume, kind.segment_id, part, _extent(mask.start, part.shape))
    finally:
        segmentation.EndModify(state)


def write_slice(segmentation: Any, volume: Any, labels: np.ndarray, k: int) -> None:
    """Replace one slice (J, I) of our two segments."""
    write_labels(segmentation, volume, read_labels(segmentation, volume).with_slice(k, labels))


def read_labels(segmentation: Any, volume: Any) -> LabelBox:
    """Our two segments on the volume's voxels, in the box that holds both; ICH wins where they overlap."""
    columns, rows, depth = volume.GetImageData().GetDimensions()
    box = LabelBox(np.zeros((0, 0, 0), np.uint8), (0, 0, 0), (depth, rows, columns))
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    for kind in reversed(KINDS):
        image = segment_image(segmentation, kind.segment_id)
        if image is None:
            continue
        if _same_grid(image, matrix, box.shape):
            part, start = _filled_part(image)
            box = box.with_part(part > 0, start, kind.label)
        else:  # edited on another grid: Slicer resamples it
            whole = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, kind.segment_id, volume)
            box = box.with_part(whole > 0, (0, 0, 0), kind.label)
    return box


def _filled_part(image: Any) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The smallest (k, j, i) box of an image that holds all that is not 0, and its first voxel."""
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    values = values.reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    filled = [0] * 6
    if not slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent(image, filled):
        return values[:0, :0, :0], (k0, j0, i0)
    a0, a1, b0, b1, c0, c1 = filled
    return values[c0 - k0 : c1 - k0 + 1, b0 - j0 : b1 - j0 + 1, a0 - i0 : a1 - i0 + 1], (c0, b0, a0)


def segment_image(segmentation: Any, segment_id: str) -> Any | None:
    """A copy of a segment's own label map; None where it is empty."""
    if segmentation.GetSegmentation().GetSegment(segment_id) is None:
        return None
    image = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(segment_id, image)
    return None if image.IsEmpty() else image


def take(segmentation: Any) -> dict[str, Any]:
    """Copies of our segments, for undo."""
    return {kind.segment_id: segment_image(segmentation, kind.segment_id) for kind in KINDS}


def put_back(segmentation: Any, taken: dict[str, Any]) -> None:
    """The inverse of `take`: our segments as they were, others untouched, and the surface made anew."""
    segmentation.RemoveClosedSurfaceRepresentation()
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    for segment_id, image in taken.items():
        clear(segmentation, segment_id)
        if image is not None:
            logic.SetBinaryLabelmapToSegment(image, segmentation, segment_id, logic.MODE_REPLACE, image.GetExtent())
    segmentation.CreateClosedSurfaceRepresentation()


def clear(segmentation: Any, segment_id: str) -> None:
    """Empty a segment, in a layer of its own so that no other segment can be touched."""
    if segmentation.GetSegmentation().GetSegment(segment_id) is None:
        return
    segmentation.GetSegmentation().SeparateSegmentLabelmap(segment_id)
    if segment_image(segmentation, segment_id) is not None:  # clearing an empty one again logs an error about surfaces
        slicer.vtkSlicerSegmentationsModuleLogic.ClearSegment(segmentation, segment_id)


def _extent(start: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The IJK extent of a (k, j, i) box."""
    k, j, i = start
    return (i, i + shape[2] - 1, j, j + shape[1] - 1, k, k + shape[0] - 1)


def _same_grid(image: Any, ijk_to_ras: Any, shape: tuple[int, ...]) -> bool:
    """True where the image's voxels are voxels of the volume."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    extent = image.GetExtent()
    inside = min(extent[0::2]) >= 0 and extent[1] < shape[2] and extent[3] < shape[1] and extent[5] < shape[0]
    return inside and np.allclose(
        slicer.util.arrayFromVTKMatrix(matrix), slicer.util.arrayFromVTKMatrix(ijk_to_ras), atol=1e-4
    )


def _set_segment(segmentation: Any, volume: Any, segment_id: str, part: np.ndarray, extent: tuple[int, ...]) -> None:
    """Replace the segment within an IJK extent."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*extent)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    values[:] = part.reshape(-1)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if not logic.SetBinaryLabelmapToSegment(image, segmentation, segment_id, logic.MODE_REPLACE, extent):
        raise RuntimeError(f"The segment {segment_id} could not be written.")


def labelmap_volume_ml(segmentation: Any, segment_id: str) -> float:
    """Voxels of the segment times the spacing of its own grid, as Slicer's Segment Statistics counts (labelmap)."""
    image = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(segment_id, image)
    if image.IsEmpty():
        return 0.0
    count = np.count_nonzero(numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()))
    return count * float(np.prod(image.GetSpacing())) / 1000.0


def surface_volume_ml(segmentation: Any, segment_id: str) -> float | None:
    """Volume inside the smoothed surface, as Segment Statistics gives it (closed surface); None without one."""
    segmentation.CreateClosedSurfaceRepresentation()
    surface = vtk.vtkPolyData()
    segmentation.GetClosedSurfaceRepresentation(segment_id, surface)
    if surface.GetNumberOfPolys() < 4:
        return None
    triangles = vtk.vtkTriangleFilter()
    triangles.SetInputData(surface)
    properties = vtk.vtkMassProperties()
    properties.SetInputConnection(triangles.GetOutputPort())
    return properties.GetVolume() / 1000.0
