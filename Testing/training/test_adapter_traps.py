"""What the published sets are known to do to a reader: doubled, damaged and shared scans, other forms of one table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ICHAnalysisLib.errors import UsageError
from Testing.training.scan_files import scan_arrays, write_dicom_slice, write_head_nifti, write_nifti
from Testing.training.test_adapters import (
    DIAGNOSIS,
    RSNA_SUBTYPES,
    adapt,
    cq500_tree,
    hospital_files,
    subtype_mask,
    table,
)
from Training.cases import load_cases
from Training.config import DataConfig
from Training.data import cache
from Training.data.adapters.__main__ import main
from Training.data.adapters.bhsd import DISPUTED, read_values
from Training.data.adapters.cq500 import box_sides
from Training.data.adapters.dicom_series import read_header
from Training.data.manifest import read_manifest, write_manifest

PATIENT, STUDY = "ID_0a1b2c3d", "0123456789"


def rsna_slice(root: Path, name: str, z: float) -> list[str]:
    """A slice of one series, and its lines in the table."""
    file = root / "stage_2_train" / f"{name}.dcm"
    write_dicom_slice(file, scan_arrays()[0][0], z, PATIENT, "1.2", "1.2.3", f"1.2.3.{int(z)}")
    return [f"{name}_{subtype},0" for subtype in RSNA_SUBTYPES]


def test_rsna_links_follow_a_file_that_was_copied_again(tmp_path: Path) -> None:
    root = tmp_path / "rsna"
    lines = [*rsna_slice(root, "ID_00000000a", 0.0), *rsna_slice(root, "ID_00000000c", 10.0)]
    damaged = root / "stage_2_train" / "ID_00000000b.dcm"
    damaged.write_bytes(b"damaged")
    lines += [f"ID_00000000b_{s},{int(s in ('any', 'intraparenchymal'))}" for s in RSNA_SUBTYPES]
    table(root / "stage_2_train.csv", "ID,Label", *lines)
    (before,) = adapt("rsna", root).values()
    assert before.slice_has_ich == [0, 0]
    rsna_slice(root, damaged.stem, 5.0)
    (after,) = adapt("rsna", root).values()
    assert after.slice_has_ich == [0, 1, 0]
    links = sorted((tmp_path / "out" / after.image).iterdir())
    assert [link.resolve().stem for link in links] == ["ID_00000000a", "ID_00000000b", "ID_00000000c"]
    damaged.unlink()
    (again,) = adapt("rsna", root).values()
    assert len(list((tmp_path / "out" / again.image).iterdir())) == 2


def test_rsna_counts_that_wrapped_come_back_as_hu(tmp_path: Path) -> None:
    """Unsigned 12-bit slices whose intercept is 0 and whose air stands at 4096 - 1024 and above."""
    root, lines = tmp_path / "rsna", []
    hu = scan_arrays()[0]
    for k, plane in enumerate(hu):
        name = f"ID_{k:09x}"
        stored = np.where(plane < 0, plane + 4096, plane)
        tags = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0}
        pixels = np.rint(stored).astype(np.uint16).tobytes()
        file = root / "stage_2_train" / f"{name}.dcm"
        write_dicom_slice(file, plane, 6.5 * k, PATIENT, "1.2", "1.2.3", f"1.2.3.{k}", **tags, PixelData=pixels)
        lines += [f"{name}_{subtype},0" for subtype in RSNA_SUBTYPES]
    table(root / "stage_2_train.csv", "ID,Label", *lines)
    (row,) = adapt("rsna", root).values()
    out = tmp_path / "cache"
    small = ["--preprocess", '{"spacing_mm": 2.3, "size": 96}', "--yes"]
    assert cache.main([str(tmp_path / "out" / "manifest.csv"), "--out", str(out), *small]) == 0
    (case,) = cache.open_cache(out)
    assert case.meta["has_ich"] is False and row.has_ich == 0
    middle = case.hu[len(hu) // 2].astype(float)
    assert np.median(middle[middle < -900]) == pytest.approx(-1000, abs=30)
    assert 20 < np.median(middle[(middle > -100) & (middle < 100)]) < 45  # brain


def test_rsna_bhsd_and_hemseg_know_each_others_patients(tmp_path: Path) -> None:
    """One patient in three sets: no split may part them, whatever the sets' own splits say."""
    rsna, bhsd, hemseg = (tmp_path / name / "root" for name in ("rsna", "bhsd", "hemseg"))
    table(rsna / "stage_2_train.csv", "ID,Label", *rsna_slice(rsna, "ID_00000000a", 0.0))
    name = f"{PATIENT}_ID_{STUDY}"
    write_head_nifti(bhsd / "label_192" / "images" / f"{name}.nii.gz")
    write_nifti(bhsd / "label_192" / "ground truths" / f"{name}.nii.gz", subtype_mask((2,)))
    (bhsd / "dataset.json").write_text(json.dumps({"test": [f"./{name}.nii.gz"]}))
    write_head_nifti(hemseg / "images" / f"{STUDY}.nii.gz")
    write_nifti(hemseg / "HemSeg-500" / "train" / "label" / f"{STUDY}.nii.gz", scan_arrays()[1])
    line = {"patient_name": PATIENT, "scan_name": f"ID_{STUDY}", "slice_list": []}
    (hemseg / "annotion_file_info_500.jsonl").write_text(json.dumps(line) + "\n")
    rows = [*adapt("rsna", rsna).values(), *adapt("bhsd", bhsd).values(), *adapt("hemseg", hemseg).values()]
    assert [row.patient_id for row in rows] == [f"rsna:{PATIENT}"] * 3
    assert [row.split for row in rows] == [None, "test", None]
    for row in rows:
        hu, labels = (array[:, ::2, ::2].copy() for array in scan_arrays())
        meta = {"case_id": row.case_id, "patient_id": row.patient_id, "split": "test" if row.split else "train"}
        cache.write_case(
            tmp_path / "cache", row.case_id.replace(":", "-"), hu, labels,
            {**meta, "positions_mm": list(range(len(hu))), "heights_mm": [5.0] * len(hu)},
        )  # fmt: skip
    with pytest.raises(UsageError, match="leaks between parts"):
        load_cases(DataConfig(cache=str(tmp_path / "cache")))


