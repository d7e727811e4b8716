"""Adapters on tiny trees in the published layouts: right keys, right labels, nothing invented."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from Testing.training.scan_files import scan_arrays, write_dicom_slice, write_head_nifti, write_nifti
from Training.data.adapters.__main__ import main
from Training.data.adapters.dicom_series import read_headers
from Training.data.manifest import ManifestRow, read_manifest

RSNA_SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")


def adapt(name: str, root: Path, *options: object) -> dict[str, ManifestRow]:
    """Run an adapter through the command line; its rows by case_id."""
    out = root.parent / "out" / "manifest.csv"
    assert main([name, str(root), "--out", str(out), *map(str, options)]) == 0
    return {row.case_id: row for row in read_manifest(out).rows}


def table(path: Path, header: str, *lines: str, bom: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8-sig" if bom else "utf-8")
    return path


def test_rsna(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "rsna"
    lines = []

    def add(name: str, z: float, patient: str, study: str, positive: tuple[str, ...]) -> None:
        file = root / "stage_2_train" / f"{name}.dcm"
        write_dicom_slice(
            file, scan_arrays()[0][0], z, patient, f"1.2.{study}", f"1.2.{study}.1", f"1.2.9.{len(lines)}"
        )
        lines.extend(f"{name}_{subtype},{int(subtype in positive)}" for subtype in RSNA_SUBTYPES)

    add("ID_00000000c", 10.0, "ID_patient01", "7", ("intraparenchymal", "any"))
    add("ID_00000000a", -5.0, "ID_patient01", "7", ())
    add("ID_00000000b", 2.5, "ID_patient01", "7", ("subdural", "any"))
    add("ID_00000000d", 0.0, "ID_patient01", "8", ())
    (root / "stage_2_train" / "ID_6431af929.dcm").write_bytes(b"truncated")
    (root / "stage_2_train" / "ID_00000000e.dcm").write_bytes(b"damaged")
    table(root / "stage_2_train.csv", "ID,Label", *lines, lines[0], "ID_00000000d_any,1")
    rows = adapt("rsna", root)
    assert "contradict themselves" in caplog.text and "ID_00000000e.dcm" in caplog.text
    assert set(rows) == {"rsna:1.2.7.1", "rsna:1.2.8.1"}
    row = rows["rsna:1.2.7.1"]
    assert (row.patient_id, row.study_id, row.slice_has_ich) == ("rsna:ID_patient01", "1.2.7", [0, 0, 1])
    assert (row.has_ich, row.sdh, row.ivh, row.has_any_bleed, row.location) == (1, 1, 0, 1, None)
    assert rows["rsna:1.2.8.1"].has_any_bleed is None  # labeled both ways
    heights = [header.height_mm for header in read_headers(sorted((tmp_path / "out" / row.image).iterdir()))]
    assert heights == [-5.0, 2.5, 10.0]


def cq500_tree(root: Path) -> None:
    """Two patients; the first with a contrast, a thin and a plain series."""
    for number, series in ((0, ("CT 4cc sec 150cc D3D on", "CT PLAIN THIN", "CT Plain")), (7, ("CT Plain",))):
        for index, name in enumerate(series):
            folder = root / f"qct0{number}" / f"CQ500CT{number} CQ500CT{number}" / "Unknown Study" / name
            for k in range(3):
                uid = f"1.3.{number}.{index}"
                write_dicom_slice(
                    folder / f"CT{k:06d}.dcm",
                    scan_arrays()[0][k],
                    5.0 * (2 - k),
                    f"CQ500-CT-{number}",
                    "1.3",
                    uid,
                    f"{uid}.{k}",
                )
    names = ("ICH", "IPH", "IVH", "SDH", "EDH", "SAH")
    header = "name,Category," + ",".join(f"R{reader}:{name}" for reader in (1, 2, 3) for name in names)
    table(
        root / "reads.csv",
        header,
        "CQ500-CT-0,B1,1,1,0,0,0,0,1,1,0,1,0,0,1,0,0,0,0,0",
        "CQ500-CT-7,B2,0,0,0,0,0,0,0,0,0,0,0,0,1,,0,0,0,0",
        bom=True,
    )


def test_cq500_and_boxes(tmp_path: Path) -> None:
    root = tmp_path / "cq500"
    cq500_tree(root)
    rows = adapt("cq500", root)
    first, second = rows["cq500:0"], rows["cq500:7"]
    assert first.image.endswith("CT Plain") and first.series == "1.3.0.2"
    assert (first.has_ich, first.sdh, first.ivh, first.has_any_bleed) == (1, 0, 0, 1)
    assert (second.has_ich, second.has_any_bleed, second.boxes) == (None, 0, None)
    header = "SOPInstanceUID,SeriesInstanceUID,StudyInstanceUID,x,y,width,height,labelName"
    table(
        tmp_path / "bhx" / "1_Initial_Manual_Labeling.csv",
        header,
        "1.3.0.1.0,1.3.0.1,1.3,10,20.5,30,40,Intraparenchymal",
    )
    boxed = adapt("cq500", root, "--boxes", tmp_path / "bhx")["cq500:0"]
    assert boxed.image.endswith("CT PLAIN THIN")  # the series that readers drew on
    assert boxed.boxes == [
        {"slice": 2, "x": 10.0, "y": 20.5, "width": 30.0, "height": 40.0, "label": "Intraparenchymal"}
    ]


def test_seg_cq500_joins_the_reads(tmp_path: Path) -> None:
    cq500_tree(tmp_path / "cq500")
    root = tmp_path / "seg"
    lines = []
    for number in (0, 9):
        write_head_nifti(root / "volumes" / f"CQ500CT{number}" / "CT.nii")
        write_nifti(root / "volumes" / f"CQ500CT{number}" / "ICH_mask.nii.gz", scan_arrays()[1])
        lines.append(f"CQ500CT{number}/CT.nii,CQ500CT{number}/ICH_mask.nii.gz")
    table(root / "volumes" / "info.csv", "CT_fn,mask_fn", *lines)
    rows = adapt("seg-cq500", root, "--reads", tmp_path / "cq500" / "reads.csv")
    assert rows["seg-cq500:0"].patient_id == "cq500:0" and rows["seg-cq500:0"].has_ich == 1
    assert rows["seg-cq500:9"].has_ich is None and rows["seg-cq500:9"].mask_values == {"bleed": [1]}


DIAGNOSIS = (
    "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural,"
    "No_Hemorrhage,Fracture_Yes_No"
)


def test_ctich_nifti(tmp_path: Path) -> None:
    root = tmp_path / "ctich"
    write_head_nifti(root / "ct_scans" / "049.nii")
    write_nifti(root / "masks" / "049.nii", (255 * scan_arrays()[1]).astype(np.uint8))
    table(
        root / "hemorrhage_diagnosis_raw_ct.csv",
        DIAGNOSIS,
        "49,1,0,0,0,0,0,1,0",
        "49,10,0,1,0,0,0,0,0",
        "58,1,0,0,0,0,0,1,0",
    )
    table(
        root / "Patient_demographics.csv",
        'Patient Number,"Age\n(years)",Gender,Hemorrhage type,'.replace("\n", " "),
        ",,,Intraventricular,Epidural",
        "49,31,Male,,",
    )
    rows = adapt("ctich", root)
    assert set(rows) == {"ctich:049#0", "ctich:049#9"}
    row = rows["ctich:049#9"]
    assert (row.slice_index, row.has_ich, row.ivh, row.has_any_bleed, row.age, row.sex) == (9, 1, 0, 1, 31.0, "male")
    assert (row.mask_kind, row.mask_values, row.volume_ml) == ("0-255", {"bleed": [1]}, None)


def test_ctich_pictures(tmp_path: Path) -> None:
    root = tmp_path / "ctich"
    for name in ("1.jpg", "2.jpg", "2_HGE_Seg.jpg"):
        path = root / "Patients_CT" / "049" / "brain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"jpg")
    table(root / "hemorrhage_diagnosis.csv", DIAGNOSIS, "49,1,0,0,0,0,0,1,0", "49,2,0,1,0,0,1,0,0")
    rows = adapt("ctich", root)
    assert rows["ctich:049:1"].mask is None and rows["ctich:049:1"].has_any_bleed == 0
    assert rows["ctich:049:2"].mask is not None and rows["ctich:049:2"].sdh == 1


def subtype_mask(values: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(scan_arrays()[1].shape, dtype=np.uint8)
    for n, value in enumerate(values):
        mask[5 + n, 40:50, 40:50] = value
    return mask


def test_bhsd(tmp_path: Path) -> None:
    root = tmp_path / "bhsd"
    for name, values in (("ID_0a1b2c3d_ID_0123456789", (2, 3)), ("ID_0a1b2c3d_ID_9999999999", (1, 5))):
        write_head_nifti(root / "label_192" / "images" / f"{name}.nii.gz")
        write_nifti(root / "label_192" / "ground truths" / f"{name}.nii.gz", subtype_mask(values))
    (root / "label_192" / "images" / "._ID_0a1b2c3d_ID_0123456789.nii.gz").write_bytes(b"")
    (root / "dataset.json").write_text(json.dumps({"training": [{"image": "./ID_0a1b2c3d_ID_0123456789.nii.gz"}]}))
    rows = adapt("bhsd", root)
    first, second = rows["bhsd:ID_0123456789"], rows["bhsd:ID_9999999999"]
    assert first.patient_id == second.patient_id == "rsna:ID_0a1b2c3d"
    assert (first.has_ich, first.ivh, first.edh, first.split) == (1, 1, 0, "train")
    assert (second.has_ich, second.edh, second.sdh, second.split) == (0, 1, 1, None)
    assert first.mask_values == {"ich": [2], "ivh": [3]}


def test_mbh25_takes_the_majority(tmp_path: Path) -> None:
    import nibabel as nib

    root = tmp_path / "mbh"
    case = root / "MBH_Val_2025_voxel-label" / "ID_0a1b2c3d_ID_0123456789"
    write_head_nifti(case / "image.nii.gz")
    for rater, values in enumerate(((2,), (2, 3), (2, 3), (5,)), start=1):
        write_nifti(case / f"label_annot_{rater}.nii.gz", subtype_mask(values))
    (row,) = adapt("mbh25", root).values()
    voted = np.asarray(nib.load(tmp_path / "out" / row.mask).dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(voted, subtype_mask((2,)))  # 3 of 4 say 2, only half say 3
    assert (row.has_ich, row.ivh, row.split) == (1, 0, "val")


def test_instance_and_phe_sich_keep_what_is_unknown(tmp_path: Path) -> None:
    root = tmp_path / "instance" / "train_2"
    write_head_nifti(root / "data" / "001.nii.gz")
    write_nifti(root / "label" / "001.nii.gz", scan_arrays()[1])
    write_head_nifti(root / "data" / "101.nii.gz")
    rows = adapt("instance", root.parent)
    assert (rows["instance:001"].has_ich, rows["instance:001"].has_any_bleed) == (None, 1)
    assert (rows["instance:101"].mask, rows["instance:101"].has_any_bleed) == (None, None)
    phe = tmp_path / "phe" / "SubdatasetA_NIFIT" / "NIFIT"
    write_head_nifti(phe / "set" / "0001.nii.gz")
    write_nifti(phe / "label" / "0001.nii.gz", scan_arrays()[1])
    (row,) = adapt("phe-sich", tmp_path / "phe").values()
    assert (row.has_ich, row.mask_values, row.volume_ml, row.ivh) == (1, {"oedema": [1]}, None, None)


def test_hemseg_uses_the_rsna_patient_and_no_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "hemseg"
    for part, split, study in (
        ("IPH_IVH_label", "train", "0123456789"),
        ("HemSeg-500", "test", "aaaaaaaaaa"),
        ("HemSeg-500", "val", "0123456789"),
        ("HemSeg-500", "train", "bbbbbbbbbb"),
    ):
        write_nifti(root / part / split / "label" / f"{study}.nii.gz", scan_arrays()[1])
    for study in ("0123456789", "aaaaaaaaaa"):
        write_head_nifti(tmp_path / "rebuilt" / f"{study}.nii.gz")
    (root / "annotion_file_info.jsonl").write_text(
        '{"patient": "ID_00000001", "scan_": "ID_0123456789", "slice_list": []}\n'
    )
    (root / "annotion_file_info_500.jsonl").write_text('{"patient_name": "00000001", "scan_name": "aaaaaaaaaa"}\n')
    rows = adapt("hemseg", root, "--images", tmp_path / "rebuilt")
    assert {row.patient_id for row in rows.values()} == {"rsna:ID_00000001"}
    assert set(rows) == {"hemseg:0123456789", "hemseg:aaaaaaaaaa"}
    assert all(row.split is None and row.has_ich is None for row in rows.values())
    assert "1 masks without a scan" in caplog.text


def hospital_files(tmp_path: Path) -> tuple[Path, list[object]]:
    root = tmp_path / "scans"
    for n in (1, 2):
        write_head_nifti(root / f"p{n}" / "scan.nii.gz")
    columns = {
        "patient_id": "PatNr",
        "image": "Datei",
        "volume_ml": "Vol",
        "volume_method": {"constant": "slicer"},
        "sex": {"column": "Geschlecht", "values": {"m": "male", "w": "female", "?": None}},
        "mrs": "mRS",
        "source": {"constant": "clinic"},
    }
    (tmp_path / "columns.json").write_text(json.dumps(columns))
    table(
        tmp_path / "t.csv",
        "PatNr;Datei;Vol;Geschlecht;mRS",
        "4711;p1/scan.nii.gz;12,5;w;3",
        "4711;p2/scan.nii.gz;;?;",
        bom=True,
    )
    return root, ["--table", tmp_path / "t.csv", "--columns", tmp_path / "columns.json", "--secret", "word"]


def test_hospital(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, options = hospital_files(tmp_path)
    first, second = adapt("hospital", root, *options).values()
    assert first.patient_id == second.patient_id and first.patient_id.startswith("clinic:")
    assert (first.volume_ml, first.sex, first.mrs) == (12.5, "female", 3)
    assert (second.volume_ml, second.sex, second.mrs) == (None, None, None)
    other = adapt("hospital", root, *options[:-1], "another")
    assert first.patient_id not in {row.patient_id for row in other.values()}
    assert "4711" not in (tmp_path / "out" / "manifest.csv").read_text()
    table(tmp_path / "t.csv", "PatNr,Datei,Vol,Geschlecht,mRS", "1,p1/scan.nii.gz,900,x,9")
    assert main(["hospital", str(root), "--out", str(tmp_path / "m.csv"), *map(str, options)]) == 2
    message = capsys.readouterr().err
    assert "'x' of column 'Geschlecht'" in message and "volume_ml 900" in message and "mrs 9" in message
    assert main(["hospital", str(root), "--out", str(tmp_path / "m.csv"), *map(str, options[:-2])]) == 2


def test_hospital_spreadsheet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="XLSX needs openpyxl")
    root, options = hospital_files(tmp_path)
    book = openpyxl.Workbook()
    for line in csv.reader((tmp_path / "t.csv").read_text(encoding="utf-8-sig").splitlines(), delimiter=";"):
        book.active.append(line)
    book.save(tmp_path / "t.xlsx")
    options[1] = tmp_path / "t.xlsx"
    assert next(iter(adapt("hospital", root, *options).values())).volume_ml == 12.5


def test_a_wrong_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("rsna", "cq500", "seg-cq500", "ctich", "bhsd", "mbh25", "instance", "phe-sich", "hemseg", "hospital"):
        assert main([name, str(tmp_path / "empty"), "--out", str(tmp_path / "m.csv")]) == 2
        assert capsys.readouterr().err.strip()
    assert main(["rsna", str(tmp_path / "nowhere"), "--out", str(tmp_path / "m.csv")]) == 2
