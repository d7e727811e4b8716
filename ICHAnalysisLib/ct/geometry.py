"""Carrying arrays between the acquired slices and upright regular grids, through every slice's true position."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.geometry_checks import NON_AXIAL_DEGREES, axis_angle_degrees
from ICHAnalysisLib.ct.volume import CTVolume

AIR_HU = -1024.0
SHEAR_DEGREES = 0.5


def resample_to_ras(
    volume: CTVolume, array: np.ndarray, spacing_mm: float | tuple[float, float, float], order: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """An array of the volume's slices on an upright regular grid that covers the whole stack.

    array: (K, J, I), the volume's own HU or a label map on it. spacing_mm: along R, A, S. order: 0 nearest, 1 linear.
    Returns the array (K, J, I) with I toward right, J toward anterior, K toward superior, in the array's type, and
    the (4, 4) IJK-to-RAS matrix. Outside the stack it is the array's own background: air for HU, 0 for labels.
    """
    spacing = np.broadcast_to(np.asarray(spacing_mm, dtype=float), (3,))
    low, high = stack_bounds_ras(volume)
    counts = np.maximum(1, np.ceil((high - low) / spacing - 1e-6)).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low + spacing / 2
    return sample_at(volume, array, affine, (int(counts[2]), int(counts[1]), int(counts[0])), order), affine


def sample_at(
    volume: CTVolume, array: np.ndarray, ijk_to_ras: np.ndarray, shape: tuple[int, int, int], order: int = 1
) -> np.ndarray:
    """An array of the volume's slices at the voxel centers of another regular grid of `shape` (K, J, I)."""
    outside = AIR_HU if array is volume.hu else 0
    out = np.full(shape, outside, dtype=array.dtype)
    jj, ii = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    plane = np.stack([ii.ravel(), jj.ravel(), np.zeros(ii.size), np.ones(ii.size)])
    for k in range(shape[0]):
        plane[2] = k
        points = (ijk_to_ras @ plane)[:3].T
        out[k] = sample_points(volume, array, points, order, outside).reshape(shape[1:]).astype(array.dtype)
    return out


def sample_points(
    volume: CTVolume, array: np.ndarray, points: np.ndarray, order: int = 1, outside: float = 0.0
) -> np.ndarray:
    """(N,) values of an array (K, J, I) at (N, 3) RAS mm; `outside` beyond the stack's slabs and pixel edges."""
    depth, rows, columns = array.shape
    ijk = volume.ras_to_ijk_points(points)
    along = points @ volume.normal_ras
    first = volume.positions_mm[0] - volume.slice_thickness_mm[0] / 2
    last = volume.positions_mm[-1] + volume.slice_thickness_mm[-1] / 2
    inside = (along >= first) & (along <= last)
    inside &= (ijk[:, 0] > -0.5) & (ijk[:, 0] < columns - 0.5) & (ijk[:, 1] > -0.5) & (ijk[:, 1] < rows - 0.5)
    values = np.full(len(points), outside, dtype=np.float64)
    if inside.any():
        limits = np.array([[columns - 1.0, rows - 1.0, depth - 1.0]])
        coordinates = np.clip(ijk[inside], 0.0, limits)[:, ::-1].T
        values[inside] = ndimage.map_coordinates(array, coordinates, order=order, mode="nearest", output=np.float64)
    return values


def stack_bounds_ras(volume: CTVolume) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest RAS mm of all voxels, with their edges and the end slices' half thickness."""
    _, rows, columns = volume.shape
    half = volume.slice_thickness_mm[:, None] / 2 * volume.normal_ras
    corners = [
        volume.slice_origins_ras + sign * half + i * volume.column_step_ras + j * volume.row_step_ras
        for sign in (-1, 1)
        for i in (-0.5, columns - 0.5)
        for j in (-0.5, rows - 0.5)
    ]
    stacked = np.concatenate(corners)
    return stacked.min(axis=0), stacked.max(axis=0)


def axial_copy(volume: CTVolume) -> CTVolume:
    """The volume itself, or an upright axial copy where its slices are sheared or lie far from axial (2 and 24).

    A tilted stack stays as it is: its slices are whole pictures. The copy has I toward the patient's left, J toward
    posterior, K toward superior, as axial DICOM has.
    """
    if axis_angle_degrees(volume) <= NON_AXIAL_DEGREES and volume.shear_degrees <= SHEAR_DEGREES:
        return volume
    finest = min(volume.spacing_mm[:2])
    pixel = max(finest, 0.6)
    step = float(np.clip(np.max(np.abs(volume.spacing_mm)), 2.5, 5.0))
    low, high = stack_bounds_ras(volume)
    counts = np.maximum(1, np.ceil((high - low) / np.array([pixel, pixel, step]))).astype(int)
    affine = np.diag([-pixel, -pixel, step, 1.0])
    affine[:3, 3] = [high[0] - pixel / 2, high[1] - pixel / 2, low[2] + step / 2]
    hu = sample_at(volume, volume.hu, affine, (int(counts[2]), int(counts[1]), int(counts[0])))
    return CTVolume.from_affine(
        hu, affine, findings=volume.findings, source=dict(volume.source), side_known=volume.side_known
    )


def return_to_original(array: np.ndarray, axial: CTVolume, volume: CTVolume, order: int = 0) -> np.ndarray:
    """An array on `axial_copy(volume)` back on the volume's own slices, (K, J, I) of the array's type."""
    if axial is volume:
        return array
    out = np.zeros(volume.shape, dtype=array.dtype)
    _, rows, columns = volume.shape
    jj, ii = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    in_plane = ii.reshape(-1, 1) * volume.column_step_ras + jj.reshape(-1, 1) * volume.row_step_ras
    for k, origin in enumerate(volume.slice_origins_ras):
        values = sample_points(axial, array, origin + in_plane, order)
        out[k] = values.reshape(rows, columns).astype(array.dtype)
    return out
