"""From a `CTVolume` to what the networks see, and back on the acquired slices.

Every network reads the same `SliceStack`: acquired slices (thin ones averaged to slabs), head holder removed,
resampled once in plane. Axes: S stack slices, H rows toward posterior, W columns toward the patient's left,
so that flipped and permuted files look alike. Stack slices ascend toward superior.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.config.preprocess import HUWindow, PreprocessConfig
from ICHAnalysisLib.ct.memory import block_means
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.holder import head_without_holder

AIR_HU = -1024.0
_USUAL_HEIGHT_MM = 5.0
#: Series with steps below this are averaged to slabs before the networks see them (hazard 10).
THIN_STEP_MM = 2.5


def apply_window(hu: np.ndarray, window: HUWindow) -> np.ndarray:
    """Map HU linearly so that the window's ends become 0 and 1, and clip. Any shape; float32."""
    scaled = (np.asarray(hu, dtype=np.float32) - np.float32(window.lower)) / np.float32(window.width)
    return np.clip(scaled, 0.0, 1.0)


def windows_to_channels(hu: np.ndarray, windows: tuple[HUWindow, ...]) -> np.ndarray:
    """(..., H, W) HU to (..., C, H, W) in [0, 1], one channel a window."""
    return np.stack([apply_window(hu, window) for window in windows], axis=-3)


