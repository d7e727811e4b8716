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
    smallest_brain_share: float = 0.5  # of a candidate's voxels that must lie inside the skull
    lowest_probability: float = 0.3  # that an automatic candidate is hemorrhage, by `CandidateModel`

    def __post_init__(self) -> None:
        thresholds = (self.mask_threshold, self.seed_threshold, self.lowest_probability)
        if not all(0 < threshold < 1 for threshold in thresholds):
            raise UsageError(f"Postprocessing: thresholds {thresholds} must lie between 0 and 1.")


@dataclass(frozen=True)
class CandidateModel:
    """Log-odds that a candidate is hemorrhage: a logistic regression over `CandidateFacts.terms`.

    Fitted on candidates of simulated scans by `Training.candidate_fit`; weights of terms as they are, not standardized.
    """

    intercept: float = -1.3614
    log_volume: float = 0.2662  # of the volume in mL
    log_doubt: float = -1.6041  # of 1 minus the mean unprompted probability
    slice_logit: float = 0.1772  # of DTViT's surest slice
    ivh: float = -3.5593  # mean probability of ventricular blood
    near_skull: float = -3.2923  # share of it along the skull
    near_skull_volume: float = -3.1567  # the same times `log_volume`: large collections there are outside the brain
    log_height: float = -0.2424  # of the height in mm
    scan_blood: float = 0.6669  # of the volume net's highest blood fraction there
    appearance: float = 0.5847  # the candidate net's log-odds


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
    """Presence of a scan: logistic of the networks' evidence (coefficients fitted on simulated scans)."""

    slice_logit: float = 0.0  # weight of the mean logit of DTViT's three highest slices; candidates hold all it adds
    lesion_evidence: float = 0.644  # weight of the log-odds of the likeliest candidate
    intercept: float = 0.572
    threshold: float = 0.7


@dataclass(frozen=True)
class AnalyzeOptions:
    """Choices of one analysis. The defaults are what a clinician gets."""

    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    candidates: CandidateModel = field(default_factory=CandidateModel)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    heatmap: bool = True
    intervals: bool = True  # how far the outline's volume depends on its threshold
    variations: bool = False  # instead: how volume and prognosis change on five mirrored or shifted copies
    simulated_prognosis: bool = False  # show probabilities learned from simulated outcomes on real scans too
    accept: bool = False  # accept what is asked (--yes)
    device: str = "auto"
    weights: str | None = None  # folder of other weights
    case_id: str = ""
