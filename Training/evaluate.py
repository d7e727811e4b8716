"""Judge a checkpoint: `python -m Training.evaluate CHECKPOINT --out DIR [--split val] [key=value ...]`.

    rows.csv  cases.csv       every slice or scan once, and one row a case
    summary.json  summary.csv each metric with a 95 % interval (bootstrap over patients)
    failures.csv  failures/   the worst cases, with pictures
    calibration.csv  calibration.png

Runs under torchrun as well: rows are gathered by case, none twice. Exit status: 0, or 2 for wrong use.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from Training.cases import fingerprint
from Training.config import config_from_dict, config_to_dict, merge_overrides
from Training.distributed import barrier, end_process, start_world, stop_world
from Training.feed import ReadableItems
from Training.inference import predict_split
from Training.pictures import save_rgb
from Training.reliability import write_calibration
from Training.run import load_trained, settle_process
from Training.tasks.base import Row, Task
from Training.train import start_logging
from Training.watch import write_json, write_rows

log = logging.getLogger(__name__)

_RESAMPLES = 300


def evaluate(
    checkpoint: Path,
    out: Path,
    split: str = "val",
    weights: str = "auto",
    overrides: Sequence[str] = (),
    failures: int = 20,
    resamples: int = _RESAMPLES,
) -> dict[str, Any]:
    """Evaluate one checkpoint on a split of its own data, or of the data that `overrides` name; returns the summary.

    Only data.* and loop.* may be overridden: the rest belongs to the weights. Raises UsageError otherwise, or where
    the split is empty.
    """
    foreign = [item for item in overrides if not item.startswith(("data.", "loop."))]
    if foreign:
        raise UsageError(f"{', '.join(foreign)}: only data.* and loop.* can be changed for an evaluation.")
    world = start_world(_overridden_device(overrides))
    try:
        trained, task, model, state = load_trained(checkpoint, weights, world)
        cfg = config_from_dict(merge_overrides(config_to_dict(trained), overrides))
        settle_process(cfg)
        task.cfg = cfg  # it looks for its cases where the overrides say; what it learned stays
        cases = task.cases()
        if split not in cases or not cases[split]:
            raise UsageError(f"Split {split!r} has no case; there are {', '.join(k for k, v in cases.items() if v)}.")
        dataset = task.build_dataset(cases[split], split)
        rows, unread = predict_split(task, model, dataset, cfg, world)
        if not rows:
            raise UsageError(f"None of the {len(cases[split])} cases of split {split!r} could be read.")
        facts = {
            "task": cfg.task.name,
            "preset": cfg.task.preset,
            "split": split,
            "step": state["progress"]["step"],
            "weights": weights if state["average"] is not None else "last",
            "seen_in_training": split == "train" and fingerprint(cases) == state["data"],
            "unread": len(unread),
        }
        summary: dict[str, Any] = {}
        if world.is_main:
            patients = {case.case_id: case.patient_id for case in cases[split]}
            summary = {**facts, **_write_measures(out, task, rows, patients, resamples)}
            _write_failures(out, task, rows, {case.case_id: case for case in cases[split]}, split, failures)
            write_json(out / "summary.json", summary)  # last: its presence says that the evaluation is whole
        barrier(world)  # the others wait: one that leaves early could take the launcher's other processes along
        return summary
    finally:
        stop_world(world)


def _overridden_device(overrides: Sequence[str]) -> str:
    return str(merge_overrides({}, overrides).get("loop", {}).get("device", "auto"))


def _write_measures(
    out: Path, task: Task, rows: Sequence[Row], patients: dict[str, str], resamples: int
) -> dict[str, Any]:
    """Rows, cases, metrics with intervals and calibration of one set of rows; returns them for the summary.

    patients: case_id -> patient_id, the unit of the bootstrap.
    """
    out.mkdir(parents=True, exist_ok=True)
    metrics = {key: float(value) for key, value in task.metrics(rows).items()}
    case_rows = task.case_rows(rows)
    write_rows(out / "rows.csv", [_flat(row) for row in rows])
    write_rows(out / "cases.csv", [_flat(row) for row in case_rows])
    intervals = bootstrap(task, rows, patients, resamples)
    table = [
        {"metric": key, "value": value, "low": intervals[key][0], "high": intervals[key][1]}
        for key, value in metrics.items()
    ]
    write_rows(out / "summary.csv", table)
    return {
        "rows": len(rows),
        "cases": len({row["case_id"] for row in rows}),
        "patients": len({patients[row["case_id"]] for row in rows}),
        "interval": f"95 % percentile bootstrap over patients, {resamples} resamples",
        "monitor": task.monitor,
        "metrics": metrics,
        "intervals": {key: list(value) for key, value in intervals.items()},
        "calibration": write_calibration(out, task.calibration(case_rows)),
    }


def bootstrap(
    task: Task, rows: Sequence[Row], patients: dict[str, str], resamples: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile interval of every metric over patients drawn with replacement; NaN where it cannot be had.

    A patient drawn twice counts as two patients. The task itself is left as it was.
    """
    by_patient: dict[str, list[Row]] = {}
    for row in rows:
        by_patient.setdefault(patients[row["case_id"]], []).append(row)
    groups = [by_patient[key] for key in sorted(by_patient)]
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples if len(groups) > 1 else 0):
        counts = np.bincount(rng.integers(len(groups), size=len(groups)), minlength=len(groups))
        sample = [row for group, count in zip(groups, counts, strict=True) if count for row in group]
        sample += [
            {**row, "case_id": f"{row['case_id']}#{n}"}
            for group, count in zip(groups, counts, strict=True)
            for n in range(1, count)
            for row in group
        ]
        try:
            found = copy.deepcopy(task).metrics(sample)
        except (ValueError, ZeroDivisionError, ICHAnalysisError):
            continue  # a resample without one of the classes
        for key, value in found.items():
            drawn.setdefault(key, []).append(float(value))
    return {key: _percentiles(drawn.get(key, [])) for key in task_keys(task, rows)}


