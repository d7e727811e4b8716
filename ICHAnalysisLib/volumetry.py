"""Volumes by hand formulas on the acquired slices, as clinicians take them, and by counting voxels.

Definitions 3.1 and 3.2. All on a `CTVolume` with the true height of each slice, never on a resampled grid. Masks are
(K, J, I) bool of intraparenchymal blood without IVH.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from ICHAnalysisLib.ct.morphology import bounding_box
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError

#: Names of the formulas, as in `volumes_ml` of an analysis.
FORMULAS = ("abc2", "abc2_kothari", "abc2_4", "abc3", "two_thirds_sh", "half_sh")
#: Growth since a prior scan counts as expansion from these on.
EXPANSION_SHARE, EXPANSION_ML = 0.33, 6.0

_CORNERS = np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])


@dataclass(frozen=True)
class ManualMeasures:
    """Hand measurements of one lesion.

    a_cm, b_cm: longest diameter of the index slice and the extent across it. c_cm: height of all slices with blood.
    c_kothari_cm: the same with Kothari's weights. area_cm2: largest slice area S. index_slice: k of that slice.
    a_line_ras_mm, b_line_ras_mm: two end points each, for drawing. volumes_ml: by the keys of FORMULAS.
    """

    a_cm: float
    b_cm: float
    c_cm: float
    c_kothari_cm: float
    area_cm2: float
    index_slice: int
    a_line_ras_mm: tuple[tuple[float, float, float], tuple[float, float, float]]
    b_line_ras_mm: tuple[tuple[float, float, float], tuple[float, float, float]]
    volumes_ml: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Growth:
    """Change since a prior scan."""

    prior_ml: float
    volume_ml: float
    change_ml: float
    change_share: float | None  # of the prior volume; None where that is 0
    expansion: bool  # by at least 33 % or 6 mL


def lesion_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels 1..n of the 26-connected components of a (K, J, I) mask, and n."""
    box = bounding_box(mask)  # the labels are those of the whole grid, for which it would take ten times as long
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[box], count = ndimage.label(mask[box], structure=np.ones((3, 3, 3), dtype=bool))
    return labels, count


def manual_volumes(
    volume: CTVolume, mask: np.ndarray, width: Literal["extent", "chord"] = "extent"
) -> tuple[dict[str, float], tuple[ManualMeasures, ...]]:
    """Each formula summed over the lesions (definition 3.1), and the measures of each, largest first.

    An empty mask gives 0 for every formula.
    """
    labels, count = lesion_components(mask)
    found = [measure_lesion(volume, labels == n, width) for n in range(1, count + 1)]
    found.sort(key=lambda item: item.volumes_ml["two_thirds_sh"], reverse=True)
    return {name: sum((item.volumes_ml[name] for item in found), 0.0) for name in FORMULAS}, tuple(found)


def measure_lesion(
    volume: CTVolume, lesion: np.ndarray, width: Literal["extent", "chord"] = "extent"
) -> ManualMeasures:
    """Hand measurements of one lesion, (K, J, I) bool and not empty.

    width: B is the extent of the index slice's mask across A, or the longest single chord across A.
    Raises UsageError for an empty lesion or one that is not on the volume's grid.
    """
    if lesion.shape != volume.shape:
        raise UsageError(f"A lesion of shape {lesion.shape} does not lie on a scan of shape {volume.shape}.")
    counts = np.count_nonzero(lesion, axis=(1, 2))
    if not counts.any():
        raise UsageError("The lesion is empty; it has no diameters.")
    index = _index_slice(counts)
    ends, across = _diameters(volume, lesion[index], width)
    a, b = float(np.linalg.norm(ends[1] - ends[0])) / 10, float(np.linalg.norm(across[1] - across[0])) / 10
    share = counts / counts[index]
    heights = volume.slice_heights_mm / 10  # cm
    c = float(heights[counts > 0].sum())
    c_kothari = float((heights * kothari_weights(share)).sum())
    area = float(counts[index]) * volume.voxel_area_mm2 / 100
    volumes = {
        "abc2": a * b * c / 2,
        "abc2_kothari": a * b * c_kothari / 2,
        "abc2_4": a * b * c / 2.4,
        "abc3": a * b * c / 3,
        "two_thirds_sh": 2 / 3 * area * c,
        "half_sh": area * c / 2,
    }
    return ManualMeasures(
        a, b, c, c_kothari, area, index, _line_ras(volume, ends, index), _line_ras(volume, across, index), volumes
    )


def kothari_weights(share: np.ndarray) -> np.ndarray:
    """Weight of a slice by its share of the largest slice's area: 1 above 0.75, 0.5 from 0.25 on, else 0."""
    share = np.asarray(share, dtype=float)
    return np.where(share > 0.75, 1.0, np.where(share >= 0.25, 0.5, 0.0))


