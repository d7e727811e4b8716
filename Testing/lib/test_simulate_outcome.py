"""The outcome simulator against the figures that its recipe states for n = 200,000."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ICHAnalysisLib.simulate import outcome as clinic

PATIENTS = 4000


@pytest.fixture(scope="module")
def patients() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(PATIENTS):
        location = clinic.draw_location(rng)
        volume = clinic.draw_volume_ml(rng, location)
        ivh = bool(rng.random() < clinic.ivh_probability(location, volume))
        record = clinic.draw_record(rng, location, volume, ivh)
        rows.append({"volume": volume, **record, **clinic.draw_outcome(rng, record, location, volume)})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_rates_of_the_recipe(patients: dict[str, np.ndarray]) -> None:
    assert patients["ivh"].mean() == pytest.approx(0.41, abs=0.03)
    assert np.median(patients["volume"]) == pytest.approx(15, abs=1.2)
    assert (patients["volume"] >= 30).mean() == pytest.approx(0.23, abs=0.03)
    assert patients["dead_30d"].mean() == pytest.approx(0.28, abs=0.03)
    assert (1 - patients["poor_outcome"]).mean() == pytest.approx(0.48, abs=0.03)


def test_ich_score_separates_as_stated_and_no_better(patients: dict[str, np.ndarray]) -> None:
    dead = patients["dead_30d"]
    assert roc_auc_score(dead, patients["ich_score"]) == pytest.approx(0.88, abs=0.02)
    assert roc_auc_score(dead, patients["volume"]) == pytest.approx(0.70, abs=0.03)
    assert roc_auc_score(patients["poor_outcome"], -patients["func"]) == pytest.approx(0.78, abs=0.02)
    assert roc_auc_score(dead, patients["p_death"]) <= 0.90


def test_outcome_scales_agree(patients: dict[str, np.ndarray]) -> None:
    assert np.array_equal(patients["dead_30d"] == 1, patients["mrs_90d"] == 6)
    assert np.array_equal(patients["dead_30d"] == 1, patients["gos"] == 1)
    assert np.array_equal(patients["poor_outcome"] == 0, patients["mrs_90d"] <= 2)


def test_mortality_by_score_is_the_published_table() -> None:
    table = [clinic.death_probability(score) for score in range(7)]
    assert table == pytest.approx([0.013, 0.072, 0.317, 0.734, 0.943, 0.990, 0.998], abs=0.002)


def test_scores_of_one_patient() -> None:
    assert clinic.ich_score(gcs=4, volume_ml=30.0, ivh=True, location="subtentorial", age=80) == 6
    assert clinic.ich_score(gcs=13, volume_ml=29.9, ivh=False, location="deep", age=79) == 0
    assert clinic.func_score(gcs=9, volume_ml=10.0, location="lobar", age=60, impaired=False) == 11
    assert clinic.func_score(gcs=8, volume_ml=61.0, location="subtentorial", age=80, impaired=True) == 0
