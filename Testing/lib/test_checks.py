"""Answers to findings, and values that must neither be blocked nor let through wrongly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ICHAnalysisLib.analysis import Analysis, AnalysisArrays, Location
from ICHAnalysisLib.analyze import analyze_scan
from ICHAnalysisLib.clinical import ClinicalRecord
from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.ct.checks import (
    accepted,
    by_level,
    check_pixels,
    clear_or_ask,
    prognosis_barrier,
    require_clear,
    unanswered,
)
from ICHAnalysisLib.ct.lesion_checks import calcifications, is_lower_bound, lesion_findings, settle_gaps
from ICHAnalysisLib.ct.masks import map_values
from ICHAnalysisLib.errors import InputBlockedError
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.results import describe_prognosis
from ICHAnalysisLib.simulate.rescan import rescan

ASKED = Finding("contrast", Level.ASK, "Contrast.", "Use another.", 17)
BLOCKED = Finding("not_a_head", Level.BLOCK, "No head.", "Use another.", 34)
NOTED = Finding("metal", Level.NOTE, "Metal.", "", 22)


def codes(volume) -> dict[str, str]:
    return {finding.code: finding.level.value for finding in volume.findings}


def test_require_clear() -> None:
    require_clear((NOTED,))
    require_clear((NOTED, ASKED), accept=True)
    with pytest.raises(InputBlockedError, match="Contrast") as caught:
        require_clear((NOTED, ASKED))
    assert caught.value.findings == (ASKED, NOTED)
    with pytest.raises(InputBlockedError, match="No head"):
        require_clear((NOTED, ASKED, BLOCKED), accept=True)
    assert unanswered((NOTED, ASKED, BLOCKED)) == [ASKED]


def test_contrast_bars_a_prognosis() -> None:
    assert prognosis_barrier((NOTED, ASKED)) == "Contrast."
    assert prognosis_barrier((NOTED,)) == ""


def test_an_operated_head_gets_a_prognosis_only_where_that_is_accepted(bench) -> None:
    operated = Finding("postoperative", Level.NOTE, "Operated.", "Accept.", 23)
    volume = bench.usual.volume.with_findings(operated)
    record = ClinicalRecord(age=70, gcs=14, ivh=False)
    sizes, place = {"segmentation": 20.0}, Location("deep", "left")
    silent = describe_prognosis(volume, record, sizes, place, None, None, False)["ich_score"]
    assert silent.score is None and silent.probability is None and silent.reason == "Operated."
    given = describe_prognosis(volume, record, sizes, place, None, None, False, accept=True)["ich_score"]
    assert given.score == 0 and given.probability == 0.0
    contrast = volume.with_findings(ASKED)
    barred = describe_prognosis(contrast, record, sizes, place, None, None, False, accept=True)["ich_score"]
    assert barred.score is None and barred.reason == ASKED.message


def test_one_code_is_said_once_with_its_heaviest_level() -> None:
    again = replace(ASKED, message="By its vessels.")
    assert by_level((NOTED, ASKED, again)) == (ASKED, NOTED)
    assert by_level((replace(ASKED, level=Level.NOTE), ASKED)) == (ASKED,)


def test_every_list_of_damaged_files_is_said() -> None:
    first = Finding("damaged_files", Level.ASK, "One is empty.", "Export again.", 30)
    second = replace(first, message="Two are cut short.")
    assert by_level((first, second, first)) == (first, second)


def test_open_questions_are_put_once() -> None:
    put: list[list[str]] = []

    def answer(yes: bool):
        def ask(questions) -> bool:
            put.append([finding.code for finding in questions])
            return yes

        return ask

    gap = Finding("missing_slices", Level.ASK, "Gap.", "Export.", 3)
    assert clear_or_ask((NOTED, ASKED, gap), False, answer(True), ("missing_slices",)) == ("contrast",)
    assert clear_or_ask((ASKED, gap), False, answer(True), ("contrast",)) == ("missing_slices",)
    assert clear_or_ask((ASKED,), True, answer(False)) == clear_or_ask((NOTED,), False, None) == ()
    for found, ask in (((ASKED,), answer(False)), ((ASKED,), None), ((ASKED, BLOCKED), answer(True))):
        with pytest.raises(InputBlockedError):
            clear_or_ask(found, False, ask)
    assert put == [["contrast"], ["missing_slices"], ["contrast"]]
    kept = accepted(accepted((NOTED, ASKED)))
    assert [finding.message for finding in kept] == ["Metal.", "Contrast. Accepted by the user."]


@pytest.mark.parametrize("window", [(0, 80), (-20, 100), (0, 100), (-100, 155), (-1024, 100), (0, 2000), (-300, 300)])
def test_true_hu_cut_to_a_window_stays_usable(bench, window) -> None:
    volume = replace(bench.usual.volume, hu=np.clip(bench.usual.volume.hu, *window))
    found = codes(check_pixels(volume))
    assert found == {"hu_window_clipped": "NOTE"}


@pytest.mark.parametrize(
    ("scale", "code"),
    [
        (lambda hu: np.clip((hu + 160) / 400 * 255, 0, 255), "not_hu"),
        (lambda hu: np.clip((hu + 1000) / 3000, 0, 1), "not_hu"),
        (lambda hu: np.clip(hu, 20, 60), "not_hu"),
        (lambda hu: np.clip((hu + 100) / 1000 * 255, 0, 255).round(), "not_hu"),
        (lambda hu: np.mod(hu.round(), 256), "not_hu"),
        (lambda hu: np.clip(hu / 1000, -1, 1), "not_hu"),
        (lambda hu: (hu - hu.mean()) / hu.std(), "not_hu"),
        (lambda hu: np.full_like(hu, 7.0), "constant_image"),
        (lambda hu: (hu + 1000) * 0.2, "not_ct"),
    ],
    ids=[
        "0-255",
        "0-1",
        "narrow window",
        "0-255 by chance",
        "8 bits that ran over",
        "-1 to 1",
        "scores",
        "constant",
        "wrong slope",
    ],
)
def test_what_is_no_hu_is_blocked(bench, scale, code: str) -> None:
    volume = replace(bench.usual.volume, hu=scale(bench.usual.volume.hu).astype(np.float32))
    found = codes(check_pixels(volume))
    assert found.get(code) == "BLOCK", found


@pytest.mark.parametrize("slope", [0.5, 0.8])
def test_a_lost_slope_is_asked_about(bench, slope: float) -> None:
    found = codes(check_pixels(replace(bench.usual.volume, hu=bench.usual.volume.hu * np.float32(slope))))
    assert found.get("hu_scale") == "ASK", found


def test_a_lost_slope_is_seen_beside_padding(bench) -> None:
    hu = bench.usual.volume.hu * np.float32(0.5)
    hu[:, :12] = hu[:, -12:] = -2000.0
    found = codes(check_pixels(replace(bench.usual.volume, hu=hu)))
    assert (found["hu_scale"], found["padding"]) == ("ASK", "FIX")


@pytest.mark.parametrize("floor", [-1024, -1000, -950])
def test_air_that_is_cut_off_is_air(bench, floor: int) -> None:
    hu = np.where(bench.usual.volume.hu < -700, floor, bench.usual.volume.hu).astype(np.float32)
    assert check_pixels(replace(bench.usual.volume, hu=hu)).findings == ()


def test_a_mask_in_place_of_the_scan_is_called_so(bench) -> None:
    mask = (bench.usual.labels == 1).astype(np.float32)
    assert codes(check_pixels(replace(bench.usual.volume, hu=mask))) == {"not_hu": "BLOCK"}


def test_a_brain_without_skull_is_called_so(bench) -> None:
    brain = replace(bench.usual.volume, hu=np.where(bench.brain(), bench.usual.volume.hu, 0).astype(np.float32))
    (finding,) = check_pixels(brain).findings
    assert (finding.code, finding.level) == ("not_a_head", Level.BLOCK) and "without the skull" in finding.message


def test_a_picture_that_ends_within_the_head_is_no_childs_head(bench) -> None:
    volume = bench.usual.volume
    _, rows, columns = volume.shape
    j, i = rows // 5, columns // 5
    narrow = replace(volume, hu=volume.hu[:, j:-j, i:-i])
    assert not {"pediatric", "postoperative"} & set(codes(check_pixels(narrow)))


@pytest.mark.parametrize("blood_hu", [45.0, 65.0, 90.0])
def test_large_bleeds_are_not_blocked(blood_hu: float) -> None:
    from ICHAnalysisLib.simulate.rescan import phantom

    known = phantom(blood_mm=(30.0, 48.0, 30.0), step_mm=3.0)
    hu = np.where(known.labels == 1, blood_hu, known.volume.hu).astype(np.float32)
    scan = rescan(replace(known, volume=replace(known.volume, hu=hu)), 5.0, pixel_mm=3.0)
    found = codes(check_pixels(scan.volume))
    assert not {"BLOCK", "ASK"} & set(found.values()), found


@pytest.mark.parametrize("part", [slice(0, 20), slice(10, 22), slice(14, 35)])
def test_part_of_a_head_is_noted_not_blocked(bench, part: slice) -> None:
    volume = bench.usual.volume
    cut = replace(
        volume,
        hu=volume.hu[part],
        slice_origins_ras=volume.slice_origins_ras[part],
        slice_thickness_mm=volume.slice_thickness_mm[part],
    )
    assert codes(check_pixels(cut)) == {"incomplete_cover": "NOTE"}


def test_a_trunk_is_no_head() -> None:
    k, j, i = np.meshgrid(np.arange(30), np.arange(128), np.arange(128), indexing="ij")
    hu = np.full(k.shape, -1000.0, np.float32)
    hu[((j - 64) / 42) ** 2 + ((i - 64) / 58) ** 2 <= 1] = 45.0
    hu[(j - 90) ** 2 + (i - 64) ** 2 <= 36] = 700.0
    for rib in range(12):
        angle = rib * np.pi / 6
        hu[(np.hypot(j - 64 - 38 * np.sin(angle), i - 64 - 53 * np.cos(angle)) < 2.5) & (k % 6 < 3)] = 700.0
    from ICHAnalysisLib.ct.volume import CTVolume

    trunk = CTVolume.from_affine(hu, np.diag([-3.0, -3.0, 5.0, 1.0]))
    assert codes(check_pixels(trunk))["not_a_head"] == "BLOCK"


def test_lesion_findings(bench) -> None:
    volume, mask = bench.usual.volume, bench.usual.labels == 1
    assert lesion_findings(volume, mask) == []
    assert lesion_findings(volume, np.zeros_like(mask)) == []
    end = np.zeros_like(mask)
    end[0, 50:55, 40:45] = True
    found = lesion_findings(volume, end)
    assert is_lower_bound(found)
    dense = replace(volume, hu=np.where(mask, 150.0, volume.hu).astype(np.float32))
    assert [finding.code for finding in lesion_findings(dense, mask)] == ["lesion_calcified"]


def test_calcifications_are_found_and_blood_is_not(bench) -> None:
    volume, mask = bench.usual.volume, bench.usual.labels == 1
    assert not calcifications(volume).any()
    hu = volume.hu.copy()
    k, j, i = np.argwhere(mask).mean(axis=0).astype(int)
    hu[k, j : j + 2, i - 12 : i - 10] = 200.0
    found = calcifications(replace(volume, hu=hu))
    assert found.sum() == 4 and found[k, j, i - 12]


def test_mask_values() -> None:
    base = np.zeros((2, 3, 3), np.float32)
    base[0, 0, 0] = 1
    assert map_values(base)[1] == ()
    labels, said = map_values(base * 255)
    assert labels.max() == 1 and said[0].level is Level.FIX
    labels, said = map_values(base * 0.7)
    assert labels.sum() == 1 and said[0].level is Level.FIX
    base[0, 0, 1] = 5
    labels, said = map_values(base)
    assert labels.sum() == 1 and said[0].level is Level.ASK
    labels, said = map_values(base, {1: 2, 5: 1})
    assert sorted(np.unique(labels)) == [0, 1, 2] and said == ()


def gapped(volume, *missing: int):
    """The volume without some slices, with the question that its checks ask."""
    kept = np.setdiff1d(np.arange(volume.shape[0]), missing)
    less = replace(
        volume,
        hu=volume.hu[kept],
        slice_origins_ras=volume.slice_origins_ras[kept],
        slice_thickness_mm=volume.slice_thickness_mm[kept],
    )
    question = Finding("missing_slices", Level.ASK, "Slices are missing.", "Export the complete series.", 3)
    return replace(less, findings=(question,)), kept


@pytest.mark.parametrize(
    ("missing", "blood", "level"),
    [
        ((6,), (12, 15), Level.NOTE),
        ((6, 22), (12, 15), Level.NOTE),
        ((6, 22, 26), (12, 15), Level.ASK),
        ((11,), (12, 15), Level.ASK),
        ((13,), (12, 15), Level.ASK),
        ((16,), (12, 15), Level.ASK),
        ((17,), (12, 15), Level.NOTE),
        ((6,), None, Level.ASK),
    ],
    ids=["away", "two away", "three", "below", "inside", "above", "one between", "no blood"],
)
def test_few_gaps_away_from_the_bleed_are_a_note(bench, missing, blood, level) -> None:
    volume, kept = gapped(bench.usual.volume, *missing)
    mask = np.zeros(bench.usual.volume.shape, dtype=bool)
    if blood:
        mask[blood[0] : blood[1] + 1, 30:34, 30:34] = True
    (finding,) = settle_gaps(volume.findings, volume, mask[kept])
    assert (finding.code, finding.level) == ("missing_slices", level)
    assert ("lies elsewhere" in finding.message) == (level is Level.NOTE)
    bound = is_lower_bound(lesion_findings(volume, mask[kept]))
    assert bound == (missing[0] in (11, 13, 16))


@pytest.mark.parametrize(("level", "status"), [(Level.ASK, "blocked"), (Level.NOTE, "ok")])
def test_a_question_that_waited_is_asked_after_the_outline(bench, tmp_path, monkeypatch, level, status) -> None:
    volume, _ = gapped(bench.usual.volume, 6)
    with pytest.raises(InputBlockedError):
        require_clear(volume.findings)
    require_clear(volume.findings, waiting=("missing_slices",))
    answer = Analysis("ok", findings=(replace(volume.findings[0], level=level),), volumes_ml={"segmentation": 3.0})
    arrays = AnalysisArrays(np.zeros(volume.shape, np.uint8))
    monkeypatch.setattr("ICHAnalysisLib.ct.readers.inspect_scan", lambda *_: volume)
    monkeypatch.setattr("ICHAnalysisLib.analyze.analyze", lambda *_, **__: (answer, arrays))
    analysis, files = analyze_scan(tmp_path / "scan", tmp_path / "out")
    assert analysis.status == status and ("segmentation" in files) == (status == "ok")
    asked: list[str] = []

    def yes(questions) -> bool:
        asked.extend(finding.code for finding in questions)
        return True

    analysis, _ = analyze_scan(tmp_path / "scan", ask=yes)
    assert analysis.status == "ok" and asked == (["missing_slices"] if level is Level.ASK else [])
    assert analysis.findings[0].message.endswith("Accepted by the user.") == (level is Level.ASK)
    accepted, _ = analyze_scan(tmp_path / "scan", options=AnalyzeOptions(accept=True))
    assert accepted.status == "ok"
