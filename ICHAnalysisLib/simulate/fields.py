"""Smooth fields on regular grids: separable resampling, correlated noise, and signed distances of simple shapes.

Arrays are float32 (Z, Y, X). Signed distances are mm, negative inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def linear_weights(targets: np.ndarray, start: float, step: float, count: int) -> np.ndarray:
    """(len(targets), count) weights of linear interpolation on nodes start + step * n, held at the ends."""
    index = np.clip((np.asarray(targets, dtype=float) - start) / step, 0, count - 1)
    low = np.minimum(index.astype(int), max(count - 2, 0))
    weights = np.zeros((len(index), count), dtype=np.float32)
    rows = np.arange(len(index))
    weights[rows, low] = 1 - (index - low)
    if count > 1:
        weights[rows, low + 1] += index - low
    return weights


def apply_separable(field: np.ndarray, weights: Sequence[np.ndarray | None]) -> np.ndarray:
    """Multiply each axis of `field` (Z, Y, X) with its weight matrix (new, old); None leaves an axis alone."""
    along_z, along_y, along_x = weights
    result = np.ascontiguousarray(field)
    if along_z is not None:
        result = (along_z @ result.reshape(len(result), -1)).reshape(len(along_z), *result.shape[1:])
    if along_y is not None:
        result = np.matmul(along_y, result)
    if along_x is not None:
        flat = result.reshape(-1, result.shape[2]) @ along_x.T
        result = flat.reshape(*result.shape[:2], len(along_x))
    return result


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: Sequence[float], correlation_mm: float
) -> np.ndarray:
    """Zero-mean, unit-variance noise (Z, Y, X) with about `correlation_mm` between independent values.

    White noise on a lattice of that step, smoothed once by cubic B-spline weights; cheap for any grid.
    """
    matrices, lattice = [], []
    for count, step in zip(shape, spacing_mm, strict=True):
        nodes = max(int(np.ceil(count * step / correlation_mm)), 1) + 4
        matrices.append(
            _bspline_weights(np.arange(count) * step / correlation_mm + 1.5 + rng.uniform(-0.4, 0.4), nodes)
        )
        lattice.append(nodes)
    noise = apply_separable(rng.standard_normal(lattice).astype(np.float32), matrices)
    return noise / np.float32(2 / 3) ** 1.5  # about the root mean square of the B-spline weights in three axes


def _bspline_weights(positions: np.ndarray, count: int) -> np.ndarray:
    """(N, count) cubic B-spline weights at lattice `positions`."""
    distance = np.abs(positions[:, None] - np.arange(count)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def ramp(distance_mm: np.ndarray, width_mm: float) -> np.ndarray:
    """Fraction inside (1) of a boundary at distance 0, linear over `width_mm`: the partial volume of a fine voxel."""
    return np.clip(0.5 - distance_mm / width_mm, 0.0, 1.0)


def ellipsoid(
    points: Sequence[np.ndarray],
    center: Sequence[float],
    radii: Sequence[float],
    angles_deg: Sequence[float] = (0, 0, 0),
) -> np.ndarray:
    """Approximate signed distance (mm) to an ellipsoid; `points` are x, y, z arrays that broadcast."""
    rotation = rotation_matrix(angles_deg)
    offsets = [p - c for p, c in zip(points, center, strict=True)]
    radius = sum(
        ((rotation[0, a] * offsets[0] + rotation[1, a] * offsets[1] + rotation[2, a] * offsets[2]) / radii[a]) ** 2
        for a in range(3)
    )
    return (np.sqrt(radius) - 1.0) * np.float32(np.min(radii))


def capsule_chain(
    points: Sequence[np.ndarray], nodes: np.ndarray, radii: Sequence[float], squeeze: Sequence[float] = (1, 1, 1)
) -> np.ndarray:
    """Signed distance to a chain of round cones through `nodes` (N, 3) with `radii` (N,).

    `squeeze` multiplies the offsets per axis: above 1 makes the cross-section narrower along that axis.
    """
    best: np.ndarray | None = None
    scale = np.asarray(squeeze, dtype=np.float32)
    for start, end, r0, r1 in zip(nodes[:-1], nodes[1:], radii[:-1], radii[1:], strict=True):
        axis = (np.asarray(end, dtype=float) - start) * scale
        offsets = [(points[a] - np.float32(start[a])) * scale[a] for a in range(3)]
        along = sum(offsets[a] * np.float32(axis[a]) for a in range(3)) / np.float32(axis @ axis)
        along = np.clip(along, 0.0, 1.0)
        squared = sum((offsets[a] - along * np.float32(axis[a])) ** 2 for a in range(3))
        distance = np.sqrt(squared) - (np.float32(r0) + along * np.float32(r1 - r0))
        best = distance if best is None else np.minimum(best, distance)
    assert best is not None
    return best


def rotation_matrix(angles_deg: Sequence[float]) -> np.ndarray:
    """(3, 3) rotation about x, then y, then z, degrees."""
    a, b, c = np.radians(np.asarray(angles_deg, dtype=float))
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx
