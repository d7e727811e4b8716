"""A shaded 3-D view: the hemorrhage inside a glass head, drawn by casting parallel rays through the upright grid."""

from __future__ import annotations

import itertools
from concurrent.futures import Future
from typing import NamedTuple, TypeAlias

import numpy as np

from ICHAnalysisLib.analysis import LABEL_ICH, LABEL_IVH
from ICHAnalysisLib.ct.morphology import bounding_box
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.upright import UprightGrid, labels_on_grid

_STEP_MM = 1.7
_HEAD = 3
_COLORS = {LABEL_ICH: (255, 93, 58), LABEL_IVH: (60, 200, 255)}
_LIGHT = np.array([-0.45, -0.55, 0.70])  # x right, y down, z toward the viewer


class View(NamedTuple):
    """A direction to look from. azimuth: degrees about the vertical, elevation: degrees tipped forward; at 0, 0 one
    looks at the face. marks: what lies at the left and the right border."""

    name: str
    azimuth: float
    elevation: float
    marks: tuple[str, str]


_FRONT = View("from the front", 0.0, 12.0, ("R", "L"))
_LEFT = View("from the left", 90.0, 12.0, ("A", "P"))
_RIGHT = View("from the right", -90.0, 12.0, ("P", "A"))
_ABOVE = View("from above, face at the bottom", 0.0, 90.0, ("R", "L"))


#: Pictures under way in another thread.
Views: TypeAlias = "Future[list[tuple[View, np.ndarray]]]"


def head_views(labels: np.ndarray, volume: CTVolume, pixels: int = 420) -> list[tuple[View, np.ndarray]]:
    """(view, uint8 picture (pixels, pixels, 3)) from the front, from the side with more blood, and from above.

    labels (K, J, I); empty where there is no blood. Where the scan does not say which side is which, no view does.
    """
    if not np.any(labels):
        return []
    fields = _fields(labels, volume)
    views = (_FRONT, _blood_side(fields), _ABOVE)
    if not volume.side_known:
        nameless = ("", "")
        views = (
            _FRONT._replace(marks=nameless),
            views[1]._replace(name="from one side"),
            _ABOVE._replace(marks=nameless),
        )
    return [(view, _picture(fields, view.azimuth, view.elevation, pixels)) for view in views]


def _blood_side(fields: dict[int, np.ndarray]) -> View:
    """The lateral view that the blood is nearer to, against the middle of the head; the last axis runs to the right."""
    blood = sum(fields[label].sum(axis=(0, 1)) for label in _COLORS)
    head = fields[_HEAD].sum(axis=(0, 1))
    places = np.arange(len(head))
    return _RIGHT if np.average(places, weights=blood) > np.average(places, weights=head) else _LEFT


def _fields(labels: np.ndarray, volume: CTVolume) -> dict[int, np.ndarray]:
    """Smoothed occupancy of the head, ICH and IVH on a cube of 1.7 mm voxels, (S, A, R)."""
    from scipy.ndimage import gaussian_filter

    from ICHAnalysisLib.holder import head_without_holder

    head = head_without_holder(volume.hu, volume.spacing_mm)
    classes = np.where(labels > 0, labels, np.where(head, _HEAD, 0)).astype(np.uint8)
    low, high = _extent(head if head.any() else labels > 0, volume)
    center, count = (low + high) / 2, int(np.ceil((float(np.max(high - low)) + 24.0) / _STEP_MM))
    grid = UprightGrid((count,) * 3, center - (count - 1) / 2 * _STEP_MM, np.full(3, _STEP_MM))
    placed = labels_on_grid(classes, volume, grid)
    terrace = 0.45 * float(np.mean(volume.slice_heights_mm)) / _STEP_MM  # smooths away the steps of thick slices
    fields = {_HEAD: gaussian_filter((placed > 0).astype(np.float32), (max(1.4, terrace), 1.4, 1.4))}
    for label in _COLORS:
        fields[label] = np.zeros(placed.shape, dtype=np.float32)
        box = tuple(slice(max(0, side.start - 8), side.stop + 8) for side in bounding_box(placed == label))
        fields[label][box] = gaussian_filter((placed[box] == label).astype(np.float32), 0.9)  # reaches four voxels
    return fields


