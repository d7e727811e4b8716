"""The line of C for each lesion, beside A and B which the library gives. Knows neither Slicer nor Qt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ICHAnalysisLib.analysis import LABEL_ICH, Analysis

if TYPE_CHECKING:
    from ICHAnalysisLib.ct.volume import CTVolume

KEY = "c_line_ras_mm"


def with_height_lines(analysis: Analysis, labels: np.ndarray, volume: CTVolume) -> Analysis:
    """The analysis with the end points of C in RAS mm in each of its `abc2_lines`.

    labels: uint8 (K, J, I) on the analyzed slices. C runs along the slices' normal through the crossing of A and B,
    from the lower face of the lesion's lowest slice, over the summed heights of its slices.
    """
    from ICHAnalysisLib.volumetry import lesion_components

    if not analysis.abc2_lines:
        return analysis
    components, _count = lesion_components(labels == LABEL_ICH)
    lines = []
    for line in analysis.abc2_lines:
        ends = _height_line(line, components, volume)
        lines.append(line if ends is None else {**line, KEY: np.round(ends, 2).tolist()})
    return replace(analysis, abc2_lines=tuple(lines))


def _height_line(line: dict, components: np.ndarray, volume: CTVolume) -> np.ndarray | None:
    """(2, 3) RAS mm, None where no lesion lies at the line's end."""
    a, b = (np.asarray(line[f"{name}_line_ras_mm"], float) for name in "ab")
    i, j, _k = volume.ras_to_ijk_points(a[:1])[0]
    k = line["index_slice"]
    # A ends at a corner of the lesion's pixels: one of the four around it belongs to the lesion.
    rows = np.clip([np.floor(j), np.floor(j) + 1], 0, components.shape[1] - 1).astype(int)
    columns = np.clip([np.floor(i), np.floor(i) + 1], 0, components.shape[2] - 1).astype(int)
    lesion = components[k][np.ix_(rows, columns)].max()
    if lesion == 0:
        return None
    touched = np.flatnonzero((components == lesion).any(axis=(1, 2)))
    lowest = touched[np.argmin(volume.positions_mm[touched])]
    heights = volume.slice_heights_mm
    middle = crossing(a, b)
    start = volume.positions_mm[lowest] - heights[lowest] / 2 - middle @ volume.normal_ras
    return middle + np.array([[start], [start + heights[touched].sum()]]) * volume.normal_ras


def crossing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The point of A's line that B's line meets; both (2, 3) RAS mm and across each other."""
    along = (a[1] - a[0]) / np.linalg.norm(a[1] - a[0])
    return a[0] + ((b[0] - a[0]) @ along) * along