def log_heights(heights_mm: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """float32 (n,) ln(height / 5 mm) of slices `indices`: what networks of crops are told of a slice's height."""
    return np.log(np.asarray(heights_mm, dtype=float)[list(indices)] / _USUAL_HEIGHT_MM).astype(np.float32)


def channels_of(hu: np.ndarray, cfg: PreprocessConfig) -> np.ndarray:
    """(..., H, W) HU to (..., C, H, W) channels: bone masked where `cfg` asks for it, then the windows."""
    if cfg.bone_hu is not None:
        hu = without_bone(hu, cfg.bone_hu)
    return windows_to_channels(hu, cfg.windows)


def with_neighbors(planes: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """(S, H, W) to (n, 3, H, W): the slice below, the slice itself and the one above of `indices`.

    Beyond the lowest and highest slice stands that slice itself, so that a single slice is its own neighbor.
    """
    around = np.asarray(indices, dtype=int)[:, None] + np.array([-1, 0, 1])
    return np.asarray(planes)[np.clip(around, 0, len(planes) - 1)]


def planes_seen(planes: np.ndarray, indices: Sequence[int] | np.ndarray, cfg: PreprocessConfig) -> np.ndarray:
    """(S, H, W) to (n, N, H, W): what a network of `cfg` sees of each of `indices`, N 3 with its neighbors, else 1."""
    if cfg.neighbor_windows:
        return with_neighbors(planes, indices)
    return np.asarray(planes)[np.asarray(indices, dtype=int), None]


def slice_channels(planes: np.ndarray, cfg: PreprocessConfig) -> np.ndarray:
    """(..., N, H, W) HU, slices alone or between their neighbors, to (..., C, H, W): their windows, then those of the
    slices below and above where `cfg` has windows for them."""
    channels = channels_of(planes[..., planes.shape[-3] // 2, :, :], cfg)
    if not cfg.neighbor_windows:
        return channels
    seen_beside = replace(cfg, windows=cfg.neighbor_windows)
    return np.concatenate([channels, *(channels_of(planes[..., n, :, :], seen_beside) for n in (0, 2))], axis=-3)


def without_bone(hu: np.ndarray, bone_hu: float) -> np.ndarray:
    """(..., H, W) HU with 0 where it exceeds `bone_hu` and one pixel around in plane (decision R3).

    A window that ends at 110 HU shows bone as bright as the densest blood; its rim is half bone, half tissue.
    """
    bone = np.asarray(hu) > bone_hu
    rim = np.ones((1,) * (bone.ndim - 2) + (3, 3), dtype=bool)
    return np.where(ndimage.binary_dilation(bone, rim), np.float32(0.0), hu)


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Slices as the networks see them.

    hu: float32 (S, H, W). positions_mm: (S,) along the slice normal, ascending toward superior. heights_mm: (S,).
    native_slices: the acquired slice indices k that each stack slice stands for.
    spacing_mm: (x, y) pixel size. ij_origin, ij_step: ij = ij_origin + ij_step @ (x, y), a signed axis permutation
    times a scale, the same on every slice. head: bool (S, H, W), inside the head.
    """

    hu: np.ndarray
    positions_mm: np.ndarray
    heights_mm: np.ndarray
    native_slices: tuple[np.ndarray, ...]
    spacing_mm: tuple[float, float]
    ij_origin: np.ndarray
    ij_step: np.ndarray
    volume: CTVolume
    head: np.ndarray

    @property
    def pixel_volumes_ml(self) -> np.ndarray:
        """(S,) volume that one pixel of each stack slice stands for, mL."""
        return self.spacing_mm[0] * self.spacing_mm[1] * self.heights_mm / 1000.0

    def ij_of_px(self, px: np.ndarray) -> np.ndarray:
        """(N, 2) stack x, y to (N, 2) acquired i, j."""
        return self.ij_origin + np.atleast_2d(np.asarray(px, dtype=float)) @ self.ij_step.T

    def px_of_ij(self, ij: np.ndarray) -> np.ndarray:
        """(N, 2) acquired i, j to (N, 2) stack x, y."""
        return (np.atleast_2d(np.asarray(ij, dtype=float)) - self.ij_origin) @ np.linalg.inv(self.ij_step).T

    def slice_of_native(self) -> np.ndarray:
        """(K,) stack slice of each acquired slice."""
        index = np.empty(self.volume.shape[0], dtype=int)
        for s, natives in enumerate(self.native_slices):
            index[natives] = s
        return index

    def px_of_ras(self, ras: np.ndarray) -> np.ndarray:
        """(N, 3) RAS mm to (N, 3) stack x, y and position along the normal in mm."""
        ras = np.atleast_2d(np.asarray(ras, dtype=float))
        ijk = self.volume.ras_to_ijk_points(ras)
        up = _up_sign(self.volume)
        return np.concatenate([self.px_of_ij(ijk[:, :2]), (ras @ self.volume.normal_ras * up)[:, None]], axis=1)


def make_stack(volume: CTVolume, cfg: PreprocessConfig) -> SliceStack:
    """The stack of a scan for a network with preprocessing `cfg`; the slices must be roughly axial."""
    groups = slab_groups(volume, cfg.slab_mm)
    up = _up_sign(volume)
    if up < 0:
        groups = groups[::-1]
    heights = volume.slice_heights_mm
    slabs = _slabs(volume.hu, groups, heights)
    positions = np.array([np.average(volume.positions_mm[g], weights=heights[g]) * up for g in groups])
    slab_heights = np.array([heights[g].sum() for g in groups])
    head = head_without_holder(slabs, volume.spacing_mm) if cfg.remove_holder else slabs > -300
    ij_origin, ij_step, spacing = _grid(volume, head, cfg)
    rows, columns = _matrices(volume.shape, ij_origin, ij_step, cfg.size)
    swapped = abs(ij_step[0, 0]) < abs(ij_step[0, 1])
    kept = head if cfg.remove_holder else np.ones_like(head)
    # Slice by slice, so that what lies between stays in the cache.
    above_air = (np.where(inside, np.maximum(plane, AIR_HU) - AIR_HU, 0.0) for plane, inside in zip(slabs, kept))
    resampled = _resample(above_air, rows, columns, swapped) + AIR_HU
    inside = _resample(head, rows, columns, swapped) > 0.5
    return SliceStack(
        resampled.astype(np.float32),
        positions,
        slab_heights,
        tuple(groups),
        spacing,
        ij_origin,
        ij_step,
        volume,
        inside,
    )


def native_to_stack(array: np.ndarray, stack: SliceStack) -> np.ndarray:
    """(K, J, I) on the acquired slices, such as a reference mask, to float32 (S, H, W); 0 outside the scan.

    The grid and the anti-aliasing of `make_stack`: a 0/1 mask becomes the fraction of each stack pixel it covers.
    Raises UsageError where the array is not on the stack's volume.
    """
    if array.shape != stack.volume.shape:
        raise UsageError(f"A mask of shape {array.shape} does not lie on a scan of shape {stack.volume.shape}.")
    heights = stack.volume.slice_heights_mm
    slabs = _slabs(array, stack.native_slices, heights)
    rows, columns = _matrices(stack.volume.shape, stack.ij_origin, stack.ij_step, stack.hu.shape[1])
    swapped = abs(stack.ij_step[0, 0]) < abs(stack.ij_step[0, 1])
    return _resample(slabs, rows, columns, swapped).astype(np.float32)


def stack_to_native(array: np.ndarray, stack: SliceStack, order: int = 1) -> np.ndarray:
    """(S, H, W) on the stack to float32 (K, J, I) on the acquired slices; 0 outside the stack's field of view.

    order: 1 linear in plane, 0 nearest. Slices of one slab all receive the slab's values (hazard 10).
    """
    depth, height, width = stack.volume.shape
    step = np.linalg.inv(stack.ij_step)
    origin = -step @ stack.ij_origin
    swapped = abs(stack.ij_step[0, 0]) < abs(stack.ij_step[0, 1])
    # x depends on i where the axes are not swapped, else on j
    x_scale, y_scale = (step[0, 1], step[1, 0]) if swapped else (step[0, 0], step[1, 1])
    x_count, y_count = (height, width) if swapped else (width, height)
    to_x = _interpolation(origin[0] + x_scale * np.arange(x_count), array.shape[2], order)
    to_y = _interpolation(origin[1] + y_scale * np.arange(y_count), array.shape[1], order)
    native = np.zeros((depth, height, width), dtype=np.float32)
    filled = np.flatnonzero(array.any(axis=(1, 2)))  # what is empty stays empty: most slices hold no blood
    for s, plane in zip(filled, _separable(array[filled], to_y, to_x)):
        native[stack.native_slices[s]] = plane.T if swapped else plane
    return native


def scan_tensor(
    values: np.ndarray, positions_mm: np.ndarray, spacing_mm: float, cfg: PreprocessConfig, fill: float = AIR_HU
) -> np.ndarray:
    """(S, H, W) of a stack, HU or a mask (then `fill` 0), to float32 (D, h, w) of a scan network, values kept.

    In plane whole blocks of pixels are averaged; along the normal slices are interpolated at their true positions
    (paper 003; decision R2). A scan taller than the input keeps its upper part, where the brain is.
    """
    factor = round(cfg.spacing_mm / spacing_mm)
    reduced = _center_fit(block_means(np.asarray(values, dtype=np.float32), factor), cfg.size, fill)
    weights, outside = _depth_weights(positions_mm, cfg)
    out = np.tensordot(weights, reduced, axes=(1, 0)).astype(np.float32)
    out[outside] = fill
    return out


def scan_to_stack(
    array: np.ndarray, positions_mm: np.ndarray, spacing_mm: float, size: int, cfg: PreprocessConfig
) -> np.ndarray:
    """(D, h, w) of a scan network back to (S, size, size) of the stack, nearest in plane, linear along the normal."""
    factor = round(cfg.spacing_mm / spacing_mm)
    target = scan_positions(positions_mm, cfg)
    k = np.interp(positions_mm, target, np.arange(len(target)))
    low = np.clip(np.floor(k).astype(int), 0, len(target) - 2)
    fraction = (k - low)[:, None, None]
    planes = array[low] * (1 - fraction) + array[low + 1] * fraction
    grown = planes.repeat(factor, axis=1).repeat(factor, axis=2)
    return _center_fit(grown, size, 0.0).astype(np.float32)


def scan_positions(positions_mm: np.ndarray, cfg: PreprocessConfig) -> np.ndarray:
    """(D,) positions along the normal of a scan network's slices, mm, ascending toward superior."""
    if cfg.depth is None:
        raise ValueError("scan_positions needs a preprocessing with a depth.")
    low, high = float(np.min(positions_mm)), float(np.max(positions_mm))
    span = (cfg.depth - 1) * cfg.slice_spacing_mm
    start = (low + high - span) / 2 if high - low <= span else high - span
    return start + cfg.slice_spacing_mm * np.arange(cfg.depth)


def unseen_slices(positions_mm: np.ndarray, cfg: PreprocessConfig) -> np.ndarray:
    """(S,) bool: the slices, at positions in mm, below a scan network's grid, which always reaches the highest one."""
    lowest = scan_positions(positions_mm, cfg)[0] - cfg.slice_spacing_mm / 2
    return np.less(positions_mm, lowest)


def slab_groups(volume: CTVolume, slab_mm: float) -> list[np.ndarray]:
    """Acquired slice indices, grouped to slabs of about `slab_mm` where the steps are thin, else one by one."""
    depth = volume.shape[0]
    step = float(np.median(np.abs(volume.steps_mm))) if depth > 1 else slab_mm
    if step >= THIN_STEP_MM:
        return [np.array([k]) for k in range(depth)]
    per_slab = max(1, round(slab_mm / step))
    return [np.arange(start, min(start + per_slab, depth)) for start in range(0, depth, per_slab)]


def _up_sign(volume: CTVolume) -> float:
    """+1 where the normal points to superior, else -1."""
    return 1.0 if volume.normal_ras[2] >= 0 else -1.0


def _slabs(values: np.ndarray, groups: Sequence[np.ndarray], heights: np.ndarray) -> np.ndarray:
    """(S, J, I) means of the slices (K, J, I) of each group, weighted by slice height; single slices as they are."""
    firsts = np.array([group[0] for group in groups])
    if all(len(group) == 1 for group in groups):
        whole = np.array_equal(firsts, np.arange(len(values)))
        return values if whole else values[firsts]
    return np.stack([np.average(values[g], axis=0, weights=heights[g]).astype(np.float32) for g in groups])


def _grid(
    volume: CTVolume, head: np.ndarray, cfg: PreprocessConfig
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Pixel grid of the stack: (ij_origin, ij_step, (x, y) spacing)."""
    u = volume.column_step_ras / np.linalg.norm(volume.column_step_ras)
    v = volume.row_step_ras / np.linalg.norm(volume.row_step_ras)
    swapped = abs(v[0]) > abs(u[0])  # x (right to left) runs along the rows' axis
    along_x, along_y = (v, u) if swapped else (u, v)
    sign_x = 1.0 if along_x[0] <= 0 else -1.0  # toward the left: RAS x falls
    sign_y = 1.0 if along_y[1] <= 0 else -1.0  # toward posterior: RAS y falls
    low, high = _head_box(head)  # i, j
    sx, sy, _ = volume.spacing_mm
    mm = np.array([sx, sy])
    extent = (high - low + 1) * mm  # mm along i, j
    if cfg.layout == "physical":
        per_pixel = np.array([cfg.spacing_mm, cfg.spacing_mm])
    elif cfg.layout == "square":
        per_pixel = np.full(2, extent.max() / cfg.size)
    else:
        per_pixel = extent / cfg.size
    scale = per_pixel / mm  # acquired pixels per stack pixel along i, j
    step = np.zeros((2, 2))
    x_axis, y_axis = (1, 0) if swapped else (0, 1)
    step[x_axis, 0] = sign_x * scale[x_axis]
    step[y_axis, 1] = sign_y * scale[y_axis]
    middle = (cfg.size - 1) / 2
    origin = (low + high) / 2 - step @ np.array([middle, middle])
    return origin, step, (float(per_pixel[x_axis]), float(per_pixel[y_axis]))


def _head_box(head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper (i, j) of the head over the slices with at least half of the largest head area."""
    areas = head.sum(axis=(1, 2))
    if not areas.any():
        return np.zeros(2), np.array([head.shape[2] - 1.0, head.shape[1] - 1.0])
    union = head[areas >= areas.max() / 2].any(axis=0)
    js, is_ = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    return np.array([is_[0], js[0]], dtype=float), np.array([is_[-1], js[-1]], dtype=float)


def _matrices(
    shape: tuple[int, int, int], origin: np.ndarray, step: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(size, J or I) row and column resampling matrices with an anti-aliasing triangle."""
    swapped = abs(step[0, 0]) < abs(step[0, 1])
    x_axis, y_axis = (1, 0) if swapped else (0, 1)
    counts = (shape[2], shape[1])  # of i, j
    xs = origin[x_axis] + step[x_axis, 0] * np.arange(size)
    ys = origin[y_axis] + step[y_axis, 1] * np.arange(size)
    return (
        _triangle(ys, counts[y_axis], abs(step[y_axis, 1])),
        _triangle(xs, counts[x_axis], abs(step[x_axis, 0])),
    )


def _triangle(centers: np.ndarray, count: int, scale: float) -> np.ndarray:
    """(len(centers), count) weights of a triangle as wide as the coarser of both grids; rows outside are 0."""
    width = max(1.0, scale)
    weights = np.maximum(0.0, 1.0 - np.abs(centers[:, None] - np.arange(count)[None, :]) / width)
    total = weights.sum(axis=1, keepdims=True)
    inside = (centers > -0.5) & (centers < count - 0.5)
    return np.where(inside[:, None], weights / np.maximum(total, 1e-6), 0.0).astype(np.float32)


def _interpolation(at: np.ndarray, count: int, order: int) -> np.ndarray:
    """(len(at), count) matrix that samples `count` pixels at positions `at`; 0 outside."""
    if order == 0:
        matrix = np.abs(np.round(at)[:, None] - np.arange(count)[None, :]) < 0.5
        return matrix.astype(np.float32)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(count)[None, :])).astype(np.float32)


def _resample(planes: Iterable[np.ndarray], rows: np.ndarray, columns: np.ndarray, swapped: bool) -> np.ndarray:
    """S planes (J, I) to float32 (S, H, W) by two matrix products."""
    return _separable((plane.T for plane in planes) if swapped else planes, rows, columns)


def _separable(planes: Iterable[np.ndarray], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """S planes (J, I) to float32 (S, H, W): rows (H, J) times each plane times the transpose of columns (W, I).

    A pixel depends on a handful of others, so both matrices are nearly empty and are multiplied as such.
    """
    from scipy.sparse import csr_array

    down, across = csr_array(rows), csr_array(columns)
    out = [(across @ (down @ plane.astype(np.float32, copy=False)).T).T for plane in planes]
    return np.stack(out) if out else np.zeros((0, rows.shape[0], columns.shape[0]), dtype=np.float32)


def _center_fit(planes: np.ndarray, size: int, fill: float) -> np.ndarray:
    """Crop or pad the last two axes to `size` about the center."""
    out = np.full((*planes.shape[:-2], size, size), fill, dtype=np.float32)
    h, w = planes.shape[-2:]
    top, left = (size - h) // 2, (size - w) // 2
    source_top, source_left = max(0, -top), max(0, -left)
    take_h, take_w = min(h, size), min(w, size)
    out[..., max(0, top) : max(0, top) + take_h, max(0, left) : max(0, left) + take_w] = planes[
        ..., source_top : source_top + take_h, source_left : source_left + take_w
    ]
    return out


def _depth_weights(positions_mm: np.ndarray, cfg: PreprocessConfig) -> tuple[np.ndarray, np.ndarray]:
    """(D, S) weights that put slices at even positions, and the (D,) targets beyond the scan's ends.

    The kernel is a triangle as wide as the coarser spacing, so thin slices are averaged, not skipped.
    """
    target = scan_positions(positions_mm, cfg)
    order = np.argsort(positions_mm)
    sorted_positions = np.asarray(positions_mm, dtype=float)[order]
    steps = np.diff(sorted_positions)
    edge = (steps[0] / 2, steps[-1] / 2) if len(steps) else (cfg.slice_spacing_mm / 2,) * 2
    outside = (target < sorted_positions[0] - edge[0]) | (target > sorted_positions[-1] + edge[1])
    weights = np.zeros((len(target), len(positions_mm)), dtype=np.float32)
    fractional = np.interp(target, sorted_positions, np.arange(len(sorted_positions)))
    low = np.clip(np.floor(fractional).astype(int), 0, max(len(sorted_positions) - 2, 0))
    high = np.minimum(low + 1, len(sorted_positions) - 1)
    fraction = fractional - low
    rows = np.arange(len(target))
    np.add.at(weights, (rows, order[low]), 1 - fraction)
    np.add.at(weights, (rows, order[high]), fraction)
    if len(steps) and np.median(steps) < 0.75 * cfg.slice_spacing_mm:
        triangle = np.maximum(0, 1 - np.abs(target[:, None] - np.asarray(positions_mm)[None]) / cfg.slice_spacing_mm)
        total = triangle.sum(axis=1, keepdims=True)
        weights = np.where(total > 0, triangle / np.maximum(total, 1e-6), weights).astype(np.float32)
    return weights, outside