def _extent(mask: np.ndarray, volume: CTVolume) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest RAS mm of a (K, J, I) mask, from every fourth row and column."""
    k, j, i = np.nonzero(mask[:, ::4, ::4])
    points = (
        volume.slice_origins_ras[k] + 4 * i[:, None] * volume.column_step_ras + 4 * j[:, None] * volume.row_step_ras
    )
    return points.min(axis=0), points.max(axis=0)


def _picture(fields: dict[int, np.ndarray], azimuth: float, elevation: float, pixels: int) -> np.ndarray:
    """One view on a dark ground."""
    from PIL import Image

    background = np.array([16.0, 21.0, 27.0])
    layers = {label: _surface(field, azimuth, elevation) for label, field in fields.items()}
    hit, depth, normal = layers[_HEAD]
    canvas = np.broadcast_to(background, (*hit.shape, 3)).copy()
    rim = np.where(hit, (1.0 - np.abs(normal[..., 2])) ** 1.5, 0.0)
    glow = np.where(hit, 0.10 + 0.10 * np.clip(normal @ _LIGHT, 0, 1), 0.0)
    nearest = np.full(hit.shape, np.inf)
    for label, color in _COLORS.items():
        hit, depth, normal = layers[label]
        front = hit & (depth < nearest)
        shade = 0.35 + 0.65 * np.clip(normal @ _LIGHT, 0.0, 1.0)
        canvas[front] = np.array(color) * shade[front][:, None]
        nearest = np.where(front, depth, nearest)
    glass = np.clip(glow + 0.75 * rim, 0, 0.9)[..., None]
    canvas = canvas * (1 - glass) + np.array([205.0, 220.0, 235.0]) * glass
    image = Image.fromarray(np.rint(np.clip(canvas, 0, 255)).astype(np.uint8))
    return np.asarray(image.resize((pixels, pixels), Image.Resampling.BICUBIC))


def _surface(field: np.ndarray, azimuth: float, elevation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First hit of parallel rays: (hit, depth in voxels, unit normal (rows, columns, 3) in screen axes)."""
    from scipy.ndimage import affine_transform

    matrix = _screen_to_array(azimuth, elevation)
    center = (np.array(field.shape) - 1) / 2
    screen = field.shape[1:]
    hit, first, normal = np.zeros(screen, dtype=bool), np.zeros(screen), np.zeros((*screen, 3))
    box = _screen_box(field, matrix, center)
    if box is None:
        return hit, first, normal
    start = np.array([side.start for side in box])
    size = tuple(side.stop - side.start for side in box)
    offset = center + matrix @ (start - center)
    turned = affine_transform(field, matrix, offset, size, order=1)  # (z away, y down, x right)
    solid = turned > 0.5
    rows, columns = np.nonzero(solid.any(axis=0))
    depth = np.argmax(solid, axis=0)[rows, columns]
    here = turned[depth, rows, columns]
    slopes = (
        here - turned[depth, rows, np.minimum(columns + 1, size[2] - 1)],
        here - turned[depth, np.minimum(rows + 1, size[1] - 1), columns],
        turned[np.minimum(depth + 1, size[0] - 1), rows, columns] - here,
    )
    length = np.linalg.norm(slopes, axis=0)
    at = (rows + start[1], columns + start[2])
    hit[at], first[at] = True, depth + start[0]
    normal[at] = (np.array(slopes) / np.maximum(length, 1e-6)).T
    return hit, first, normal


def _screen_box(field: np.ndarray, matrix: np.ndarray, center: np.ndarray) -> tuple[slice, ...] | None:
    """The part of the screen's cube that what is not zero in the field can reach; None for an empty field."""
    filled = bounding_box(field > 0)
    if filled[0].stop == 0:
        return None
    sides = [(side.start - 2, side.stop + 1) for side in filled]
    corners = np.array(list(itertools.product(*sides))) - center
    seen = corners @ matrix + center  # the inverse of a rotation is its transpose
    low = np.maximum(np.floor(seen.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(seen.max(axis=0)).astype(int) + 1, field.shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high))


def _screen_to_array(azimuth: float, elevation: float) -> np.ndarray:
    """(3, 3) matrix from screen offsets (away, down, right) to array offsets (S, A, R)."""
    turn, tip = np.radians(azimuth), np.radians(elevation)
    # Looking at the face: away = -A, right = -R (the patient's left), down = -S; array order is (S, A, R).
    right = np.array([0.0, -np.sin(turn), -np.cos(turn)])
    flat_away = np.array([0.0, -np.cos(turn), np.sin(turn)])
    up = np.array([1.0, 0.0, 0.0])
    away = np.cos(tip) * flat_away - np.sin(tip) * up
    down = -(np.cos(tip) * up + np.sin(tip) * flat_away)
    return np.stack([away, down, right], axis=1)
