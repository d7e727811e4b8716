"""Which cases a batch holds: the rows of a CSV, or the studies and image files of a folder tree."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ICHAnalysisLib.ct.sources import image_suffix, looks_like_dicom
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.outputs.tables import read_csv

_PATH_COLUMNS = ("image", "scan", "path")
_CLINICAL = (
    "age", "age_years", "sex", "gcs", "onset_to_ct_h", "onset_to_ct_hours", "cognition_impaired",
    "cognitive_impairment", "antithrombotics",
)  # fmt: skip
_FLAGS = ("cognition_impaired", "cognitive_impairment", "antithrombotics")
_SEXES = {"m": "male", "f": "female"}
_YES_NO = {"1": True, "yes": True, "y": True, "true": True, "0": False, "no": False, "n": False, "false": False}
_MASK = re.compile(r"(^|[._-])(seg|segmentation|label|labels|mask|heatmap)([._-]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """One scan of a batch. patient and acquired_h (hours on the patient's own clock) serve growth alone."""

    case_id: str
    scan: str
    series: str | None = None
    clinical: dict[str, Any] = field(default_factory=dict)
    patient: str = ""
    acquired_h: float | None = None

    @property
    def slug(self) -> str:
        """A file name for the case: plain letters, digits, dot, dash and underscore; unique as the id is."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", self.case_id).strip("._")[:60]
        return plain if plain == self.case_id else f"{plain or 'case'}-{_digest(self.case_id, 8)}"


def find_cases(source: str | Path, names: bool = False, skip: Path | None = None) -> list[Case]:
    """The cases of a CSV file or a folder tree, in a fixed order.

    In a tree a DICOM study, a zip and an image file are a case each; label maps are passed over. Their ids are made
    from a hash of the path, since folder names often are patients' names; `names` keeps the path instead. `skip`
    is a folder to leave out (the output). Raises UsageError where there is nothing, or an id stands twice.
    """
    path = Path(source)
    if path.is_dir():
        cases = _tree_cases(path, names, skip)
    elif path.is_file() and path.suffix.lower() in (".csv", ".txt"):
        cases = _csv_cases(path)
    else:
        raise UsageError(f"{path.name}: neither a folder nor a CSV file of cases.")
    if not cases:
        raise UsageError(f"{path.name}: no CT scan found. Expected DICOM, zip, NIfTI, NRRD or MHA files, or a CSV.")
    return cases


def _csv_cases(path: Path) -> list[Case]:
    """One case a row; columns case_id and image (or scan, path); series, patient_id and clinical ones where known."""
    rows = [row for row in read_csv(path) if not row.get("slice_index")]
    column = next((name for name in _PATH_COLUMNS if rows and name in rows[0]), None)
    if rows and column is None:
        raise UsageError(f"{path.name}: needs a column 'image' with the path of each scan.")
    cases, seen = [], set()
    for number, row in enumerate(rows, 2):
        scan = row.get(column or "", "").strip()
        case_id = row.get("case_id", "").strip() or (f"case-{_digest(scan)}" if scan else "")
        if not scan:
            raise UsageError(f"{path.name}, line {number}: no path in the column '{column}'.")
        if case_id in seen:
            raise UsageError(f"{path.name}, line {number}: the case_id of this row stands twice.")
        seen.add(case_id)
        clinical = {name: _clinical_value(name, row[name]) for name in _CLINICAL if _is_known(row.get(name))}
        cases.append(
            Case(
                case_id,
                str((path.parent / scan).resolve()),
                row.get("series") or None,
                clinical,
                row.get("patient_id", "").strip(),
                _hours(row.get("scan_time_h", "")),
            )
        )
    return cases


def _is_known(cell: str | None) -> bool:
    """False for an empty cell, and for what tables write in place of one."""
    return (cell or "").strip().lower() not in ("", "na", "nan", "none", "unknown")


def _clinical_value(name: str, cell: str) -> Any:
    """A cell as the clinical record wants it: a number, true or false, the sex; other text is judged there."""
    text = cell.strip().lower()
    if name == "sex":
        return _SEXES.get(text, text)
    if name in _FLAGS:
        return _YES_NO.get(text, text)
    number = _hours(text)
    return text if number is None else number


def _hours(text: str) -> float | None:
    """A number of hours, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def _tree_cases(root: Path, names: bool, skip: Path | None) -> list[Case]:
    """Studies and image files below a folder."""
    studies: dict[str, list[Path]] = defaultdict(list)
    scans: list[Path] = []
    left_out = skip.resolve() if skip is not None else None
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (here / name).resolve() != left_out
        )
        study = ""
        for name in sorted(files):
            file = here / name
            if name.startswith(".") or name.upper() == "DICOMDIR":
                continue
            if image_suffix(name) or name.lower().endswith(".zip"):
                if not _MASK.search(name):
                    scans.append(file)
            elif not study and (name.lower().endswith((".dcm", ".ima")) or _starts_like_dicom(file)):
                study = _study_uid(file) or str(here)
        if study:
            studies[study].append(here)
    scans += _study_folders(studies, scans)
    return [_tree_case(root, scan, names) for scan in sorted(scans)]


def _study_folders(studies: dict[str, list[Path]], scans: list[Path]) -> list[Path]:
    """A folder for each study: the one above all its folders where that holds nothing else, else each folder apart."""
    found = []
    for uid, folders in studies.items():
        above = Path(os.path.commonpath(folders))
        others = [folder for other, places in studies.items() if other != uid for folder in places] + scans
        alone = not any(above == place or above in place.parents for place in others)
        found += [above] if alone else folders
    return found


def _tree_case(root: Path, scan: Path, names: bool) -> Case:
    relative = scan.relative_to(root).as_posix() if scan != root else scan.resolve().name
    return Case(relative if names else f"case-{_digest(relative)}", str(scan.resolve()))


def _starts_like_dicom(file: Path) -> bool:
    """True where the first bytes are those of a DICOM file."""
    try:
        with open(file, "rb") as stream:
            return looks_like_dicom(stream.read(256))
    except OSError:
        return False


def _study_uid(file: Path) -> str:
    """StudyInstanceUID of a DICOM file, "" where it cannot be read."""
    import pydicom

    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
        return str(header.get("StudyInstanceUID") or "")
    except Exception:  # a damaged file: its folder is a case, and the reader will say what is wrong with it
        return ""


def _digest(text: str, length: int = 10) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
