"""`ich-analysis batch` and `report` from the command line."""

from __future__ import annotations

import stat

import nibabel
import numpy as np
import pytest
from output_cases import bleed_labels, positive_analysis, upright_volume

from ICHAnalysisLib.analysis import AnalysisArrays
from ICHAnalysisLib.cli import main
from ICHAnalysisLib.outputs.files import write_outputs


def test_batch_command_reports_what_failed(tmp_path, monkeypatch, capsys):
    import batch_analyzers

    (tmp_path / "in").mkdir()
    for name, text in (("a", '{"ml": 3}'), ("b", "broken")):
        (tmp_path / "in" / name).write_text(text)
    table = tmp_path / "list.csv"
    table.write_text("case_id,image\na,in/a\nb,in/b\n")
    monkeypatch.setattr("ICHAnalysisLib.batch.run_batch.__defaults__", (None, None, batch_analyzers.read_and_answer))
    assert main(["batch", str(table), "--out", str(tmp_path / "out")]) == 4
    out, err = capsys.readouterr()
    assert "2 cases: 1 analyzed (1 with hemorrhage), 1 blocked or failed." in out
    assert "b: failed" in err and "[1/2] a: ok, 3.0 mL" in err
    assert main(["batch", str(tmp_path / "missing"), "--out", str(tmp_path / "out")]) == 2


@pytest.fixture
def scan(tmp_path):
    """A scan as NIfTI with its outputs."""
    volume = upright_volume()
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume.hu.transpose(2, 1, 0), volume.ijk_to_ras), path)
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]))
    write_outputs(positive_analysis(volume, labels), AnalysisArrays(labels), volume, tmp_path / "out")
    return path, volume


def test_report_command_writes_the_report_again(scan, tmp_path, monkeypatch, capsys):
    path, volume = scan
    monkeypatch.setattr("ICHAnalysisLib.ct.readers.read_scan", lambda *_, **__: volume)
    report = tmp_path / "out" / "report.html"
    before = report.read_text()
    report.unlink()
    assert main(["report", str(tmp_path / "out"), str(path)]) == 0
    assert report.read_text() == before
    assert str(report) in capsys.readouterr().out


def test_report_command_wants_an_analysis(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "no analysis.json" in capsys.readouterr().err


def test_report_with_identifiers_wants_the_scan(scan, tmp_path, capsys):
    assert main(["report", str(tmp_path / "out"), "--with-identifiers"]) == 2
    assert "need the scan" in capsys.readouterr().err


def test_identifiers_of_a_dicom_scan_are_private(scan, tmp_path, monkeypatch):
    from dataclasses import replace

    from pydicom.dataset import Dataset

    from ICHAnalysisLib.ct.volume import InstanceRef

    path, volume = scan
    header = Dataset()
    header.PatientName, header.PatientID = "Doe^Jane", "4711"
    known = replace(volume, instances=(InstanceRef("x", None, "1.2", "1.2.3"),) * volume.shape[0])
    monkeypatch.setattr("ICHAnalysisLib.ct.readers.read_scan", lambda *_, **__: known)
    monkeypatch.setattr("ICHAnalysisLib.ct.readers.source_datasets", lambda *_: [header])
    assert main(["report", str(tmp_path / "out"), str(path), "--with-identifiers"]) == 0
    report = tmp_path / "out" / "report.html"
    assert "Doe^Jane" in report.read_text() and "4711" in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    assert main(["report", str(tmp_path / "out"), str(path)]) == 0
    assert "Doe^Jane" not in report.read_text()


def test_report_is_not_written_for_another_scan(tmp_path, capsys):
    """Two patients, one protocol: the grids are the same, the images are not."""
    pytest.importorskip("highdicom", reason="the extra 'dicom' is not installed")
    from dicom_cases import write_series

    volume = write_series(upright_volume(), tmp_path / "one")
    write_series(upright_volume(), tmp_path / "two")
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]))
    write_outputs(positive_analysis(volume, labels), AnalysisArrays(labels), volume, tmp_path / "out")
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert main(["report", str(tmp_path / "out"), str(tmp_path / "two"), "--dicom"]) == 2
    assert "another scan" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    assert main(["report", str(tmp_path / "out"), str(tmp_path / "one"), "--dicom"]) == 0
