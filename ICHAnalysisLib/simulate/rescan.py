"""A known scan acquired anew: other planes, thickness, tilt or direction, with the truth on the new slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ICHAnalysisLib.ct.geometry import sample_points, stack_bounds_ras
from ICHAnalysisLib.ct.volume import CTVolume

SUBPLANES = 4  # planes averaged across a slice's thickness


@dataclass(frozen=True, eq=False)
class KnownScan:
    """A scan whose bleed is known. labels: uint8 (K, J, I), 1 is the hemorrhage."""

    volume: CTVolume
    labels: np.ndarray

    @property
    def truth_ml(self) -> float:
        """Volume of the hemorrhage, mL."""
        return self.volume.mask_volume_ml(self.labels == 1)

    @property
    def centroid_ras(self) -> np.ndarray:
        """(3,) center of the hemorrhage, RAS mm."""
        return centroid_ras(self.volume, self.labels == 1)


def centroid_ras(volume: CTVolume, mask: np.ndarray) -> np.ndarray:
    """(3,) center of a mask weighted by the slices' heights, RAS mm; NaN for none."""
    k, j, i = np.nonzero(mask)
    if not len(k):
        return np.full(3, np.nan)
    points = volume.ijk_to_ras_points(np.stack([i, j, k], axis=1))
    return np.average(points, axis=0, weights=volume.slice_heights_mm[k])


def rescan(
    known: KnownScan,
    heights_mm: np.ndarray | float = 5.0,
    tilt_degrees: float = 0.0,
    pixel_mm: float = 1.8,
    plane: str = "axial",
    thickness_mm: float | None = None,
    trim: tuple[float, float] = (0.0, 0.0),
    shear_degrees: float = 0.0,
) -> KnownScan:
    """The known head scanned again.

    heights_mm: one step for all slices, or one height a slice from the bottom (contiguous slices).
    tilt_degrees: gantry tilt, the table moving along the patient's axis. plane: axial, coronal or sagittal.
    thickness_mm: of every slice where it is not the step. trim: mm left out at the bottom and the top.
    shear_degrees: by how much the rows of pixels are pushed aside within a slice, as no scanner does.
    """
    low, high = stack_bounds_ras(known.volume)
    column, row, along = _axes(plane, np.radians(tilt_degrees))
    axis = int(np.argmax(np.abs(along)))
    start, stop = low[axis] + trim[0], high[axis] - trim[1]
    cosine = abs(float(np.cross(column, row) @ along))
    centers, heights = _centers(heights_mm, start, stop)
    extent = np.abs([(high - low) @ np.abs(column), (high - low) @ np.abs(row)])
    aside = np.tan(np.radians(shear_degrees))
    extent[0] += abs(aside) * extent[1]
    down = (row + aside * column) * pixel_mm
    columns, rows = (max(16, 8 * int(np.ceil(size / pixel_mm / 8))) for size in extent)
    middle = (low + high) / 2
    middle[axis] = 0.0
    corner = middle - column * pixel_mm * (columns - 1) / 2 - down * (rows - 1) / 2
    origins = corner + (centers - (corner @ along if tilt_degrees == 0 else 0.0))[:, None] * along
    thickness = np.full(len(centers), thickness_mm) if thickness_mm else heights * cosine
    empty = CTVolume(
        np.broadcast_to(np.float32(0), (len(centers), rows, columns)),
        column * pixel_mm,
        down,
        origins,
        thickness,
        source=dict(known.volume.source),
    )
    return _exposed(known, empty)


