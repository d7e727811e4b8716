"""The stages of an analysis: what each network sees and says, on the stack, and how the answers are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ICHAnalysisLib.analysis import Interval
from ICHAnalysisLib.config.analyze import AnalyzeOptions, FusionConfig
from ICHAnalysisLib.config.preprocess import LOCATIONS, PreprocessConfig
from ICHAnalysisLib.ct.head import brain_mask
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.location import scan_presence
from ICHAnalysisLib.postprocess import (
    Candidate,
    clean_ivh,
    find_candidates,
    find_evidence,
    keep_candidates,
    native_labels,
)
from ICHAnalysisLib.preprocess import SliceStack, make_stack, native_to_stack
from ICHAnalysisLib.proposals import propose_boxes
from ICHAnalysisLib.variations import vary

if TYPE_CHECKING:
    import torch

    from ICHAnalysisLib.clinical import ClinicalRecord
    from ICHAnalysisLib.predict import Models, VolumeAnswer
    from ICHAnalysisLib.prompt_projection import StackPrompts
    from ICHAnalysisLib.prompts import Prompts
    from ICHAnalysisLib.segmentation_session import SegmentationSession

#: A slice with less brain than this is not looked at (neck, vertex, air), mm2.
SMALLEST_BRAIN_MM2 = 400.0


class Evidence:
    """The scan as every network reads it: stacks made once for each distinct preprocessing, and the brain."""

    def __init__(self, volume: CTVolume) -> None:
        self.volume = volume
        self._stacks: dict[tuple, SliceStack] = {}
        self._brains: dict[int, np.ndarray] = {}

    @classmethod
    def of(cls, volume: CTVolume, models: Models) -> Evidence:
        """The evidence with the stacks of all three networks prepared."""
        evidence = cls(volume)
        for network in models.networks:
            evidence.stack(network.preprocess)
        return evidence

    def stack(self, cfg: PreprocessConfig) -> SliceStack:
        """The stack for `cfg`; networks that agree on grid and slabs share one."""
        # A scan network reads the slice networks' grid and reduces it by whole blocks.
        key = (cfg.spacing_mm, cfg.size, cfg.layout, cfg.slab_mm, cfg.remove_holder)
        if cfg.depth is not None and self._stacks:
            return next(iter(self._stacks.values()))
        if key not in self._stacks:
            self._stacks[key] = make_stack(self.volume, cfg)
        return self._stacks[key]

    @cached_property
    def brain_native(self) -> np.ndarray:
        """(K, J, I) bool; everything inside the head where no brain could be told apart."""
        return brain_mask(self.volume)

    def brain(self, stack: SliceStack) -> np.ndarray:
        """(S, H, W) bool brain on a stack, found once for each stack of this evidence."""
        if id(stack) not in self._brains:
            brain = native_to_stack(self.brain_native, stack) > 0.5
            self._brains[id(stack)] = brain if brain.any() else stack.head
        return self._brains[id(stack)]

    def brain_slices(self, stack: SliceStack) -> np.ndarray:
        """Indices of the stack's slices from the lowest to the highest that holds brain."""
        area = self.brain(stack).sum(axis=(1, 2)) * stack.spacing_mm[0] * stack.spacing_mm[1]
        found = np.flatnonzero(area >= SMALLEST_BRAIN_MM2)
        return np.arange(found[0], found[-1] + 1) if found.size else found


@dataclass(frozen=True, eq=False)
class SliceAnswer:
    """DTViT on the stack. presence (S,), NaN where not looked at; location (S, 3) probabilities."""

    stack: SliceStack
    presence: np.ndarray
    location: np.ndarray

    @property
    def scan_probability(self) -> float:
        """Mean of the three highest slices (decision V16)."""
        return scan_presence(self.presence)

    def native_presence(self) -> tuple[float | None, ...]:
        """Probability of each acquired slice."""
        values = self.presence[self.stack.slice_of_native()]
        return tuple(None if not np.isfinite(value) else round(float(value), 4) for value in values)

    def native_location(self) -> np.ndarray:
        """(K, 3) location probabilities of each acquired slice."""
        return self.location[self.stack.slice_of_native()]


@dataclass(frozen=True, eq=False)
class Segmented:
    """ICH-SCNet's answer on the acquired slices, and what was decided about it."""

    labels: np.ndarray
    probability: np.ndarray
    positive: bool
    presence: float
    mode: str
    poor_probability: float | None
    interval: Interval | None
    poor_interval: Interval | None = None
    candidates: tuple[Candidate, ...] = ()
    findings: tuple[Finding, ...] = field(default=())


def see_slices(evidence: Evidence, models: Models) -> SliceAnswer:
    """DTViT on every slice that holds brain."""
    stack = evidence.stack(models.dtvit.preprocess)
    indices = evidence.brain_slices(stack)
    presence = np.full(stack.hu.shape[0], np.nan)
    location = np.full((stack.hu.shape[0], len(LOCATIONS)), np.nan)
    if indices.size:
        presence[indices], location[indices] = models.dtvit.predict(stack.hu, indices)
    return SliceAnswer(stack, presence, location)


@dataclass(frozen=True, eq=False)
class Proposed:
    """What ICH-SCNet and the margin net outline by themselves, before anything is decided.

    ich, ivh: (S, H, W) probabilities, the first answer raised inside the boxes that it proposed. components: int
    (S, H, W), labels of `candidates`.
    """

    session: SegmentationSession
    ich: np.ndarray
    ivh: np.ndarray
    boxes: StackPrompts
    components: np.ndarray
    candidates: list[Candidate]


