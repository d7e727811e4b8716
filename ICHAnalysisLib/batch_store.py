"""The folder of a batch: a row a case, each written whole, so that a killed batch goes on where it stopped.

cases.csv  growth.csv  summary.html     for reading, without identifiers
cases/NAME/                             the files of each case
rows/NAME.json                          the row and what resuming and growth need (mode 0600)
sources.csv                             which case is which file (mode 0600)
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ICHAnalysisLib.batch_cases import Case
from ICHAnalysisLib.outputs.atomic import write_text
from ICHAnalysisLib.outputs.rows import COLUMNS
from ICHAnalysisLib.outputs.tables import write_csv

#: Ends that a rerun leaves alone.
FINAL = ("ok", "blocked", "failed")


class BatchStore:
    """Reads and writes the folder of a batch."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.rows = self.folder / "rows"
        self.rows.mkdir(parents=True, exist_ok=True)
        os.chmod(self.rows, 0o700)

    def case_folder(self, case: Case) -> Path:
        """Where the files of a case lie."""
        return self.folder / "cases" / case.slug

    def read(self, case: Case) -> dict[str, Any] | None:
        """{"row": ..., "private": ...} of a case, None where there is none."""
        try:
            return json.loads(self._row_path(case).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def write(self, case: Case, row: dict[str, Any], private: dict[str, Any]) -> None:
        """Replace the row of a case in one step, and forget its attempts."""
        text = json.dumps({"row": row, "private": private}, indent=1)
        write_text(self._row_path(case), text, private=True)
        self._attempts_path(case).unlink(missing_ok=True)

    def begin(self, case: Case) -> int:
        """Count an attempt before it starts; returns its number, from 1 on. A finished case starts anew."""
        path = self._attempts_path(case)
        try:
            earlier = int(path.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            earlier = 0
        write_text(path, str(earlier + 1), private=True)
        return earlier + 1

    def forget(self, case: Case) -> None:
        """Remove the row and the attempts of a case that is to run again."""
        self._row_path(case).unlink(missing_ok=True)
        self.forget_attempts(case)

    def forget_attempts(self, case: Case) -> None:
        """Hold no ended attempt against a case: it was stopped from outside."""
        self._attempts_path(case).unlink(missing_ok=True)

    def write_tables(self, cases: Iterable[Case]) -> list[dict[str, Any]]:
        """Write cases.csv from the rows that exist, in the order of the cases; returns them."""
        rows = [stored["row"] for case in cases if (stored := self.read(case)) is not None]
        write_csv(self.folder / "cases.csv", rows, COLUMNS)
        return rows

    def write_sources(self, cases: Iterable[Case]) -> None:
        """Write which case is which file, for the owner alone."""
        rows = [{"case_id": case.case_id, "scan": case.scan, "series": case.series} for case in cases]
        write_csv(self.folder / "sources.csv", rows, ("case_id", "scan", "series"), private=True)

    def salt(self) -> str:
        """The secret by which this batch tells patients apart without naming them."""
        path = self.rows / "salt"
        if not path.is_file():
            write_text(path, secrets.token_hex(16), private=True)
        return path.read_text(encoding="ascii")

    def _row_path(self, case: Case) -> Path:
        return self.rows / f"{case.slug}.json"

    def _attempts_path(self, case: Case) -> Path:
        return self.rows / f"{case.slug}.attempts"


def fingerprint(case: Case, settings: dict[str, Any]) -> str:
    """Hash of everything a result depends on; another fingerprint means the case runs again."""
    content = json.dumps([case.scan, case.series, case.clinical, settings], sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
