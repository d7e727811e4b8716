"""A table of results that grows while a long run goes on: one CSV file, whole at any moment."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ICHAnalysisLib.outputs.atomic import write_text


def read_rows(table: Path) -> list[dict[str, Any]]:
    """Rows of an earlier run, all values as text; none where there is no file."""
    if not table.exists():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(table: Path, rows: Sequence[dict[str, Any]]) -> None:
    """All rows under the keys of the first, in one replacement of the file."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(table, buffer.getvalue())