def _axes(plane: str, tilt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column and row directions and the table's direction, RAS."""
    if plane == "coronal":
        return np.array([-1.0, 0, 0]), np.array([0, 0, -1.0]), np.array([0, 1.0, 0])
    if plane == "sagittal":
        return np.array([0, -1.0, 0]), np.array([0, 0, -1.0]), np.array([1.0, 0, 0])
    return np.array([-1.0, 0, 0]), np.array([0, -np.cos(tilt), -np.sin(tilt)]), np.array([0, 0, 1.0])


def _centers(heights_mm: np.ndarray | float, start: float, stop: float) -> tuple[np.ndarray, np.ndarray]:
    """Slice centers along the table and slice heights, within start and stop."""
    if np.ndim(heights_mm) == 0:
        step = float(heights_mm)
        heights = np.full(int((stop - start) // step), step)
    else:
        heights = np.asarray(heights_mm, dtype=float)
        heights = heights[np.cumsum(heights) <= stop - start]
    return start + np.cumsum(heights) - heights / 2, heights


def _exposed(known: KnownScan, empty: CTVolume) -> KnownScan:
    """HU averaged over each slice's thickness; the voxels richest in blood are the mask, as many as hold the blood.

    A threshold at one half would lose thin edges and shrink every bleed; this keeps each slice's area.
    """
    _, rows, columns = empty.shape
    jj, ii = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    in_plane = ii.reshape(-1, 1) * empty.column_step_ras + jj.reshape(-1, 1) * empty.row_step_ras
    blood = (known.labels == 1).astype(np.float32)
    hu, share = np.zeros(empty.shape, np.float32), np.zeros(empty.shape, np.float32)
    for k, origin in enumerate(empty.slice_origins_ras):
        for part in (np.arange(SUBPLANES) + 0.5) / SUBPLANES - 0.5:
            points = origin + in_plane + part * empty.slice_thickness_mm[k] * empty.normal_ras
            hu[k] += sample_points(known.volume, known.volume.hu, points, 1, -1024.0).reshape(rows, columns)
            share[k] += sample_points(known.volume, blood, points, 1).reshape(rows, columns)
    labels = np.zeros(empty.shape, dtype=np.uint8)
    for k, plane in enumerate(share / SUBPLANES):
        count = round(float(plane.sum(dtype=np.float64)))
        if count:
            labels[k].flat[np.argsort(plane, axis=None)[-count:]] = 1
    return KnownScan(replace(empty, hu=hu / SUBPLANES), labels)


def phantom(blood_mm: tuple[float, float, float] = (18.0, 22.0, 16.0), step_mm: float = 2.0) -> KnownScan:
    """A plain head with one ellipsoid bleed, for quick tests: nested ellipsoids, 2 mm voxels, axial order of DICOM.

    blood_mm: half axes of the bleed along R, A, S; its volume is 4/3 pi times their product.
    """
    half = np.array([80.0, 98.0, 88.0])
    counts = np.ceil(2 * half / step_mm).astype(int)
    axes = [(np.arange(n) - (n - 1) / 2) * step_mm for n in counts]
    right, front, up = -axes[0][None, None, :], -axes[1][None, :, None], axes[2][:, None, None]

    def inside(a: float, b: float, c: float, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
        return ((right - x) / a) ** 2 + ((front - y) / b) ** 2 + ((up - z) / c) ** 2 <= 1.0

    hu: np.ndarray = np.full((counts[2], counts[1], counts[0]), -1000.0, np.float32)
    for region, value in (
        (inside(78, 96, 86), 30.0),
        (inside(73, 91, 81), 1000.0),
        (inside(66, 84, 74), 8.0),
        (inside(63, 81, 71), 33.0),
        (inside(10, 26, 12, 10.0, 0.0, 5.0) | inside(10, 26, 12, -10.0, 0.0, 5.0), 6.0),
    ):
        hu[region] = value
    blood = inside(*blood_mm, -30.0, -5.0, 12.0)
    hu[blood] = 65.0
    hu += np.random.default_rng(5).normal(0.0, 3.0, hu.shape).astype(np.float32)
    affine = np.diag([-step_mm, -step_mm, step_mm, 1.0])
    affine[:3, 3] = [-axes[0][0], -axes[1][0], axes[2][0]]
    volume = CTVolume.from_affine(hu, affine, source={"kind": "simulated", "simulated": True})
    return KnownScan(volume, blood.astype(np.uint8))
