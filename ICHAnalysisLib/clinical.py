"""The clinical record of a case: validated fields, one English sentence for the text encoder, and what scores need.

Two groups of fields: known at admission, and known only in retrospect (length of stay, treatment), which leak the
outcome and enter the text only on request (decision S31). Coordinates, identifiers and free text are kept out of
every output; `ClinicalRecord` holds none but the free text a user typed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields
from typing import Any

from ICHAnalysisLib.config.preprocess import LOCATIONS
from ICHAnalysisLib.errors import UsageError

SEXES = ("male", "female")
TREATMENTS = ("conservative", "craniotomy", "minimally invasive surgery", "external ventricular drain")
CONTEXT_LENGTH = 77  # tokens of CLIP's text encoder, with start and end

#: Lowest and highest value accepted, with the unit.
RANGES: dict[str, tuple[float, float, str]] = {
    "age": (0, 120, "years"),
    "gcs": (3, 15, "points"),
    "onset_to_ct_h": (0, 720, "hours"),
    "volume_ml": (0, 400, "mL"),
    "length_of_stay_days": (0, 1000, "days"),
}
_WHOLE = ("gcs",)
#: Other names under which lists of cases hold these fields.
ALIASES = {
    "age_years": "age",
    "onset_to_ct_hours": "onset_to_ct_h",
    "cognition_impaired": "cognitive_impairment",
    "prior_cognitive_impairment": "cognitive_impairment",
    "anticoagulant": "antithrombotics",
}
_CHOICES = {"sex": SEXES, "location": LOCATIONS, "treatment": TREATMENTS}
_FLAGS = ("ivh", "cognitive_impairment", "antithrombotics")
#: Fields unknown at admission: they leak the outcome (decision S31).
RETROSPECTIVE = ("length_of_stay_days", "treatment")


@dataclass(frozen=True)
class ClinicalRecord:
    """What is known of a patient beside the scan; None where unknown.

    age in years; sex male | female; gcs: Glasgow Coma Scale 3-15; onset_to_ct_h: hours; volume_ml and location (deep |
    lobar | subtentorial): of the hemorrhage, predicted ones at inference (decision S31); length_of_stay_days and
    treatment: retrospective. ivh, cognitive_impairment (before the bleed), antithrombotics: for the scores, not in the
    text by default. text: free text in place of the sentence.

    Raises UsageError on a value outside its range, naming the field, the value and the range.
    """

    age: float | None = None
    sex: str | None = None
    gcs: int | None = None
    onset_to_ct_h: float | None = None
    location: str | None = None
    volume_ml: float | None = None
    length_of_stay_days: float | None = None
    treatment: str | None = None
    ivh: bool | None = None
    cognitive_impairment: bool | None = None
    antithrombotics: bool | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        for name, (low, high, unit) in RANGES.items():
            _check_number(name, getattr(self, name), low, high, unit)
        for name in _WHOLE:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, int(value))
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UsageError(f"Clinical record: {name} is {value!r}; it must be one of {', '.join(choices)}.")
        for name in _FLAGS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool):
                raise UsageError(f"Clinical record: {name} is {value!r}; it must be true or false.")
        if self.text is not None and not isinstance(self.text, str):
            raise UsageError(f"Clinical record: text is {self.text!r}; it must be a string.")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ClinicalRecord:
        """A record from a JSON object, also with the names of ALIASES; raises UsageError on an unknown key."""
        if not isinstance(data, dict):
            raise UsageError(f"Clinical record: expected a JSON object, got {type(data).__name__}.")
        known = [field.name for field in fields(cls)]
        data = {ALIASES.get(key, key): value for key, value in data.items()}
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise UsageError(
                f"Clinical record: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(known)}."
            )
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Known fields without the free text, which is copied into no output."""
        values = dataclasses.asdict(self)
        values.pop("text")
        return {key: value for key, value in values.items() if value is not None}

    def replace(self, **changes: Any) -> ClinicalRecord:
        """A copy with other values, validated again."""
        return dataclasses.replace(self, **changes)

    def sentence(self, retrospective: bool = False, scores: bool = False) -> str:
        """The text for the encoder: the free text where there is one, else the template (decision S32).

        retrospective: also length of stay and treatment. scores: also IVH, cognition and antithrombotics.
        Unknown fields read "unknown". With both groups numbers are whole: only then do all fields fit 77 tokens.
        """
        if self.text is not None and self.text.strip():
            return self.text.strip()
        digits = 0 if retrospective and scores else 1
        parts = [
            f"age {_number(self.age, digits)}",
            f"sex {self.sex or 'unknown'}",
            f"Glasgow Coma Scale {_number(self.gcs, digits)}",
            f"onset to CT {_number(self.onset_to_ct_h, digits, 'hours')}",
            f"location {self.location or 'unknown'}",
            f"volume {_number(self.volume_ml, digits, 'mL')}",
        ]
        if retrospective:
            parts.append(f"length of stay {_number(self.length_of_stay_days, digits, 'days')}")
            parts.append(f"treatment {self.treatment or 'unknown'}")
        if scores:
            parts.append(f"intraventricular blood {_flag(self.ivh)}")
            parts.append(f"cognitive impairment {_flag(self.cognitive_impairment)}")
            parts.append(f"antithrombotics {_flag(self.antithrombotics)}")
        return "Intracerebral hemorrhage, " + ", ".join(parts) + "."

    @property
    def is_empty(self) -> bool:
        """True where nothing at all is known."""
        return all(getattr(self, field.name) is None for field in fields(self))

    def score_inputs(self) -> dict[str, Any]:
        """What ICH Score and FUNC read: age, gcs, ivh, location, volume_ml, cognitive_impairment."""
        names = ("age", "gcs", "ivh", "location", "volume_ml", "cognitive_impairment")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class TokenizedText:
    """Token ids (77,), padded with 0, and whether the text was cut to fit."""

    ids: tuple[int, ...]
    truncated: bool


