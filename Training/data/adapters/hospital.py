"""A hospital's folder of scans and its table: columns mapped by a JSON file, patients named by keyed pseudonyms.

The JSON maps manifest columns to the table's, as {"patient_id": "PatNr", "image": "Folder", "volume_ml": "Vol (ml)",
"sex": {"column": "Geschlecht", "values": {"m": "male", "w": "female"}}, "source": {"constant": "clinic"}}.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ICHAnalysisLib.errors import UsageError
from Training.data.adapters import Options, read_table
from Training.data.manifest import COLUMNS, ManifestRow, parse_row
from Training.data.manifest_checks import list_faults

logger = logging.getLogger(__name__)


def hospital(root: Path, options: Options) -> Iterator[ManifestRow]:
    """One row a table row. Paths in the table are relative to `root`. Raises UsageError with every fault at once."""
    if options.table is None or options.columns is None:
        raise UsageError("hospital: give --table (CSV or XLSX) and --columns (JSON).")
    if not options.secret:
        raise UsageError("hospital: give --secret, a word you keep: without it, pseudonyms could be guessed back.")
    mapping = read_mapping(options.columns)
    rows, faults = [], []
    for line, record in enumerate(read_any_table(options.table), start=2):
        if not any(value.strip() for value in record.values()):
            continue
        row, found = _row(record, mapping, root, options)
        faults += [f"row {line}, {fault}" for fault in found]
        rows.append(row)
    if faults:
        raise UsageError(list_faults(options.table, faults))
    yield from (row for row in rows if row is not None)


def read_mapping(path: Path) -> dict[str, dict[str, Any]]:
    """Manifest column -> {"column", "values"} or {"constant"}; raises UsageError for an unknown column or form."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path}: must map manifest columns to the table's, got {type(data).__name__}.")
    mapping: dict[str, dict[str, Any]] = {}
    for name, rule in data.items():
        rule = {"column": rule} if isinstance(rule, str) else rule
        if name not in COLUMNS or not _is_rule(rule):
            raise UsageError(
                f"{path}: {name!r}: {rule!r} is no rule for a manifest column; use the table's column, "
                '{"column": ..., "values": {...}} or {"constant": ...}.'
            )
        mapping[name] = rule
    if "patient_id" not in mapping or "image" not in mapping:
        raise UsageError(f"{path}: patient_id and image must be mapped.")
    return mapping


def _is_rule(rule: Any) -> bool:
    """True for {"column"}, {"column", "values"} and {"constant"}; nothing else may stand in a rule."""
    if not isinstance(rule, dict) or not isinstance(rule.get("values", {}), dict):
        return False
    return set(rule) in ({"column"}, {"column", "values"}, {"constant"})


def pseudonym(patient: str, secret: str, source: str) -> str:
    """ "<source>:<16 hexadecimal digits>", the same for the same patient, secret and source."""
    digest = hmac.new(secret.encode(), patient.strip().encode(), hashlib.sha256).hexdigest()
    return f"{source}:{digest[:16]}"


def read_any_table(path: Path) -> list[dict[str, str]]:
    """CSV with commas or semicolons, or the first sheet of an XLSX file."""
    if path.suffix.lower() not in (".xlsx", ".xlsm"):
        rows = read_table(path)
        if rows and len(rows[0]) == 1 and ";" in next(iter(rows[0])):
            return _semicolons(path)
        return rows
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise UsageError(f"{path}: reading XLSX needs openpyxl (pip install openpyxl), or save it as CSV.") from error
    try:
        sheet = load_workbook(path, read_only=True, data_only=True).worksheets[0]
        cells = [["" if value is None else str(value) for value in row] for row in sheet.iter_rows(values_only=True)]
    except Exception as error:  # zip, XML and openpyxl's own errors of a damaged workbook
        raise UsageError(f"{path}: cannot be read as a workbook ({error}); save it again as XLSX or CSV.") from error
    return [dict(zip(cells[0], row, strict=False)) for row in cells[1:]] if cells else []


def _semicolons(path: Path) -> list[dict[str, str]]:
    """A table in the manner of spreadsheets that use the comma in numbers."""
    import csv

    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(lines, delimiter=";")]


def _row(
    record: dict[str, str], mapping: dict[str, dict[str, Any]], root: Path, options: Options
) -> tuple[ManifestRow | None, list[str]]:
    """One manifest row and its faults."""
    values, faults = {}, []
    for name, rule in mapping.items():
        text, fault = _cell(record, name, rule)
        values[name] = text
        faults += [fault] if fault else []
    source = values.get("source") or "hospital"
    values["source"] = source
    for name in ("image", "mask"):
        if values.get(name):
            values[name] = options.relative(root / values[name])
    values["case_id"] = values.get("case_id") or f"{source}-{hashlib.sha256(values['image'].encode()).hexdigest()[:12]}"
    values["patient_id"] = pseudonym(values["patient_id"], options.secret, source) if values["patient_id"] else ""
    row, found = parse_row(values)
    return row, faults + found


def _cell(record: dict[str, str], name: str, rule: dict[str, Any]) -> tuple[str, str | None]:
    """A cell by its rule: (text, fault)."""
    if "constant" in rule:
        return str(rule["constant"]), None
    column = rule["column"]
    if column not in record:
        return "", f"{name}: the table has no column {column!r}"
    text = record[column].strip()
    known = rule.get("values")
    if known is None or not text:
        return text.replace(",", ".") if _is_decimal(text) else text, None
    if text not in known:
        return "", f"{name}: the value {text!r} of column {column!r} is not in its list"
    return "" if known[text] is None else str(known[text]), None


def _is_decimal(text: str) -> bool:
    """True for a number written with a decimal comma."""
    whole, comma, fraction = text.partition(",")
    return bool(comma) and whole.lstrip("-").isdigit() and fraction.isdigit()
