"""What an analysis decides beyond the networks; the only place of these defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from ICHAnalysisLib.errors import UsageError


@dataclass(frozen=True)
class PostprocessConfig:
    """Rules from probabilities to lesions, chosen on simulated scans alone."""

    mask_threshold: float = 0.5
    seed_threshold: float = 0.7  # a lesion must reach this somewhere
    smallest_lesion_ml: float = 0.1
    highest_mean_hu: float = 110.0  # above it a candidate is calcification (hazard 41)
    lowest_mean_hu: float = 38.0  # below it an automatic candidate is no blood
    lowest_mean_probability: float = 0.85  # of the first, unprompted answer over an automatic candidate
    lowest_small_mean: float = 0.905  # the same below `large_ml`, where look-alikes are many
    large_ml: float = 5.0
    lowest_height_share: float = 0.35  # height over the diameter of the largest section; flatter is artifact or dura
    skull_distance_mm: float = 6.0  # a voxel closer to the brain's edge lies along the skull
    highest_skull_share: float = 0.35  # of a large candidate that may lie there; small clots may be superficial
    smallest_brain_share: float = 0.5  # of a candidate's voxels that must lie inside the skull
    slice_gate: float = 0.02  # a lesion needs a slice that DTViT gives at least this probability

    def __post_init__(self) -> None:
        if not 0 < self.mask_threshold < 1 or not 0 < self.seed_threshold < 1:
            raise UsageError(
                f"Postprocessing: thresholds {self.mask_threshold} and {self.seed_threshold} must lie between 0 and 1."
            )


@dataclass(frozen=True)
class ProposalConfig:
    """How box prompts are proposed from the first, unprompted answer; chosen on simulated scans alone."""

    low: float = 0.15  # probability from which a pixel belongs to a region
    high: float = 0.4  # that a region must reach to be boxed
    dense_hu: tuple[float, float] = (47.0, 95.0)  # smoothed HU of tissue that may belong to it
    margin_px: int = 3  # distance of that tissue from the skull
    smallest_px: int = 8
    padding_px: int = 2
    growth_px: int = 5  # how far beyond `low` the boxed answer may reach: a box alone is no evidence
    weight: float = 0.25  # of the boxed answer where it says more than the first, which is the better one alone
    largest: int = 4  # boxes a slice, as many as in training


@dataclass(frozen=True)
class FusionConfig:
    """Presence of a scan: logistic of both networks' evidence (coefficients fitted on simulated scans)."""

    slice_logit: float = 1.2  # weight of the mean logit of DTViT's three highest slices
    lesion_evidence: float = 1.4  # weight of log(1 + mL / 0.1) times mean probability of the largest lesion
    intercept: float = -3.97
    threshold: float = 0.5


@dataclass(frozen=True)
class AnalyzeOptions:
    """Choices of one analysis. The defaults are what a clinician gets."""

    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    heatmap: bool = True
    intervals: bool = True  # how far the outline's volume depends on its threshold
    variations: bool = False  # instead: how volume and prognosis change on five mirrored or shifted copies
    simulated_prognosis: bool = False  # show probabilities learned from simulated outcomes on real scans too
    accept: bool = False  # accept what is asked (--yes)
    device: str = "auto"
    weights: str | None = None  # folder of other weights
    case_id: str = ""
