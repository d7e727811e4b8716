"""The fitted candidate model: known log-odds are found again, scans are told apart, and a stopped run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ICHAnalysisLib.candidate_facts import CandidateFacts, log_odds
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.postprocess import UNLIKELY, Candidate
from Training import candidate_fit
from Training.rows import read_rows, write_rows

FACTS = {
    "volume_ml": 1.0,
    "peak_probability": 0.95,
    "mean_probability": 0.9,
    "mean_ivh_probability": 0.0,
    "mean_hu": 60.0,
    "presence": 0.5,
    "in_brain": 1.0,
    "near_skull": 0.0,
    "height_mm": 10.0,
    "scan_blood": 0.2,
    "appearance": 0.0,
}


def row(scan: int, is_ich: bool, **facts: float) -> dict[str, Any]:
    found = {"scan": str(scan), "has_ich": int(is_ich), "true_ml": 5.0 * is_ich, "slice_probability": 0.5}
    return {**found, "is_ich": int(is_ich), **FACTS, **facts}


def drawn(count: int, seed: int) -> list[dict[str, Any]]:
    """Candidates whose log-odds are 2 ln(volume) - 4 near_skull, one a scan."""
    rng = np.random.default_rng(seed)
    rows = []
    for scan in range(count):
        volume, near = float(np.exp(rng.normal(0.5, 1.0))), float(rng.random())
        odds = 2 * np.log(volume) - 4 * near
        rows.append(row(scan, bool(rng.random() < 1 / (1 + np.exp(-odds))), volume_ml=volume, near_skull=near))
    return rows


def test_known_log_odds_are_found_again() -> None:
    model = candidate_fit.fit_model(drawn(4000, 1))
    for volume, near in ((1.0, 0.2), (4.0, 0.2), (4.0, 0.8), (0.5, 0.5)):
        facts = CandidateFacts(**{**FACTS, "volume_ml": volume, "near_skull": near})
        assert log_odds(facts, model) == pytest.approx(2 * np.log(volume) - 4 * near, abs=0.35)
    assert model.ivh == pytest.approx(0.0, abs=1e-3)  # it never varied, so nothing was learned of it


def test_scans_are_told_apart_by_their_likeliest_candidate() -> None:
    rows = [row(n, True, volume_ml=8.0 + n) for n in range(20)]
    rows += [row(n, False, volume_ml=0.2 + 0.01 * n) for n in range(20, 40)]
    rows += [{**row(n, True, volume_ml=0.15), "has_ich": 1, "is_ich": 0, "true_ml": 0.5} for n in range(20)]
    nothing = {**row(40, False), **dict.fromkeys(FACTS, ""), "is_ich": "", "has_ich": 1, "true_ml": 0.3}
    found = candidate_fit.fit([*rows, nothing])
    assert found["scans"] == 41 and found["candidates"] == 60
    assert found["the_same_above_1_ml"] is not None
    assert found["presence_auc_cross_validated"] == pytest.approx(20 / 21, abs=1e-4)  # the scan without any is missed
    with pytest.raises(UsageError, match="no candidate of one kind"):
        candidate_fit.fit([r for r in rows if r["is_ich"] == 1])


def test_rows_say_what_is_hemorrhage() -> None:
    components = np.zeros((2, 8, 8), int)
    components[0, :4, :4], components[1, 4:, 4:], components[0, 7, 7] = 1, 2, 3
    bled = np.zeros(components.shape, bool)
    bled[0, 0, :4] = True  # a quarter of the first
    bled[1, 4, 4] = True  # a sixteenth of the second
    facts = CandidateFacts(**FACTS)
    candidates = [
        Candidate(1, facts, 1.0, (0, 0), True),
        Candidate(2, facts, -3.0, (1, 1), False, UNLIKELY),
        Candidate(3, facts, -3.0, (0, 0), False, "outside the brain"),
    ]
    truth = {"has_ich": True, "volume_ml": 2.0}
    rows = candidate_fit.rows_of(truth, 0.7, candidates, components, bled)
    assert [r["is_ich"] for r in rows] == [1, 0]  # the third is refused whatever the model says
    (empty,) = candidate_fit.rows_of(truth, 0.7, candidates[2:], components, bled)
    assert empty["is_ich"] == "" and empty["true_ml"] == 2.0


def test_real_scans_become_rows_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path), "--seed", "5", "--positive-fraction", "1", "--small-fraction", "0"]
    status = candidate_fit.main([*arguments, "--count", "1"])
    table = tmp_path / "candidates.csv"
    seen = read_rows(table)
    assert {r["scan"] for r in seen} == {"5-0"} and "1" in {r["is_ich"] for r in seen}
    assert status == (0 if len({r["is_ich"] for r in seen}) == 2 else 2)
    write_rows(table, [{**seen[0], "scan": "other", "has_ich": 0, "is_ich": 0}, *seen])
    capsys.readouterr()
    assert candidate_fit.main([*arguments, "--count", "1"]) == 0  # nothing is looked at again
    fitted = json.loads(capsys.readouterr().out)
    assert fitted["scans"] == 2 and fitted == json.loads((tmp_path / "fitted.json").read_text())
    assert candidate_fit.main([*arguments, "--count", "0"]) == 2
