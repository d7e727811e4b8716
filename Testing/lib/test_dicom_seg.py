"""DICOM SEG: equal to the mask on every stack, frame by frame against the source; codes, device, validity."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_cases import write_enhanced, write_series
from output_cases import bleed_labels, positive_analysis, tilted_volume, upright_volume

from ICHAnalysisLib.analysis import Analysis, AnalysisArrays
from ICHAnalysisLib.ct.dicom import read_series
from ICHAnalysisLib.ct.study import open_study
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.outputs.dicom_files import DICOM_NAMES, dicom_objects, write_dicom_files
from ICHAnalysisLib.outputs.dicom_seg import original_segmentation, upright_segmentation, write_dicom
from ICHAnalysisLib.outputs.dicom_source import source_headers

highdicom = pytest.importorskip("highdicom", reason="the extra 'dicom' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

DCIODVFY = shutil.which("dciodvfy")
DCMQI = shutil.which("segimage2itkimage", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
CENTER = np.array([-20.0, 5.0, 0.0])


def labels_of(volume) -> np.ndarray:
    """ICH about a point and a bit of IVH."""
    labels = bleed_labels(volume, CENTER)
    labels[4, 30:33, 20:24] = 2
    return labels


def errors_of(path) -> list[str]:
    """Errors that dciodvfy reports."""
    run = subprocess.run([DCIODVFY, str(path)], capture_output=True, text=True, timeout=60, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


def read_frames(path, uids) -> np.ndarray:
    """The mask of a SEG on the given source instances, (K, rows, columns), by highdicom."""
    segmentation = highdicom.seg.segread(path)
    return segmentation.get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )


def write_seg(build, volume, labels, path, **fields):
    """A SEG file made by `build` (original or upright) for an answer that fits the labels."""
    analysis = positive_analysis(volume, labels, **fields)
    return write_dicom(build(analysis, labels, volume, source_headers(volume)), path)


def test_all_objects_are_written_for_the_owner_alone(tmp_path):
    volume = write_series(tilted_volume(), tmp_path / "in")
    labels = labels_of(volume)
    files = write_dicom_files(positive_analysis(volume, labels), AnalysisArrays(labels), volume, tmp_path)
    assert set(files) == set(DICOM_NAMES)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files.values())


@pytest.mark.parametrize("kind", ["upright", "tilted", "flipped"])
def test_seg_equals_the_mask_frame_by_frame(tmp_path, kind):
    made = upright_volume() if kind == "upright" else tilted_volume(flipped=kind == "flipped")
    volume = write_series(made, tmp_path / "in")
    labels = labels_of(volume)
    path = write_seg(original_segmentation, volume, labels, tmp_path / "seg.dcm")
    uids = [ref.sop_instance_uid for ref in volume.instances]
    assert np.array_equal(read_frames(path, uids), labels)


def test_frames_carry_the_true_positions(tmp_path):
    volume = write_series(tilted_volume(), tmp_path / "in")
    labels = labels_of(volume)
    seg = pydicom.dcmread(write_seg(original_segmentation, volume, labels, tmp_path / "seg.dcm"))
    by_uid = {ref.sop_instance_uid: k for k, ref in enumerate(volume.instances)}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        assert np.allclose(position * [-1, -1, 1], volume.slice_origins_ras[by_uid[source]], atol=1e-4)


def test_seg_of_an_enhanced_source(tmp_path):
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    volume = write_enhanced(upright_volume(), tmp_path / "in" / "enhanced.dcm", order)
    labels = labels_of(volume)
    files = write_dicom_files(positive_analysis(volume, labels), AnalysisArrays(labels), volume, tmp_path)
    seg = highdicom.seg.segread(files["dicom_seg"])
    frames = seg.get_pixels_by_source_frame(
        volume.instances[0].sop_instance_uid, list(range(1, 11)), combine_segments=True,
        ignore_spatial_locations=True, assert_missing_frames_are_empty=True,
    )  # fmt: skip
    assert np.array_equal(frames, labels[order])


def reduced(folder, factor: int):
    """The series in a folder as it is read where the memory is short: pixels averaged in blocks."""
    return read_series(open_study(folder).series[0], factor)[0]


def test_seg_of_a_reduced_scan_stands_on_the_original_slices(tmp_path):
    whole = write_series(tilted_volume(), tmp_path / "in")
    volume = reduced(tmp_path / "in", 3)  # 44 x 40 pixels: two rows and one column fill no block
    labels = bleed_labels(volume, CENTER)
    path = write_seg(original_segmentation, volume, labels, tmp_path / "seg.dcm")
    found = read_frames(path, [ref.sop_instance_uid for ref in volume.instances])
    assert np.array_equal(found[:, :42, :39], np.kron(labels, np.ones((1, 3, 3), np.uint8)))
    assert not found[:, 42:].any() and not found[:, :, 39:].any()
    assert whole.mask_volume_ml(found == 1) == pytest.approx(volume.mask_volume_ml(labels == 1), rel=1e-9)


def test_seg_of_a_reduced_enhanced_scan(tmp_path):
    write_enhanced(upright_volume(), tmp_path / "in" / "enhanced.dcm", list(range(10)))
    volume = reduced(tmp_path / "in", 2)
    labels = bleed_labels(volume, CENTER)
    path = write_seg(original_segmentation, volume, labels, tmp_path / "seg.dcm")
    found = highdicom.seg.segread(path).get_pixels_by_source_frame(
        volume.instances[0].sop_instance_uid, list(range(1, 11)), combine_segments=True,
        ignore_spatial_locations=True, assert_missing_frames_are_empty=True,
    )  # fmt: skip
    assert np.array_equal(found, np.kron(labels, np.ones((1, 2, 2), np.uint8)))


def test_a_seg_that_would_not_fit_the_memory_is_refused(tmp_path, monkeypatch):
    write_series(upright_volume(), tmp_path / "in")
    volume = reduced(tmp_path / "in", 2)
    labels = bleed_labels(volume, CENTER)
    monkeypatch.setattr("ICHAnalysisLib.outputs.dicom_source.free_memory_bytes", lambda: 1e4)
    with pytest.raises(UsageError, match=r"original slices of 44 x 40 pixels needs .* use segmentation\.nii\.gz"):
        write_seg(original_segmentation, volume, labels, tmp_path / "seg.dcm")


def test_labels_of_another_scan_are_refused(tmp_path):
    volume = write_series(upright_volume(), tmp_path / "in")
    with pytest.raises(UsageError, match="does not fit slices of 44 x 40"):
        write_seg(original_segmentation, volume, labels_of(volume)[:, ::2], tmp_path / "seg.dcm")


def test_codes_algorithm_and_device(tmp_path):
    volume = write_series(upright_volume(), tmp_path / "in")
    labels = labels_of(volume)
    seg = pydicom.dcmread(write_seg(original_segmentation, volume, labels, tmp_path / "seg.dcm", mode="prompted"))
    ich, ivh = seg.SegmentSequence
    for segment in (ich, ivh):
        category = segment.SegmentedPropertyCategoryCodeSequence[0]
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert (category.CodeValue, category.CodingSchemeDesignator) == ("49755003", "SCT")
        assert (kind.CodeValue, kind.CodeMeaning) == ("50960005", "Hemorrhage")
        assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "ICHAnalysis"
    assert ich.AnatomicRegionSequence[0].CodeValue == "12738006"
    assert ivh.AnatomicRegionSequence[0].CodeValue == "35764002"
    assert "research use only" in seg.ManufacturerModelName and len(seg.ManufacturerModelName) <= 64


def test_patient_and_study_are_the_source_s_and_uids_are_new(tmp_path):
    name = "=Müller^<script>../../x"
    volume = write_series(upright_volume(), tmp_path / "in", PatientName=name, SpecificCharacterSet="ISO_IR 192")
    labels = labels_of(volume)
    objects = dicom_objects(positive_analysis(volume, labels), AnalysisArrays(labels), volume)
    source = pydicom.dcmread(volume.instances[0].path)
    series, instances = set(), set()
    for dataset in objects.values():
        assert (dataset.PatientID, dataset.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
        assert str(dataset.PatientName) == name
        assert [dataset[tag].value or "" for tag in ("StudyDate", "AccessionNumber", "PatientSex")] == ["", "", ""]
        series.add(dataset.SeriesInstanceUID)
        instances.add(dataset.SOPInstanceUID)
    assert len(series | {source.SeriesInstanceUID}) == len(instances | {source.SOPInstanceUID}) == 5


def test_names_survive_the_file(tmp_path):
    volume = write_series(
        upright_volume(), tmp_path / "in", PatientName="Müller^Jürgen", SpecificCharacterSet="ISO_IR 100"
    )
    labels = labels_of(volume)
    files = write_dicom_files(positive_analysis(volume, labels), AnalysisArrays(labels), volume, tmp_path)
    assert {str(pydicom.dcmread(path).PatientName) for path in files.values()} == {"Müller^Jürgen"}


@pytest.mark.parametrize("tilted", [False, True])
def test_upright_seg_lies_in_the_true_place_on_a_regular_grid(tmp_path, tilted):
    volume = write_series(tilted_volume() if tilted else upright_volume(), tmp_path / "in")
    labels = labels_of(volume)
    path = write_seg(upright_segmentation, volume, labels, tmp_path / "seg.dcm")
    grid = highdicom.seg.segread(path).get_volume(combine_segments=True)
    axes = np.abs(grid.affine[:3, :3]) > 1e-9
    assert axes.sum() == 3 and axes.any(axis=0).all()
    index = np.argwhere(grid.array == 1)
    centroid = (index @ grid.affine[:3, :3].T + grid.affine[:3, 3]).mean(axis=0) * [-1, -1, 1]
    assert np.all(np.abs(centroid - CENTER) < 2.0)
    assert len(index) * np.prod(grid.spacing) / 1000 == pytest.approx(volume.mask_volume_ml(labels == 1), rel=0.05)


def test_objects_of_a_simulated_scan_say_so(tmp_path):
    volume = write_series(upright_volume(), tmp_path / "in")
    labels = labels_of(volume)
    analysis = positive_analysis(volume, labels, input={"simulated": True})
    for dataset in dicom_objects(analysis, AnalysisArrays(labels), volume).values():
        assert "SIMULATED" in dataset.SeriesDescription and len(dataset.SeriesDescription) <= 64


def test_a_negative_has_a_report_and_no_seg(tmp_path):
    volume = write_series(upright_volume(), tmp_path / "in")
    arrays = AnalysisArrays(np.zeros(volume.shape, np.uint8))
    assert set(dicom_objects(Analysis("ok"), arrays, volume)) == {"dicom_sr", "dicom_capture"}


def test_other_formats_are_refused():
    volume = upright_volume()
    with pytest.raises(UsageError, match="DICOM series"):
        dicom_objects(Analysis("ok"), AnalysisArrays(np.zeros(volume.shape, np.uint8)), volume)


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("kind", ["upright", "tilted", "negative"])
def test_dciodvfy_reports_no_errors(tmp_path, kind):
    volume = write_series(tilted_volume() if kind == "tilted" else upright_volume(), tmp_path / "in")
    labels = labels_of(volume) * (kind != "negative")
    analysis = Analysis("ok") if kind == "negative" else positive_analysis(volume, labels)
    files = write_dicom_files(analysis, AnalysisArrays(labels), volume, tmp_path)
    for path in files.values():
        assert errors_of(path) == [], path.name


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (dicom3tools) is not installed")
def test_the_real_tilted_uneven_scan(tmp_path, shared_data):
    from ICHAnalysisLib.ct.readers import read_scan

    volume = read_scan(shared_data / "head_ct_ge")
    labels = bleed_labels(volume, volume.ijk_to_ras_points([[300, 250, 15]])[0], 18.0)
    labels[13, 200:220, 240:260] = 2
    files = write_dicom_files(positive_analysis(volume, labels), AnalysisArrays(labels), volume, tmp_path)
    for key in ("dicom_seg", "dicom_seg_upright", "dicom_sr", "dicom_capture"):
        assert errors_of(files[key]) == [], key
    uids = [ref.sop_instance_uid for ref in volume.instances]
    assert np.array_equal(read_frames(files["dicom_seg"], uids), labels)


@pytest.mark.skipif(DCMQI is None, reason="dcmqi is not installed")
@pytest.mark.parametrize("build", [original_segmentation, upright_segmentation])
def test_dcmqi_reads_regular_grids(tmp_path, build):
    import SimpleITK as sitk  # noqa: N813

    volume = write_series(upright_volume(), tmp_path / "in")
    labels = labels_of(volume)
    path = write_seg(build, volume, labels, tmp_path / "seg.dcm")
    out = tmp_path / "out"
    out.mkdir()
    command = [DCMQI, "--inputDICOM", str(path), "--outputDirectory", str(out), "--outputType", "nrrd"]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    for label in (1, 2):
        image = sitk.ReadImage(str(out / f"{label}.nrrd"))
        statistics = sitk.LabelShapeStatisticsImageFilter()
        statistics.Execute(sitk.Cast(image > 0, sitk.sitkUInt8))
        true = volume.ijk_to_ras_points(np.argwhere(labels == label)[:, ::-1]).mean(axis=0)
        assert np.allclose(np.array(statistics.GetCentroid(1)) * [-1, -1, 1], true, atol=0.6)
        assert statistics.GetPhysicalSize(1) / 1000 == pytest.approx(volume.mask_volume_ml(labels == label), rel=1e-3)
