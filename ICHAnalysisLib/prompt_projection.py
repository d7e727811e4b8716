"""Prompts in mm RAS onto the slices of a stack, and the check that they lie where they can mean something."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.preprocess import SliceStack
from ICHAnalysisLib.prompts import Box, Point, Prompts, SlicePrompts

_TISSUE_HU = -300.0
#: Pairs of the eight corners that differ along one axis only: the edges of a box.
_EDGES = [(a, b) for a, b in itertools.combinations(range(8), 2) if bin(a ^ b).count("1") == 1]
_TOLERANCE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class StackPrompts:
    """Prompts of every slice of a stack.

    slices: one `SlicePrompts` a stack slice, (S,). boxed: (S,) bool, a box reaches the slice. pointed: (S,) bool, a
    point lies in it. restricted: True where the scan has boxes: hemorrhage on slices that no box reaches is then not
    meant, unless a positive point says so.
    """

    slices: tuple[SlicePrompts, ...]
    boxed: np.ndarray
    pointed: np.ndarray
    restricted: bool

    @property
    def concerned(self) -> np.ndarray:
        """(S,) slices whose answer a prompt can change; all of them where boxes restrict the scan."""
        if self.restricted:
            return np.ones(len(self.slices), bool)
        return self.pointed | np.array([item.mask is not None for item in self.slices])


def project_prompts(prompts: Prompts, stack: SliceStack) -> StackPrompts:
    """Boxes become the rectangle around their section with each slice; points go to the slice they lie in.

    A box thinner than the gap between two slices goes to the nearest one.
    """
    count = len(stack.positions_mm)
    boxes: list[list[np.ndarray]] = [[] for _ in range(count)]
    points: list[list[np.ndarray]] = [[] for _ in range(count)]
    labels: list[list[int]] = [[] for _ in range(count)]
    for box in prompts.boxes:
        for s, rectangle in _box_sections(box, stack).items():
            boxes[s].append(rectangle)
    for point in prompts.points:
        x, y, position = stack.px_of_ras(np.array([point.ras]))[0]
        s = nearest_slice(position, stack)
        points[s].append(np.array([x, y]))
        labels[s].append(int(point.positive))
    masks = [None] * count if prompts.mask is None else list(mask_on_stack(prompts.mask, stack))
    slices = tuple(
        SlicePrompts(
            np.array(boxes[s], np.float32).reshape(-1, 4),
            np.array(points[s], np.float32).reshape(-1, 2),
            np.array(labels[s], np.int64),
            masks[s],
        )
        for s in range(count)
    )
    boxed = np.array([len(items) > 0 for items in boxes])
    pointed = np.array([len(items) > 0 for items in points])
    return StackPrompts(slices, boxed, pointed, bool(prompts.boxes))


def nearest_slice(position_mm: float, stack: SliceStack) -> int:
    """The stack slice whose slab holds a position along the normal, or the nearest one."""
    beyond = np.abs(stack.positions_mm - position_mm) - stack.heights_mm / 2
    return int(np.argmin(beyond))


def mask_on_stack(mask: np.ndarray, stack: SliceStack) -> np.ndarray:
    """(K, J, I) mask on the acquired slices to float32 (S, H, W), nearest in plane, any slice of a slab."""
    depth, rows, columns = stack.volume.shape
    if mask.shape != (depth, rows, columns):
        raise UsageError(f"The prior mask has shape {mask.shape}; the scan has {(depth, rows, columns)}.")
    height, width = stack.hu.shape[1:]
    y, x = np.mgrid[:height, :width]
    ij = np.round(stack.ij_of_px(np.stack([x.ravel(), y.ravel()], axis=1))).astype(int)
    inside = np.all((ij >= 0) & (ij < (columns, rows)), axis=1)
    i, j = np.where(inside[:, None], ij, 0).T
    planes = [np.any(np.asarray(mask[group], dtype=bool), axis=0) for group in stack.native_slices]
    return np.stack([(plane[j, i] & inside).reshape(height, width) for plane in planes]).astype(np.float32)


def validate_prompts(prompts: Prompts, volume: CTVolume) -> None:
    """Raise UsageError naming the first prompt that lies outside the scan or the head."""
    if prompts.mask is not None and prompts.mask.shape != volume.shape:
        raise UsageError(f"The prior mask has shape {prompts.mask.shape}; the scan has {volume.shape}.")
    if prompts.mask is not None and not _reaches_head(np.asarray(prompts.mask, dtype=bool), volume):
        raise UsageError("The prior mask holds no part of the head; it is empty or lies elsewhere.")
    for point in prompts.points:
        _validate_point(point, volume)
    for box in prompts.boxes:
        _validate_box(box, volume)


def _validate_point(point: Point, volume: CTVolume) -> None:
    """A point must lie in a slice, on the head."""
    i, j, k = volume.ras_to_ijk_points(np.array([point.ras]))[0]
    depth, rows, columns = volume.shape
    if not (-0.5 <= k <= depth - 0.5 and -0.5 <= j <= rows - 0.5 and -0.5 <= i <= columns - 0.5):
        raise UsageError(f"{point.name} lies outside the scan; coordinates are mm RAS. {_extent(volume)}")
    index = int(np.clip(round(k), 0, depth - 1))
    head = _head(volume.hu[index])
    if not head[int(np.clip(round(j), 0, rows - 1)), int(np.clip(round(i), 0, columns - 1))]:
        raise UsageError(f"{point.name} lies outside the head, on slice {index + 1} of {depth}.")


def _validate_box(box: Box, volume: CTVolume) -> None:
    """A box must hold a part of the head."""
    low, high = _index_range(box, volume)
    if (high < low).any():
        raise UsageError(f"{box.name} lies outside the scan; coordinates are mm RAS. {_extent(volume)}")
    (i0, j0, k0), (i1, j1, k1) = low, high
    for k in range(k0, k1 + 1):
        if _head(volume.hu[k])[j0 : j1 + 1, i0 : i1 + 1].any():
            return
    raise UsageError(f"{box.name} holds no part of the head.")


def _reaches_head(mask: np.ndarray, volume: CTVolume) -> bool:
    """Whether a (K, J, I) mask holds a part of the head."""
    return any((mask[k] & _head(volume.hu[k])).any() for k in np.flatnonzero(mask.any(axis=(1, 2))))


def _index_range(box: Box, volume: CTVolume) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest i, j, k that the box reaches, cut to the scan."""
    corners = volume.ras_to_ijk_points(box.corners)
    last = np.array(volume.shape[::-1]) - 1
    low, high = np.floor(corners.min(axis=0) + 0.5).astype(int), np.ceil(corners.max(axis=0) - 0.5).astype(int)
    return np.maximum(low, 0), np.minimum(np.maximum(high, low), last)


