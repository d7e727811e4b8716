"""The manifest: every fault of every row at once, unknown stays empty, and a round trip through CSV."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ICHAnalysisLib.errors import UsageError
from Training.data.manifest import ManifestRow, parse_row, read_manifest, write_manifest

ROW = ManifestRow(
    "a",
    "x:1",
    "scan.nii.gz",
    mask="mask.nii.gz",
    mask_values={"ich": [2], "ivh": [3], "oedema": []},
    has_ich=1,
    location="deep",
    location_source="reader",
    volume_ml=12.5,
    volume_method="mask",
    gos=3,
    mrs=4,
    outcome_binary=1,
    age=71.0,
    sex="female",
    text='fell, "dizzy"',
    slice_has_ich=[0, 1, None],
    boxes=[{"slice": 4, "x": 1.5, "y": 2, "width": 3, "height": 4, "label": "Intraparenchymal"}],
)


def test_round_trip(tmp_path: Path) -> None:
    rows = (ROW, ManifestRow("b#3", "x:2", "scan.nii.gz", slice_index=3), ManifestRow("c", "x:1", "other"))
    path = write_manifest(tmp_path / "manifest.csv", rows)
    manifest = read_manifest(path, check_files=False)
    assert manifest.rows == rows
    assert manifest.path("scan.nii.gz") == tmp_path / "scan.nii.gz"
    assert "ivh" not in path.read_text().splitlines()[0].split(",")  # never known, so no column
    assert manifest.rows[1].scan_case_id == "b" and manifest.rows[2].gos is None


def test_all_faults_at_once(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"")
    (tmp_path / "manifest.csv").write_text(
        "case_id,patient_id,image,has_ich,gos,age,location,mask,mask_values,split\n"
        "a,x:1,scan.nii.gz,2,7,150,cortex,,,train\n"
        "a,x:1,gone.nii.gz,maybe,3.5,60,,,,val\n"
        "b,Smith,scan.nii.gz,0,,,deep,scan.nii.gz,,\n"
        ",x:3,scan.nii.gz,,,,,,,\n",
        encoding="utf-8-sig",
    )
    with pytest.raises(UsageError) as error:
        read_manifest(tmp_path / "manifest.csv")
    message = str(error.value)
    for words in (
        "line 2, has_ich 2: must be 1, 0 or empty",
        "line 2, gos 7: must lie between 1 and 5",
        "line 2, age 150: must lie",
        "line 2, location 'cortex': must be one of deep, lobar, subtentorial",
        "line 3, has_ich 'maybe': not a number",
        "line 3, gos '3.5': must be a whole number",
        "line 4, patient_id 'Smith': must be <source family>:<key>",
        "line 4, location given, yet has_ich is 0",
        "line 4, mask_values: a mask needs them",
        "line 5, case_id: must not be empty",
    ):
        assert words in message


def test_every_faulty_line_is_named_however_many_there_are(tmp_path: Path) -> None:
    lines = ["case_id,patient_id,image,age,has_ich", "short,x:1", "inf,x:1,i,inf,inf"]
    lines += [f"c{n},x:{n},i,{999 if n != 90 else 9},1" for n in range(4, 102)]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError) as error:
        read_manifest(tmp_path / "manifest.csv", check_files=False)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'manifest.csv'}: 100 faults.")
    assert "line 2: 5 columns expected" in message  # beside the faults of other lines
    assert "line 3, age 'inf': not a finite number" in message and "line 3, has_ich 'inf': not a finite" in message
    assert "line 60, age 999: must lie" in message and "line 61, age" not in message
    assert message.endswith("... and 40 more, in lines 61-89, 91-101")


def test_slices_of_one_scan_agree_on_the_scan(tmp_path: Path) -> None:
    rows = [
        ManifestRow("a#0", "x:1", "one.nii", slice_index=0, has_ich=0, age=60.0),
        ManifestRow("a#1", "x:1", "two.nii", slice_index=1, has_ich=1, age=61.0),
    ]
    with pytest.raises(UsageError) as error:
        read_manifest(write_manifest(tmp_path / "m.csv", rows), check_files=False)
    assert "line 3, image: another one than in line 2" in str(error.value)
    assert "line 3, age: another one than in line 2" in str(error.value) and "2 faults" in str(error.value)


def test_faults_between_rows_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    rows = [
        ManifestRow("a", "x:1", "scan", split="train"),
        ManifestRow("a", "x:1", "gone", split="val"),
        ManifestRow("b", "x:2", "scan"),
        ManifestRow("b#0", "x:3", "scan", slice_index=0),
    ]
    write_manifest(tmp_path / "m.csv", rows)
    with pytest.raises(UsageError) as error:
        read_manifest(tmp_path / "m.csv")
    message = str(error.value)
    assert "line 3, case_id 'a': stands already in line 2" in message
    assert "line 3, split 'val': the patient is in 'train' in line 2" in message
    assert "line 3, image 'gone': no such file" in message
    assert "line 5, case_id 'b#0': line 4 has the scan whole" in message
    assert "line 5, patient_id: another one than in line 4" in message
    assert "5 faults" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"has_any_bleed": 0}, "has_any_bleed 0"),
        ({"has_ich": 0, "location": None}, "volume_ml above 0"),
        ({"gos": 1}, "disagree on death"),
        ({"outcome_binary": 0}, "outcome_binary is 1 where gos is below 4"),
        ({"dead_30d": 1}, "gos above 1"),
        ({"location_source": None}, "location without location_source"),
        ({"volume_method": None}, "volume_ml without volume_method"),
        ({"mask_values": {"blood": [1]}}, "unknown name 'blood'"),
        ({"mask_values": {"ich": [1], "ivh": [1]}}, "one number stands for two things"),
        ({"mask_values": {"ich": [0]}}, "0 is the background"),
        ({"mask_values": {"ich": 1}}, "list of whole numbers"),
        ({"mask": None}, "without a mask"),
        ({"mask_kind": "0-255"}, "the only value is 1"),
        ({"slice_has_ich": [2]}, "1, 0 and null"),
        ({"slice_index": 2}, "ends in #2"),
        ({"boxes": {"slice": 1}}, "boxes: must be a list"),
        ({"boxes": [{"slice": 1, "x": 1, "y": 2, "width": 3, "label": "x"}]}, "boxes: must be a list"),
        ({"boxes": [{"slice": 1, "x": 1, "y": 2, "width": 0, "height": 4, "label": "x"}]}, "boxes: must be a list"),
        ({"gos": 1, "dead_30d": 1}, "dead_30d 1, yet mrs below 6"),
    ],
)
def test_contradictions(tmp_path: Path, changes: dict, words: str) -> None:
    path = write_manifest(tmp_path / "m.csv", [replace(ROW, **changes)])
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        read_manifest(path, check_files=False)


def test_columns_are_checked_first(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("case_id,image,volum_ml,image\na,b,1,b\n")
    with pytest.raises(UsageError, match=r"missing: patient_id; unknown: volum_ml; twice: image"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("case_id,patient_id,image\na,x:1,b,c\nd,x:2\n")
    with pytest.raises(UsageError, match="2 faults"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("case_id,patient_id,image\n")
    with pytest.raises(UsageError, match="no row"):
        read_manifest(tmp_path / "m.csv")


def test_unknown_stays_unknown() -> None:
    row, faults = parse_row({"case_id": "a", "patient_id": "x:1", "image": "i", "gos": " ", "volume_ml": ""})
    assert faults == [] and row is not None and row.gos is None and row.volume_ml is None and row.has_ich is None
