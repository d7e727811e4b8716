"""CSV tables that a spreadsheet opens safely, written whole or not at all."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.outputs.atomic import write_text

#: First characters by which a spreadsheet takes a text for a formula, their full-width forms included.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def safe_cell(value: Any) -> Any:
    """A value for a CSV cell: numbers as they are, None and NaN empty, texts that look like a formula quoted."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, int):
        return value
    text = str(value).replace("\x00", "")
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """The rows as CSV text with a header line; missing cells are empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([safe_cell(row.get(column)) for column in columns])
    return buffer.getvalue()


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str], private: bool = False) -> Path:
    """Write a CSV file atomically; `private` gives it mode 0600."""
    return write_text(path, csv_text(rows, columns), private)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a UTF-8 CSV file (with or without a byte order mark), texts as they stand.

    Semicolons separate where the header line holds no comma, as spreadsheets write it in many countries. Raises
    UsageError where the file is no such table.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=";" if ";" in head and "," not in head else ",")
            return [{key: value or "" for key, value in row.items() if key} for row in reader]
    except UnicodeDecodeError as error:
        raise UsageError(f"{Path(path).name}: not UTF-8 text; save the table as 'CSV UTF-8'.") from error
    except csv.Error as error:
        raise UsageError(f"{Path(path).name}: not a CSV table ({error}).") from error