def _head(hu: np.ndarray) -> np.ndarray:
    """(J, I) bool: tissue of a slice with the air inside it."""
    return ndimage.binary_fill_holes(hu > _TISSUE_HU)


def _extent(volume: CTVolume) -> str:
    """Where the scan lies, as a sentence."""
    depth, rows, columns = volume.shape
    corners = [[i, j, k] for i in (0, columns - 1) for j in (0, rows - 1) for k in (0, depth - 1)]
    ras = volume.ijk_to_ras_points(np.array(corners, dtype=float))
    ranges = [f"{name} {low:.0f} to {high:.0f}" for name, low, high in zip("RAS", ras.min(axis=0), ras.max(axis=0))]
    return "The scan reaches from " + ", ".join(ranges) + " mm."


def _box_sections(box: Box, stack: SliceStack) -> dict[int, np.ndarray]:
    """Stack slice -> (4,) x0, y0, x1, y1 of the box's section with it."""
    corners = box.corners  # corner n has the bits of n as its choice of lower and upper sides
    positions = stack.px_of_ras(corners)[:, 2]
    found = {}
    for s, plane in enumerate(stack.positions_mm):
        section = _section(corners, positions, float(plane))
        if section is not None:
            found[s] = _rectangle(section, stack)
    if not found:
        center = (positions.min() + positions.max()) / 2
        found[nearest_slice(center, stack)] = _rectangle(corners, stack)
    return found


def _section(corners: np.ndarray, positions: np.ndarray, plane: float) -> np.ndarray | None:
    """(N, 3) RAS vertices of the polygon in which a plane cuts a box, or None."""
    vertices = [corners[n] for n in range(8) if abs(positions[n] - plane) <= _TOLERANCE_MM]
    for a, b in _EDGES:
        if (positions[a] - plane) * (positions[b] - plane) < 0:
            share = (plane - positions[a]) / (positions[b] - positions[a])
            vertices.append(corners[a] + share * (corners[b] - corners[a]))
    return np.array(vertices) if vertices else None


def _rectangle(vertices: np.ndarray, stack: SliceStack) -> np.ndarray:
    """(4,) x0, y0, x1, y1 in pixels around vertices in RAS."""
    px = stack.px_of_ras(vertices)[:, :2]
    return np.concatenate([px.min(axis=0), px.max(axis=0)])
