"""Every hazard is made from a known head, read back, and measured against the truth."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.findings import Level
from ICHAnalysisLib.simulate.hazard_network import remembered
from ICHAnalysisLib.simulate.hazard_scans import Bench
from ICHAnalysisLib.simulate.hazards import HAZARDS, Hazard, network_cells, table_lines, try_hazard


def _name(hazard: Hazard) -> str:
    return f"{hazard.number:02d}-{hazard.made.replace(' ', '_')[:32]}"


@pytest.mark.parametrize("hazard", HAZARDS, ids=_name)
def test_hazard_is_found_and_truth_survives(hazard: Hazard, bench: Bench, tmp_path) -> None:
    outcome = try_hazard(hazard, bench, tmp_path / "scan")
    codes = {(finding.code, finding.level.value) for finding in outcome.findings}
    if hazard.code:
        assert outcome.finding is not None, codes
        assert outcome.finding.hazard == hazard.number
        assert outcome.finding.message.endswith((".", ")")) and outcome.finding.remedy
    else:
        assert not {level for _, level in codes} & {"ASK", "BLOCK"}
    blocked = any(level == "BLOCK" for _, level in codes)
    assert blocked == (hazard.level is Level.BLOCK)
    if blocked or hazard.headers:
        assert np.isnan(outcome.measured_ml)
        return
    assert outcome.volume is not None
    if hazard.lower_bound:
        assert outcome.measured_ml <= outcome.truth_ml * 1.005
        return
    assert outcome.measured_ml == pytest.approx(outcome.truth_ml, rel=0.02)
    if np.isfinite(outcome.offset_mm):
        assert outcome.offset_mm < max(outcome.volume.spacing_mm)


def test_every_number_of_the_table_is_made() -> None:
    assert {hazard.number for hazard in HAZARDS} == set(range(1, 42))


def test_clean_scan_has_nothing_to_say(bench: Bench, tmp_path) -> None:
    clean = Hazard(0, "nothing", lambda b, folder: b.write(folder), "", None)
    outcome = try_hazard(clean, bench, tmp_path / "scan")
    assert outcome.findings == ()
    assert outcome.measured_ml == pytest.approx(outcome.truth_ml, rel=0.02)
    assert outcome.itk_ml == pytest.approx(outcome.measured_ml, rel=1e-6)


def test_gap_inside_the_bleed_is_a_flagged_lower_bound(bench: Bench, tmp_path) -> None:
    hazard = next(one for one in HAZARDS if one.code == "missing_slices")
    outcome = try_hazard(hazard, bench, tmp_path / "scan")
    codes = {finding.code for finding in outcome.findings}
    assert "lower_bound_gap" in codes
    lost = bench.usual.volume.voxel_volumes_ml[0] * np.count_nonzero(bench.usual.labels[bench.bleed_slice()] == 1)
    assert outcome.measured_ml == pytest.approx(outcome.truth_ml - lost, rel=0.02)


def test_table_names_what_itk_would_give(bench: Bench, tmp_path) -> None:
    hazard = next(one for one in HAZARDS if one.code == "gantry_tilt")
    outcome = try_hazard(hazard, bench, tmp_path / "scan")
    assert outcome.itk_ml / outcome.measured_ml == pytest.approx(1 / np.cos(np.radians(20.0)), rel=1e-3)
    row = table_lines([outcome])[-1]
    assert row.startswith("| 1 | gantry tilted by 20 degrees | `gantry_tilt`")


def test_the_networks_change_is_measured_against_the_clean_scan(bench: Bench, tmp_path) -> None:
    names = ("gantry tilted by 20 degrees", "contrast agent in the header", "MR series")
    chosen = tuple(one for one in HAZARDS if one.made in names)
    asked: list[float] = []

    def outline(volume) -> float:
        asked.append(volume.mask_volume_ml((volume.hu > 50) & (volume.hu < 90)))
        return asked[-1]

    answers = tmp_path / "answers.json"
    cells, said = network_cells(bench, tmp_path / "scans", remembered(outline, answers, "weights"), chosen)
    assert cells == [f"{asked[1] - asked[0]:+.2f}", "+0.00", "no numbers"]
    assert f"{bench.known.truth_ml:.2f} mL" in " ".join(said)
    assert len(asked) == 2  # a word in the header changes nothing that a network sees
    again, _ = network_cells(bench, tmp_path / "again", remembered(outline, answers, "weights"), chosen)
    assert again == cells and len(asked) == 2
    network_cells(bench, tmp_path / "other", remembered(outline, answers, "other weights"), chosen)
    assert len(asked) == 4
    outcomes = [try_hazard(one, bench, tmp_path / str(n)) for n, one in enumerate(chosen)]
    lines = table_lines(outcomes, cells)
    assert lines[0].endswith("| network change mL |") and lines[3].endswith("| +0.00 |")
    assert len({line.count("|") for line in lines}) == 1