def tokenize(text: str) -> TokenizedText:
    """Ids of open_clip's SimpleTokenizer; longer text is cut after 75 tokens and said so in `truncated`."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = _tokenizer(SimpleTokenizer)
    body = tokenizer.encode(text)
    truncated = len(body) > CONTEXT_LENGTH - 2
    ids = [tokenizer.sot_token_id, *body[: CONTEXT_LENGTH - 2], tokenizer.eot_token_id]
    return TokenizedText(tuple(ids + [0] * (CONTEXT_LENGTH - len(ids))), truncated)


_TOKENIZERS: dict[type, Any] = {}


def _tokenizer(kind: type) -> Any:
    """One tokenizer a process: reading its merges takes a while."""
    if kind not in _TOKENIZERS:
        _TOKENIZERS[kind] = kind()
    return _TOKENIZERS[kind]


def template_token_ids() -> tuple[int, ...]:
    """Every token id the template can produce, in rising order; `config.ich_scnet.TEMPLATE_TOKENS` holds a copy."""
    texts = ["0123456789.", "unknown,", "unknown."]
    texts += [f"{a},{b}." for a in "0123456789" for b in ("yes", "no")]
    for name, choices in _CHOICES.items():
        texts += [ClinicalRecord.from_dict({name: choice}).sentence(True, True) for choice in choices]
    texts += [ClinicalRecord(ivh=True, antithrombotics=False, age=1, volume_ml=0.5).sentence(True, True)]
    texts += [ClinicalRecord(onset_to_ct_h=1, volume_ml=2, length_of_stay_days=3).sentence(True, True)]
    return tuple(sorted({token for text in texts for token in tokenize(text).ids} - {0}))


def _check_number(name: str, value: Any, low: float, high: float, unit: str) -> None:
    """Raise UsageError where a number is missing its range or is none."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UsageError(f"Clinical record: {name} is {value!r}; it must be a number from {low:g} to {high:g} {unit}.")
    if name in _WHOLE and value != int(value):
        raise UsageError(f"Clinical record: {name} is {value!r}; it must be a whole number of {unit}.")


def _number(value: float | None, digits: int, unit: str = "") -> str:
    """A number with at most so many decimals, or "unknown"."""
    if value is None:
        return "unknown"
    return f"{round(float(value), digits):g} {unit}".rstrip()


def _flag(value: bool | None) -> str:
    """yes, no or unknown."""
    return "unknown" if value is None else ("yes" if value else "no")
