"""`Analysis`: everything one scan yields, as frozen dataclasses that go to JSON (schema 1) and back.

Arrays (masks, heatmap, slice images) travel beside it in `AnalysisArrays` and never enter the JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.findings import Finding

SCHEMA = 1

#: Values of the label map.
LABEL_ICH, LABEL_IVH = 1, 2

RESEARCH_USE = "Research use only, not a medical device."
SUSPICION_CAVEAT = (
    "The networks suspect hemorrhage, but none could be outlined. Look at the slices; a box or a point shows where to "
    "outline."
)
NEGATIVE_CAVEAT = (
    "No intraparenchymal hemorrhage found. Subdural, epidural and subarachnoid blood, infarct and fracture are not "
    "assessed."
)
PROGNOSIS_CAVEAT = "Not a basis for limiting care, least of all in the first days."


@dataclass(frozen=True)
class Interval:
    """A number with an interval and where both come from; `value` None where it was not estimable.

    kind: what the interval is, for the reader; not every one is a confidence interval.
    """

    value: float | None
    lower: float | None = None
    upper: float | None = None
    unit: str = ""
    origin: str = ""
    kind: str = "95 % interval"


@dataclass(frozen=True)
class Presence:
    """Intraparenchymal hemorrhage or not. `slices`: probability of each acquired slice, None where not assessed."""

    probability: float
    positive: bool
    slices: tuple[float | None, ...] = ()
    threshold: float = 0.5
    origin: str = ""


@dataclass(frozen=True)
class Location:
    """`label` deep | lobar | subtentorial or None; `side` left | right | midline or None where not provable."""

    label: str | None
    side: str | None
    probabilities: dict[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Lesion:
    """One connected hemorrhage. `slices`: first and last acquired slice index (0-based, inclusive)."""

    volume_ml: float
    centroid_ras_mm: tuple[float, float, float]
    box_ras_mm: tuple[float, float, float, float, float, float]
    slices: tuple[int, int]
    mean_hu: float | None = None


@dataclass(frozen=True)
class Prognosis:
    """One prognosis: the probability of `event`, its origin and its caveat; None with a `reason` where not given."""

    probability: float | None
    event: str
    origin: str
    caveat: str = PROGNOSIS_CAVEAT
    score: int | None = None
    score_range: tuple[int, int] | None = None
    probability_range: tuple[float, float] | None = None
    items: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class WeightsInfo:
    """Which weights answered."""

    network: str
    name: str
    sha256: str
    trained_on: str


@dataclass(frozen=True)
class Analysis:
    """The whole answer for one scan. Contains no patient identifier and no free clinical text."""

    status: str  # ok | blocked
    findings: tuple[Finding, ...] = ()
    input: dict[str, Any] = field(default_factory=dict)
    presence: Presence | None = None
    location: Location | None = None
    lesions: tuple[Lesion, ...] = ()
    volumes_ml: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)  # by the key of volumes_ml or prognosis
    abc2_lines: tuple[dict[str, Any], ...] = ()  # per lesion: A, B, C in cm, index slice, end points in RAS mm
    measurements: dict[str, Any] = field(default_factory=dict)  # shape, density, midline shift ...
    prognosis: dict[str, Prognosis] = field(default_factory=dict)  # slice_network, scan_network, ich_score, func
    mode: str = "automatic"  # automatic | prompted | edited
    weights: tuple[WeightsInfo, ...] = ()
    device: str = "cpu"
    timings_s: dict[str, float] = field(default_factory=dict)
    version: str = ""
    message: str = ""  # one sentence for the reader: the outcome, or why it is blocked
    case_id: str = ""
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        data = to_dict(replace(self, findings=()))
        data["findings"] = [finding.to_dict() for finding in self.findings]
        return data

    def to_json(self) -> str:
        """The text of analysis.json."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Analysis:
        """The inverse of `to_dict`; raises UsageError on another schema or an unknown key."""
        if data.get("schema") != SCHEMA:
            raise UsageError(f"analysis.json has schema {data.get('schema')!r}; this version reads schema {SCHEMA}.")
        unknown = sorted(set(data) - {item.name for item in fields(cls)})
        if unknown:
            raise UsageError(f"analysis.json: unknown key {', '.join(unknown)}.")
        values = dict(data)
        values["findings"] = tuple(Finding.from_dict(item) for item in data.get("findings", ()))
        for name, part in (("presence", Presence), ("location", Location)):
            if values.get(name) is not None:
                values[name] = part(**_tuples(values[name]))
        values["lesions"] = tuple(Lesion(**_tuples(item)) for item in data.get("lesions", ()))
        values["weights"] = tuple(WeightsInfo(**item) for item in data.get("weights", ()))
        values["prognosis"] = {key: Prognosis(**_tuples(item)) for key, item in data.get("prognosis", {}).items()}
        values["intervals"] = {key: Interval(**item) for key, item in data.get("intervals", {}).items()}
        values["abc2_lines"] = tuple(data.get("abc2_lines", ()))
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> Analysis:
        """The inverse of `to_json`."""
        return cls.from_dict(json.loads(text))


@dataclass(frozen=True, eq=False)
class AnalysisArrays:
    """Arrays that belong to an `Analysis`, all on the acquired slices, (K, J, I).

    labels: uint8, 0 background, 1 ICH, 2 IVH. heatmap: float32 in [0, 1], model attention, or None.
    probability: float32 in [0, 1], ICH-SCNet's foreground probability, or None.
    """

    labels: np.ndarray
    heatmap: np.ndarray | None = None
    probability: np.ndarray | None = None


def _tuples(item: dict[str, Any]) -> dict[str, Any]:
    """JSON lists back to tuples, as the dataclasses hold them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
