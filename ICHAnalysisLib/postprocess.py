"""From probabilities on the stack to a label map on the acquired slices, with candidate rules for automatic masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.analysis import LABEL_ICH, LABEL_IVH
from ICHAnalysisLib.config.analyze import PostprocessConfig
from ICHAnalysisLib.preprocess import SliceStack, stack_to_native

#: 26-connectivity: a bleed that steps sideways from slice to slice stays one lesion.
CONNECTIVITY = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class Candidate:
    """One connected region of an automatic mask, on the stack, and why it was kept or not."""

    label: int
    volume_ml: float
    peak_probability: float
    mean_probability: float
    mean_hu: float
    slices: tuple[int, int]
    kept: bool
    reason: str = ""

    @property
    def evidence(self) -> float:
        """Evidence for hemorrhage: grows with size and confidence, 0 for nothing."""
        return float(np.log1p(self.volume_ml / 0.1) * self.mean_probability)


def find_candidates(
    probability: np.ndarray,
    stack: SliceStack,
    slice_presence: np.ndarray,
    brain: np.ndarray,
    rules: PostprocessConfig,
    first: np.ndarray | None = None,
) -> tuple[np.ndarray, list[Candidate]]:
    """Components of (S, H, W) ICH `probability` at the mask threshold: (component labels, candidates).

    first: (S, H, W) the unprompted probability, which judges the candidates; `probability` itself where None.
    slice_presence: (S,) DTViT's probability of each stack slice, NaN where not assessed. brain: (S, H, W) bool; it
    refuses candidates that lie mostly outside, and cuts none, since its own margin is less exact than a lesion's.
    """
    components, count = ndimage.label(probability >= rules.mask_threshold, structure=CONNECTIVITY)
    judge = probability if first is None else first
    candidates = []
    for label, box in enumerate(ndimage.find_objects(components, max_label=count), start=1):
        facts = _measure(components[box] == label, box, judge, stack, slice_presence, brain, rules)
        reason = _refusal(facts, rules)
        candidates.append(
            Candidate(
                label,
                facts.volume_ml,
                facts.peak,
                facts.mean,
                facts.mean_hu,
                (box[0].start, box[0].stop - 1),
                not reason,
                reason,
            )
        )
    return components, candidates


@dataclass(frozen=True)
class _Facts:
    """What a candidate is judged by. height_share: its height over the diameter of its largest section.

    near_skull: share of its voxels close to the skull; 0 where it is too small for that rule.
    """

    volume_ml: float
    peak: float
    mean: float
    mean_hu: float
    presence: float
    in_brain: float
    height_share: float
    near_skull: float


def _measure(
    inside: np.ndarray,
    box: tuple[slice, ...],
    judge: np.ndarray,
    stack: SliceStack,
    slice_presence: np.ndarray,
    brain: np.ndarray,
    rules: PostprocessConfig,
) -> _Facts:
    """Facts of the candidate that fills `inside` of the stack's part `box`."""
    values = judge[box][inside]
    areas = inside.sum(axis=(1, 2))
    volume = float(areas @ stack.pixel_volumes_ml[box[0]])
    presence = slice_presence[box[0]]
    presence = presence[np.isfinite(presence)]
    diameter = 2 * np.sqrt(areas.max() * stack.spacing_mm[0] * stack.spacing_mm[1] / np.pi)
    large = volume >= rules.large_ml
    return _Facts(
        volume,
        float(values.max()),
        float(values.mean()),
        float(stack.hu[box][inside].mean()),
        float(presence.max()) if presence.size else 1.0,
        float(brain[box][inside].mean()),
        float(np.sum(stack.heights_mm[box[0]]) / diameter),
        _near_skull(inside, box, brain, stack.spacing_mm, rules.skull_distance_mm) if large else 0.0,
    )


def _near_skull(
    inside: np.ndarray,
    box: tuple[slice, ...],
    brain: np.ndarray,
    spacing_mm: tuple[float, float],
    distance_mm: float,
) -> float:
    """Share of a candidate's voxels closer than so many mm to the edge of the brain in their slice."""
    near = 0
    for plane, s in zip(inside, range(box[0].start, box[0].stop), strict=True):
        depth = ndimage.distance_transform_edt(brain[s], sampling=spacing_mm)
        near += int(np.count_nonzero(depth[box[1:]][plane] < distance_mm))
    return near / float(inside.sum())


def _refusal(facts: _Facts, rules: PostprocessConfig) -> str:
    """Why a candidate is not hemorrhage, or an empty text."""
    if facts.in_brain < rules.smallest_brain_share:
        return "outside the brain"
    if facts.volume_ml < rules.smallest_lesion_ml:
        return f"smaller than {rules.smallest_lesion_ml} mL"
    if facts.peak < rules.seed_threshold:
        return f"probability never reaches {rules.seed_threshold}"
    lowest = rules.lowest_mean_probability if facts.volume_ml >= rules.large_ml else rules.lowest_small_mean
    if facts.mean < lowest:
        return f"mean probability below {lowest}"
    if facts.mean_hu > rules.highest_mean_hu:
        return f"mean density {facts.mean_hu:.0f} HU: calcification"
    if facts.mean_hu < rules.lowest_mean_hu:
        return f"mean density {facts.mean_hu:.0f} HU: too low for blood"
    if facts.height_share < rules.lowest_height_share:
        return "too flat for a clot: an artifact or dura"
    if facts.near_skull > rules.highest_skull_share:
        return "along the skull: outside the brain's substance"
    if facts.presence < rules.slice_gate:
        return "no slice of it looks like hemorrhage to DTViT"
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
