"""Other patients for a simulated hemorrhage: its record and its outcome, drawn anew.

A simulated scan has one patient and one outcome, a coin thrown once. A network that meets a few hundred of them learns
the throws; one that meets another patient at each visit, and is told the odds, learns what these depend on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ICHAnalysisLib.config.preprocess import LOCATIONS
from ICHAnalysisLib.simulate.outcome import CENTERS, draw_patient


def another_patient(facts: dict[str, Any], meta: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The facts of `case_facts` with the record and outcome of another patient who has the same hemorrhage, and the
    chances that this outcome was drawn from.

    Only of simulated hemorrhages whose place and volume are known; all others are returned as they are.
    """
    bled = facts["synthetic"] and facts["volume_ml"] > 0 and facts["location"] >= 0
    if not bled:
        return facts
    center = (meta.get("simulation") or {}).get("plan", {}).get("center", "first")
    record, outcome = draw_patient(
        rng, LOCATIONS[facts["location"]], facts["volume_ml"], facts["ivh_ml"], CENTERS[center].mortality_shift
    )
    drawn = {name: int(outcome[name]) for name in ("dead_30d", "poor_outcome", "gos")}
    chances = {"chance_dead_30d": float(outcome["p_death"]), "chance_poor_outcome": float(outcome["p_poor"])}
    return {**facts, "record": record, **drawn, "mrs": int(outcome["mrs_90d"]), **chances}
