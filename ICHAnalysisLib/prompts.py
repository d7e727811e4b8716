"""Prompts of a user, in mm RAS, and as tensors on slices: boxes, positive and negative points, a prior mask.

A box says "hemorrhage is in here, and nowhere else"; a positive point "this is blood"; a negative point "this is not".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ICHAnalysisLib.errors import UsageError

if TYPE_CHECKING:
    import torch

    from ICHAnalysisLib.ct.volume import CTVolume


@dataclass(frozen=True)
class Box:
    """A box along the RAS axes, mm; corners in any order are sorted. Raises UsageError without extent."""

    ras_min: tuple[float, float, float]
    ras_max: tuple[float, float, float]

    def __post_init__(self) -> None:
        low = tuple(min(a, b) for a, b in zip(self.ras_min, self.ras_max))
        high = tuple(max(a, b) for a, b in zip(self.ras_min, self.ras_max))
        if not all(map(math.isfinite, (*low, *high))):
            raise UsageError(f"{self.name}: coordinates must be finite numbers.")
        if any(a == b for a, b in zip(low, high)):
            raise UsageError(f"{self.name}: the box has no extent along one axis.")
        object.__setattr__(self, "ras_min", low)
        object.__setattr__(self, "ras_max", high)

    @property
    def name(self) -> str:
        """How messages call it."""
        return "Box " + ",".join(f"{value:g}" for value in (*self.ras_min, *self.ras_max))

    @classmethod
    def parse(cls, text: str) -> Box:
        """From "R0,A0,S0,R1,A1,S1" in mm."""
        values = _numbers(text, 6, f"Box {text!r}", "R0,A0,S0,R1,A1,S1 in mm")
        return cls(tuple(values[:3]), tuple(values[3:]))  # type: ignore[arg-type]

    @property
    def corners(self) -> np.ndarray:
        """(8, 3) RAS mm."""
        pairs = [(self.ras_min[axis], self.ras_max[axis]) for axis in range(3)]
        return np.array([[r, a, s] for r in pairs[0] for a in pairs[1] for s in pairs[2]])


@dataclass(frozen=True)
class Point:
    """A point in mm RAS; positive: blood, else not blood."""

    ras: tuple[float, float, float]
    positive: bool = True

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.ras)):
            raise UsageError(f"{self.name}: coordinates must be finite numbers.")

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"Point {','.join(f'{value:g}' for value in self.ras)},{'+' if self.positive else '-'}"

    @classmethod
    def parse(cls, text: str) -> Point:
        """From "R,A,S" or "R,A,S,+" or "R,A,S,-" in mm."""
        parts = text.split(",")
        sign = "+"
        if len(parts) == 4 and parts[3].strip() in ("+", "-"):
            sign = parts.pop().strip()
        values = _numbers(",".join(parts), 3, f"Point {text!r}", "R,A,S in mm with an optional ,+ or ,-")
        return cls(tuple(values), sign == "+")  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Prompts:
    """All prompts of a scan; mask: a rough (K, J, I) mask on the acquired slices, or None."""

    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    mask: np.ndarray | None = None

    @classmethod
    def parse(cls, boxes: Sequence[str] | None = (), points: Sequence[str] | None = ()) -> Prompts:
        """From the command line's strings; None where an option was not given."""
        return cls(tuple(map(Box.parse, boxes or ())), tuple(map(Point.parse, points or ())))

    @property
    def empty(self) -> bool:
        """True where nothing was given."""
        return not self.boxes and not self.points and self.mask is None

    def validate(self, volume: CTVolume) -> None:
        """Raise UsageError naming the first prompt that lies outside the scan or the head."""
        from ICHAnalysisLib.prompt_projection import validate_prompts

        validate_prompts(self, volume)


