"""Identifiers and hostile texts: only where asked for, only for the owner, inert everywhere."""

from __future__ import annotations

import csv
import logging
import stat
from pathlib import Path

import numpy as np
import pytest
from dicom_cases import write_series
from output_cases import bleed_labels, negative_analysis, positive_analysis, tilted_volume

from ICHAnalysisLib.analysis import Analysis, AnalysisArrays
from ICHAnalysisLib.batch import run_batch
from ICHAnalysisLib.batch_cases import Case, find_cases
from ICHAnalysisLib.config.outputs import OutputOptions
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.outputs.files import write_outputs
from ICHAnalysisLib.outputs.redact import redacted, without_names
from ICHAnalysisLib.outputs.report import report_html
from ICHAnalysisLib.scores import ich_score

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

HOSTILE = '=HYPERLINK("x")<script>alert(1)</script>'


def openly_readable(folder: Path) -> list[Path]:
    """Files that others than the owner may read."""
    return [path for path in folder.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) != 0o600]


def test_no_open_file_of_an_analysis_names_the_patient(tmp_path):
    pytest.importorskip("highdicom", reason="the extra 'dicom' is not installed")
    volume = write_series(tilted_volume(), tmp_path / "Doe_Jane", PatientName="Doe^Jane", PatientID="4711-0815")
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]))
    arrays = AnalysisArrays(labels)
    files = write_outputs(
        positive_analysis(volume, labels), arrays, volume, tmp_path / "out", OutputOptions(dicom=True)
    )
    assert any(b"4711-0815" in path.read_bytes() for key, path in files.items() if key.startswith("dicom"))
    for path in openly_readable(tmp_path / "out"):
        content = path.read_bytes()
        assert b"Doe" not in content and b"4711-0815" not in content, path.name
    assert not any("Doe" in path.name for path in (tmp_path / "out").rglob("*"))


def test_identifiers_stand_in_private_files_alone(tmp_path):
    who = {"PatientName": "Doe^Jane", "PatientID": "4711-0815", "PatientBirthDate": "19500131"}
    volume = write_series(tilted_volume(), tmp_path / "in", **who)
    arrays = AnalysisArrays(np.zeros(volume.shape, np.uint8))
    files = write_outputs(negative_analysis(), arrays, volume, tmp_path / "out", OutputOptions(with_identifiers=True))
    assert "Doe^Jane" in files["report"].read_text() and "4711-0815" in files["report"].read_text()
    assert "1950-01-31" in files["report"].read_text()
    assert stat.S_IMODE(files["report"].stat().st_mode) == 0o600
    for path in openly_readable(tmp_path / "out"):
        assert b"Doe" not in path.read_bytes(), path.name


def test_a_hostile_name_is_inert_in_report_table_and_paths(tmp_path):
    scans = tmp_path / "in"
    scans.mkdir()
    table = scans / "list.csv"
    with open(table, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["case_id", "image", "patient_id"], [HOSTILE, "a.json", HOSTILE], ["../../../escape", "b.json", "p"]]
        )
    for name in ("a", "b"):
        (scans / f"{name}.json").write_text('{"ml": 5}')
    run_batch(find_cases(table), tmp_path / "out", analyzer=answer_with_outputs)
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    assert rows[0]["case_id"] == "'" + HOSTILE
    assert not (tmp_path / "escape").exists() and not (tmp_path.parent / "escape").exists()
    folders = sorted(path.name for path in (tmp_path / "out" / "cases").iterdir())
    assert len(folders) == 2 and all("<" not in name and "/" not in name and "=" not in name for name in folders)
    for page in [tmp_path / "out" / "summary.html", *(tmp_path / "out" / "cases").rglob("report.html")]:
        html = page.read_text(encoding="utf-8")
        assert "<script>alert(1)</script>" not in html
    assert "&lt;script&gt;alert(1)" in (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")


def answer_with_outputs(case: Case, folder: Path, options) -> Analysis:
    """A negative answer with its report, under the case's own id."""
    finding = Finding("x", Level.NOTE, HOSTILE)
    analysis = negative_analysis(case_id=case.case_id, findings=(finding,), message=HOSTILE)
    write_outputs(analysis, None, None, folder)
    return analysis


def read_alone(case: Case, folder: Path, options) -> Analysis:
    """The real way of a scan up to where a damaged one is blocked; no network is needed for that."""
    from ICHAnalysisLib.analyze import analyze_scan

    return analyze_scan(case.scan, folder)[0]


def test_a_damaged_scan_is_explained_without_its_name(tmp_path, caplog):
    scans = tmp_path / "Doe_Jane_1950"
    scans.mkdir()
    (scans / "Doe_Jane.nii.gz").write_bytes(b"no image")
    with caplog.at_level(logging.DEBUG, logger="ICHAnalysisLib"):
        result = run_batch(find_cases(scans), tmp_path / "out", analyzer=read_alone)
    assert result.rows[0]["status"] == "blocked" and result.rows[0]["message"]
    assert "Doe" not in caplog.text
    for path in openly_readable(tmp_path / "out"):
        assert b"Doe" not in path.read_bytes(), path.name


def test_names_of_files_leave_the_sentences(tmp_path):
    folder = tmp_path / "MUELLER^HANS"
    folder.mkdir()
    (folder / "mueller_001.dcm").touch()
    (folder / "I10").touch()
    finding = Finding("damaged", Level.FIX, "1 of 20 images is damaged: mueller_001.dcm (I10 is not).", "Export it.")
    analysis = redacted(Analysis("blocked", (finding,), message=f"{folder.name} holds no head CT."), folder)
    assert analysis.message == "The scan holds no head CT."
    assert analysis.findings[0].message == "1 of 20 images is damaged: a file (I10 is not)."


def test_words_of_the_subject_stay():
    text = "This is not a head CT with a brain in it."
    assert without_names(text, "/data/head/brain") == text
    assert without_names("Jane.nii is empty; janet stays.", "/x/Jane.nii") == "The scan is empty; janet stays."


def test_no_warning_of_a_library_quotes_the_name(tmp_path, recwarn):
    """highdicom warns of names of one part, pydicom of characters that a name must not hold; both quote them."""
    pytest.importorskip("highdicom", reason="the extra 'dicom' is not installed")
    volume = write_series(tilted_volume(), tmp_path / "in", PatientName="MUSTERMANN", PatientID="4711")
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]))
    analysis = positive_analysis(volume, labels)
    recwarn.clear()
    write_outputs(analysis, AnalysisArrays(labels), volume, tmp_path / "out", OutputOptions(dicom=True))
    assert not [str(item.message) for item in recwarn if "MUSTERMANN" in str(item.message)]


@pytest.mark.parametrize(("age", "shown"), [(89, "age: 89"), (90, "age: 90 or older"), (103.5, "age: 90 or older")])
def test_a_very_high_age_is_not_told(tmp_path, age, shown):
    volume = tilted_volume()
    score = ich_score(age=age, gcs=14, volume_ml=10.0, ivh=False, infratentorial=False)
    analysis = positive_analysis(volume, bleed_labels(volume, np.zeros(3)), prognosis={"ich_score": score})
    open_to_all = redacted(analysis, tmp_path)
    assert open_to_all.prognosis["ich_score"].score == score.score
    assert shown in report_html(open_to_all)
    assert open_to_all.prognosis["ich_score"].items["age"] == (age if age < 90 else "90 or older")
