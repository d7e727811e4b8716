"""From probabilities on the stack to a label map on the acquired slices, with candidate rules for automatic masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.analysis import LABEL_ICH, LABEL_IVH
from ICHAnalysisLib.candidate_facts import CandidateFacts, CandidateView, log_odds, measure_candidate
from ICHAnalysisLib.config.analyze import CandidateModel, PostprocessConfig
from ICHAnalysisLib.preprocess import SliceStack, stack_to_native

#: 26-connectivity: a bleed that steps sideways from slice to slice stays one lesion.
CONNECTIVITY = np.ones((3, 3, 3), dtype=bool)
#: Log-odds of a candidate beyond which it is as good as certain; no candidate at all counts as the lowest.
_SURE = 6.0
#: Why a candidate was refused that no hard rule refuses.
UNLIKELY = "more like something else than like hemorrhage"
#: Component labels (S, H, W) and the candidates asked about, (label, box), to the log-odds of each.
Judge = Callable[[np.ndarray, list[tuple[int, tuple[slice, ...]]]], np.ndarray]


@dataclass(frozen=True)
class Candidate:
    """One connected region of an automatic mask, on the stack, and why it was kept or not."""

    label: int
    facts: CandidateFacts
    log_odds: float
    slices: tuple[int, int]
    kept: bool
    reason: str = ""

    @property
    def volume_ml(self) -> float:
        """Its volume on the stack."""
        return self.facts.volume_ml

    @property
    def mean_hu(self) -> float:
        """Its mean density."""
        return self.facts.mean_hu

    @property
    def weighed(self) -> bool:
        """Whether `CandidateModel` decides on it: no hard rule refuses it."""
        return self.kept or self.reason == UNLIKELY

    @property
    def probability(self) -> float:
        """That it is intracerebral hemorrhage."""
        return float(1 / (1 + np.exp(-self.log_odds)))


def find_candidates(
    probability: np.ndarray,
    stack: SliceStack,
    slice_presence: np.ndarray,
    brain: np.ndarray,
    rules: PostprocessConfig,
    model: CandidateModel,
    *,
    first: np.ndarray | None = None,
    ivh: np.ndarray | None = None,
    blood: np.ndarray | None = None,
    judge: Judge | None = None,
) -> tuple[np.ndarray, list[Candidate]]:
    """Components of (S, H, W) ICH `probability` at the mask threshold: (component labels, candidates).

    first, ivh: (S, H, W) the unprompted probabilities, which judge the candidates; `probability` itself and 0 where
    None. slice_presence: (S,) DTViT's probability of each stack slice, NaN where not assessed. brain: (S, H, W) bool;
    it refuses candidates that lie mostly outside, and cuts none, since its own margin is less exact than a lesion's.
    blood: (S, H, W), the volume net's blood fractions where it tells any, NaN where it does not see. judge: log-odds by
    appearance of the candidates that no hard rule refuses.
    """
    components, count = ndimage.label(probability >= rules.mask_threshold, structure=CONNECTIVITY)
    view = CandidateView(
        stack,
        components,
        probability if first is None else first,
        np.zeros_like(probability) if ivh is None else ivh,
        slice_presence,
        brain,
        blood,
    )
    boxes = ndimage.find_objects(components, max_label=count)
    facts = [measure_candidate(label, box, view) for label, box in enumerate(boxes, start=1)]
    refusals = [_refusal(fact, rules) for fact in facts]
    if judge is not None:
        asked = [n for n, reason in enumerate(refusals) if not reason]
        for n, appearance in zip(asked, judge(components, [(n + 1, boxes[n]) for n in asked]), strict=True):
            facts[n] = replace(facts[n], appearance=float(appearance))
    least = np.log(rules.lowest_probability / (1 - rules.lowest_probability))
    candidates = []
    for n, (fact, box) in enumerate(zip(facts, boxes, strict=True)):
        score = float(np.clip(log_odds(fact, model), -_SURE, _SURE))
        reason = refusals[n] or (UNLIKELY if score < least else "")
        candidates.append(Candidate(n + 1, fact, score, (box[0].start, box[0].stop - 1), not reason, reason))
    return components, candidates


def find_evidence(candidates: Sequence[Candidate]) -> float:
    """Log-odds of the likeliest candidate that no hard rule refuses; the lowest there are without one."""
    return max((c.log_odds for c in candidates if c.weighed), default=-_SURE)


def _refusal(facts: CandidateFacts, rules: PostprocessConfig) -> str:
    """The hard rule that refuses a candidate, or an empty text."""
    if facts.in_brain < rules.smallest_brain_share:
        return "outside the brain"
    if facts.volume_ml < rules.smallest_lesion_ml:
        return f"smaller than {rules.smallest_lesion_ml} mL"
    if facts.peak_probability < rules.seed_threshold:
        return f"probability never reaches {rules.seed_threshold}"
    if facts.mean_hu > rules.highest_mean_hu:
        return f"mean density {facts.mean_hu:.0f} HU: calcification"
    if facts.mean_hu < rules.lowest_mean_hu:
        return f"mean density {facts.mean_hu:.0f} HU: too low for blood"
    return ""


def keep_candidates(components: np.ndarray, candidates: list[Candidate]) -> np.ndarray:
    """Bool (S, H, W): the kept candidates, grown by two pixels so that interpolation keeps their margin."""
    kept = np.isin(components, [candidate.label for candidate in candidates if candidate.kept])
    if not kept.any():
        return kept
    plane = np.zeros((3, 3, 3), dtype=bool)
    plane[1] = True
    grown: np.ndarray = ndimage.binary_dilation(kept, structure=plane, iterations=2)
    others = (components > 0) & ~kept
    return grown & ~others


def native_labels(
    ich: np.ndarray, ivh: np.ndarray | None, stack: SliceStack, rules: PostprocessConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(S, H, W) probabilities to uint8 labels and float32 ICH probability, both (K, J, I) on the acquired slices.

    A voxel over both thresholds gets the likelier label.
    """
    ich_native = stack_to_native(ich, stack)
    labels = np.zeros(stack.volume.shape, dtype=np.uint8)
    for s in np.flatnonzero(ich.any(axis=(1, 2))):
        at = stack.native_slices[s]
        labels[at] = np.where(ich_native[at] >= rules.mask_threshold, LABEL_ICH, 0)
    if ivh is not None and ivh.max() >= rules.mask_threshold:
        reaching = ivh.max(axis=(1, 2)) >= rules.mask_threshold  # interpolation makes no probability higher
        ivh_native = stack_to_native(np.where(reaching[:, None, None], ivh, 0.0), stack)
        for s in np.flatnonzero(reaching):
            at = stack.native_slices[s]
            likelier = (ivh_native[at] >= rules.mask_threshold) & (ivh_native[at] > ich_native[at])
            labels[at] = np.where(likelier, LABEL_IVH, labels[at])
    return labels, ich_native


def clean_ivh(ivh: np.ndarray, ich_mask: np.ndarray, stack: SliceStack, rules: PostprocessConfig) -> np.ndarray:
    """IVH probability (S, H, W) without components below the smallest lesion or without any ICH in the scan.

    Isolated intraventricular blood is not assessed by these networks, so it is only reported beside an ICH.
    """
    if not ich_mask.any():
        return np.zeros_like(ivh)
    components, count = ndimage.label(ivh >= rules.mask_threshold, structure=CONNECTIVITY)
    pixel_ml = stack.pixel_volumes_ml
    per_slice = np.stack([np.bincount(plane.ravel(), minlength=count + 1) for plane in components])
    volumes = pixel_ml @ per_slice
    small = np.flatnonzero(volumes < rules.smallest_lesion_ml)
    return np.where(np.isin(components, small[small > 0]), 0.0, ivh)