@dataclass(frozen=True)
class SlicePrompts:
    """Prompts of one slice in its pixels: boxes (Nb, 4) x0, y0, x1, y1; points (Np, 2) x, y with labels (Np,) 1 or 0;
    mask (H, W) or None."""

    boxes: np.ndarray
    points: np.ndarray
    point_labels: np.ndarray
    mask: np.ndarray | None = None

    @classmethod
    def empty(cls) -> SlicePrompts:
        """No prompt at all."""
        return cls.of_boxes(())

    @classmethod
    def of_boxes(cls, boxes: np.ndarray | Sequence[np.ndarray]) -> SlicePrompts:
        """Boxes alone, (N, 4) or a sequence of (4,)."""
        given = np.asarray(boxes, np.float32).reshape(-1, 4)
        return cls(given, np.zeros((0, 2), np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True)
class PromptBatch:
    """Prompts of B slices as padded tensors.

    boxes (B, Nb, 4) x0, y0, x1, y1 px; box_valid (B, Nb) bool; points (B, Np, 2) x, y px; point_labels (B, Np) 1
    positive, 0 negative, -1 padding; mask (B, 1, H, W) float or None.
    """

    boxes: torch.Tensor
    box_valid: torch.Tensor
    points: torch.Tensor
    point_labels: torch.Tensor
    mask: torch.Tensor | None = None

    @classmethod
    def empty(cls, batch: int, max_boxes: int = 4, max_points: int = 8) -> PromptBatch:
        """No prompts for `batch` slices."""
        return cls.from_slices([SlicePrompts.empty()] * batch, max_boxes, max_points)

    @classmethod
    def from_slices(cls, slices: Sequence[SlicePrompts], max_boxes: int = 4, max_points: int = 8) -> PromptBatch:
        """Pad to `max_boxes` and `max_points`, or to the most prompts of a slice where that is more."""
        import torch

        arrays = pad_prompts(slices, max_boxes, max_points)
        tensors: dict[str, Any] = {k: None if v is None else torch.from_numpy(v) for k, v in arrays.items()}
        return cls(**tensors)

    def to(self, device: torch.device | str) -> PromptBatch:
        """The same prompts on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def slices(self, start: int, stop: int) -> PromptBatch:
        """Rows start to stop."""
        return self._each(lambda tensor: tensor[start:stop])

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> PromptBatch:
        """The same prompts with every tensor changed."""
        old = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        new: dict[str, Any] = {name: None if value is None else change(value) for name, value in old.items()}
        return PromptBatch(**new)

    def __len__(self) -> int:
        return self.boxes.shape[0]


def pad_prompts(slices: Sequence[SlicePrompts], max_boxes: int, max_points: int) -> dict[str, np.ndarray | None]:
    """The arrays of a `PromptBatch`, by field name."""
    batch = len(slices)
    nb = max([max_boxes, *(len(item.boxes) for item in slices)])
    np_ = max([max_points, *(len(item.points) for item in slices)])
    boxes, valid = np.zeros((batch, nb, 4), np.float32), np.zeros((batch, nb), bool)
    points, labels = np.zeros((batch, np_, 2), np.float32), np.full((batch, np_), -1, np.int64)
    shapes = [item.mask.shape for item in slices if item.mask is not None]
    mask = np.zeros((batch, 1, *shapes[0]), np.float32) if shapes else None
    for b, item in enumerate(slices):
        boxes[b, : len(item.boxes)], valid[b, : len(item.boxes)] = item.boxes, True
        points[b, : len(item.points)], labels[b, : len(item.points)] = item.points, item.point_labels
        if mask is not None and item.mask is not None:
            mask[b, 0] = item.mask
    return {"boxes": boxes, "box_valid": valid, "points": points, "point_labels": labels, "mask": mask}


#: Points drawn from a rough mask and beside it (decision S16).
FOREGROUND_POINTS, BACKGROUND_POINTS = 3, 1
_DEEP_PX = 2  # points are drawn so deep inside a mask where it is thick enough: its edge is rough


def with_mask_prompts(given: SlicePrompts, rng: np.random.Generator, jitter: float = 0.0) -> SlicePrompts:
    """The rough mask as SAM's prompts, a bounding box and random points (paper 000, II-A; decisions S15 and S16).

    For networks that do not read the mask itself. Only what the user did not give is added: the mask's tight box where
    there is no box, three points inside the mask (and inside the boxes) and one beside it where there is no point.
    jitter: each side of the box moves by up to this share of its extent. The mask stays as it is; without one, or with
    an empty one, the prompts come back unchanged.
    """
    if given.mask is None or not np.any(given.mask):
        return given
    mask = np.asarray(given.mask) > 0.5
    boxes, points, labels = given.boxes, given.points, given.point_labels
    if not len(boxes):
        boxes = _tight_box(mask, rng, jitter)[None]
    if not len(points):
        allowed = drawn_boxes(boxes, mask.shape) > 0
        deep = _eroded(mask, _DEEP_PX) & allowed
        near = (drawn_boxes(boxes + np.array([-8, -8, 8, 8]), mask.shape) > 0) & ~mask
        inside = _drawn(deep if deep.any() else mask & allowed, FOREGROUND_POINTS, rng)
        beside = _drawn(near if near.any() else ~mask, BACKGROUND_POINTS if len(inside) else 0, rng)
        points = np.concatenate([inside, beside])
        labels = np.repeat([1, 0], [len(inside), len(beside)]).astype(np.int64)
    return SlicePrompts(boxes.astype(np.float32), points.astype(np.float32), labels, given.mask)


def box_of(mask: np.ndarray) -> np.ndarray:
    """(4,) whole x0, y0, x1, y1 of the pixels of a (H, W) mask that is not empty."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([xs[0], ys[0], xs[-1], ys[-1]])


def drawn_boxes(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """float32 (H, W), 1 inside any of the (N, 4) boxes."""
    drawn = np.zeros(shape, np.float32)
    for x0, y0, x1, y1 in np.rint(boxes).astype(int):
        drawn[max(0, y0) : max(0, y1 + 1), max(0, x0) : max(0, x1 + 1)] = 1.0
    return drawn


def _tight_box(mask: np.ndarray, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """(4,) x0, y0, x1, y1 around a mask that is not empty, each side moved by up to `jitter` of the extent."""
    box = box_of(mask).astype(float)
    extent = np.tile(box[2:] - box[:2] + 1, 2)
    return box + rng.uniform(-jitter, jitter, 4) * extent if jitter else box


def _eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """The mask less its rim of `steps` pixels."""
    from scipy import ndimage

    return ndimage.binary_erosion(mask, iterations=steps)


def _drawn(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(at most count, 2) x, y of random pixels of a mask."""
    flat = np.flatnonzero(mask)
    chosen = rng.choice(flat, min(count, len(flat)), replace=False)
    return np.stack([chosen % mask.shape[1], chosen // mask.shape[1]], axis=1).astype(float)


def _numbers(text: str, count: int, name: str, form: str) -> list[float]:
    """Comma-separated numbers, or a UsageError that shows the form wanted."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise UsageError(f"{name}: expected {form}.")
    return values
