"""What a region that may be hemorrhage is judged by: its size, confidence, density and place.

All of it a reader would name too; `CandidateModel` weighs it. S slices, H rows, W columns of the stack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.config.analyze import CandidateModel
from ICHAnalysisLib.preprocess import SliceStack

#: A voxel closer to the edge of the brain lies along the skull.
_SKULL_MM = 6.0
#: Probabilities this close to 0 and 1 are as good as certain.
_FLOOR = 1e-3
#: Blood fractions below this are as good as none; and the one that speaks neither for nor against a candidate, which
#: stands where the volume net tells none.
_BLOOD_FLOOR, NEUTRAL_BLOOD = 0.01, 0.09


@dataclass(frozen=True, eq=False)
class CandidateView:
    """What candidates are measured on, all on one stack.

    components: int (S, H, W), every candidate's label. ich, ivh: (S, H, W) the unprompted probabilities.
    slice_presence: (S,) DTViT's probability, NaN where it did not look. brain: bool (S, H, W). blood: (S, H, W), the
    volume net's blood fraction of the cell around each voxel, NaN where it sees none; or None.
    """

    stack: SliceStack
    components: np.ndarray
    ich: np.ndarray
    ivh: np.ndarray
    slice_presence: np.ndarray
    brain: np.ndarray
    blood: np.ndarray | None = None


@dataclass(frozen=True)
class CandidateFacts:
    """One candidate. presence: DTViT's highest probability among its slices, 1 where it looked at none of them.

    in_brain, near_skull: shares of its voxels inside the brain, and closer than 6 mm to the brain's edge in their
    slice. height_mm: of the slices it reaches. scan_blood: the highest blood fraction that the volume net gives a cell
    it reaches into. appearance: the candidate net's log-odds, 0 where it was not asked.
    """

    volume_ml: float
    peak_probability: float
    mean_probability: float
    mean_ivh_probability: float
    mean_hu: float
    presence: float
    in_brain: float
    near_skull: float
    height_mm: float
    scan_blood: float = NEUTRAL_BLOOD
    appearance: float = 0.0

    def terms(self) -> dict[str, float]:
        """What `CandidateModel` weighs, by its fields."""
        presence = min(max(self.presence, _FLOOR), 1 - _FLOOR)
        log_volume = float(np.log(self.volume_ml))
        return {
            "log_volume": log_volume,
            "log_doubt": float(np.log(max(1 - self.mean_probability, _FLOOR))),
            "slice_logit": float(np.log(presence / (1 - presence))),
            "ivh": self.mean_ivh_probability,
            "near_skull": self.near_skull,
            "near_skull_volume": self.near_skull * log_volume,
            "log_height": float(np.log(self.height_mm)),
            "scan_blood": float(np.log((self.scan_blood + _BLOOD_FLOOR) / (NEUTRAL_BLOOD + _BLOOD_FLOOR))),
            "appearance": self.appearance,
        }


def log_odds(facts: CandidateFacts, model: CandidateModel) -> float:
    """Log-odds that a candidate is intracerebral hemorrhage."""
    return model.intercept + sum(getattr(model, name) * value for name, value in facts.terms().items())


def measure_candidate(label: int, box: tuple[slice, ...], view: CandidateView) -> CandidateFacts:
    """Facts of the candidate `label` that fills a part of `box` of the stack."""
    stack = view.stack
    inside = view.components[box] == label
    areas = inside.sum(axis=(1, 2))
    values = view.ich[box][inside]
    presence = view.slice_presence[box[0]]
    presence = presence[np.isfinite(presence)]
    wide = _around(box, stack)
    return CandidateFacts(
        volume_ml=float(areas @ stack.pixel_volumes_ml[box[0]]),
        peak_probability=float(values.max()),
        mean_probability=float(values.mean()),
        mean_ivh_probability=float(view.ivh[box][inside].mean()),
        mean_hu=float(stack.hu[box][inside].mean()),
        presence=float(presence.max()) if presence.size else 1.0,
        in_brain=float(view.brain[box][inside].mean()),
        near_skull=_near_skull(view.components[wide] == label, view.brain[wide], stack.spacing_mm),
        height_mm=float(np.sum(stack.heights_mm[box[0]])),
        scan_blood=_most_blood(view, box, inside),
    )


def _most_blood(view: CandidateView, box: tuple[slice, ...], inside: np.ndarray) -> float:
    """The highest of the volume net's blood fractions in a candidate; `NEUTRAL_BLOOD` where it sees none of it."""
    if view.blood is None:
        return NEUTRAL_BLOOD
    known = view.blood[box][inside]
    known = known[np.isfinite(known)]
    return float(known.max()) if known.size else NEUTRAL_BLOOD


def _around(box: tuple[slice, ...], stack: SliceStack) -> tuple[slice, ...]:
    """The box widened in plane by more than what counts as near."""
    sides = []
    for side, size, step in zip(box[1:], stack.hu.shape[1:], stack.spacing_mm[::-1]):
        pad = int(_SKULL_MM / step) + 2
        sides.append(slice(max(0, side.start - pad), min(size, side.stop + pad)))
    return (box[0], *sides)


def _near_skull(inside: np.ndarray, brain: np.ndarray, spacing_mm: tuple[float, float]) -> float:
    """Share of a candidate's voxels closer than `_SKULL_MM` to the edge of the brain in their slice.

    The edge of the window is no edge of the brain: it is further away than what counts as near.
    """
    near = 0
    for here, whole in zip(inside, brain, strict=True):
        if not whole.all():  # a distance transform of a plane without background measures nothing
            near += int(
                np.count_nonzero(ndimage.distance_transform_edt(whole, sampling=spacing_mm[::-1])[here] < _SKULL_MM)
            )
    return near / float(inside.sum())
