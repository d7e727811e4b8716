"""python -m ICHAnalysisLib.simulate --out DIR --count N --seed S: a folder of simulated head CT with their truth."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from pathlib import Path
from typing import Any

from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from ICHAnalysisLib.simulate.acquisition import AcquisitionSpec
from ICHAnalysisLib.simulate.cohort import CaseSpec, SimulatedCase, simulate_case
from ICHAnalysisLib.simulate.writing import write_case

COLUMNS = ("case_id", "scan", "labels", "has_ich", "location", "side", "volume_ml", "ivh_ml", "age", "sex", "gcs")
OUTCOMES = ("dead_30d", "mrs_90d", "gos", "ich_score", "func")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 0 done, 2 wrong use."""
    args = _parser().parse_args(arguments)
    try:
        _run(args)
    except ICHAnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ICHAnalysisLib.simulate", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the cases and cases.csv")
    parser.add_argument("--count", type=int, default=1, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case; the next ones count up")
    parser.add_argument(
        "--background", type=Path, action="append", help="bleed-free head CT or anatomical model; repeatable"
    )
    parser.add_argument(
        "--randomize", type=float, default=1.0, help="how strongly a background is varied; 0 not at all"
    )
    parser.add_argument(
        "--ventricles",
        type=float,
        default=0.0,
        help="how strongly ventricles are varied besides; not with --randomize 0",
    )
    parser.add_argument("--format", choices=("nifti", "dicom"), default="nifti")
    parser.add_argument("--positive-fraction", type=float, default=0.7, help="share of cases with hemorrhage")
    parser.add_argument("--center", choices=("first", "second"), default="first", help="hospital")
    parser.add_argument("--location", choices=("deep", "lobar", "subtentorial"))
    parser.add_argument("--volume-ml", type=float)
    parser.add_argument("--matrix", type=int, default=256, help="pixels a side")
    parser.add_argument("--spacing-mm", type=float, help="pixel size")
    parser.add_argument("--thickness-mm", type=float, help="slice thickness")
    parser.add_argument("--tilt-degrees", type=float, help="gantry tilt")
    return parser


def _run(args: argparse.Namespace) -> None:
    """Simulate and write every case; one line of progress each on standard error."""
    if args.count < 1:
        raise UsageError(f"--count {args.count} must be at least 1.")
    if not 0 <= args.positive_fraction <= 1:
        raise UsageError(f"--positive-fraction {args.positive_fraction} must lie in 0 to 1.")
    spec = CaseSpec(
        location=args.location,
        volume_ml=args.volume_ml,
        positive_fraction=args.positive_fraction,
        randomize=args.randomize,
        ventricles=args.ventricles,
        center=args.center,
        acquisition=AcquisitionSpec(
            matrix=args.matrix,
            spacing_mm=args.spacing_mm,
            thickness_mm=args.thickness_mm,
            tilt_degrees=args.tilt_degrees,
        ),
    )
    backgrounds = _read(args.background)
    rows = []
    for number in range(args.count):
        started = time.monotonic()
        case = simulate_case(args.seed + number, spec, backgrounds[number % len(backgrounds)])
        paths = write_case(case, args.out / case.case_id, args.format)
        rows.append(_row(case, {name: os.path.relpath(path, args.out) for name, path in paths.items()}))
        seconds = time.monotonic() - started
        print(f"{number + 1}/{args.count} {case.case_id} {_said(case)} ({seconds:.1f} s)", file=sys.stderr)
    _write_table(args.out / "cases.csv", rows)
    print(f"{args.count} simulated cases in {args.out}; cases.csv lists them.")


def _read(paths: list[Path] | None) -> list[Any]:
    """The background scans, or [None] for procedural heads."""
    if not paths:
        return [None]
    from ICHAnalysisLib.simulate.background import read_background

    return [read_background(path) for path in paths]


def _said(case: SimulatedCase) -> str:
    truth = case.truth
    if not truth["has_ich"]:
        return "no hemorrhage"
    return f"{truth['location']} {truth['side']} {truth['volume_ml']:.1f} mL, IVH {truth['ivh_ml']:.1f} mL"


def _row(case: SimulatedCase, paths: dict[str, str]) -> dict[str, Any]:
    """One line of cases.csv."""
    known = {**case.truth, **case.record, **case.outcome, **paths, "case_id": case.case_id}
    row = {name: known.get(name) for name in (*COLUMNS, *OUTCOMES)}
    row["has_ich"] = int(case.truth["has_ich"])
    return row


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    temporary = path.with_name("." + path.name)
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
