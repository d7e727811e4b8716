"""Damaged, hostile and absurd input: one sentence for the user, no hang, no file elsewhere, bounded memory."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ICHAnalysisLib.ct import sources
from ICHAnalysisLib.ct.readers import inspect_headers, inspect_scan, read_scan
from ICHAnalysisLib.ct.study import open_study
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import ICHAnalysisError, InputBlockedError
from ICHAnalysisLib.simulate.dicom_series import write_series
from ICHAnalysisLib.simulate.hazard_images import write_nifti

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survives(path: Path) -> None:
    """Both ways of reading end with a value or an expected error."""
    for read in (lambda: inspect_headers(open_study(path)), lambda: inspect_scan(path), lambda: read_scan(path)):
        try:
            read()
        except ICHAnalysisError as error:
            said = str(error).strip()
            if not said or "Traceback" in said:
                pytest.fail(f"{path.name}: {error!r} says nothing")


def tiny(depth: int = 6, size: int = 16) -> CTVolume:
    """A stack with a gradient."""
    hu = np.linspace(-1000, 1000, depth * size * size, dtype=np.float32).reshape(depth, size, size)
    return CTVolume.from_affine(hu, np.diag([-1.0, -1.0, 5.0, 1.0]))


@QUICK
@given(data=st.binary(max_size=2000), suffix=st.sampled_from([".dcm", ".nii", ".nii.gz", ".nrrd", ".mha", ".zip", ""]))
def test_random_bytes(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    survives(path)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory) -> dict[str, bytes]:
    """One good file of every kind."""
    import SimpleITK as sitk  # noqa: N813

    folder = tmp_path_factory.mktemp("whole")
    volume = tiny()
    write_series(folder / "dicom", volume)
    write_nifti(folder / "a.nii", volume.hu, volume.ijk_to_ras)
    write_nifti(folder / "a.nii.gz", volume.hu, volume.ijk_to_ras)
    for suffix in (".nrrd", ".mha"):
        sitk.WriteImage(sitk.GetImageFromArray(volume.hu), str(folder / f"a{suffix}"))
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "dicom").iterdir()):
            archive.write(path, path.name)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    files["a.dcm"] = next((folder / "dicom").iterdir()).read_bytes()
    return files


@QUICK
@given(data=st.data())
def test_truncated_and_flipped_bytes(tmp_path: Path, whole_files: dict[str, bytes], data) -> None:
    name = data.draw(st.sampled_from(sorted(whole_files)))
    content = bytearray(whole_files[name])
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(len(content) - 1, 600)))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    survives(path)


_ODD = st.one_of(
    st.sampled_from(
        ["", "0", "-1", "nan", "1e308", "abc", "0\\0", "1\\2\\3", "0\\0\\0\\0\\0\\0", "1\\0\\0\\1\\0\\0", "99999999"]
    ),
    st.floats(allow_nan=False, allow_infinity=False, width=16).map(lambda value: f"{value:.6g}"),
)
_KEYWORDS = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
    "RescaleIntercept", "InstanceNumber", "PatientAge", "ConvolutionKernel", "ImageType", "SeriesNumber",
    "AcquisitionNumber", "PixelPaddingValue",
)  # fmt: skip


@QUICK
@given(keyword=st.sampled_from(_KEYWORDS), value=_ODD, which=st.sampled_from(["all", "some"]))
def test_odd_header_values(tmp_path_factory, keyword: str, value: str, which: str) -> None:
    import pydicom
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    folder = tmp_path_factory.mktemp("odd")

    def change(dataset, k: int) -> None:
        if which == "all" or k % 2:
            vr = dictionary_VR(tag_for_keyword(keyword))
            raw = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(tag_for_keyword(keyword)), "LO", len(value), value.encode(), 0, False, True
            )
            if vr in ("US", "SS", "US or SS"):
                return
            dataset._dict[raw.tag] = pydicom.dataelem.DataElement(raw.tag, "LO", value)

    write_series(folder, tiny(), change=change)
    survives(folder)


@settings(max_examples=40, deadline=None)
@given(
    origins=st.lists(st.tuples(*[st.floats(-200, 200)] * 3), min_size=5, max_size=9),
    angle=st.floats(-3.2, 3.2),
    thickness=st.floats(0.01, 40.0),
)
def test_any_geometry(tmp_path_factory, origins, angle: float, thickness: float) -> None:
    folder = tmp_path_factory.mktemp("places")
    depth = len(origins)
    volume = CTVolume(
        np.zeros((depth, 16, 16), np.float32),
        np.array([-1.0, 0.0, 0.0]),
        np.array([0.0, -np.cos(angle), -np.sin(angle)]),
        np.array(origins, dtype=float),
        np.full(depth, thickness),
    )
    write_series(folder, volume)
    survives(folder)


@pytest.mark.parametrize("dims", [(32767, 32767, 32767), (30000, 30000, 40), (1, 1, 1), (0, 5, 5), (-3, 4, 4)])
def test_absurd_nifti_dimensions(tmp_path: Path, whole_files: dict[str, bytes], dims) -> None:
    content = bytearray(whole_files["a.nii"])
    content[40:48] = struct.pack("<4h", 3, *dims)
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(content))
    survives(path)
    with pytest.raises(InputBlockedError):
        read_scan(path)


def test_absurd_nrrd_and_dicom_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 100000 100000 100000\nencoding: raw\nendian: little\n\n"
    )
    survives(path)
    write_series(tmp_path / "dicom", tiny(), Rows=65535, Columns=65535)
    tracemalloc.start()
    survives(tmp_path / "dicom")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6


def test_zip_bombs(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(2):
            archive.writestr(f"{number}.dcm", b"\0" * 128 + b"DICM" + bytes(30_000_000))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    survives(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
    monkeypatch.setattr(sources, "MAX_ARCHIVE_BYTES", 50_000_000)
    with pytest.raises(InputBlockedError, match="would unpack to"):
        read_scan(path)
    monkeypatch.setattr(sources, "MAX_ARCHIVE_BYTES", 8 << 30)
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 10_000_000)
    with pytest.raises(InputBlockedError, match="GiB unpacked"):
        read_scan(path)


@pytest.mark.parametrize(("zipped", "size"), [(False, 80_000_000), (True, 80_000_000), (False, 40_000_000)])
def test_a_deflated_data_set_is_no_way_around_the_limits(tmp_path: Path, monkeypatch, zipped: bool, size: int) -> None:
    write_series(tmp_path / "scan", tiny())
    path = tmp_path / "scan" / "bomb.dcm"
    bomb = pydicom.dcmread(next((tmp_path / "scan").iterdir()))
    bomb.PixelData = bytes(size)
    bomb.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    bomb.save_as(path)
    assert path.stat().st_size < 200_000
    honest = pydicom.dcmread(tmp_path / "scan" / sorted(os.listdir(tmp_path / "scan"))[2])
    honest.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    honest.save_as(honest.filename)
    if zipped:
        with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
            for file in sorted((tmp_path / "scan").iterdir()):
                archive.write(file, file.name)
    monkeypatch.setattr(sources, "MAX_DEFLATED_BYTES", 10_000_000)
    tracemalloc.start()
    study = open_study(tmp_path / ("scan.zip" if zipped else "scan"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
    assert [len(one.headers) for one in study.series] == [6]
    assert "bomb.dcm (more than" in study.findings[0].message


def test_path_tricks_write_nothing(tmp_path: Path, whole_files: dict[str, bytes]) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    with zipfile.ZipFile(inner / "trick.zip", "w") as archive:
        archive.writestr("../../evil.nii", whole_files["a.nii"])
    with zipfile.ZipFile(inner / "more.zip", "w") as archive:
        for number in range(6):
            archive.writestr(f"/../../evil{number}.dcm", whole_files["a.dcm"])
    before = sorted(tmp_path.rglob("*"))
    for path in inner.iterdir():
        survives(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_links_pipes_and_devices(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", tiny())
    (tmp_path / "scan" / "loop").symlink_to(tmp_path / "scan", target_is_directory=True)
    (tmp_path / "scan" / "dangling.dcm").symlink_to(tmp_path / "nowhere.dcm")
    (tmp_path / "scan" / "zeros.dcm").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "scan" / "pipe.dcm")
    study = open_study(tmp_path / "scan")
    assert [len(one.headers) for one in study.series] == [6]
    survives(tmp_path / "scan")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret.raw", "C:\\secret.raw", "~/x.raw"])
def test_detached_data_stays_in_its_folder(tmp_path: Path, target: str) -> None:
    header = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n"
    (tmp_path / "a.mhd").write_text(f"{header}ElementDataFile = {target}\n")
    (tmp_path / "b.nhdr").write_text(
        f"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\nendian: little\ndata file: {target}\n"
    )
    (tmp_path / "c.mhd").write_text(f"{header}ElementDataFile = LIST\n1.raw\n{target}\n")
    for name in ("a.mhd", "b.nhdr", "c.mhd"):
        with pytest.raises(InputBlockedError, match="outside its own folder"):
            read_scan(tmp_path / name)


def test_password_and_damaged_archive(tmp_path: Path, whole_files: dict[str, bytes]) -> None:
    content = bytearray(whole_files["a.zip"])
    content[6] |= 1
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 8] |= 1
        at = content.find(b"PK\x01\x02", at + 4)
    path = tmp_path / "locked.zip"
    path.write_bytes(bytes(content))
    with pytest.raises(InputBlockedError, match="password"):
        read_scan(path)


def test_a_member_with_wrong_checksum_is_listed(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", tiny(depth=12))
    path = tmp_path / "scan.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((tmp_path / "scan").iterdir()):
            archive.write(file, file.name)
    content = bytearray(path.read_bytes())
    content[content.find(b"DICM") + 900] ^= 0xFF
    path.write_bytes(bytes(content))
    survives(path)
