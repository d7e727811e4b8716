"""`ich-analysis batch LIST_OR_FOLDER --out DIR`: many scans, one row a case, resumable."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from ICHAnalysisLib.commands.analyze import add_run_arguments, options_from
from ICHAnalysisLib.commands.output_arguments import add_output_arguments, output_options

SOME_FAILED = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("source", help="folder tree, or CSV with the columns case_id and image")
    parser.add_argument("--out", required=True, help="folder for the results; a second run there goes on")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=1, help="processes on this machine (needs the extra 'batch')")
    where.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler, e.g. tcp://head:8786")
    parser.add_argument("--retry-failed", action="store_true", help="try blocked and failed cases again")
    parser.add_argument("--names", action="store_true", help="use paths as case ids (they may name patients)")
    add_run_arguments(parser)
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Analyze all cases, print the summary; 4 where some were blocked or failed."""
    from ICHAnalysisLib.batch import logger, run_batch
    from ICHAnalysisLib.batch_cases import find_cases
    from ICHAnalysisLib.config.batch import BatchOptions

    options = BatchOptions(
        workers=args.workers,
        scheduler=args.scheduler,
        retry_failed=args.retry_failed,
        analyze=options_from(args),
        outputs=output_options(args),
    )
    logger.setLevel(logging.INFO)  # the address of the dashboard
    cases = find_cases(args.source, names=args.names, skip=Path(args.out))
    print(f"{len(cases)} case{'s' if len(cases) != 1 else ''}", file=sys.stderr)
    result = run_batch(cases, args.out, options, _print_row)
    ok, bad = result.count("ok"), len(result.rows) - result.count("ok")
    positive = sum(bool(row["positive"]) for row in result.rows)
    print(f"{len(result.rows)} cases: {ok} analyzed ({positive} with hemorrhage), {bad} blocked or failed.")
    if result.resumed:
        print(f"{result.resumed} of them stood there from an earlier run.")
    for row in result.rows:
        if row["status"] != "ok":
            print(f"{row['case_id']}: {row['status']}: {row['message']}", file=sys.stderr)
    print(f"table: {Path(args.out) / 'cases.csv'}")
    print(f"summary: {Path(args.out) / 'summary.html'}")
    return SOME_FAILED if bad else 0


def _print_row(done: int, total: int, row: dict[str, Any]) -> None:
    """One line a case on standard error."""
    volume = row.get("volume_ml")
    found = f", {volume:.1f} mL" if volume else ""
    print(f"[{done}/{total}] {row['case_id']}: {row['status']}{found}", file=sys.stderr, flush=True)
