"""Shape and density of a hematoma, from its mask on the acquired slices.

Length is in mm, volume in mL, density in HU. Formulas stand at each function; none is a diagnosis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.morphology import bounding_box
from ICHAnalysisLib.ct.volume import CTVolume

#: Voxels this much darker than the clot's median, enclosed by it, are a black hole (Li 2016 asks for 28 HU).
BLACK_HOLE_HU = 28.0
_SMALLEST_ML = 0.5  # below it a surface is mostly pixel steps


def density_measures(volume: CTVolume, mask: np.ndarray) -> dict[str, float]:
    """Mean, median, sd and coefficient of variation of the HU in a (K, J, I) mask, by true voxel volume.

    black_hole_ml: volume enclosed in single slices by the mask, at least one pixel inside its rim, that is 28 HU or
    more below the median. Empty for an empty mask.
    """
    if not mask.any():
        return {}
    values = volume.hu[mask].astype(float)
    weights = volume.voxel_volumes_ml[np.nonzero(mask)[0]]
    mean = float(np.average(values, weights=weights))
    sd = float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
    median = float(np.median(values))
    found = {"mean_hu": mean, "median_hu": median, "sd_hu": sd, "black_hole_ml": _black_hole_ml(volume, mask, median)}
    if mean > 0:
        found["hu_variation"] = sd / mean
    return found


def shape_measures(volume: CTVolume, mask: np.ndarray) -> dict[str, float]:
    """Surface, surface regularity and longest diameter of a (K, J, I) mask; lesions are taken together.

    surface_regularity: 6 sqrt(pi) V / S^1.5 (surface regularity index): 1 for a ball, smaller the more irregular.
    irregularity: 1 minus that. flatness: shortest over longest principal axis of the mass. Empty below 0.5 mL.
    """
    total = volume.mask_volume_ml(mask)
    if total < _SMALLEST_ML:
        return {}
    surface = surface_area_mm2(volume, mask)
    regularity = min(1.0, 6 * np.sqrt(np.pi) * 1000 * total / surface**1.5)
    axes = _principal_sd_mm(volume, mask)
    return {
        "surface_cm2": surface / 100,
        "surface_regularity": float(regularity),
        "irregularity": float(1 - regularity),
        "flatness": float(axes[0] / axes[2]) if axes[2] > 0 else 0.0,
    }


def surface_area_mm2(volume: CTVolume, mask: np.ndarray) -> float:
    """Area of the half-level surface of the mask smoothed by about a voxel, in true mm.

    Without the smoothing the steps between voxels would count: a ball would measure half as much again.
    """
    from skimage.measure import marching_cubes, mesh_surface_area

    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    padded = np.pad(mask[box].astype(np.float32), 3)
    in_plane = 1.0
    across = min(0.7, in_plane * volume.spacing_mm[0] / volume.spacing_mm[2])
    smooth = ndimage.gaussian_filter(padded, (across, in_plane, in_plane))
    vertices, faces, _, _ = marching_cubes(smooth, 0.5 * float(smooth.max()))
    kji = vertices - 3 + [s.start for s in box]
    return float(mesh_surface_area(volume.ijk_to_ras_points(kji[:, ::-1]), faces))


def _black_hole_ml(volume: CTVolume, mask: np.ndarray, median: float) -> float:
    """Volume of dark places inside the mask or its holes, away from its rim."""
    total = 0.0
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        rows, columns = (slice(max(0, side.start - 3), side.stop + 3) for side in bounding_box(mask[k]))
        hu, clot = volume.hu[k, rows, columns], mask[k, rows, columns]  # with all that can count inside the clot
        inner = ndimage.binary_erosion(ndimage.binary_fill_holes(clot))
        smooth = ndimage.uniform_filter(hu.astype(np.float32), 3)  # noise alone is no hole
        dark = smooth <= median - BLACK_HOLE_HU
        hole = inner & ndimage.binary_dilation(dark) & (hu <= median - BLACK_HOLE_HU / 2)
        total += float(hole.sum()) * float(volume.voxel_volumes_ml[k])
    return total


def _principal_sd_mm(volume: CTVolume, mask: np.ndarray) -> Any:
    """(3,) standard deviations of the mass along its principal axes, mm, ascending."""
    k, j, i = np.nonzero(mask)
    points = volume.ijk_to_ras_points(np.stack([i, j, k], axis=1))
    weights = volume.slice_heights_mm[k]
    centered = points - np.average(points, axis=0, weights=weights)
    covariance = (centered * weights[:, None]).T @ centered / weights.sum()
    return np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0.0))