def task_keys(task: Task, rows: Sequence[Row]) -> list[str]:
    """Names of the task's metrics."""
    return list(copy.deepcopy(task).metrics(rows))


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 20:
        return math.nan, math.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _flat(row: Row) -> Row:
    """Without arrays, which a table cannot hold."""
    return {key: value for key, value in row.items() if not (isinstance(value, np.ndarray) and value.ndim)}


def _write_failures(out: Path, task: Task, rows: Sequence[Row], cases: dict[str, Any], split: str, most: int) -> None:
    """failures.csv with the worst cases first, and a picture of each where the task can draw one."""
    scored = [(float(task.failure_score(row)), row) for row in task.case_rows(rows)]
    worst = sorted((pair for pair in scored if pair[0] > 0), key=lambda pair: (-pair[0], str(pair[1]["case_id"])))
    columns = ["failure_score", *dict.fromkeys(key for row in task.case_rows(rows) for key in _flat(row))]
    write_rows(out / "failures.csv", [{"failure_score": score, **_flat(row)} for score, row in worst], columns)
    for old in (out / "failures").glob("*.png"):
        old.unlink()
    for n, (_, case_row) in enumerate(worst[:most]):
        case_id = case_row["case_id"]
        dataset = ReadableItems(task.build_dataset([cases[case_id]], split), replace=False)
        items = [item for item, _ in (dataset[k] for k in range(len(dataset))) if item is not None]
        picture = task.picture(items, [row for row in rows if row["case_id"] == case_id])
        if picture is not None:
            save_rgb(out / "failures" / f"{n + 1:03d}.png", picture)


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m Training.evaluate", description="Judge a checkpoint.")
    parser.add_argument("checkpoint", type=Path, help="such as runs/dtvit/checkpoints/best.pt")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data.* or loop.*, such as data.cache=OTHER")
    parser.add_argument("--out", type=Path, required=True, help="folder of the evaluation")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"))
    parser.add_argument("--weights", default="auto", choices=("auto", "average", "last"))
    parser.add_argument("--failures", type=int, default=20, help="pictures of at most this many failed cases")
    parser.add_argument("--resamples", type=int, default=_RESAMPLES, help="of the bootstrap")
    args = parser.parse_intermixed_args(argv)
    start_logging()
    try:
        summary = evaluate(
            args.checkpoint, args.out, args.split, args.weights, args.overrides, args.failures, args.resamples
        )
    except ICHAnalysisError as error:
        log.error("%s", error)
        return 2
    if summary:
        key = summary["monitor"]
        low, high = summary["intervals"][key]
        print(f"{key} {summary['metrics'][key]:.4f} ({low:.4f} to {high:.4f}), {summary['cases']} cases: {args.out}")
    return 0


if __name__ == "__main__":
    end_process(main())
