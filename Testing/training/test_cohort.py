"""Cohort figures against rows counted by hand, and two real cases through the whole analysis."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ICHAnalysisLib.discrimination import auc
from Training import cohort
from Training.cohort_figures import as_markdown, expected_auc, fit_fusion, summarize, threshold_for


def row(ich: int, ml: float, presence: float, **more: Any) -> dict[str, Any]:
    """A row as read back from cohort.csv: texts, empty where there is no answer."""
    values = {
        "has_ich": ich,
        "volume_ml": ml,
        "presence": presence,
        "slice_probability": presence,
        "evidence": 5 * presence,
        "location": "deep" if ich else "",
        "found_location": "deep" if ich else "",
        "thickness_mm": 5.0,
        "noise_hu": 3.5,
        "found_ml": ml,
        "network_ml": ml + 2 if ich else 0.0,
        "dice": 0.8 if ich else "",
        "dice_box": 0.9 if ich else "",
        "dice_slice_boxes": 0.95 if ich else "",
        "poor_outcome": "",
        "look_alikes": "",
        **more,
    }
    return {key: str(value) for key, value in values.items()}


ROWS = [
    row(1, 0.5, 0.1, dice=0.0),
    row(1, 5.0, 0.9, found_ml=4.0, poor_outcome=0, scan_poor=0.2),
    row(1, 20.0, 0.8, dice=0.6, location="lobar", poor_outcome=1, scan_poor=0.7),
    row(1, 60.0, 0.2, found_ml=0.0, thickness_mm=3.0, poor_outcome=0, scan_poor=0.8),
    row(1, 40.0, 0.9, poor_outcome=1, scan_poor=0.9),
    row(0, 0.0, 0.1),
    row(0, 0.0, 0.7, look_alikes="subdural"),
    row(0, 0.0, 0.2, look_alikes="choroid"),
]


def test_figures_of_rows_counted_by_hand() -> None:
    found = summarize(ROWS, 0.5)
    assert found["cases"] == 8
    assert found["sensitivity_above_1_ml"][0] == pytest.approx(3 / 4) and found["sensitivity_above_1_ml"][3] == 4
    assert found["specificity"][0] == pytest.approx(2 / 3) and found["specificity_look_alikes"][0] == 0.5
    bands = found["sensitivity_by_volume_ml"]
    assert bands["0 to 1"][0] == 0.0 and bands["2 to 10"][0] == 1.0 and bands["1 to 2"] is None
    assert bands["above 30"][0] == 0.5 and bands["above 30"][3] == 2
    assert found["dice"][0] == pytest.approx((0.8 + 0.6 + 0.8 + 0.8) / 4) and found["dice"][3] == 4
    assert found["dice_slice_boxes"][0] == pytest.approx(0.95) and found["dice_slice_boxes_p10"][3] == 4
    assert found["dice_by_location"]["lobar"][0] == 0.6 and found["dice_by_location"]["subtentorial"] is None
    assert found["dice_by_thickness_mm"]["0 to 4"][3] == 1 and found["dice_by_noise_hu"]["3 to 4"][3] == 4
    assert found["outline_error_ml"][0] == pytest.approx((1 + 0 + 60 + 0) / 4)
    assert found["volume_net_error_ml"][0] == pytest.approx(2.0)
    assert found["outcome_auc"]["volume net"][0] == pytest.approx(3 / 4)
    assert found["outcome_auc"]["outline's network"] is None
    assert set(found["outcome_auc_over_all_throws"].values()) == {None}  # rows that know no chance
    # Presence: 15 pairs, of which 0.1 against 0.1 ties, 0.1 < 0.7, 0.1 < 0.2, 0.2 < 0.7 and 0.2 against 0.2 ties.
    assert found["presence_auc"][0] == pytest.approx((15 - 0.5 - 3 - 0.5) / 15)
    text = as_markdown({"threshold": 0.5, **found})
    assert "| dice box | 0.900 |" in text and "| sensitivity by volume ml 1 to 2 | not estimable | | |" in text


def test_one_sided_cohorts_have_no_auc() -> None:
    bled = summarize(ROWS[:5], 0.5)
    assert bled["presence_auc"] is None and bled["specificity"] is None and bled["dice"][3] == 4
    clean = summarize(ROWS[5:], 0.5)
    assert clean["specificity"][3] == 3 and clean["dice"] is None and clean["sensitivity_above_1_ml"] is None


def test_fitted_rule_separates_what_can_be_separated() -> None:
    rows = [row(1, 10, p) for p in (0.7, 0.8, 0.9)] + [row(0, 0, p) for p in (0.1, 0.2, 0.3)]
    rule = fit_fusion(rows)
    assert rule.slice_logit >= 0 and rule.lesion_evidence >= 0
    score = np.array([0.2, 0.6, 0.9, 0.4])
    assert threshold_for(score, np.array([1, 1, 1, 0]), [0.5, 4.0, 4.0, 0.0]) == pytest.approx(0.5)
    assert threshold_for(score, np.array([1, 1, 1, 0]), [4.0, 4.0, 4.0, 0.0]) == pytest.approx(0.199)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (row(1, 5, 0.1), "missed"),
        (row(0, 0, 0.9), "invented"),
        (row(1, 5, 0.9, dice=0.3), "poor"),
        (row(1, 5, 0.9), ""),
        (row(0, 0, 0.1), ""),
    ],
)
def test_what_deserves_a_picture(case: dict[str, Any], reason: str) -> None:
    assert cohort.failure(case, 0.5) == reason


def test_real_cases_become_rows_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path), "--seed", "5", "--positive-fraction", "1", "--small-fraction", "0"]
    assert cohort.main([*arguments, "--count", "1"]) == 0
    capsys.readouterr()
    assert cohort.main([*arguments, "--count", "2"]) == 0
    summary = json.loads(capsys.readouterr().out)
    with (tmp_path / "cohort.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["index"] for r in rows] == ["0", "1"] and len({r["case_id"] for r in rows}) == 2
    assert summary["cases"] == 2 and summary["presence_auc"] is None
    for one in rows:
        assert (
            0 <= float(one["dice"]) <= 1
            and float(one["dice_box"]) > 0.3
            and float(one["dice_slice_boxes"]) > 0.3
            and one["poor_outcome"] in "01"
        )
        assert 0 < float(one["record_poor"]) < 1
    assert (tmp_path / "summary.md").read_text().startswith("2 scans")
    assert cohort.main([*arguments, "--count", "0"]) == 2


def test_the_auc_over_all_throws_is_the_mean_of_many() -> None:
    rng = np.random.default_rng(2)
    chance = rng.random(60)
    score = chance + rng.normal(0, 0.4, 60)
    throws = [auc(rng.random(60) < chance, score) for _ in range(3000)]
    assert expected_auc(chance, score) == pytest.approx(np.mean(throws), abs=0.004)
    assert expected_auc(np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.1, 0.5])) == pytest.approx(0.75)
    assert np.isnan(expected_auc(np.ones(3), np.arange(3.0)))
    twice = np.array([0, 0, 1, 1])  # a scan drawn twice is no pair with itself
    assert expected_auc(chance[twice], score[twice], twice) == pytest.approx(expected_auc(chance[:2], score[:2]))


def test_rows_that_know_the_chance_have_a_ceiling() -> None:
    rows = [row(1, 10.0 + n, 0.9, poor_chance=0.1 + 0.2 * n, scan_poor=0.5 - 0.1 * n) for n in range(4)]
    found = summarize(rows, 0.5)["outcome_auc_over_all_throws"]
    assert found["volume net"][0] == pytest.approx(1 - found["the simulation's own chance"][0])
    assert found["true volume alone"][0] == pytest.approx(found["the simulation's own chance"][0])
