"""DICOM SEG: on the original slices, tilted and uneven ones included, and on an upright regular grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.atomic import atomic_path
from ICHAnalysisLib.outputs.dicom_source import (
    SEGMENT_NAMES,
    algorithm,
    code,
    description,
    device,
    hemorrhage,
    is_multiframe,
    labels_at_source_size,
    new_series,
    site,
)
from ICHAnalysisLib.outputs.upright import labels_on_grid, upright_grid

if TYPE_CHECKING:
    from pydicom import Dataset

#: CIELab of Slicer's color for hemorrhage and of the report's color for intraventricular blood.
_RGB = {1: (188, 65, 28), 2: (60, 200, 255)}


def original_segmentation(
    analysis: Analysis, labels: np.ndarray, volume: CTVolume, headers: list[Dataset]
) -> Dataset | None:
    """A SEG whose frames are the source's own slices. labels: (K, J, I). None where nothing is segmented."""
    present = present_labels(labels)
    if not present:
        return None
    factor = int(volume.source.get("reduced_by", 1))
    if factor > 1 and not is_multiframe(headers):  # the slices with blood alone: enlarged, all would be too much
        kept = np.flatnonzero(labels.any(axis=(1, 2)))
        labels, headers = labels[kept], [headers[k] for k in kept]
    sized = labels_at_source_size(labels, headers[0], factor)
    if is_multiframe(headers):
        frames = np.zeros((int(headers[0].NumberOfFrames), *sized.shape[1:]), dtype=np.uint8)
        for k, ref in enumerate(volume.instances):
            frames[ref.frame] = sized[k]
        return _build(analysis, frames, present, headers[:1], "ICH segmentation", 1)
    return _build(analysis, sized, present, headers, "ICH segmentation", 1)


def upright_segmentation(
    analysis: Analysis, labels: np.ndarray, volume: CTVolume, headers: list[Dataset]
) -> Dataset | None:
    """A SEG on the upright regular grid, for viewers that need one. None where nothing is segmented."""
    import highdicom

    present = present_labels(labels)
    if not present:
        return None
    grid = upright_grid(volume)
    array, origin = _cut(labels_on_grid(labels, volume, grid))
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine = to_lps @ grid.affine
    affine[:3, 3] += affine[:3, :3] @ origin[::-1]
    affine = affine[:, [2, 1, 0, 3]]  # highdicom orders the index as the array: slice, row, column
    # Rows and columns run to the front and the right; turned, they run to the back and the left as readers expect.
    array, affine = _turned(array, affine)
    geometry = highdicom.Volume(array, affine, "PATIENT", frame_of_reference_uid=str(headers[0].FrameOfReferenceUID))
    sources = headers[:1] if is_multiframe(headers) else headers
    return _build(analysis, geometry, present, sources, "ICH segmentation, upright grid", 2)


def _cut(array: np.ndarray, margin: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """The part of the grid with labels and a margin, and the index (k, j, i) where it starts."""
    index = np.argwhere(array)
    low = np.maximum(index.min(axis=0) - margin, 0)
    high = np.minimum(index.max(axis=0) + margin + 1, array.shape)
    return array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], low


def _turned(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns reversed, with the matrix that says so."""
    turned = affine.copy()
    for axis in (1, 2):
        turned[:3, 3] += turned[:3, axis] * (array.shape[axis] - 1)
        turned[:3, axis] *= -1
    return np.ascontiguousarray(array[:, ::-1, ::-1]), turned


def present_labels(labels: np.ndarray) -> list[int]:
    """The label values that occur, in order; segment numbers count them from 1 on."""
    return [label for label in SEGMENT_NAMES if np.any(labels == label)]


def _build(
    analysis: Analysis, pixels: Any, present: list[int], headers: list[Dataset], what: str, offset: int
) -> Dataset:
    """A binary SEG with one segment a label."""
    import highdicom

    is_volume = isinstance(pixels, highdicom.Volume)
    array = pixels.array if is_volume else pixels
    numbered = np.zeros(array.shape, dtype=np.uint8)
    for number, label in enumerate(present, 1):
        numbered[array == label] = number
    content: Any = pixels.with_array(numbered) if is_volume else numbered
    dataset = highdicom.seg.Segmentation(
        source_images=headers,
        pixel_array=content,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(analysis, number, label) for number, label in enumerate(present, 1)],
        content_label="ICH_RESEARCH",
        content_description=description(analysis, what),
        **new_series(headers[0], offset),
        **device(),
    )
    dataset.SeriesDescription = description(analysis, what)
    return dataset


def _description(analysis: Analysis, number: int, label: int) -> Any:
    """One segment: hemorrhage as a morphologically altered structure, with its site and how it came about."""
    import highdicom

    kind = "AUTOMATIC" if analysis.mode == "automatic" else "SEMIAUTOMATIC"
    red, green, blue = _RGB[label]
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=SEGMENT_NAMES[label],
        segmented_property_category=code("49755003", "SCT", "Morphologically Altered Structure"),
        segmented_property_type=hemorrhage(),
        algorithm_type=kind,
        algorithm_identification=algorithm(),
        tracking_uid=highdicom.UID(),
        tracking_id=SEGMENT_NAMES[label],
        anatomic_regions=[site(label)],
        display_color=highdicom.color.CIELabColor.from_rgb(red, green, blue),
    )


def write_dicom(dataset: Dataset, path: Path) -> Path:
    """Write a DICOM file for its owner alone: it carries the patient's name."""
    with atomic_path(path, private=True) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return Path(path)
