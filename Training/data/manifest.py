"""The manifest: one CSV row a CT series, or a slice of one, with what is known of it. What is unknown stays empty.

`read_manifest` checks every row and reports all faults in one error. The columns are those of the data set
specification, plus `series` (DICOM series of a folder that holds several), `slice_has_ich` and `boxes`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ICHAnalysisLib.errors import UsageError
from Training.data.manifest_checks import BINARY, RANGES, WHOLE, list_faults, row_faults, table_faults


@dataclass(frozen=True)
class ManifestRow:
    """One row. None means unknown.

    case_id: unique; of a slice row "<case>#<slice_index>". patient_id: the real patient, "<source family>:<key>", the
    group that splits keep together. image, mask: paths relative to the CSV. slice_index: 0-based in file order.
    mask_values: which mask values are ich, ivh, oedema, or bleed (intracranial blood of unknown kind).
    slice_has_ich: 1, 0 or None of every slice, ascending toward superior. boxes: dicts with slice (ascending
    toward superior), x, y, width, height in acquired pixels, label.
    """

    case_id: str
    patient_id: str
    image: str
    study_id: str | None = None
    scan_time_h: float | None = None
    series: str | None = None
    slice_index: int | None = None
    mask: str | None = None
    mask_values: dict[str, list[int]] | None = None
    mask_kind: str | None = None
    has_ich: int | None = None
    has_any_bleed: int | None = None
    ivh: int | None = None
    sdh: int | None = None
    edh: int | None = None
    sah: int | None = None
    slice_has_ich: list[int | None] | None = None
    boxes: list[dict[str, Any]] | None = None
    location: str | None = None
    location_source: str | None = None
    volume_ml: float | None = None
    volume_method: str | None = None
    gos: int | None = None
    mrs: int | None = None
    dead_30d: int | None = None
    outcome_days: float | None = None
    outcome_binary: int | None = None
    age: float | None = None
    sex: str | None = None
    gcs: int | None = None
    onset_to_ct_h: float | None = None
    text: str | None = None
    split: str | None = None
    source: str | None = None
    licence: str | None = None
    synthetic: int | None = None

    @property
    def scan_case_id(self) -> str:
        """The case of which this row is a slice; its own case_id where it is a whole series."""
        return self.case_id if self.slice_index is None else self.case_id.rpartition("#")[0]


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(ManifestRow))
REQUIRED = ("case_id", "patient_id", "image")
_JSON = ("mask_values", "slice_has_ich", "boxes")


@dataclass(frozen=True)
class Manifest:
    """Checked rows and the folder that their paths are relative to."""

    rows: tuple[ManifestRow, ...]
    folder: Path

    def path(self, relative: str) -> Path:
        """Where an image or mask of this manifest lies."""
        return self.folder / relative


def read_manifest(path: str | os.PathLike, check_files: bool = True) -> Manifest:
    """Read and check a manifest. check_files: every image and mask must exist.

    Raises UsageError with every fault of every row: line, column, value and what would be right.
    """
    source = Path(path)
    lines, faults = _read_csv(source)
    rows = []
    for number, record in lines:
        row, found = parse_row(record)
        faults += [f"line {number}, {fault}" for fault in found]
        if row is not None:
            rows.append((number, row))
    faults += table_faults(rows)
    if check_files:
        faults += _missing_files(rows, source.parent)
    if faults:
        raise UsageError(list_faults(source, faults))
    return Manifest(tuple(row for _, row in rows), source.parent)


def write_manifest(path: str | os.PathLike, rows: Iterable[ManifestRow]) -> Path:
    """Write rows under a temporary name and then in place; columns empty in every row are left out."""
    target, rows = Path(path), list(rows)
    used = [name for name in COLUMNS if name in REQUIRED or any(getattr(row, name) is not None for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, used, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _text(getattr(row, name)) for name in used} for row in rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    os.replace(temporary, target)
    return target


def parse_row(record: dict[str, str]) -> tuple[ManifestRow | None, list[str]]:
    """One CSV record as a row, with its faults; None where values could not be read at all."""
    values: dict[str, Any] = {}
    faults = []
    for name, text in record.items():
        if text is None or not str(text).strip():
            continue
        try:
            values[name] = _value(name, str(text).strip())
        except ValueError as error:
            faults.append(f"{name} {text!r}: {error}")
    faults += [f"{name}: must not be empty" for name in REQUIRED if name not in values and not _named(name, faults)]
    if faults:
        return None, faults
    row = ManifestRow(**values)
    return row, row_faults(row)


def _named(column: str, faults: Sequence[str]) -> bool:
    """True where the column already has a fault."""
    return any(fault.startswith(f"{column} ") for fault in faults)


def _value(name: str, text: str) -> Any:
    """A cell as its column's type; raises ValueError that says what would be right."""
    if name in _JSON:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON ({error})") from error
    if name not in BINARY and name not in RANGES and name != "slice_index":
        return text
    try:
        number = float(text)
    except ValueError as error:
        raise ValueError("not a number; leave it empty where unknown") from error
    if not math.isfinite(number):
        raise ValueError("not a finite number; leave it empty where unknown")
    if name in BINARY or name in WHOLE:
        if number != int(number):
            raise ValueError("must be a whole number")
        return int(number)
    return number


def _read_csv(source: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """(line number, record) of every row, and faults of rows that have too many or too few cells.

    Raises UsageError on an unreadable file or wrong columns.
    """
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: cannot be read as UTF-8 text ({error}).") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = reader.fieldnames or []
    unknown = sorted(set(header) - set(COLUMNS))
    missing = [name for name in REQUIRED if name not in header]
    twice = sorted({name for name in header if header.count(name) > 1})
    if unknown or missing or twice:
        raise UsageError(
            f"{source}: columns missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}; "
            f"twice: {', '.join(twice) or 'none'}. Known are {', '.join(COLUMNS)}."
        )
    rows, faults = [], []
    for record in reader:
        if None in record or None in record.values():
            faults.append(f"line {reader.line_num}: {len(header)} columns expected; quote cells that hold commas")
        else:
            rows.append((reader.line_num, record))
    return rows, faults if rows or faults else ["no row"]


def _missing_files(rows: list[tuple[int, ManifestRow]], folder: Path) -> list[str]:
    """One fault for every image or mask that is not there."""
    faults = []
    for number, row in rows:
        for name in ("image", "mask"):
            value = getattr(row, name)
            if value is not None and not (folder / value).exists():
                faults.append(f"line {number}, {name} {value!r}: no such file or folder below {folder}")
    return faults


def _text(value: Any) -> str:
    """A value as it stands in a cell."""
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