def test_cq500_passes_over_what_archives_leave_behind(tmp_path: Path) -> None:
    root = tmp_path / "cq500"
    cq500_tree(root)
    for folder in {path.parent for path in root.rglob("*.dcm")}:
        (folder / "._CT000000.dcm").write_bytes(b"resource fork")
    rows = adapt("cq500", root)
    assert set(rows) == {"cq500:0", "cq500:7"} and rows["cq500:0"].image.endswith("CT Plain")


def test_cq500_leaves_out_contrast_and_chest_by_their_headers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "cq500"
    cq500_tree(root)
    for number, tags in ((0, {"ContrastBolusAgent": "yes"}), (7, {"BodyPartExamined": "CHEST"})):
        folder = next(root.rglob(f"CQ500CT{number} *")) / "Unknown Study" / "CT Plain"
        write_dicom_slice(
            folder / "CT000000.dcm", scan_arrays()[0][0], 10.0, "p", "1", f"1.{number}.9", f"1.{number}.9.1", **tags
        )  # fmt: skip
    rows = adapt("cq500", root)
    assert list(rows) == ["cq500:0"] and rows["cq500:0"].image.endswith("CT PLAIN THIN")
    assert "1 patients have no plain head series: 7" in caplog.text


def test_two_of_three_readers_decide(tmp_path: Path) -> None:
    root = tmp_path / "cq500"
    cq500_tree(root)
    names = ("ICH", "IPH", "IVH", "SDH", "EDH", "SAH")
    header = "name,Category," + ",".join(f"R{reader}:{name}" for reader in (1, 2, 3) for name in names)
    table(root / "reads.csv", header, "CQ500-CT-0,B1,1,1,1,0,0,0,1,0,1,0,0,1,0,0,1,0,0,0", bom=True)
    row = adapt("cq500", root)["cq500:0"]
    assert (row.has_any_bleed, row.has_ich, row.ivh, row.sdh, row.edh, row.sah) == (1, 0, 1, 0, 0, 0)
    table(root / "reads.csv", header.replace("R3:IVH", "R3:ivh"), "CQ500-CT-0,B1" + ",0" * 18)
    assert main(["cq500", str(root), "--out", str(tmp_path / "m.csv")]) == 2


@pytest.mark.parametrize(
    "cell",
    ['{"x": 1, "y": 2.5, "width": 3, "height": 4, "angle": null}', "{'x': 1, 'y': 2.5, 'width': 3, 'height': 4}"],
)
def test_bhx_boxes_in_a_cell(cell: str) -> None:
    assert box_sides({"data": cell}) == {"x": 1.0, "y": 2.5, "width": 3.0, "height": 4.0}


@pytest.mark.parametrize("cell", ["", "{'x': 1}", "no dict", "[1, 2]", "{'x': 1, 'y': 2, 'width': 0, 'height': 4}"])
def test_bhx_boxes_that_are_none(cell: str) -> None:
    assert box_sides({"data": cell}) is None


