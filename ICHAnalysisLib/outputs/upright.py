"""The upright regular grid: RAS axes, one spacing an axis, every voxel in its true place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ICHAnalysisLib.ct.geometry import stack_bounds_ras
from ICHAnalysisLib.ct.volume import CTVolume

#: Along the slice normal the grid is at most this coarse, mm.
_LARGEST_STEP_MM = 1.0


@dataclass(frozen=True, eq=False)
class UprightGrid:
    """shape (K, J, I); origin_ras_mm is the center of voxel (0, 0, 0); spacing_mm along R, A, S; axes are R, A, S."""

    shape: tuple[int, int, int]
    origin_ras_mm: np.ndarray
    spacing_mm: np.ndarray

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) matrix from (i, j, k, 1) to RAS mm."""
        matrix = np.diag([*self.spacing_mm, 1.0])
        matrix[:3, 3] = self.origin_ras_mm
        return matrix


def upright_grid(volume: CTVolume) -> UprightGrid:
    """The grid that covers the whole stack, in-plane as fine as the pixels, along the normal at most 1 mm."""
    pixel = min(volume.spacing_mm[0], volume.spacing_mm[1])
    normal_axis = int(np.argmax(np.abs(volume.normal_ras)))
    spacing = np.full(3, pixel)
    spacing[normal_axis] = min(_LARGEST_STEP_MM, float(np.min(volume.slice_heights_mm)))
    low, high = stack_bounds_ras(volume)
    counts = np.ceil((high - low) / spacing - 1e-6).astype(int)
    return UprightGrid((int(counts[2]), int(counts[1]), int(counts[0])), low + spacing / 2, spacing)


def slab_limits_mm(volume: CTVolume) -> np.ndarray:
    """(K, 2) lower and upper border of the slab each slice stands for, mm along the normal.

    Borders lie half way to the neighbor; the ends add half their thickness, and where slices are missing the slab
    ends after half the usual step, as in `CTVolume.slice_heights_mm`.
    """
    positions = volume.positions_mm
    steps = np.abs(volume.steps_mm)
    steps[volume.missing_after] = volume.usual_steps_mm[volume.missing_after]
    below = np.concatenate([[volume.slice_thickness_mm[0]], steps]) / 2
    above = np.concatenate([steps, [volume.slice_thickness_mm[-1]]]) / 2
    return np.stack([positions - below, positions + above], axis=1)


def labels_on_grid(labels: np.ndarray, volume: CTVolume, grid: UprightGrid) -> np.ndarray:
    """Carry labels (K, J, I) from the acquired slices to the grid, uint8, by nearest pixel of the slab a point lies in.

    Only the part of the grid that the labeled slices can reach is visited, so an empty mask costs nothing.
    """
    result = np.zeros(grid.shape, dtype=np.uint8)
    box = _grid_box(labels, volume, grid)
    if box is None:
        return result
    (i0, i1), (j0, j1), (k0, k1) = box
    limits, pseudo_inverse = slab_limits_mm(volume), _plane_inverse(volume)
    jj, ii = np.meshgrid(np.arange(j0, j1), np.arange(i0, i1), indexing="ij")
    for k in range(k0, k1):
        index = np.stack([ii.ravel(), jj.ravel(), np.full(ii.size, k)], axis=1)
        points = grid.origin_ras_mm + index * grid.spacing_mm
        values = _label_at(labels, volume, points, limits, pseudo_inverse)
        result[k, j0:j1, i0:i1] = values.reshape(jj.shape)
    return result


def _plane_inverse(volume: CTVolume) -> np.ndarray:
    """(2, 3) matrix from an in-plane RAS offset to (i, j)."""
    return np.linalg.pinv(np.stack([volume.column_step_ras, volume.row_step_ras], axis=1))


def _label_at(
    labels: np.ndarray, volume: CTVolume, points: np.ndarray, limits: np.ndarray, plane_inverse: np.ndarray
) -> np.ndarray:
    """(N,) label at (N, 3) RAS points; 0 outside the stack."""
    depth = points @ volume.normal_ras
    middles = (volume.positions_mm[:-1] + volume.positions_mm[1:]) / 2
    k = np.searchsorted(middles, depth, side="right")
    inside = (depth >= limits[k, 0]) & (depth < limits[k, 1])
    ij = np.rint((points - volume.slice_origins_ras[k]) @ plane_inverse.T).astype(int)
    inside &= (ij[:, 0] >= 0) & (ij[:, 0] < volume.shape[2]) & (ij[:, 1] >= 0) & (ij[:, 1] < volume.shape[1])
    ij = np.clip(ij, 0, [volume.shape[2] - 1, volume.shape[1] - 1])
    return np.where(inside, labels[k, ij[:, 1], ij[:, 0]], 0).astype(np.uint8)


def _grid_box(labels: np.ndarray, volume: CTVolume, grid: UprightGrid) -> list[tuple[int, int]] | None:
    """Index ranges [(i0, i1), (j0, j1), (k0, k1)] of the grid that can hold a label; None for an empty mask."""
    ks = np.flatnonzero(np.any(labels, axis=(1, 2)))
    if ks.size == 0:
        return None
    limits, positions = slab_limits_mm(volume), volume.positions_mm
    corners = []
    for k in ks:
        rows, columns = np.flatnonzero(np.any(labels[k], axis=1)), np.flatnonzero(np.any(labels[k], axis=0))
        for i in (columns[0] - 0.5, columns[-1] + 0.5):
            for j in (rows[0] - 0.5, rows[-1] + 0.5):
                flat = volume.slice_origins_ras[k] + i * volume.column_step_ras + j * volume.row_step_ras
                for border in limits[k]:
                    corners.append(flat + (border - positions[k]) * volume.normal_ras)
    index = (np.array(corners) - grid.origin_ras_mm) / grid.spacing_mm
    low = np.floor(index.min(axis=0)).astype(int)
    high = np.ceil(index.max(axis=0)).astype(int) + 1
    sizes = (grid.shape[2], grid.shape[1], grid.shape[0])
    return [(max(0, int(a)), min(n, int(b))) for a, b, n in zip(low, high, sizes, strict=True)]
