"""Cross-validation: `python -m Training.crossval CONFIG data.cache=CACHE --out DIR [--folds 5] [--processes N]`.

Writes DIR/folds.json (patient-level, stratified) unless data.folds names one, trains and evaluates each fold in
DIR/foldN by the same commands that a person would type, and joins what was held out: DIR/summary.csv has each fold,
mean and standard deviation over the folds, DIR/cases.csv every held-out case once.
Started again, it goes on: finished folds are left as they are, others resume.

Exit status: 0 done, 2 wrong use, 4 a fold failed (the others are still run).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from Training.config import RunConfig, load_config
from Training.data.splits import make_folds, members_of_cache, read_folds, write_folds
from Training.results import complete_run
from Training.train import start_logging
from Training.watch import read_rows, write_json, write_rows

log = logging.getLogger(__name__)


def cross_validate(config: str, overrides: Sequence[str], out: Path, count: int = 5, processes: int = 1) -> list[int]:
    """Run what is missing of all folds; returns the folds that failed.

    Raises UsageError for a configuration or folds file that does not fit.
    """
    cfg = load_config(config, overrides)
    out.mkdir(parents=True, exist_ok=True)
    folds_path = Path(cfg.data.folds) if cfg.data.folds else _make_folds(cfg, out, count)
    count = read_folds(folds_path).count
    failed = []
    for fold in range(count):
        options = [*overrides, f"data.folds={folds_path}", f"data.fold={fold}"]
        if not complete_run(config, options, out / f"fold{fold}", "test", processes):
            failed.append(fold)
    done = [fold for fold in range(count) if fold not in failed]
    if done:
        join_folds(out, done)
    return failed


def _make_folds(cfg: RunConfig, out: Path, count: int) -> Path:
    """Folds of the caches' cases, made once."""
    path = out / "folds.json"
    if not path.exists():
        caches = (cfg.data.cache,) if isinstance(cfg.data.cache, str) else cfg.data.cache
        if not caches:
            raise UsageError("data.cache must name the folder of preprocessed cases, or data.folds a splits file.")
        members = [member for folder in caches for member in members_of_cache(folder)]
        write_folds(path, make_folds(members, count, cfg.loop.seed))
    return path


def join_folds(out: Path, folds: Sequence[int]) -> list[dict[str, Any]]:
    """summary.csv, summary.json and cases.csv from the folds' evaluations; returns the rows of the summary.

    A row a metric: each fold, mean and sample standard deviation over the folds that have it.
    """
    summaries = {
        fold: json.loads((out / f"fold{fold}" / "test" / "summary.json").read_text(encoding="utf-8")) for fold in folds
    }
    metrics = list(dict.fromkeys(key for summary in summaries.values() for key in summary["metrics"]))
    rows = []
    for metric in metrics:
        values = {fold: summary["metrics"].get(metric) for fold, summary in summaries.items()}
        known = [value for value in values.values() if value is not None]
        rows.append(
            {
                "metric": metric,
                **{f"fold{fold}": value for fold, value in values.items()},
                "folds": len(known),
                "mean": float(np.mean(known)) if known else None,
                "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
            }
        )
    write_rows(out / "summary.csv", rows)
    cases = [
        {"fold": fold, **row} for fold in folds for row in read_rows(out / f"fold{fold}" / "test" / "cases.csv")[0]
    ]
    write_rows(out / "cases.csv", cases)
    means = {row["metric"]: {"mean": row["mean"], "sd": row["sd"]} for row in rows}
    write_json(out / "summary.json", {"folds": list(folds), "cases": len(cases), "metrics": means})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's text for the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Training.crossval", description="Train and judge all folds.")
    parser.add_argument("config", help="a YAML file, or a packaged configuration such as ich_scnet/paper")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5, help="where data.folds names no file")
    parser.add_argument("--processes", type=int, default=1, help="processes a run, one a GPU")
    args = parser.parse_intermixed_args(argv)
    start_logging()
    try:
        failed = cross_validate(args.config, args.overrides, args.out, args.folds, args.processes)
    except ICHAnalysisError as error:
        log.error("%s", error)
        return 2
    print(f"{args.out}: " + (f"failed folds {', '.join(map(str, failed))}" if failed else "all folds done"))
    return 4 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