def propose_lesions(
    evidence: Evidence,
    slices: SliceAnswer,
    scan: VolumeAnswer,
    models: Models,
    text: torch.Tensor | None,
    options: AnalyzeOptions,
) -> Proposed:
    """Both segmenting networks on every slice that holds brain, without a user's prompts.

    slices, scan: what the other two networks said, by which candidates are judged. text: (1, 77) token ids or None.
    """
    stack = evidence.stack(models.ich_scnet.preprocess)
    brain, indices = evidence.brain(stack), evidence.brain_slices(stack)
    session = models.session(stack, text)
    first, first_ivh = np.zeros(stack.hu.shape, np.float32), np.zeros(stack.hu.shape, np.float32)
    if indices.size:
        first[indices], first_ivh[indices] = session.unprompted(indices)
    boxes = propose_boxes(first, brain, stack, options.proposals)
    ich, ivh = session.refined(first, first_ivh, boxes, options.proposals)
    components, candidates = find_candidates(
        ich,
        stack,
        slices.presence,
        brain,
        options.postprocess,
        options.candidates,
        first=first,
        ivh=first_ivh,
        blood=scan.blood,
        judge=models.candidate_net.judge(stack),
    )
    return Proposed(session, ich, ivh, boxes, components, candidates)


def segment(
    evidence: Evidence,
    slices: SliceAnswer,
    scan: VolumeAnswer,
    models: Models,
    prompts: Prompts | None,
    clinical: ClinicalRecord | None,
    text: str | None,
    options: AnalyzeOptions,
    seen: Proposed | None = None,
) -> Segmented:
    """Masks of all slices: proposed automatically, or inside the user's boxes and at the user's points.

    seen: what `propose_lesions` said about this scan and text, where it was asked before.
    """
    seen = seen or propose_lesions(evidence, slices, scan, models, models.ich_scnet.text(clinical, text), options)
    session, stack, ivh, candidates = seen.session, seen.session.stack, seen.ivh, seen.candidates
    presence = fused_presence(slices.scan_probability, candidates, options.fusion)
    automatic = presence >= options.fusion.threshold
    shown = keep_candidates(seen.components, candidates) if automatic else np.zeros(seen.ich.shape, bool)
    ich_auto = session.settled(np.where(seen.components > 0, seen.ich * shown, seen.ich), ivh, shown)
    findings: list[Finding] = []
    if prompts is not None and not prompts.empty:
        ich_final, ivh = session.prompted(prompts, ich_auto, ivh)
        mode = "prompted"
        findings += _prompt_findings(ich_final, automatic, options)
    else:
        ich_final, mode = ich_auto, "automatic"
        findings += candidate_findings(candidates)
    mask = ich_final >= options.postprocess.mask_threshold
    outlined = np.flatnonzero(mask.any(axis=(1, 2))).tolist()
    ivh = clean_ivh(ivh * evidence.brain(stack), mask, stack, options.postprocess)
    labels, probability = native_labels(ich_final, ivh, stack, options.postprocess)
    interval = poor_interval = None
    if options.variations and mask.any():
        varied = vary(session, ich_final, seen.boxes, prompts, options)
        interval, poor_interval = varied.volume_interval(), varied.poor_interval()
    elif options.intervals and mask.any():
        interval = session.volume_interval(ich_final, outlined, options.postprocess.mask_threshold)
    poor = session.poor_probability(outlined, mask) if mask.any() else None
    return Segmented(
        labels=labels,
        probability=probability,
        positive=bool(mask.any()),
        presence=presence,
        mode=mode,
        poor_probability=poor,
        interval=interval,
        poor_interval=poor_interval,
        candidates=tuple(candidates),
        findings=tuple(findings),
    )


def see_scan(evidence: Evidence, models: Models, want_heatmap: bool) -> VolumeAnswer:
    """The volume net on the whole scan."""
    return models.volume_net.predict(evidence.stack(models.volume_net.preprocess), want_heatmap)


def fused_presence(slice_probability: float, candidates: Sequence[Candidate], fusion: FusionConfig) -> float:
    """Probability of hemorrhage in the scan from DTViT's slices and the likeliest candidate."""
    clipped = float(np.clip(slice_probability, 1e-4, 1 - 1e-4))
    lesion = fusion.lesion_evidence * find_evidence(candidates)
    score = fusion.slice_logit * np.log(clipped / (1 - clipped)) + lesion + fusion.intercept
    return float(1 / (1 + np.exp(-np.clip(score, -30, 30))))


def candidate_findings(candidates: Sequence[Candidate]) -> list[Finding]:
    """Calcifications that were listed and not counted (hazard 41)."""
    calcified = [c for c in candidates if not c.kept and "calcification" in c.reason]
    if not calcified:
        return []
    volume = sum(c.volume_ml for c in calcified)
    return [
        Finding(
            "calcified_candidates",
            Level.NOTE,
            f"{len(calcified)} dense candidate(s), {volume:.1f} mL together, look calcified and are not counted.",
            "Check them in a bone window.",
            41,
        )
    ]


def _prompt_findings(ich: np.ndarray, automatic: bool, options: AnalyzeOptions) -> list[Finding]:
    """What to say where prompts and the automatic reading differ."""
    drawn = bool((ich >= options.postprocess.mask_threshold).any())
    if drawn and not automatic:
        return [
            Finding(
                "prompt_only",
                Level.NOTE,
                "Without the prompts no hemorrhage was found; the outline rests on them.",
                "Check that the outlined tissue is blood.",
            )
        ]
    if not drawn:
        return [
            Finding(
                "prompt_empty",
                Level.NOTE,
                "Nothing inside the prompts looks like hemorrhage; the segmentation is empty.",
                "Move or enlarge the box, add a positive point, or outline by hand.",
            )
        ]
    return []
