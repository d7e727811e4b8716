"""Where the margin net looks: squares around boxes. H rows, W columns of a slice."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.morphology import bounding_box
from ICHAnalysisLib.postprocess import CONNECTIVITY
from ICHAnalysisLib.prompts import box_of

#: Tissue that is seen on every side of a box, pixels.
_AROUND_PX = 16
#: How much larger than an outline its box is on each side, pixels.
_PADDING_PX = 1


def square_around(boxes: np.ndarray, shape: tuple[int, int], smallest: int, step: int) -> tuple[slice, slice]:
    """Rows and columns of a square around (N, 4) boxes x0, y0, x1, y1, inside a slice of `shape`.

    Its side is at least `smallest`, a multiple of `step`, and no longer than the slice, whose sides `step` must divide.
    """
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    wanted = max(smallest, float((high - low).max()) + 1 + 2 * _AROUND_PX)
    return square_at((low + high) / 2, shape, step * math.ceil(wanted / step))


def square_at(center: np.ndarray, shape: tuple[int, int], side: int) -> tuple[slice, slice]:
    """Rows and columns of a square of `side` pixels with its middle at `center` (x, y), moved into the slice."""
    found = []
    for middle, length in zip(center[::-1], shape, strict=True):
        within = min(side, length)
        start = int(np.clip(round(float(middle) - within / 2), 0, length - within))
        found.append(slice(start, start + within))
    return found[0], found[1]


def rectangle_around(mask: np.ndarray, step: int) -> tuple[slice, slice]:
    """Rows and columns that hold a bool mask (H, W), all of them where it is empty; sides are multiples of `step`."""
    found = []
    for held, length in zip(bounding_box(mask if mask.any() else ~mask), mask.shape, strict=True):
        side = step * math.ceil((held.stop - held.start) / step)
        start = min(held.start, length - side)
        found.append(slice(start, start + side))
    return found[0], found[1]


def everything(shape: tuple[int, int]) -> np.ndarray:
    """(1, 4) the box of a whole slice: the margin net is then asked about whatever it sees."""
    return np.array([[0, 0, shape[1] - 1, shape[0] - 1]], np.float32)


def boxes_around(outline: np.ndarray) -> list[np.ndarray]:
    """(N, 4) boxes of each slice around every lesion of a bool outline (S, H, W) there and in the slices next to it."""
    lesions, count = ndimage.label(outline, structure=CONNECTIVITY)
    padding = np.array([-1, -1, 1, 1]) * _PADDING_PX
    boxes: list[list[np.ndarray]] = [[] for _ in range(len(outline))]
    for label, (depth, rows, columns) in enumerate(ndimage.find_objects(lesions, max_label=count), start=1):
        inside = lesions[depth, rows, columns] == label
        corner = np.array([columns.start, rows.start] * 2)
        for s in range(max(0, depth.start - 1), min(len(outline), depth.stop + 1)):
            near = inside[max(0, s - 1 - depth.start) : s + 2 - depth.start].any(axis=0)
            boxes[s].append(box_of(near) + corner + padding)
    return [np.array(found, np.float32).reshape(-1, 4) for found in boxes]
