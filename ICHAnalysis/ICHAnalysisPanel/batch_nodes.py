"""The rows of a batch as nodes, and how well its measures agree with each other or with a table of references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisPanel.agreement_nodes import remove_agreement, write_bland_altman, write_scatter
from ICHAnalysisPanel.result_tables import fill_table, number_column, text_column

if TYPE_CHECKING:
    from ICHAnalysisLib.compare import MethodAgreement, VolumeTable

#: Names that users see to the columns of cases.csv.
METHODS = {
    "Outline": "volume_ml", "Volume net": "network_ml", "ABC/2": "abc2_ml", "ABC/2 (Kothari)": "abc2_kothari_ml",
    "2/3 Sh": "two_thirds_sh_ml",
}  # fmt: skip
_TEXTS = {"Case": "case_id", "Status": "status", "Location": "location", "Side": "side"}
_NUMBERS = {**METHODS, "Ventricles": "ivh_ml", "ICH Score": "ich_score", "FUNC": "func_score"}


@dataclass(frozen=True)
class Agreement:
    """Two measures of the same cases: the numbers, and the nodes that show them."""

    numbers: MethodAgreement
    reference: str
    bland_altman: Any
    bland_altman_table: Any
    scatter: Any
    scatter_table: Any

    def sentence(self) -> str:
        """The numbers in one line."""
        limits, icc = self.numbers.limits, self.numbers.icc
        return (
            f"{self.numbers.method} against {self.reference}, {self.numbers.errors.cases} cases: bias "
            f"{limits.bias.value:+.2f} mL (limits of agreement {limits.lower.value:.2f} to {limits.upper.value:.2f}), "
            f"ICC {icc.value:.3f} ({icc.lower:.3f} to {icc.upper:.3f}), CCC {self.numbers.concordance:.3f}."
        )


def write_case_table(node: Any, rows: Sequence[dict[str, Any]]) -> Any:
    """One line a case; a new node where `node` is None."""
    node = node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Batch results")
    columns = {name: text_column([str(row.get(key) or "") for row in rows]) for name, key in _TEXTS.items()}
    columns |= {name: number_column([_number(row.get(key)) for row in rows]) for name, key in _NUMBERS.items()}
    columns["Message"] = text_column([str(row.get("message") or "") for row in rows])
    return fill_table(node, columns)


def read_rows(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of a batch's folder. Raises UsageError where there is no cases.csv."""
    from ICHAnalysisLib.outputs.tables import read_csv

    path = Path(folder) / "cases.csv"
    if not path.is_file():
        raise UsageError(f"{Path(folder).name} holds no cases.csv: run a batch into it first.")
    return [dict(row) for row in read_csv(path)]


def volumes_of(rows: Sequence[dict[str, Any]], reference_file: str | Path | None = None) -> VolumeTable:
    """Every measure of the analyzed cases by name, and the columns of a CSV with case_id and volumes in mL.

    Raises UsageError for a file that is no such table or knows none of the cases.
    """
    from ICHAnalysisLib.compare import VolumeTable, read_volume_table

    rows = [row for row in rows if row.get("status") == "ok"]
    cases = tuple(str(row["case_id"]) for row in rows)
    volumes = {name: np.array([_number(row.get(key)) for row in rows]) for name, key in METHODS.items()}
    if reference_file:
        given = read_volume_table(reference_file)
        where = {case: n for n, case in enumerate(given.case_ids)}
        if not any(case in where for case in cases):
            raise UsageError(f"{Path(reference_file).name} and the batch have no case_id in common.")
        for name, values in given.volumes_ml.items():
            found = [values[where[case]] if case in where else np.nan for case in cases]
            volumes[f"{name} (file)" if name in volumes else name] = np.array(found)
    below = np.array([row.get("location") == "subtentorial" for row in rows])
    return VolumeTable(cases, volumes, below)


def show_agreement(volumes: VolumeTable, method: str, reference: str) -> Agreement:
    """Bland-Altman and scatter plots in place of earlier ones. Raises UsageError below three cases with both."""
    from ICHAnalysisLib.compare import VolumeTable, compare_methods

    for name in (method, reference):
        if name not in volumes.volumes_ml:
            raise UsageError(f"There is no measure {name!r}; there are {', '.join(volumes.volumes_ml)}.")
    if method == reference:
        raise UsageError(f"{method} cannot be compared with itself; choose another reference.")
    pair = {name: volumes.volumes_ml[name] for name in (method, reference)}
    known = int(np.isfinite(np.stack(list(pair.values()))).all(axis=0).sum())
    if known < 3:
        raise UsageError(f"{known} cases have both {method} and {reference}; agreement needs at least three.")
    (numbers,) = compare_methods(VolumeTable(volumes.case_ids, pair, volumes.infratentorial), reference)
    remove_agreement()
    labels = (method, reference)
    limits_table, limits_chart = write_bland_altman(volumes.case_ids, *pair.values(), "Agreement", labels)
    scatter_table, scatter_chart = write_scatter(volumes.case_ids, *pair.values(), "Scatter", labels)
    return Agreement(numbers, reference, limits_chart, limits_table, scatter_chart, scatter_table)


def _number(value: Any) -> float:
    """A number of a row, also from text; NaN for none."""
    return float("nan") if value in (None, "") else float(value)
