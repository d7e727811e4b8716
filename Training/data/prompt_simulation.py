"""Prompts as a user might give them, drawn from a slice's labels, together with the target that obeys them.

What a prompt means, and so what the network learns:
- none: all blood is the target.
- boxes: parenchymal hemorrhage (ICH) outside every box is not the target; a lesion mostly inside a box is, whole.
  Intraventricular blood (IVH) is not restricted: a box around a clot says nothing about the ventricles.
- a positive point: the lesion it lies in is the target, outside boxes too; on tissue that merely looks like blood, that
  patch becomes target, since the user says so.
- a negative point: the lesion it lies in is not the target; anywhere else it changes nothing.
- a prior mask: a hint, often wrong at its edge; it changes nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.prompts import SlicePrompts, box_of, drawn_boxes
from Training.data.cache import ICH, IVH

_BLOOD_LIKE_HU = (45.0, 110.0)
_CANDIDATE_PX = (12, 1500)


@dataclass(frozen=True)
class PromptSimulationConfig:
    """How often each kind of prompt is drawn. Probabilities of kinds are among the slices that have any prompt.

    none: slices without any. box, point, mask: kinds present; a slice that draws no kind gets a point.
    jitter, jitter_wild: each side of a box moves by up to this fraction of its extent, `wild` of them by the latter.
    loose: of the boxes, those as a 3-D box has them on the slices above and below a lesion's largest: up to
    `loose_factor` times its extent, the lesion anywhere inside.
    correct: of the negative points, those on a lesion, which removes it; adopt: of the positive points, those on tissue
    that looks like blood, which adds it. all_boxed: boxed slices in which no lesion is left out.
    Of the slices without a clot that would have prompts, `empty_none` have none after all, `empty_box` have a box over
    nothing, as a 3-D box has on slices just beyond its lesion, and `empty_adopt` of those with points a positive one.
    """

    none: float = 0.45
    box: float = 0.6
    point: float = 0.5
    mask: float = 0.12
    jitter: float = 0.05
    jitter_wild: float = 0.15
    wild: float = 0.2
    loose: float = 0.35
    loose_factor: float = 2.5
    all_boxed: float = 0.7
    empty_none: float = 0.4
    empty_box: float = 0.3
    empty_adopt: float = 0.3
    correct: float = 0.35
    adopt: float = 0.3
    max_boxes: int = 4
    max_points: int = 8


@dataclass
class _Lesions:
    """Components of one class: label image (H, W) and their number."""

    image: np.ndarray
    count: int

    @classmethod
    def of(cls, mask: np.ndarray) -> _Lesions:
        return cls(*ndimage.label(mask, structure=np.ones((3, 3), int))) if mask.any() else cls(mask.astype(int), 0)

    def pick(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """(2,) x, y of a random pixel of a component."""
        flat = np.flatnonzero(self.image == number)
        y, x = np.unravel_index(flat[rng.integers(len(flat))], self.image.shape)
        return np.array([x, y], dtype=np.float32)


def simulate_prompts(
    labels: np.ndarray, hu: np.ndarray, rng: np.random.Generator, cfg: PromptSimulationConfig | None = None
) -> tuple[np.ndarray, SlicePrompts]:
    """labels uint8 (H, W), 1 ICH and 2 IVH, and HU (H, W) to the labels that obey the prompts, and the prompts."""
    cfg = cfg or PromptSimulationConfig()
    if rng.random() < cfg.none:
        return labels, SlicePrompts.empty()
    ich, ivh = _Lesions.of(labels == ICH), _Lesions.of(labels == IVH)
    target = labels.copy()
    if not ich.count and rng.random() < cfg.empty_none:
        return labels, SlicePrompts.empty()
    kinds = rng.random(3) < (cfg.box, cfg.point, cfg.mask)
    boxes = np.zeros((0, 4), np.float32)
    if not ich.count and rng.random() < cfg.empty_box:
        boxes = empty_box(labels.shape, rng)
    elif kinds[0] and ich.count:
        boxes, kept = _boxes(ich, rng, cfg)
        target[(target == ICH) & ~np.isin(ich.image, kept)] = 0
    points, signs = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    if kinds[1] or not (len(boxes) or kinds[2]):
        points, signs = _points(target, labels, ich, ivh, hu, rng, cfg)
    mask = _rough(labels == ICH, rng) if kinds[2] else None
    return target, SlicePrompts(boxes, points, signs, mask)


def _boxes(ich: _Lesions, rng: np.random.Generator, cfg: PromptSimulationConfig) -> tuple[np.ndarray, np.ndarray]:
    """Jittered boxes around some lesions, and the lesions (numbers) that lie mostly inside."""
    sides = ndimage.find_objects(ich.image)
    numbers = np.arange(1, ich.count + 1)
    chosen = numbers if rng.random() < cfg.all_boxed else rng.permutation(numbers)[: rng.integers(1, ich.count + 1)]
    if len(chosen) > cfg.max_boxes or rng.random() < 0.25:  # one box around all of them
        rows = [sides[n - 1] for n in chosen]
        groups = [
            (
                min(s[1].start for s in rows),
                min(s[0].start for s in rows),
                max(s[1].stop for s in rows) - 1,
                max(s[0].stop for s in rows) - 1,
            )
        ]
    else:
        rows = [sides[n - 1] for n in chosen]
        groups = [(s[1].start, s[0].start, s[1].stop - 1, s[0].stop - 1) for s in rows]
    boxes = np.array([_jitter(np.array(group, np.float32), rng, cfg) for group in groups], np.float32)
    covered = drawn_boxes(boxes, ich.image.shape) > 0
    inside = np.bincount(ich.image[covered], minlength=ich.count + 1)
    sizes = np.bincount(ich.image.ravel(), minlength=ich.count + 1)
    kept = numbers[inside[1:] >= 0.5 * sizes[1:]]
    return boxes, kept


def jittered_box(mask: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """(4,) x0, y0, x1, y1 around a mask that is not empty, each side moved by up to `amount` of the extent."""
    box = box_of(mask).astype(np.float32)
    extent = np.maximum(np.tile(box[2:] - box[:2] + 1, 2) * amount, 1.0)
    return (box + rng.uniform(-1, 1, 4) * extent).astype(np.float32)


def empty_box(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """(1, 4) a box of 5-30 % of the image's sides somewhere in its middle."""
    height, width = shape
    half = np.array([width, height]) * rng.uniform(0.025, 0.15, 2)
    center = np.array([width, height]) * rng.uniform(0.3, 0.7, 2)
    return np.concatenate([center - half, center + half])[None].astype(np.float32)


