"""ICH Score and FUNC with their published probabilities (definitions 3.3 and 3.4).

An item that is missing gives the range of possible scores, never a score. Refused below 18 years: neither was made
for children.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ICHAnalysisLib.analysis import PROGNOSIS_CAVEAT, Prognosis
from ICHAnalysisLib.config.preprocess import LOCATIONS
from ICHAnalysisLib.errors import UsageError

#: Death within 30 days by ICH Score, Hemphill 2001; 6 is an estimate, nobody in the cohort had it.
ICH_SCORE_MORTALITY = (0.00, 0.13, 0.26, 0.72, 0.97, 1.00, 1.00)
#: Functional independence (GOS >= 4) at 90 days by FUNC 0 to 11, Rost 2008: all patients, and survivors only.
FUNC_ALL = (*[0.0] * 5, *[0.13] * 3, 0.42, *[0.66] * 2, 0.82)
FUNC_SURVIVORS = (*[0.0] * 5, *[0.29] * 3, 0.48, *[0.75] * 2, 0.95)

_ICH_SCORE_ORIGIN = "ICH Score, Hemphill 2001 (152 patients, one center)"
_FUNC_ORIGIN = "FUNC, Rost 2008 (all patients, survivors and dead)"
_ICH_SCORE_CAVEAT = f"{PROGNOSIS_CAVEAT} The published rates overestimate today's mortality at low scores."
_FUNC_CAVEAT = f"{PROGNOSIS_CAVEAT} Many calculators print the row of survivors as if it were that of all patients."
_CHILD = "{name} was made for adults; the patient is {age:g} years old."


def ich_score(
    *,
    age: float | None,
    gcs: int | None,
    volume_ml: float | None,
    ivh: bool | None,
    infratentorial: bool | None,
) -> Prognosis:
    """ICH Score, 0 to 6, with death within 30 days as its event.

    Raises UsageError for a GCS outside 3 to 15, or a negative age or volume.
    """
    _check(age, gcs, volume_ml)
    points: dict[str, tuple[int, ...]] = {
        "gcs": _points(gcs, lambda g: 2 if g <= 4 else 1 if g <= 12 else 0, (0, 1, 2)),
        "volume_ml": _points(volume_ml, lambda v: int(v >= 30), (0, 1)),
        "ivh": _points(ivh, int, (0, 1)),
        "infratentorial": _points(infratentorial, int, (0, 1)),
        "age": _points(age, lambda a: int(a >= 80), (0, 1)),
    }
    items = {"gcs": gcs, "volume_ml": volume_ml, "ivh": ivh, "infratentorial": infratentorial, "age": age}
    return _prognosis(
        "ICH Score", points, items, age, ICH_SCORE_MORTALITY, "death within 30 days", _ICH_SCORE_ORIGIN,
        _ICH_SCORE_CAVEAT,
    )  # fmt: skip


def func_score(
    *,
    age: float | None,
    gcs: int | None,
    volume_ml: float | None,
    location: str | None,
    cognitive_impairment: bool | None,
) -> Prognosis:
    """FUNC, 0 to 11, with functional independence (GOS >= 4) at 90 days as its event; the event is the good one.

    location: deep, lobar or subtentorial. cognitive_impairment: before the hemorrhage. The probability is that of all
    patients; that of survivors is `items["survivors"]`. Raises UsageError for values out of range.
    """
    _check(age, gcs, volume_ml)
    if location is not None and location not in LOCATIONS:
        raise UsageError(f"Location {location!r} is none of {', '.join(LOCATIONS)}.")
    places = {"lobar": 2, "deep": 1, "subtentorial": 0}
    points: dict[str, tuple[int, ...]] = {
        "volume_ml": _points(volume_ml, lambda v: 4 if v < 30 else 2 if v <= 60 else 0, (0, 2, 4)),
        "age": _points(age, lambda a: 2 if a < 70 else 1 if a < 80 else 0, (0, 1, 2)),
        "location": _points(location, lambda p: places[p], (0, 1, 2)),
        "gcs": _points(gcs, lambda g: 2 if g >= 9 else 0, (0, 2)),
        "cognitive_impairment": _points(cognitive_impairment, lambda c: int(not c), (0, 1)),
    }
    items: dict[str, Any] = {
        "volume_ml": volume_ml,
        "age": age,
        "location": location,
        "gcs": gcs,
        "cognitive_impairment": cognitive_impairment,
    }
    low, high = _range(points)
    if low == high:
        items["survivors"] = FUNC_SURVIVORS[low]
    return _prognosis(
        "FUNC", points, items, age, FUNC_ALL, "functional independence (GOS 4 or 5) at 90 days", _FUNC_ORIGIN,
        _FUNC_CAVEAT,
    )  # fmt: skip


#: What a score needs, in words.
_NEEDED = {
    "age": "the age",
    "gcs": "the Glasgow Coma Scale",
    "volume_ml": "the volume",
    "ivh": "whether blood reached the ventricles",
    "infratentorial": "the location",
    "location": "the location",
    "cognitive_impairment": "whether cognition was impaired before",
}


def _prognosis(
    name: str,
    points: dict[str, tuple[int, ...]],
    items: dict[str, Any],
    age: float | None,
    rates: Sequence[float],
    event: str,
    origin: str,
    caveat: str,
) -> Prognosis:
    """The score with its rate; its range where an item is missing; a reason where it is refused."""
    if age is not None and age < 18:
        return Prognosis(None, event, origin, caveat, items=items, reason=_CHILD.format(name=name, age=age))
    low, high = _range(points)
    if low == high:
        scored = {**items, "points": {key: value[0] for key, value in points.items()}}
        return Prognosis(rates[low], event, origin, caveat, score=low, items=scored)
    missing = " and ".join(_NEEDED.get(key, key) for key, value in items.items() if value is None and key in points)
    possible = sorted(rates[score] for score in _scores(points))
    return Prognosis(
        None,
        event,
        origin,
        caveat,
        score_range=(low, high),
        probability_range=(possible[0], possible[-1]),
        items=items,
        reason=f"{name} needs {missing}; without it only the range can be given.",
    )


def _points(value: Any, rule: Callable[[Any], int], possible: tuple[int, ...]) -> tuple[int, ...]:
    """The points of a known item, or those an unknown one can give."""
    return possible if value is None else (rule(value),)


def _range(points: dict[str, tuple[int, ...]]) -> tuple[int, int]:
    """Lowest and highest score."""
    return sum(min(p) for p in points.values()), sum(max(p) for p in points.values())


def _scores(points: dict[str, tuple[int, ...]]) -> set[int]:
    """Every score that the unknown items allow."""
    totals = {0}
    for possible in points.values():
        totals = {total + p for total in totals for p in possible}
    return totals


def _check(age: float | None, gcs: int | None, volume_ml: float | None) -> None:
    """Raise UsageError for what no patient can have."""
    if gcs is not None and not 3 <= gcs <= 15:
        raise UsageError(f"GCS {gcs} must lie in 3 to 15.")
    if age is not None and not 0 <= age <= 120:
        raise UsageError(f"Age {age} must lie in 0 to 120 years.")
    if volume_ml is not None and not volume_ml >= 0:
        raise UsageError(f"Volume {volume_ml} mL must be at least 0.")
