"""Reading DICOM folders, zips and image files: true positions, true values, nothing else touched."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisLib.ct.head import brain_mask
from ICHAnalysisLib.ct.images import load_spatial
from ICHAnalysisLib.ct.readers import inspect_headers, inspect_scan, provenance, read_scan, source_datasets
from ICHAnalysisLib.ct.study import open_study
from ICHAnalysisLib.errors import InputBlockedError, UsageError
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.outputs.redact import redacted
from ICHAnalysisLib.simulate import hazard_images, hazard_scans
from ICHAnalysisLib.simulate.dicom_series import write_series


def test_real_head_has_the_headers_geometry(shared_data: Path) -> None:
    volume = read_scan(shared_data / "head_ct_ge")
    assert volume.shape == (28, 512, 512)
    assert volume.tilt_degrees == pytest.approx(18.5, abs=0.01)
    steps = volume.steps_mm
    assert steps[:13] == pytest.approx(np.full(13, 4.22 * np.cos(np.radians(18.5))), abs=1e-3)
    assert steps[13] == pytest.approx(1.081, abs=2e-3)
    assert steps[14:] == pytest.approx(np.full(13, 7.38 * np.cos(np.radians(18.5))), abs=1e-3)
    ends = (4.0 + 7.0) / 2
    assert volume.slice_heights_mm.sum() == pytest.approx(steps.sum() + ends, abs=1e-6)
    assert volume.slice_heights_mm.sum() == pytest.approx(149.6, abs=0.05)
    lowest = pydicom.dcmread(shared_data / "head_ct_ge" / "01.dcm", stop_before_pixels=True).ImagePositionPatient
    assert volume.slice_origins_ras[0] == pytest.approx([-lowest[0], -lowest[1], lowest[2]], abs=1e-6)
    codes = {finding.code: finding.level.value for finding in volume.findings}
    assert codes["gantry_tilt"] == codes["uneven_spacing"] == codes["padding"] == "FIX"
    assert not {"BLOCK", "ASK"} & set(codes.values())
    assert volume.hu.min() == -1024.0
    brain = brain_mask(volume)
    assert float(np.median(volume.hu[brain])) == pytest.approx(32.0, abs=2.0)
    assert volume.mask_volume_ml(brain) == pytest.approx(1515.0, rel=0.05)


def test_phantom_is_blocked_in_words(shared_data: Path) -> None:
    with pytest.raises(InputBlockedError, match=r"not a head CT .* no brain tissue") as caught:
        read_scan(shared_data / "head_phantom_philips", accept=True)
    codes = [finding.code for finding in caught.value.findings]
    assert codes[0] == "not_a_head"
    assert "Series 201 was chosen" in " ".join(finding.message for finding in caught.value.findings)


def test_dicom_gives_back_values_and_positions(bench, tmp_path: Path) -> None:
    made = bench.write(tmp_path / "scan")
    volume = read_scan(made.path)
    clean = np.clip(bench.usual.volume.hu, -1024, None)
    assert np.abs(volume.hu - clean).max() <= 0.51
    assert volume.slice_origins_ras == pytest.approx(bench.usual.volume.slice_origins_ras, abs=1e-3)
    assert volume.source["simulated"] is True
    assert volume.source["modality"] == "CT"


def test_order_of_files_does_not_matter(bench, tmp_path: Path) -> None:
    straight = read_scan(bench.write(tmp_path / "a").path)
    shuffled = tmp_path / "b"
    shuffled.mkdir()
    files = sorted((tmp_path / "a").iterdir())
    for name, path in enumerate(np.random.default_rng(1).permutation(np.array(files, dtype=object))):
        shutil.copy(path, shuffled / f"x{name:03d}")
    other = read_scan(shuffled)
    assert np.array_equal(straight.hu, other.hu)
    assert [ref.sop_instance_uid for ref in straight.instances] == [ref.sop_instance_uid for ref in other.instances]


def test_instances_name_the_file_of_each_slice(bench, tmp_path: Path) -> None:
    volume = read_scan(bench.write(tmp_path / "scan").path)
    paths, datasets = provenance(volume), source_datasets(volume)
    assert len(paths) == len(datasets) == volume.shape[0]
    for k in (0, volume.shape[0] - 1):
        assert datasets[k].SOPInstanceUID == volume.instances[k].sop_instance_uid
        assert float(datasets[k].ImagePositionPatient[2]) == pytest.approx(volume.slice_origins_ras[k, 2], abs=1e-3)


def test_source_holds_no_identifier(bench, tmp_path: Path) -> None:
    made = hazard_scans.burnt_in(bench, tmp_path / "scan")
    volume = read_scan(made.path, accept=True)
    text = json.dumps(volume.source) + " ".join(f.message + f.remedy for f in volume.findings)
    for secret in ("Doe", "Jane", "4711", str(tmp_path)):
        assert secret not in text


@pytest.mark.parametrize("kind", ["zip", "single_zip_member_folder", "dicomdir"])
def test_other_containers_read_the_same(bench, tmp_path: Path, kind: str) -> None:
    straight = read_scan(bench.write(tmp_path / "scan").path)
    target = tmp_path / "scan" / "DICOMDIR"
    if kind == "dicomdir":
        target.write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    else:
        target = tmp_path / "scan.zip"
        inner = "" if kind == "zip" else "a/b/"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((tmp_path / "scan").iterdir()):
                archive.write(path, inner + path.name)
    assert np.array_equal(read_scan(target).hu, straight.hu)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_image_files_keep_order_values_and_places(bench, tmp_path: Path, suffix: str) -> None:
    import SimpleITK as sitk  # noqa: N813

    volume = bench.usual.volume
    image = sitk.GetImageFromArray(volume.hu)
    axes = volume.ijk_to_ras[:3, :3] / np.array(volume.spacing_mm)
    image.SetSpacing(volume.spacing_mm)
    image.SetDirection((np.diag([-1.0, -1.0, 1.0]) @ axes).ravel())
    image.SetOrigin(volume.slice_origins_ras[0] * [-1, -1, 1])
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path))
    read = read_scan(path)
    assert np.abs(read.hu - np.maximum(volume.hu, -1024)).max() < 1e-3
    assert read.ijk_to_ras == pytest.approx(volume.ijk_to_ras, abs=1e-3)


def test_big_endian_and_implicit_and_no_preamble(bench, tmp_path: Path) -> None:
    straight = read_scan(bench.write(tmp_path / "a").path)
    made = bench.write(tmp_path / "b")
    for number, path in enumerate(sorted(made.path.iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.add_new(0x00091010, "LO", "private creator missing")
        stored = np.frombuffer(dataset.PixelData, "<u2")
        if number % 3 == 0:
            dataset.PixelData = stored.astype(">u2").tobytes()
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
            pydicom.dcmwrite(path, dataset, little_endian=False, implicit_vr=False, force_encoding=True)
        elif number % 3 == 1:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            dataset.save_as(path, little_endian=True, implicit_vr=True)
        else:
            del dataset.file_meta
            dataset.preamble = None
            dataset.save_as(path, little_endian=True, implicit_vr=True, enforce_file_format=False)
    assert np.array_equal(read_scan(made.path).hu, straight.hu)


def test_missing_optional_tags(bench, tmp_path: Path) -> None:
    def change(dataset, _k: int) -> None:
        for keyword in (
            "SliceThickness", "ConvolutionKernel", "Manufacturer", "ImageType", "SeriesNumber", "InstanceNumber",
            "AcquisitionNumber", "BodyPartExamined", "SeriesDescription", "PatientID", "PatientName",
        ):  # fmt: skip
            delattr(dataset, keyword)

    made = bench.write(tmp_path / "scan", change=change)
    volume = read_scan(made.path)
    assert volume.slice_thickness_mm == pytest.approx(np.full(volume.shape[0], 5.0))


def test_directions_missing_leave_the_side_open(bench, tmp_path: Path) -> None:
    def change(dataset, k: int) -> None:
        dataset.SliceLocation = 5.0 * k
        del dataset.ImageOrientationPatient, dataset.ImagePositionPatient

    made = bench.write(tmp_path / "scan", change=change)
    with pytest.raises(InputBlockedError, match="left and right are unknown"):
        read_scan(made.path)
    assert not read_scan(made.path, accept=True).side_known


def test_time_point_of_a_4d_file(bench, tmp_path: Path) -> None:
    made = hazard_images.time_series(bench, tmp_path)
    with pytest.raises(InputBlockedError, match="holds 3 volumes"):
        read_scan(made.path, accept=True)
    second = read_scan(made.path, series=2)
    assert np.median(second.hu - read_scan(made.path, series=1).hu) == pytest.approx(5.0, abs=1e-3)
    with pytest.raises(InputBlockedError, match="not 9"):
        read_scan(made.path, series=9)


def test_time_point_of_a_perfusion_series(bench, tmp_path: Path) -> None:
    made = hazard_scans.perfusion(bench, tmp_path / "scan")
    with pytest.raises(InputBlockedError, match=r"--series 2\.1|4 volumes"):
        read_scan(made.path, accept=True)
    assert read_scan(made.path, series="2.3").shape == bench.usual.volume.shape
    study = open_study(made.path)
    assert not any(finding.hazard == 26 for finding in inspect_headers(study, "2.3").findings)
    for name in ("2", study.series[0].uid):  # neither names a time point
        with pytest.raises(InputBlockedError, match="4 volumes"):
            read_scan(made.path, series=name, accept=True)


def test_copies_are_counted_from_the_headers(bench, tmp_path: Path) -> None:
    made = bench.write(tmp_path / "scan")
    shutil.copytree(made.path, made.path / "again")
    volume = inspect_headers(open_study(made.path))
    assert volume.shape == bench.usual.volume.shape
    (finding,) = volume.findings
    assert (finding.code, finding.level) == ("duplicate_slices", Level.FIX)
    assert f"{volume.shape[0]} slices are there twice" in finding.message
    other = pydicom.dcmread(made.path / "002_0004.dcm")
    other.SOPInstanceUID = "1.2.3"
    other.save_as(made.path / "other.dcm")
    assert "repeated_positions" in {finding.code for finding in inspect_headers(open_study(made.path)).findings}


def test_a_slice_without_rescale_takes_the_others(bench, tmp_path: Path) -> None:
    clean = read_scan(bench.write(tmp_path / "clean").path)
    volume = read_scan(hazard_scans.rescale_on_most(bench, tmp_path / "scan").path, accept=True)
    assert np.array_equal(volume.hu, clean.hu)
    assert {f.code: f.level.value for f in volume.findings} == {"rescale_missing": "ASK"}


def test_an_image_description_left_out_is_completed(bench, tmp_path: Path) -> None:
    clean = read_scan(bench.write(tmp_path / "clean").path)

    def change(dataset, _k: int) -> None:
        del dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.BitsStored, dataset.HighBit

    assert np.array_equal(read_scan(bench.write(tmp_path / "scan", change=change).path).hu, clean.hu)


def test_the_question_of_a_template_brain(bench, tmp_path: Path) -> None:
    import nibabel as nib

    made = hazard_images.shifted(bench, tmp_path)
    image = nib.load(made.path)
    image.set_sform(image.affine, 4)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "mni.nii.gz")
    codes = {f.code: f.level.value for f in inspect_headers(open_study(tmp_path / "mni.nii.gz")).findings}
    assert codes == {"template_space": "ASK"}


def test_a_tilted_matrix_states_one_voxel_size(bench, tmp_path: Path) -> None:
    made = hazard_images.sheared(bench, tmp_path)
    assert [f.code for f in inspect_headers(open_study(made.path)).findings if f.level is Level.ASK] == []


def test_a_huge_nifti_is_read_reduced(bench, tmp_path: Path, monkeypatch) -> None:
    from ICHAnalysisLib.ct import memory

    made = hazard_images.time_series(bench, tmp_path)
    plain = read_scan(made.path, series=2)
    monkeypatch.setattr(memory, "MAX_VOXELS", plain.hu.size // 3)
    volume = inspect_scan(made.path, series=2)
    assert {f.code: f.level.value for f in volume.findings}["huge"] == "ASK"
    depth, rows, columns = plain.shape
    assert volume.shape == (depth, rows // 2, columns // 2)
    blocks = plain.hu[:, : rows // 2 * 2, : columns // 2 * 2].reshape(depth, rows // 2, 2, columns // 2, 2)
    assert volume.hu == pytest.approx(blocks.mean(axis=(2, 4)), abs=0.5)
    corner = plain.ijk_to_ras_points(np.array([[0.5, 0.5, 0.0]]))
    assert volume.ijk_to_ras_points(np.zeros((1, 3))) == pytest.approx(corner, abs=1e-3)


@pytest.mark.parametrize("kind", ["mhd", "hdr"])
def test_a_zip_takes_the_data_beside_a_detached_header(bench, tmp_path: Path, kind: str) -> None:
    import nibabel as nib
    import SimpleITK as sitk  # noqa: N813

    volume = bench.usual.volume
    if kind == "mhd":
        image = sitk.GetImageFromArray(volume.hu)
        image.SetSpacing(volume.spacing_mm)
        sitk.WriteImage(image, str(tmp_path / "head.mhd"))
    else:
        nib.save(nib.Nifti1Pair(np.swapaxes(volume.hu, 0, 2), volume.ijk_to_ras), tmp_path / "head.hdr")
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for path in sorted(tmp_path.glob("head.*")):
            archive.write(path, f"a/{path.name}")
    read = inspect_scan(tmp_path / "scan.zip")
    assert read.hu == pytest.approx(np.maximum(volume.hu, -1024.0), abs=1e-3)


def test_an_archive_within_a_folder_is_named(bench, tmp_path: Path) -> None:
    made = bench.write(tmp_path / "scan")
    (tmp_path / "export").mkdir()
    with zipfile.ZipFile(tmp_path / "export" / "scan.zip", "w") as archive:
        archive.write(next(made.path.iterdir()), "a.dcm")
    with pytest.raises(InputBlockedError, match=r"archive in it, scan\.zip: give that file"):
        read_scan(tmp_path / "export")


def test_a_file_of_surfaces_holds_no_voxels(tmp_path: Path) -> None:
    nib.save(nib.GiftiImage(), tmp_path / "surface.gii")
    with pytest.raises(nib.filebasedimages.ImageFileError, match=r"surface\.gii holds no voxels but GiftiImage"):
        load_spatial(tmp_path / "surface.gii")


def test_one_of_several_image_files_is_named(bench, tmp_path: Path) -> None:
    made = hazard_images.clipped(bench, tmp_path / "case")
    with pytest.raises(InputBlockedError, match="holds 2 image files"):
        read_scan(tmp_path / "case")
    assert read_scan(tmp_path / "case", series=made.path.name).shape == bench.usual.volume.shape


def test_units_of_meters(bench, tmp_path: Path) -> None:
    import nibabel as nib

    made = hazard_images.clipped(bench, tmp_path)
    image = nib.load(made.path)
    affine = image.affine.copy()
    affine[:3] /= 1000.0
    other = nib.Nifti1Image(image.get_fdata(), affine)
    other.header.set_xyzt_units("meter")
    nib.save(other, tmp_path / "meters.nii.gz")
    assert read_scan(tmp_path / "meters.nii.gz").spacing_mm == pytest.approx(bench.usual.volume.spacing_mm, rel=1e-4)


def test_huge_series_is_read_reduced_and_asked(bench, tmp_path: Path, monkeypatch) -> None:
    from ICHAnalysisLib.ct import memory

    made = bench.write(tmp_path / "scan")
    monkeypatch.setattr(memory, "MAX_VOXELS", bench.usual.volume.hu.size // 3)
    volume = inspect_scan(made.path)
    assert {f.code: f.level.value for f in volume.findings}["huge"] == "ASK"
    assert volume.shape[1] == bench.usual.volume.shape[1] // 2
    corner = bench.usual.volume.ijk_to_ras_points(np.array([[0.5, 0.5, 0.0]]))
    assert volume.ijk_to_ras_points(np.zeros((1, 3))) == pytest.approx(corner, abs=1e-2)


def test_questions_are_answered_by_accept(bench, tmp_path: Path) -> None:
    made = hazard_scans.bone_kernel(bench, tmp_path / "scan")
    with pytest.raises(InputBlockedError, match=r"--yes accepts.*sharp kernel") as caught:
        read_scan(made.path)
    assert any(finding.code == "bone_kernel" for finding in caught.value.findings)
    assert read_scan(made.path, accept=True).hu.std() < bench.usual.volume.hu.std()


def test_wrong_paths_are_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_scan(tmp_path / "nowhere")
    with pytest.raises(InputBlockedError, match="holds no CT images"):
        read_scan(tmp_path)


def test_too_few_slices(bench, tmp_path: Path) -> None:
    write_series(tmp_path / "scan", bench.usual.volume)
    for path in sorted((tmp_path / "scan").iterdir())[3:]:
        path.unlink()
    with pytest.raises(InputBlockedError, match="only 3 slices"):
        read_scan(tmp_path / "scan")


def test_slices_cut_short_in_their_header_are_listed(bench, tmp_path: Path) -> None:
    write_series(tmp_path / "scan", bench.usual.volume)
    files = sorted((tmp_path / "scan").iterdir())
    for path in files[:2]:
        path.write_bytes(path.read_bytes()[:600])
    (finding,) = open_study(tmp_path / "scan").findings
    assert (finding.code, finding.level) == ("damaged_files", Level.ASK)
    assert "2 files could not be read" in finding.message and "ends before the picture" in finding.message
    for path in files[2:]:
        path.unlink()
    with pytest.raises(InputBlockedError, match="ends before the picture"):
        open_study(tmp_path / "scan")


def test_names_in_a_zip_stay_out_of_every_sentence(tmp_path: Path) -> None:
    path = tmp_path / "scan.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("export/DOE_JANE.dcm", b"")
    said = Finding("damaged_files", Level.ASK, "1 file could not be read: DOE_JANE.dcm (empty, 0 bytes).", "", 30)
    analysis = redacted(Analysis("blocked", findings=(said,), message=said.message), path)
    assert analysis.message == analysis.findings[0].message == "1 file could not be read: a file (empty, 0 bytes)."
