"""The whole way of a scan with the shipped weights: found, outlined, measured, placed; or negative, or blocked."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from ICHAnalysisLib.analysis import LABEL_ICH, NEGATIVE_CAVEAT, PROGNOSIS_CAVEAT, Analysis
from ICHAnalysisLib.analyze import analyze, analyze_scan, measure_labels
from ICHAnalysisLib.cli import main
from ICHAnalysisLib.clinical import ClinicalRecord
from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.errors import CancelledError, UsageError
from ICHAnalysisLib.predict import Models
from ICHAnalysisLib.prompts import Box, Point, Prompts
from ICHAnalysisLib.simulate.acquisition import AcquisitionSpec
from ICHAnalysisLib.simulate.cohort import CaseSpec, simulate_case
from ICHAnalysisLib.variations import KIND

RECORD = ClinicalRecord(age=71, sex="female", gcs=13, cognitive_impairment=False)


@pytest.fixture(scope="module")
def models() -> Models:
    return Models.load()


@pytest.fixture(scope="module")
def case():
    acquisition = AcquisitionSpec(matrix=256, thickness_mm=5.0, gap_mm=0.0, uneven=False, storage="full")
    return simulate_case(4242, CaseSpec(has_ich=True, location="deep", volume_ml=22.0, acquisition=acquisition))


@pytest.fixture(scope="module")
def answer(case, models):
    return analyze(case.volume, clinical=RECORD, models=models)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / max(np.count_nonzero(a) + np.count_nonzero(b), 1)


def truth_box(case, margin: float = 2.0) -> Box:
    """The box of the true hemorrhage, mm RAS."""
    k, j, i = np.nonzero(case.labels == 1)
    ras = case.volume.ijk_to_ras_points(np.stack([i, j, k], axis=1))
    return Box(tuple(ras.min(axis=0) - margin), tuple(ras.max(axis=0) + margin))


def test_deep_hemorrhage_is_found_outlined_measured_and_placed(case, answer):
    analysis, arrays = answer
    assert analysis.status == "ok"
    assert analysis.presence.positive
    assert analysis.presence.probability >= analysis.presence.threshold
    assert dice(arrays.labels == LABEL_ICH, case.labels == 1) >= 0.8
    assert analysis.volumes_ml["segmentation"] == pytest.approx(case.truth["volume_ml"], rel=0.15)
    assert analysis.location.label == "deep"
    assert analysis.location.side == case.truth["side"]
    assert analysis.mode == "automatic"


def test_volumes_follow_from_the_label_map(case, answer):
    analysis, arrays = answer
    counted = case.volume.mask_volume_ml(arrays.labels == LABEL_ICH)
    assert analysis.volumes_ml["segmentation"] == pytest.approx(counted, abs=1e-3)
    assert sum(lesion.volume_ml for lesion in analysis.lesions) == pytest.approx(counted, abs=0.01)
    interval = analysis.intervals["segmentation"]
    assert interval.lower <= interval.value <= interval.upper
    assert interval.unit == "mL"


def test_copies_leave_a_range_around_the_same_answer(case, models, answer):
    plain, arrays = answer
    assert plain.intervals["segmentation"].kind != KIND and "slice_network" not in plain.intervals
    analysis, again = analyze(
        case.volume, clinical=RECORD, models=models, options=AnalyzeOptions(heatmap=False, variations=True)
    )
    assert np.array_equal(again.labels, arrays.labels)
    volume, poor = analysis.intervals["segmentation"], analysis.intervals["slice_network"]
    assert volume.kind == poor.kind == KIND
    assert volume.lower <= volume.value <= volume.upper and volume.lower < volume.upper
    assert volume.upper - volume.lower < 0.5 * volume.value
    assert 0 <= poor.lower <= poor.value <= poor.upper <= 1
    assert poor.value == pytest.approx(analysis.prognosis["slice_network"].probability, abs=1e-3)


def test_scores_use_the_record_and_every_prognosis_has_its_caveat(answer):
    analysis, _ = answer
    score = analysis.prognosis["ich_score"]
    assert score.items["gcs"] == 13
    assert score.items["age"] == 71
    assert all(item.caveat.startswith(PROGNOSIS_CAVEAT) for item in analysis.prognosis.values())


def test_simulated_scan_shows_network_probabilities_and_a_real_one_does_not(case, models):
    shown, _ = analyze(case.volume, models=models)
    assert 0 <= shown.prognosis["scan_network"].probability <= 1
    as_real = replace(case.volume, source={"kind": "nifti"})
    hidden, _ = analyze(as_real, models=models)
    assert hidden.prognosis["scan_network"].probability is None
    assert "simulated outcomes" in hidden.prognosis["scan_network"].reason
    asked, _ = analyze(as_real, models=models, options=AnalyzeOptions(simulated_prognosis=True))
    assert asked.prognosis["scan_network"].probability is not None


def test_json_round_trip_without_identifiers_or_text(case, models):
    analysis, _ = analyze(case.volume, models=models, text="Herr Mustermann, 66 Jahre")
    text = analysis.to_json()
    assert Analysis.from_json(text).to_json() == text
    assert "Mustermann" not in text
    assert json.loads(text)["schema"] == 1


def test_box_prompt_outlines_the_boxed_lesion_only(case, models):
    analysis, arrays = analyze(case.volume, Prompts(boxes=(truth_box(case),)), models=models)
    assert analysis.mode == "prompted"
    assert dice(arrays.labels == LABEL_ICH, case.labels == 1) >= 0.85


def test_box_elsewhere_in_the_brain_outlines_nothing(case, models):
    box = truth_box(case)
    mirrored = Box((-box.ras_max[0], *box.ras_min[1:]), (-box.ras_min[0], *box.ras_max[1:]))
    analysis, arrays = analyze(case.volume, Prompts(boxes=(mirrored,)), models=models)
    assert np.count_nonzero((arrays.labels == LABEL_ICH) & (case.labels == 1)) < 0.1 * np.count_nonzero(
        case.labels == 1
    )
    assert analysis.status == "ok"


def test_negative_point_removes_from_its_slice(case, models):
    k = int(np.argmax((case.labels == 1).sum(axis=(1, 2))))
    j, i = (round(float(value.mean())) for value in np.nonzero(case.labels[k] == 1))
    ras = tuple(case.volume.ijk_to_ras_points(np.array([[i, j, k]]))[0])
    _, before = analyze(case.volume, models=models)
    _, after = analyze(case.volume, Prompts(points=(Point(ras, False),)), models=models)
    assert np.count_nonzero(after.labels[k] == 1) < np.count_nonzero(before.labels[k] == 1)


def test_prompt_outside_the_scan_is_named(case, models):
    with pytest.raises(UsageError, match="Point 900,0,0"):
        analyze(case.volume, Prompts(points=(Point((900.0, 0.0, 0.0)),)), models=models)


def test_cancel_stops_between_stages(case, models):
    def stop(fraction: float, _message: str) -> None:
        if fraction > 0.3:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        analyze(case.volume, models=models, progress=stop)


def test_edited_mask_changes_volumes_and_keeps_the_networks_words(case, answer):
    analysis, arrays = answer
    labels = arrays.labels.copy()
    ks = np.flatnonzero((labels == 1).any(axis=(1, 2)))
    labels[ks[: len(ks) // 2]] = 0
    edited = measure_labels(analysis, replace(arrays, labels=labels), case.volume)
    assert edited.mode == "edited"
    assert edited.volumes_ml["segmentation"] == pytest.approx(case.volume.mask_volume_ml(labels == 1), abs=1e-3)
    assert edited.volumes_ml["network"] == analysis.volumes_ml["network"]
    assert edited.location.label == analysis.location.label


def test_cohort_of_fresh_seeds(models):
    """10 with hemorrhage of all locations, 2 to 80 mL, and 10 without: 9 found, at most 1 false, boxed Dice 0.85."""
    volumes = np.geomspace(2, 80, 10)
    found, false, boxed = 0, 0, []
    for n in range(10):
        location = ("deep", "lobar", "subtentorial")[n % 3]
        volume_ml = float(min(volumes[n], 20.0) if location == "subtentorial" else volumes[n])
        bled = simulate_case(70_000 + n, CaseSpec(has_ich=True, location=location, volume_ml=volume_ml))
        analysis, arrays = analyze(
            bled.volume, Prompts(boxes=(truth_box(bled),)), models=models, options=AnalyzeOptions(heatmap=False)
        )
        found += analysis.presence.probability >= analysis.presence.threshold  # what was thought before the box
        boxed.append(dice(arrays.labels == LABEL_ICH, bled.labels == 1))
        clean = simulate_case(80_000 + n, CaseSpec(has_ich=False))
        false += analyze(clean.volume, models=models, options=AnalyzeOptions(heatmap=False))[0].presence.positive
    assert found >= 9
    assert false <= 1
    assert np.mean(boxed) >= 0.85


def test_real_head_without_bleed(shared_data, tmp_path):
    analysis, files = analyze_scan(shared_data / "head_ct_ge", tmp_path)
    assert analysis.status == "ok"
    assert not analysis.presence.positive
    assert analysis.message == NEGATIVE_CAVEAT
    assert not analysis.prognosis
    codes = {finding.code for finding in analysis.findings}
    assert {"gantry_tilt", "uneven_spacing"} <= codes
    labels = np.asarray(nibabel.load(files["segmentation"]).dataobj)
    assert labels.shape == (512, 512, 28)
    assert not labels.any()
    assert files["segmentation_ras"].exists()


def test_phantom_is_blocked_with_status_3(shared_data, tmp_path, capsys):
    status = main(["analyze", str(shared_data / "head_phantom_philips"), "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert status == 3
    assert "not a head CT" in err
    assert "Traceback" not in out + err
    assert json.loads((tmp_path / "analysis.json").read_text())["status"] == "blocked"
