"""The papers' tables from your own runs: `python -m Training.tables PAPER TABLE --out DIR [options]`.

    python -m Training.tables dtvit 2 --out tables --run --size compact data.cache=CACHE
    python -m Training.tables ich_scnet 1 --out tables --run --folds 5 data.cache=CACHE
    python -m Training.tables                                   lists what there is

Every row is a configuration. --run trains and judges those that have no result yet in DIR/runs; without it the table
shows what is there. --readings fills the readers' rows of volume_net's table 1 from a CSV. Values carry a 95 %
interval over patients, or with --folds the standard deviation over folds.
Writes DIR/PAPER-tableN-SIZE.csv and .md. Exit status: 0, 2 wrong use, 4 a row failed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ICHAnalysisLib.compare import compare_methods, find_reference, read_volume_table
from ICHAnalysisLib.errors import ICHAnalysisError
from Training.crossval import cross_validate
from Training.papers.base import PAPERS, Column, PaperTable, TableRow, catalog, find
from Training.results import Metric, Result, complete_run, find_result, run_name
from Training.train import start_logging
from Training.watch import write_rows, write_text

log = logging.getLogger(__name__)

NOT_RUN, NOT_MEASURED = "not run", "-"


def run_rows(table: PaperTable, runs: Path, overrides: Sequence[str], folds: int, processes: int) -> list[str]:
    """Train and judge every configuration of the table that has no result; returns those that failed."""
    failed = []
    for config in dict.fromkeys(row.config for row in table.rows if row.config is not None):
        folder = runs / run_name(config)
        if folds:
            fine = not cross_validate(config, overrides, folder, folds, processes)
        else:
            fine = complete_run(config, overrides, folder, "auto", processes)
        if not fine:
            failed.append(config)
    return failed


def read_readings(path: Path) -> dict[str, Result]:
    """Errors in mL of each column of a CSV of readings, as `ich-analysis compare` reads it, by its name in lower case.

    Raises UsageError for a table that `compare` refuses, or without a column that is called as a reference.
    """
    table = read_volume_table(path)
    return {
        item.method.lower(): Result(
            path, {key: Metric(float(value)) for key, value in asdict(item.errors).items()}, item.errors.cases, "read"
        )
        for item in compare_methods(table, find_reference(table, None))
    }


def fill(table: PaperTable, runs: Path, readings: Mapping[str, Result] | None = None) -> list[dict[str, str]]:
    """The table's cells as text; rows without a result say "not run", rows that are not built say why.

    readings: results for rows that are not built, by their last label in lower case.
    """
    found: dict[str, Result | None] = {
        row.config: find_result(runs / run_name(row.config)) for row in table.rows if row.config is not None
    }
    cells = []
    for row in table.rows:
        result = found[row.config] if row.config is not None else (readings or {}).get(row.labels[-1].lower())
        labels = dict(zip(table.label_headers, row.labels, strict=True))
        if row.config is None and result is None:
            values = dict.fromkeys((column.header for column in table.columns), row.not_built)
        elif result is None:
            values = dict.fromkeys((column.header for column in table.columns), NOT_RUN)
        else:
            values = {column.header: _cell(row, column, result) for column in table.columns}
        cases = "" if result is None else f"{result.cases} ({result.split})"
        cells.append({**labels, **values, "cases": cases})
    return cells


def _cell(row: TableRow, column: Column, result: Result) -> str:
    metric = result.metrics.get(row.prefix + column.metric)
    if metric is None or (row.only is not None and column.metric not in row.only):
        return NOT_MEASURED
    return format_metric(metric, column.scale, column.digits)


def format_metric(metric: Metric, scale: float = 1.0, digits: int = 3) -> str:
    """0.912 (0.850 to 0.960), 0.912 ± 0.031, or the value alone."""
    value = f"{metric.value * scale:.{digits}f}"
    if metric.sd is not None:
        return f"{value} ± {metric.sd * scale:.{digits}f}"
    if metric.low is not None and metric.high is not None:
        return f"{value} ({metric.low * scale:.{digits}f} to {metric.high * scale:.{digits}f})"
    return value


def write_table(table: PaperTable, cells: list[dict[str, str]], stem: Path) -> None:
    """STEM.csv and STEM.md."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_rows(stem.with_suffix(".csv"), list(cells))
    headers = list(cells[0])
    lines = [f"# {table.title}", "", "| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    lines += ["| " + " | ".join(row[header] for header in headers) + " |" for row in cells]
    notes = [
        "Measured on the user's own cases, not the paper's; parentheses: 95 % interval over patients; ±: standard "
        "deviation over folds."
    ]
    if any(row["cases"].endswith("(val)") for row in cells):
        notes.append(
            "(val): cases that trained nothing but chose the checkpoint and the thresholds; --folds or "
            "data.test_fraction hold others out."
        )
    notes += [table.note] if table.note else []
    write_text(stem.with_suffix(".md"), "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's text for the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Training.tables", description="The papers' tables.")
    parser.add_argument("paper", nargs="?", help=", ".join(PAPERS))
    parser.add_argument("table", nargs="?", help="number as printed, in Arabic figures")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every row's run")
    parser.add_argument("--out", type=Path, default=Path("tables"))
    parser.add_argument("--size", default="paper", choices=("paper", "compact"), help="of the networks")
    parser.add_argument("--run", action="store_true", help="train and judge the rows that have no result")
    parser.add_argument("--folds", type=int, default=0, help="cross-validate each row with so many folds")
    parser.add_argument("--readings", type=Path, help="CSV of volumes by readers, as for `ich-analysis compare`")
    parser.add_argument("--processes", type=int, default=1, help="processes a run, one a GPU")
    args = parser.parse_intermixed_args(argv)
    start_logging()
    failed: list[str] = []
    try:
        if args.paper is None or args.table is None:
            print(catalog("TABLES"))
            return 0 if args.paper is None else 2
        table: PaperTable = find(args.paper, "TABLES", args.table).at(args.size)
        if args.run:
            failed = run_rows(table, args.out / "runs", args.overrides, args.folds, args.processes)
        readings = None if args.readings is None else read_readings(args.readings)
        stem = args.out / f"{args.paper}-table{args.table}-{args.size}"
        write_table(table, fill(table, args.out / "runs", readings), stem)
    except ICHAnalysisError as error:
        log.error("%s", error)
        return 2
    print((args.out / f"{args.paper}-table{args.table}-{args.size}.md").read_text(encoding="utf-8"))
    return 4 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