def test_bhx_boxes_without_a_place_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "cq500"
    cq500_tree(root)
    file = tmp_path / "bhx" / "1_Initial_Manual_Labeling.csv"
    start = "1.3.0.1.{k},1.3.0.1,1.3,{data},Intraparenchymal"
    cell = "\"{'x': 10, 'y': 20, 'width': 30, 'height': 40}\""
    lines = [start.format(k=2, data=cell), start.format(k=1, data="")]
    table(file, "SOPInstanceUID,SeriesInstanceUID,StudyInstanceUID,data,labelName", *lines)
    (box,) = adapt("cq500", root, "--boxes", file.parent)["cq500:0"].boxes
    assert box == {"slice": 0, "x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0, "label": "Intraparenchymal"}
    assert "1 of 2 boxes" in caplog.text
    table(file, "SOPInstanceUID,StudyInstanceUID,x", "a,b,1")
    assert main(["cq500", str(root), "--boxes", str(file.parent), "--out", str(tmp_path / "m.csv")]) == 2


def test_seg_cq500_paths_from_the_folder_above_and_masks_that_are_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, lines = tmp_path / "Seg-CQ500", []
    for number in (12, 243, 300):
        folder = root / "data" / "volumes" / f"CQ500-CT-{number}"
        write_head_nifti(folder / "CT.nii")
        write_nifti(folder / "ICH_mask.nii.gz", 255 * scan_arrays()[1])
        lines.append(f"CQ500-CT-{number},volumes/CQ500-CT-{number}/CT.nii,volumes/CQ500-CT-{number}/ICH_mask.nii.gz")
    damage(root / "data" / "volumes" / "CQ500-CT-300" / "ICH_mask.nii.gz")
    table(root / "data" / "volumes" / "info.csv", "name,CT_fn,mask_fn", *lines)
    table(root / "__MACOSX" / "data" / "volumes" / "info.csv", "x", "1")
    rows = adapt("seg-cq500", root)
    assert {row.patient_id for row in rows.values()} == {"cq500:12", "cq500:243"}
    assert all((row.mask_kind, row.mask_values) == ("0-255", {"bleed": [1]}) for row in rows.values())
    assert "left out" in caplog.text and "300" in caplog.text


def damage(path: Path) -> None:
    """Turn bytes in the middle of a compressed file."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(255 - value for value in data[middle : middle + 40])
    path.write_bytes(bytes(data))


def test_a_damaged_mask_costs_no_other_case(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "bhsd"
    for study in ("0123456789", "9999999999"):
        name = f"{PATIENT}_ID_{study}.nii.gz"
        write_head_nifti(root / "label_192" / "images" / name)
        noise = np.random.default_rng(0).integers(0, 3, subtype_mask((2,)).shape).astype(np.uint8)
        write_nifti(root / "label_192" / "ground truths" / name, noise)
    damage(root / "label_192" / "ground truths" / f"{PATIENT}_ID_9999999999.nii.gz")
    assert set(adapt("bhsd", root)) == {"bhsd:ID_0123456789"}
    assert "left out" in caplog.text and "9999999999" in caplog.text


def test_values_that_are_stored_as_fractions_are_rounded(tmp_path: Path) -> None:
    import nibabel as nib

    stored = np.array([0.0, 0.9999999, 2.0000001, 4.9999995], dtype=np.float32).reshape(4, 1, 1)
    nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "m.nii.gz")
    assert read_values(tmp_path / "m.nii.gz").ravel().tolist() == [0, 1, 2, 5]
    nib.save(nib.Nifti1Image(stored - 3, np.eye(4)), tmp_path / "m.nii.gz")
    with pytest.raises(UsageError, match="from 0 to 255"):
        read_values(tmp_path / "m.nii.gz")


def test_raters_who_see_blood_of_different_kinds_make_no_background(tmp_path: Path) -> None:
    case = tmp_path / "mbh" / "MBH_Train_2025_voxel-label" / f"{PATIENT}_ID_{STUDY}"
    write_head_nifti(case / "image.nii.gz")
    for rater, values in enumerate(((2, 2), (2, 3)), start=1):
        write_nifti(case / f"label_annot_{rater}.nii.gz", subtype_mask(values))
    (row,) = adapt("mbh25", tmp_path / "mbh").values()
    assert (row.has_ich, row.ivh, row.sdh, row.has_any_bleed, row.split) == (1, None, 0, 1, "train")
    assert row.mask_values == {"ich": [2], "ivh": [3], "bleed": [DISPUTED]}
    small = ["--preprocess", '{"spacing_mm": 2.3, "size": 96}', "--yes"]
    assert cache.main([str(tmp_path / "out" / "manifest.csv"), "--out", str(tmp_path / "cache"), *small]) == 0
    (built,) = cache.open_cache(tmp_path / "cache")
    kinds = {value: int((built.labels == value).sum()) for value in (cache.ICH, cache.IVH, cache.UNKNOWN)}
    assert kinds[cache.ICH] == pytest.approx(100, rel=0.3) and kinds[cache.UNKNOWN] == pytest.approx(100, rel=0.3)
    assert kinds[cache.IVH] == 0 and built.meta["volume_ml"] is None  # with unknown blood, no volume is known


def test_single_masks_say_what_their_values_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "phe" / "SubdatasetA_NIFIT" / "NIFIT"
    write_head_nifti(root / "set" / "0001.nii.gz")
    write_nifti(root / "label" / "0001.nii.gz", 255 * scan_arrays()[1])
    (row,) = adapt("phe-sich", tmp_path / "phe").values()
    assert (row.mask_kind, row.mask_values) == ("0-255", {"oedema": [1]})
    write_nifti(root / "label" / "0001.nii.gz", 3 * scan_arrays()[1])
    assert main(["phe-sich", str(tmp_path / "phe"), "--out", str(tmp_path / "m.csv")]) == 2
    assert "found [3]" in capsys.readouterr().err


def test_ctich_header_of_two_rows_with_a_line_break(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "ctich"
    write_head_nifti(root / "ct_scans" / "050.nii")
    table(root / "hemorrhage_diagnosis_raw_ct.csv", DIAGNOSIS, "50,2,0,0,0,0,0,1,0", bom=True)
    header = 'Patient Number,"Age\n(years)",Gender,"Hemorrhage type",,Fracture'
    table(root / "Patient_demographics.csv", header, ",,,Intraventricular,Epidural,", "50,0.5,Female,,,1", bom=True)
    (row,) = adapt("ctich", root).values()
    assert (row.slice_index, row.age, row.sex, row.mask, row.has_ich) == (1, 0.5, "female", None, 0)
    table(root / "hemorrhage_diagnosis_raw_ct.csv", DIAGNOSIS, "50,2,0,0,0,0,0,1,0", "50,2,0,1,0,0,0,0,0")
    assert main(["ctich", str(root), "--out", str(tmp_path / "m.csv")]) == 2
    assert "patient 50, slice 2 stands there twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ({"column": "mRS", "vlaues": {"3": 3}}, "vlaues"),
        ({"column": "mRS", "constant": 3}, "no rule"),
        ({"column": "mRS", "values": [1]}, "no rule"),
        (7, "no rule"),
    ],
)
def test_hospital_rules_are_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: object, word: str) -> None:
    root, options = hospital_files(tmp_path)
    columns = tmp_path / "columns.json"
    columns.write_text(json.dumps({**json.loads(columns.read_text()), "mrs": rule}))
    assert main(["hospital", str(root), "--out", str(tmp_path / "m.csv"), *map(str, options)]) == 2
    assert word in capsys.readouterr().err
    columns.write_text("[]")
    assert main(["hospital", str(root), "--out", str(tmp_path / "m.csv"), *map(str, options)]) == 2
    assert "must map manifest columns" in capsys.readouterr().err


def test_hospital_workbook_that_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openpyxl", reason="XLSX needs openpyxl")
    root, options = hospital_files(tmp_path)
    (tmp_path / "t.xlsx").write_bytes(b"PK no workbook")
    options[1] = tmp_path / "t.xlsx"
    assert main(["hospital", str(root), "--out", str(tmp_path / "m.csv"), *map(str, options)]) == 2
    assert "cannot be read as a workbook" in capsys.readouterr().err


def test_a_manifest_joins_several_sets(tmp_path: Path) -> None:
    """What the adapters write can be put into one manifest, since case and patient keys carry their set."""
    instance = tmp_path / "instance" / "root" / "data"
    write_head_nifti(instance / "001.nii.gz")
    (one,) = adapt("instance", instance.parent).values()
    ctich = tmp_path / "ctich" / "root"
    write_head_nifti(ctich / "ct_scans" / "049.nii")
    table(ctich / "hemorrhage_diagnosis_raw_ct.csv", DIAGNOSIS, "49,1,0,0,0,0,0,1,0")
    (other,) = adapt("ctich", ctich).values()
    joined = write_manifest(tmp_path / "joined.csv", [one, other])
    assert [row.patient_id for row in read_manifest(joined, check_files=False).rows] == ["instance:001", "ctich:049"]


def test_a_header_without_position_is_no_slice(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"\0" * 200)
    assert read_header(tmp_path / "x.dcm") is None
