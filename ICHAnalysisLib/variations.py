"""The same scan shown to ICH-SCNet in other ways: what changes with the showing is not known about the scan.

Flips and small shifts of every slice, its prompts with it, and the answer brought back. The range of the volume and of
the prognosis over these copies is no confidence interval; a wide one says that the outline should be checked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.analysis import Interval
from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.prompt_projection import StackPrompts
from ICHAnalysisLib.prompts import Prompts, SlicePrompts

if TYPE_CHECKING:
    import torch

    from ICHAnalysisLib.segmentation_session import SegmentationSession

KIND = "range over copies"
#: How far from the outline an answer for a copy may reach, pixels; and how many slices above and below.
_REACH_PX, _REACH_SLICES = 10, 1


@dataclass(frozen=True)
class Variation:
    """One way to show a slice: mirrored left to right or not, then moved by whole pixels (down, right)."""

    mirrored: bool = False
    rows: int = 0
    columns: int = 0

    def image(self, image: torch.Tensor) -> torch.Tensor:
        """(..., H, W) as the network is to see it; what leaves on one side, air in a head scan, enters on the other."""
        import torch

        shown = torch.flip(image, dims=(-1,)) if self.mirrored else image
        return torch.roll(shown, (self.rows, self.columns), dims=(-2, -1))

    def back(self, answer: np.ndarray) -> np.ndarray:
        """(..., H, W) answer on the slice as it was: the inverse of `image`."""
        moved = np.roll(answer, (-self.rows, -self.columns), axis=(-2, -1))
        return moved[..., ::-1] if self.mirrored else moved

    def prompts(self, given: SlicePrompts, size: tuple[int, int]) -> SlicePrompts:
        """The prompts at the places where `image` puts what they mark; size: (height, width)."""
        height, width = size
        boxes, points = given.boxes.copy(), given.points.copy()
        if self.mirrored:
            boxes[:, [0, 2]] = width - 1 - boxes[:, [2, 0]]
            points[:, 0] = width - 1 - points[:, 0]
        boxes += np.array([self.columns, self.rows] * 2, boxes.dtype)
        points += np.array([self.columns, self.rows], points.dtype)
        corner = np.array([width - 1, height - 1])
        mask = None
        if given.mask is not None:
            shown = given.mask[..., ::-1] if self.mirrored else given.mask
            mask = np.roll(shown, (self.rows, self.columns), axis=(-2, -1))
        return SlicePrompts(
            np.clip(boxes, 0, np.tile(corner, 2)).astype(boxes.dtype),
            np.clip(points, 0, corner).astype(points.dtype),
            given.point_labels,
            mask,
        )


#: Five copies beside the scan as it is; the shifts are no multiples of the towers' patches.
VARIATIONS = (
    Variation(mirrored=True),
    Variation(rows=3, columns=2),
    Variation(rows=-2, columns=-3),
    Variation(mirrored=True, rows=-3, columns=2),
    Variation(mirrored=True, rows=2, columns=-3),
)


@dataclass(frozen=True)
class Varied:
    """What was found on the scan as it is, first, and on its copies. poor: None where there is no prognosis."""

    volumes_ml: tuple[float, ...]
    poor: tuple[float | None, ...]

    def volume_interval(self) -> Interval:
        """The volume with its range, mL."""
        return Interval(
            round(self.volumes_ml[0], 3),
            round(min(self.volumes_ml), 3),
            round(max(self.volumes_ml), 3),
            "mL",
            _origin(len(self.volumes_ml) - 1),
            KIND,
        )

    def poor_interval(self) -> Interval | None:
        """The probability of a poor outcome with its range; None where the scan as it is has none."""
        known = [value for value in self.poor if value is not None]
        if self.poor[0] is None:
            return None
        value, low, high = (round(number, 4) for number in (self.poor[0], min(known), max(known)))
        return Interval(value, low, high, "", _origin(len(known) - 1), KIND)


def _origin(copies: int) -> str:
    return f"range over the scan and {copies} mirrored or shifted copies; no confidence interval"


def vary(
    session: SegmentationSession,
    ich: np.ndarray,
    proposed: StackPrompts,
    prompts: Prompts | None,
    options: AnalyzeOptions,
) -> Varied:
    """The answer for each copy, on the way that led to `ich` (S, H, W), the final probability of the scan as it is.

    proposed, prompts: what the scan as it is was asked with. Copies answer around its outline alone: each lesion may
    grow, shrink or vanish, and no other is added. Costs the towers and the network five times on the outline's slices.
    """
    threshold = options.postprocess.mask_threshold
    outline = ich >= threshold
    near = _near(outline)
    slices = np.flatnonzero(near.any(axis=(1, 2)))
    only = replace(proposed, boxed=proposed.boxed & near.any(axis=(1, 2)))
    pixel_ml = session.stack.pixel_volumes_ml
    volumes = [float(np.count_nonzero(outline, axis=(1, 2)) @ pixel_ml)]
    poor = [session.poor_probability(slices.tolist(), outline)]
    for variation in VARIATIONS:
        other = session.varied(variation)
        first, ivh = np.zeros_like(ich), np.zeros_like(ich)
        first[slices], ivh[slices] = other.unprompted(slices)
        answer, ivh = other.refined(first, ivh, only, options.proposals)
        if prompts is not None and not prompts.empty:
            answer, _ = other.prompted(prompts, answer, ivh)
        else:
            answer = other.settled(answer, ivh, near)
        found = (answer >= threshold) & near
        volumes.append(float(np.count_nonzero(found, axis=(1, 2)) @ pixel_ml))
        poor.append(other.poor_probability(slices.tolist(), found))
    return Varied(tuple(volumes), tuple(poor))


def _near(outline: np.ndarray) -> np.ndarray:
    """(S, H, W) bool: the outline and what lies close to it, in its slices and next to them."""
    grown = np.zeros_like(outline)
    for s in np.flatnonzero(outline.any(axis=(1, 2))):
        disc = ndimage.distance_transform_edt(~outline[s]) <= _REACH_PX
        for k in range(max(0, s - _REACH_SLICES), min(len(outline), s + _REACH_SLICES + 1)):
            grown[k] |= disc
    return grown


__all__ = ["VARIATIONS", "Variation", "Varied", "vary"]
