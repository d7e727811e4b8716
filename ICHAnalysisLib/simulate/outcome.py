"""The clinical record of a simulated patient and what became of them: draws from published scores, never thresholds.

Locations, volumes, GCS, ICH Score, FUNC and their event rates follow the simulation recipe; the ICH Score's mortality
is the maximum-likelihood logistic fit to its published table (intercept -4.3325, slope 1.7831).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LOCATION_SHARES: dict[str, float] = {"deep": 0.60, "lobar": 0.27, "subtentorial": 0.13}
MEDIAN_ML: dict[str, float] = {"deep": 13.0, "lobar": 25.0, "subtentorial": 10.0}
CAP_ML: dict[str, float] = {"deep": 120.0, "lobar": 150.0, "subtentorial": 50.0}
LOG_SD = 0.9
#: More blood than this in the ventricles counts as intraventricular hemorrhage.
LEAST_IVH_ML = 0.1
MORTALITY_INTERCEPT, MORTALITY_SLOPE = -4.3325, 1.7831
GOOD_OUTCOME_SHARE = (0.00, 0.29, 0.48, 0.75, 0.95)  # FUNC 0-4, 5-7, 8, 9-10, 11


@dataclass(frozen=True)
class Center:
    """A hospital: its mix of locations, its scanner's HU shift and noise, and its shift of mortality (log odds)."""

    location_shares: tuple[float, float, float] = tuple(LOCATION_SHARES.values())  # type: ignore[assignment]
    shift_hu: float = 0.0
    noise_factor: float = 1.0
    mortality_shift: float = 0.0


#: The second one is for shift tests: another scanner, another mix of patients, another mortality.
CENTERS = {
    "first": Center(),
    "second": Center((0.45, 0.40, 0.15), shift_hu=3.0, noise_factor=1.5, mortality_shift=0.7),
}


def draw_location(rng: np.random.Generator, center: Center = CENTERS["first"]) -> str:
    """A location class with the center's shares (by default the published ones)."""
    return str(rng.choice(list(LOCATION_SHARES), p=center.location_shares))


def draw_volume_ml(rng: np.random.Generator, location: str) -> float:
    """Log-normal volume, capped by compartment, mL."""
    return float(min(MEDIAN_ML[location] * np.exp(LOG_SD * rng.standard_normal()), CAP_ML[location]))


def ivh_probability(location: str, volume_ml: float) -> float:
    """Chance that blood broke into the ventricles."""
    return {"deep": 0.40, "lobar": 0.22, "subtentorial": 0.40}[location] + (0.25 if volume_ml > 30 else 0.0)


def draw_record(rng: np.random.Generator, location: str, volume_ml: float, ivh: bool) -> dict[str, Any]:
    """Age, sex, GCS and the other admission facts of one patient."""
    age = float(np.clip(66 + 4 * (location == "lobar") + 13 * rng.standard_normal(), 20, 98))
    slope = 0.25 if location == "subtentorial" else 0.075
    deficit = slope * volume_ml + 1.8 * ivh + 0.5 + 2.2 * rng.standard_normal()
    gcs = int(np.clip(round(15 - max(0.0, deficit)), 3, 15))
    impaired = bool(rng.random() < 1 / (1 + np.exp(-(age - 84) / 6)))
    return {
        "age": round(age),
        "sex": "female" if rng.random() < 0.45 else "male",
        "gcs": gcs,
        "ivh": bool(ivh),
        "onset_to_ct_h": round(float(np.exp(rng.normal(1.1, 0.9))), 1),
        "prior_cognitive_impairment": impaired,
        "hypertension": bool(rng.random() < (0.8 if location != "lobar" else 0.6)),
        "diabetes": bool(rng.random() < 0.2),
        "anticoagulant": bool(rng.random() < 0.15),
        "systolic_bp": int(np.clip(rng.normal(175, 28), 95, 260)),
    }


def draw_patient(
    rng: np.random.Generator, location: str, volume_ml: float, ivh_ml: float, mortality_shift: float = 0.0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Record and outcome of one patient with this hemorrhage."""
    record = draw_record(rng, location, volume_ml, ivh_ml > LEAST_IVH_ML)
    return record, draw_outcome(rng, record, location, volume_ml, mortality_shift)


def ich_score(gcs: int, volume_ml: float, ivh: bool, location: str, age: float) -> int:
    """ICH Score 0 to 6 (Hemphill 2001)."""
    points = 2 if gcs <= 4 else 1 if gcs <= 12 else 0
    return points + (volume_ml >= 30) + bool(ivh) + (location == "subtentorial") + (age >= 80)


def func_score(gcs: int, volume_ml: float, location: str, age: float, impaired: bool) -> int:
    """FUNC score 0 to 11 (Rost 2008)."""
    volume = 4 if volume_ml < 30 else 2 if volume_ml <= 60 else 0
    years = 2 if age < 70 else 1 if age < 80 else 0
    place = {"lobar": 2, "deep": 1, "subtentorial": 0}[location]
    return volume + years + place + (2 if gcs >= 9 else 0) + (0 if impaired else 1)


def death_probability(score: int, shift: float = 0.0) -> float:
    """Thirty-day mortality for an ICH Score; `shift` in log odds."""
    return float(1 / (1 + np.exp(-(MORTALITY_INTERCEPT + shift + MORTALITY_SLOPE * score))))


def good_outcome_share(func: int) -> float:
    """Share of survivors with a good outcome (GOS 4 or 5) for a FUNC score."""
    band = 0 if func <= 4 else 1 if func <= 7 else 2 if func == 8 else 3 if func <= 10 else 4
    return GOOD_OUTCOME_SHARE[band]


def draw_outcome(
    rng: np.random.Generator, record: dict[str, Any], location: str, volume_ml: float, mortality_shift: float = 0.0
) -> dict[str, Any]:
    """30-day death, 90-day mRS and GOS, with the true probabilities they were drawn from."""
    score = ich_score(record["gcs"], volume_ml, record["ivh"], location, record["age"])
    func = func_score(record["gcs"], volume_ml, location, record["age"], record["prior_cognitive_impairment"])
    p_death, p_good = death_probability(score, mortality_shift), good_outcome_share(func)
    dead = bool(rng.random() < p_death)
    good = not dead and bool(rng.random() < p_good)
    if dead:
        mrs, gos = 6, 1
    elif good:
        mrs, gos = int(rng.choice([0, 1, 2], p=[0.15, 0.40, 0.45])), int(rng.choice([4, 5], p=[0.6, 0.4]))
    else:
        mrs, gos = int(rng.choice([3, 4, 5], p=[0.35, 0.40, 0.25])), int(rng.choice([3, 2], p=[0.93, 0.07]))
    return {
        "dead_30d": int(dead),
        "mrs_90d": mrs,
        "gos": gos,
        "poor_outcome": int(gos < 4),
        "ich_score": score,
        "func": func,
        "p_death": p_death,
        "p_poor": 1 - (1 - p_death) * p_good,
    }
