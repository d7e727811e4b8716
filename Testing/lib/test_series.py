"""Grouping, ranking and naming of series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ICHAnalysisLib.ct.headers import SliceHeader
from ICHAnalysisLib.ct.series import bone_kernel, contrast, dual_energy, group_series, split_repeats
from ICHAnalysisLib.ct.sources import FileRef
from ICHAnalysisLib.ct.study import choose_series, open_study
from ICHAnalysisLib.errors import InputBlockedError, UsageError
from ICHAnalysisLib.simulate import hazard_scans

AXIAL = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def headers(number: int = 1, count: int = 30, step: float = 5.0, start: float = 0.0, **values) -> list[SliceHeader]:
    """A plain head series; `values` replace attributes of every slice."""
    plain = {
        "study_uid": "study", "series_uid": f"uid{number}", "patient": "p", "modality": "CT", "series_number": number,
        "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"), "kernel": "H30s", "orientation": AXIAL, "rows": 512,
        "columns": 512, "pixel_spacing": (0.45, 0.45), "thickness": step, "series_description": "Head", "slope": 1.0,
        "intercept": -1024.0, "photometric": "MONOCHROME2", "acquisition": "1",
    }  # fmt: skip
    directions = values.get("orientation") or AXIAL
    along = np.abs(np.cross(directions[:3], directions[3:]))
    return [
        SliceHeader(
            **{
                "ref": FileRef(Path(f"{number}_{k}.dcm")),
                "sop_uid": f"{number}.{k}.{values.get('acquisition', '')}{values.get('temporal', '')}",
                "instance_number": k + 1,
                "position": tuple((start + step * k) * along),
                **plain,
                **values,
            }
        )
        for k in range(count)
    ]


@pytest.mark.parametrize(
    "worse",
    [
        {"kernel": "H70h"},
        {"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)},
        {"series_description": "Abdomen"},
        {"contrast_agent": "Iohexol"},
        {"series_description": "Head C+"},
        {"image_type": ("DERIVED", "SECONDARY", "AXIAL")},
        {"count": 12},
        {"step": 1.0, "count": 150},
        {"series_description": "Head VNC"},
    ],
    ids=lambda worse: str(next(iter(worse.values()))),
)
def test_each_criterion_ranks(worse: dict) -> None:
    ranked = group_series([*headers(1, **worse), *headers(2)])
    assert [one.label for one in ranked] == ["2", "1"]
    assert all(one.offered for one in ranked)


def test_soft_derived_beats_bone_original() -> None:
    ranked = group_series([*headers(1, kernel="BONE"), *headers(2, image_type=("DERIVED", "SECONDARY", "REFORMATTED"))])
    assert ranked[0].label == "2"


@pytest.mark.parametrize(
    ("never", "reason"),
    [
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localizer"),
        ({"modality": "MR"}, "not a CT"),
        ({"samples": 3, "photometric": "RGB"}, "color"),
        ({"count": 3}, "only 3 slices"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.7", "orientation": None}, "secondary capture"),
    ],
)
def test_never_offered(never: dict, reason: str) -> None:
    series = group_series([*headers(1, **never), *headers(2)])
    assert [one.offered for one in series] == [True, False]
    assert reason in series[1].reasons[0]


def test_slices_come_in_order_of_position() -> None:
    shuffled = headers(1)
    np.random.default_rng(0).shuffle(shuffled)
    assert [h.position[2] for h in group_series(shuffled)[0].headers] == [5.0 * k for k in range(30)]


def test_one_number_on_two_series_gets_letters() -> None:
    ranked = group_series([*headers(1), *headers(1, series_uid="other", kernel="H70h")])
    assert [one.label for one in ranked] == ["1", "1b"]


def test_phases_are_split_by_what_tells_them_apart() -> None:
    stacks = split_repeats([*headers(1), *headers(1, acquisition="2")])
    assert [(len(stack), why) for stack, why in stacks] == [(30, "acquisition"), (30, "acquisition")]
    nothing = headers(1)
    more = [
        SliceHeader(**{**h.__dict__, "sop_uid": h.sop_uid + "x", "instance_number": h.instance_number + 30})
        for h in nothing
    ]
    stacks = split_repeats([*nothing, *more])
    assert [len(stack) for stack, _ in stacks] == [30, 30]
    assert {h.instance_number for h in stacks[0][0]} == set(range(1, 31))


def test_jitter_of_directions_does_not_tear_a_stack_apart() -> None:
    jittered = [
        SliceHeader(**{**h.__dict__, "orientation": (-1.0, 0.0, 0.005 + 1e-5 * (k % 2), 0.0, -1.0, 0.0)})
        for k, h in enumerate(headers(1))
    ]
    assert [len(one.headers) for one in group_series(jittered)] == [30]


def test_copies_of_a_file_are_no_phases() -> None:
    assert len(split_repeats(headers(1) * 2)) == 1


@pytest.mark.parametrize(
    ("kernel", "sharp"),
    [
        ("H30s", False), ("H60s", True), ("H70h", True), ("J40s", False), ("Br40d", False), ("Br64d", True),
        ("Hr68h", True), ("Hr38h", False), ("STANDARD", False), ("SOFT", False), ("BONE", True), ("BONEPLUS", True),
        ("EDGE", True), ("FC21", False), ("FC26", False), ("FC30", True), ("FC81", True), ("UB", False), ("YC", True),
        ("YD", True), ("B", False), ("D", True), ("STD+", False), ("B31s", False), ("B70f", True), ("", False),
        ("J70h 3", True), ("J40s 3", False), ("I70f 2", True), ("I31f 3", False), ("Qr69", True), ("Qr40", False),
    ],
)  # fmt: skip
def test_kernels(kernel: str, sharp: bool) -> None:
    assert bone_kernel(group_series(headers(1, kernel=kernel))[0]) is sharp


@pytest.mark.parametrize(
    ("description", "enhanced"),
    [
        ("Head", False), ("Head C+", True), ("CTA head", True), ("Head w/o contrast", False), ("SANS IV", False),
        ("Kopf nativ", False), ("Kopf mit KM", True), ("Head post contrast", True), ("Head post op", False),
        ("HEAD WITHOUT CONTRAST 5MM", False), ("Perfusion", True), ("CRANIO SEM CONTRASTE", False),
        ("NCCT brain", False), ("TAC DE CRANEO", False), ("CT HEAD WO CONTRAST", False), ("HEAD W/O", False),
        ("Head + C-spine", False), ("Schaedel o. KM", False), ("CT mit Kontrastmittel", True), ("avec injection", True),
        ("craneo con contraste", True), ("craneo sin contraste", False), ("CE head", True), ("non-enhanced", False),
        ("Head post thrombectomy", False), ("Brain without intravenous contrast", False), ("HEAD W/WO", True),
    ],
)  # fmt: skip
def test_contrast_words(description: str, enhanced: bool) -> None:
    assert contrast(group_series(headers(1, series_description=description))[0]) is enhanced


@pytest.mark.parametrize(
    ("series", "study", "enhanced"),
    [
        ("AXIAL 5MM", "CT HEAD WITHOUT CONTRAST", False), ("AXIAL 5MM", "CT HEAD WITH CONTRAST", True),
        ("AXIAL 5MM", "CT HEAD W AND WO CONTRAST", True), ("PRE 5MM", "CT HEAD W WO CONTRAST", False),
        ("POST 5MM", "CT HEAD W WO CONTRAST", True), ("NCCT 5MM", "CTA HEAD NECK", False), ("PRE OP", "CTA HEAD", True),
    ],
)  # fmt: skip
def test_the_series_own_words_count_before_those_of_the_study(series: str, study: str, enhanced: bool) -> None:
    assert contrast(group_series(headers(1, series_description=series, study_description=study))[0]) is enhanced


@pytest.mark.parametrize(
    ("agent", "given"),
    [("NONE", False), ("No IV contrast", False), ("W/O", False), ("-", False), ("Omnipaque 350", True), ("ORAL", True)],
)
def test_contrast_agent_none_is_none(agent: str, given: bool) -> None:
    assert contrast(group_series(headers(1, contrast_agent=agent))[0]) is given


def test_a_slice_without_position_is_left_out_of_the_stack() -> None:
    lost = [SliceHeader(**{**h.__dict__, "position": None}) if k == 9 else h for k, h in enumerate(headers(1))]
    assert [len(one.headers) for one in group_series(lost)] == [29, 1]


def test_frames_without_places_are_never_offered() -> None:
    (series,) = group_series(headers(1, count=1, frames=35))
    assert not series.offered and "35 frames in one picture" in series.reasons[0]


@pytest.mark.parametrize(("description", "dual"), [("Head VNC", True), ("Mono 70 keV", True), ("DE_Head_M_0.5", True),
                                                  ("TAC de craneo", False), ("Head 5.0 H30s", False)])  # fmt: skip
def test_dual_energy_words(description: str, dual: bool) -> None:
    assert dual_energy(group_series(headers(1, series_description=description))[0]) is dual


def test_choice_in_a_whole_study(bench, tmp_path: Path) -> None:
    made = hazard_scans.whole_study(bench, tmp_path / "study")
    study = open_study(made.path)
    best, findings = choose_series(study)
    assert best.label == "2" and {finding.code for finding in findings} == {"localizer", "several_series"}
    assert choose_series(study, 4)[0].first.kernel == "H60s"
    assert choose_series(study, best.uid)[0].label == "2"
    with pytest.raises(UsageError, match=r"no series 99.*Series found: 2"):
        choose_series(study, "99")
    with pytest.raises(InputBlockedError, match="localizer"):
        choose_series(study, 1)


def test_named_series_of_one_of_two_patients(bench, tmp_path: Path) -> None:
    study = open_study(hazard_scans.two_patients(bench, tmp_path / "study").path)
    with pytest.raises(InputBlockedError, match="several patients"):
        choose_series(study)
    assert choose_series(study, "3")[0].label == "3"


def test_another_patients_localizer_is_said(bench, tmp_path: Path) -> None:
    from ICHAnalysisLib.simulate.dicom_series import write_series

    made = bench.write(tmp_path / "study")
    write_series(made.path, bench.usual.volume, 7, PatientID="OTHER", Modality="MR")
    _, findings = choose_series(open_study(made.path))
    said = {finding.code: (finding.level.value, finding.hazard) for finding in findings}
    assert said["several_patients"] == ("NOTE", 37)


def test_two_exams_of_one_patient_are_asked(bench, tmp_path: Path) -> None:
    from ICHAnalysisLib.simulate.dicom_series import write_series

    made = bench.write(tmp_path / "study")
    write_series(made.path, bench.usual.volume, 7, StudyInstanceUID="1.2.3.4")
    _, findings = choose_series(open_study(made.path))
    assert {finding.code: finding.level.value for finding in findings}["several_studies"] == "ASK"