def _jitter(box: np.ndarray, rng: np.random.Generator, cfg: PromptSimulationConfig) -> np.ndarray:
    """The box with each side moved; a pixel at least, so that small lesions are not always boxed exactly."""
    amount = cfg.jitter_wild if rng.random() < cfg.wild else cfg.jitter
    extent = np.maximum(np.tile(box[2:] - box[:2] + 1, 2) * amount, 1.0)
    moved = box + rng.uniform(-1, 1, 4) * extent
    if rng.random() < cfg.loose:
        more = (box[2:] - box[:2] + 1) * (np.exp(rng.uniform(0, np.log(cfg.loose_factor), 2)) - 1)
        share = rng.random(2)
        moved = moved + np.concatenate([-share * more, (1 - share) * more])
    return np.concatenate([np.minimum(moved[:2], moved[2:]), np.maximum(moved[:2], moved[2:])])


def _points(
    target: np.ndarray,
    labels: np.ndarray,
    ich: _Lesions,
    ivh: _Lesions,
    hu: np.ndarray,
    rng: np.random.Generator,
    cfg: PromptSimulationConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """1-3 positive and 0-2 negative points and their signs; changes `target` in place by what they mean."""
    points: list[np.ndarray] = []
    signs: list[int] = []
    candidates: _Lesions | None = None
    removed = False
    fewest = 0 if ich.count else 1
    for _ in range(int(rng.integers(fewest, 3))):  # negative ones first: a later positive one must not contradict them
        lesions = ich if (rng.random() < 0.7 and ich.count) or not ivh.count else ivh
        if lesions.count and not removed and rng.random() < cfg.correct:
            number = int(rng.integers(1, lesions.count + 1))
            points.append(lesions.pick(rng, number))
            target[lesions.image == number] = 0
            removed = True
        else:
            candidates = candidates or _blood_like(hu, labels)
            points.append(_elsewhere(candidates, labels, hu, rng))
        signs.append(0)
    if not ich.count and points and rng.random() >= cfg.empty_adopt:
        return np.array(points, np.float32), np.array(signs, np.int64)
    for _ in range(int(rng.integers(0 if points else 1, 4))):
        present = np.unique(ich.image[(target == ICH) & (ich.image > 0)]) if ich.count else np.zeros(0, int)
        outside = np.setdiff1d(np.arange(1, ich.count + 1), present) if not removed else np.zeros(0, int)
        if len(outside) and rng.random() < 0.5:  # a lesion that no box holds: the point adds it
            number = int(rng.choice(outside))
            target[ich.image == number] = ICH
            points.append(ich.pick(rng, number))
        elif len(present) and rng.random() >= cfg.adopt:
            points.append(ich.pick(rng, int(rng.choice(present))))
        else:
            candidates = candidates or _blood_like(hu, labels)
            if not candidates.count:
                continue
            number = int(rng.integers(1, candidates.count + 1))
            point = candidates.pick(rng, number)
            if _near(point, points, signs):
                continue
            points.append(point)
            target[candidates.image == number] = ICH
        signs.append(1)
    if not points:
        return np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    return np.array(points, np.float32)[: cfg.max_points], np.array(signs, np.int64)[: cfg.max_points]


def _near(point: np.ndarray, points: list[np.ndarray], signs: list[int], distance: float = 12.0) -> bool:
    """Whether a negative point lies close by: both would speak of the same tissue."""
    return any(sign == 0 and np.abs(point - other).max() < distance for other, sign in zip(points, signs))


def _blood_like(hu: np.ndarray, labels: np.ndarray) -> _Lesions:
    """Patches without blood that look like it: dense after smoothing, neither tiny nor large, away from blood."""
    smooth = ndimage.uniform_filter(np.asarray(hu, np.float32), 3)
    dense = (smooth > _BLOOD_LIKE_HU[0]) & (smooth < _BLOOD_LIKE_HU[1])
    blood = (labels == ICH) | (labels == IVH)
    if blood.any():
        dense &= ~ndimage.binary_dilation(blood, iterations=3)
    found = _Lesions.of(dense)
    sizes = np.bincount(found.image.ravel(), minlength=found.count + 1)
    good = (sizes >= _CANDIDATE_PX[0]) & (sizes <= _CANDIDATE_PX[1])
    good[0] = False
    renumber = np.zeros(len(sizes), int)
    renumber[good] = np.arange(1, good.sum() + 1)
    return _Lesions(renumber[found.image], int(good.sum()))


def place_without_blood(labels: np.ndarray, hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(2,) x, y away from the blood of labels (H, W): on what looks like it half of the time, else in tissue."""
    return _elsewhere(_blood_like(hu, labels), labels, hu, rng)


def _elsewhere(candidates: _Lesions, labels: np.ndarray, hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(2,) x, y away from blood: on what looks like it half of the time, else anywhere in tissue."""
    if candidates.count and rng.random() < 0.5:
        return candidates.pick(rng, int(rng.integers(1, candidates.count + 1)))
    height, width = labels.shape
    for _ in range(20):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        if -20 < hu[y, x] < 100 and labels[y, x] == 0:
            return np.array([x, y], np.float32)
    flat = np.flatnonzero(labels == 0)
    y, x = np.unravel_index(flat[rng.integers(len(flat))], labels.shape)
    return np.array([x, y], np.float32)


def _rough(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask moved, grown or shrunk, and sometimes empty: what a threshold or a hasty drawing gives."""
    rough = np.roll(mask, tuple(rng.integers(-3, 4, 2)), axis=(0, 1))
    steps = int(rng.integers(-2, 4))
    if steps and rough.any():
        change = ndimage.binary_dilation if steps > 0 else ndimage.binary_erosion
        rough = change(rough, iterations=abs(steps))
    return rough.astype(np.float32)
