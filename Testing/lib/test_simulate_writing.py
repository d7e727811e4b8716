"""Simulated cases on disk: exact positions, marked as simulated, every parameter beside them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate import AcquisitionSpec, CaseSpec, SimulatedCase, simulate_case
from ICHAnalysisLib.simulate.__main__ import main
from ICHAnalysisLib.simulate.writing import write_case

SMALL = {"matrix": 64, "spacing_mm": 3.6, "detail_mm": 3.4}


@pytest.fixture(scope="module")
def tilted() -> SimulatedCase:
    acquisition = AcquisitionSpec(**SMALL, thickness_mm=7.0, tilt_degrees=18.5, uneven=True)
    return simulate_case(2, CaseSpec(has_ich=True, confounders=0.0, acquisition=acquisition))


@pytest.fixture(scope="module")
def upright() -> SimulatedCase:
    acquisition = AcquisitionSpec(**SMALL, thickness_mm=8.0, tilt_degrees=0.0, uneven=False, gap_mm=0.0)
    return simulate_case(3, CaseSpec(has_ich=True, confounders=0.0, acquisition=acquisition))


def test_dicom_holds_true_positions_and_the_mark(tilted: SimulatedCase, tmp_path: Path) -> None:
    paths = write_case(tilted, tmp_path, "dicom")
    slices = [pydicom.dcmread(path) for path in sorted(paths["scan"].glob("*.dcm"))]
    assert len(slices) == tilted.volume.shape[0]
    positions = np.array([[float(v) for v in s.ImagePositionPatient] for s in slices]) * [-1, -1, 1]
    assert np.allclose(positions, tilted.volume.slice_origins_ras, atol=1e-4)
    for k, dataset in enumerate(slices):
        assert list(dataset.ImageType)[:2] == ["DERIVED", "SECONDARY"] and "SYNTHETIC" in dataset.ImageType
        assert "SIMULATED" in dataset.SeriesDescription and str(dataset.PatientName).startswith("SIMULATED^")
        stored = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert np.array_equal(stored, tilted.volume.hu[k])
    assert len({s.SOPInstanceUID for s in slices}) == len(slices)
    assert len({s.SeriesInstanceUID for s in slices}) == 1


def test_reader_gives_the_same_volume(tilted: SimulatedCase, tmp_path: Path) -> None:
    from ICHAnalysisLib.ct.readers import read_scan

    paths = write_case(tilted, tmp_path, "dicom")
    scan = read_scan(paths["scan"], accept=True)
    assert scan.tilt_degrees == pytest.approx(18.5, abs=0.01)
    assert np.allclose(scan.slice_origins_ras, tilted.volume.slice_origins_ras, atol=1e-3)


def test_nifti_of_a_regular_stack_is_exact(upright: SimulatedCase, tmp_path: Path) -> None:
    paths = write_case(upright, tmp_path)
    image, labels = nibabel.load(paths["scan"]), nibabel.load(paths["labels"])
    assert np.allclose(image.affine, upright.volume.ijk_to_ras, atol=1e-4)
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), upright.volume.hu)
    assert np.array_equal(np.asarray(labels.dataobj).transpose(2, 1, 0), upright.labels)
    note = json.loads(paths["parameters"].read_text())["geometry"]["header"]
    assert "exact" in note


def test_nifti_of_a_tilted_stack_is_rigid_and_says_so(tilted: SimulatedCase, tmp_path: Path) -> None:
    paths = write_case(tilted, tmp_path)
    affine = nibabel.load(paths["labels"]).affine
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-5)
    told = json.loads(paths["parameters"].read_text())
    assert "rigid" in told["geometry"]["header"]
    assert np.allclose(told["geometry"]["slice_origins_ras"], tilted.volume.slice_origins_ras)


def test_unknown_format_is_refused(upright: SimulatedCase, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="png"):
        write_case(upright, tmp_path, "png")  # type: ignore[arg-type]


def test_command_writes_cases_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path), "--count", "2", "--seed", "7", "--matrix", "64", "--spacing-mm", "3.6"]
    assert main([*arguments, "--thickness-mm", "8", "--positive-fraction", "1"]) == 0
    with (tmp_path / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case_id"] for row in rows] == ["sim0000007", "sim0000008"]
    assert all((tmp_path / row["scan"]).is_file() and row["has_ich"] == "1" for row in rows)
    said = capsys.readouterr()
    assert "2/2" in said.err and len(said.out.strip().splitlines()) == 1


def test_command_refuses_a_wrong_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--count", "0"]) == 2
    assert "--count 0" in capsys.readouterr().err