def growth(prior_ml: float, volume_ml: float) -> Growth:
    """Change since a prior scan; expansion by at least 33 % or by at least 6 mL."""
    if prior_ml < 0 or volume_ml < 0:
        raise UsageError(f"Volumes {prior_ml} and {volume_ml} mL must be at least 0.")
    change = volume_ml - prior_ml
    share = change / prior_ml if prior_ml > 0 else None
    grown = change >= EXPANSION_ML or (share is not None and share >= EXPANSION_SHARE)
    return Growth(prior_ml, volume_ml, change, share, grown)


def _index_slice(counts: np.ndarray) -> int:
    """The slice with the largest area; of equal ones the middle one."""
    largest = np.flatnonzero(counts == counts.max())
    return int(largest[(len(largest) - 1) // 2])


def _plane_axes(volume: CTVolume) -> np.ndarray:
    """(2, 2) rows: column step and row step in mm on orthonormal axes of the slice plane."""
    u = volume.column_step_ras / np.linalg.norm(volume.column_step_ras)
    w = volume.row_step_ras - (volume.row_step_ras @ u) * u
    w = w / np.linalg.norm(w)
    return np.array([[volume.column_step_ras @ u, 0.0], [volume.row_step_ras @ u, volume.row_step_ras @ w]])


def _diameters(volume: CTVolume, plane: np.ndarray, width: str) -> tuple[np.ndarray, np.ndarray]:
    """End points (2, 2) in plane mm of A, between pixel corners, and of B, across A."""
    axes = _plane_axes(volume)
    hull = _hull(_corners(plane) @ axes)
    distances = np.linalg.norm(hull[:, None] - hull[None], axis=2)
    first, second = np.unravel_index(np.argmax(distances), distances.shape)
    ends = np.stack([hull[first], hull[second]])
    along = (ends[1] - ends[0]) / distances[first, second]
    across = np.array([-along[1], along[0]])
    if width == "chord":
        return ends, _longest_chord(plane, axes, ends, along, across)
    side = hull @ across
    low, high = hull[np.argmin(side)], hull[np.argmax(side)]
    middle = ((low + high) / 2) @ along
    return ends, np.stack([along * middle + across * side.min(), along * middle + across * side.max()])


def _corners(plane: np.ndarray) -> np.ndarray:
    """(N, 2) i, j of the corners of the mask's border pixels."""
    border = plane & ~ndimage.binary_erosion(plane)
    j, i = np.nonzero(border)
    return (np.stack([i, j], axis=1)[:, None, :] + _CORNERS[None]).reshape(-1, 2)


def _hull(points: np.ndarray) -> np.ndarray:
    """Vertices of the convex hull."""
    try:
        return points[ConvexHull(points).vertices]
    except QhullError as error:  # cannot happen with pixel corners of a real grid
        raise UsageError("The slice's pixels have no area; check the scan's spacing.") from error


def _longest_chord(
    plane: np.ndarray, axes: np.ndarray, ends: np.ndarray, along: np.ndarray, across: np.ndarray
) -> np.ndarray:
    """End points (2, 2) of the longest unbroken run across A inside the mask, sampled at a tenth of a pixel."""
    pixel = float(np.sqrt(abs(np.linalg.det(axes))))
    length = float(np.linalg.norm(ends[1] - ends[0]))
    t = np.arange(pixel / 8, length, pixel / 4)
    r = np.arange(-length, length, pixel / 10)
    points = ends[0] + t[:, None, None] * along + r[None, :, None] * across  # (T, R, 2)
    ij = np.rint(points @ np.linalg.inv(axes)).astype(int)
    inside = (ij >= 0).all(axis=2) & (ij[..., 0] < plane.shape[1]) & (ij[..., 1] < plane.shape[0])
    hit = np.zeros(inside.shape, dtype=bool)
    hit[inside] = plane[ij[inside][:, 1], ij[inside][:, 0]]
    padded = np.pad(hit, ((0, 0), (1, 1))).astype(np.int8)
    edges = np.diff(padded, axis=1)
    (row, start), (_, stop) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    best = int(np.argmax(stop - start))
    base = ends[0] + t[row[best]] * along
    step = pixel / 10
    return np.stack([base + (r[start[best]] - step / 2) * across, base + (r[stop[best] - 1] + step / 2) * across])


def _line_ras(
    volume: CTVolume, ends: np.ndarray, k: int
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Two end points in plane mm of slice k as RAS mm."""
    ij = ends @ np.linalg.inv(_plane_axes(volume))
    first, second = volume.ijk_to_ras_points(np.column_stack([ij, np.full(2, k)]))
    return tuple(map(float, first)), tuple(map(float, second))  # type: ignore[return-value]
