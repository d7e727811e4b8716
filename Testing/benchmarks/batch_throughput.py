"""A batch of small scans: one worker, two workers, and one worker with two threads."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from Testing.benchmarks.bench_scans import written
from Testing.benchmarks.bench_settings import Bench
from Testing.benchmarks.report_table import Row
from Testing.benchmarks.stopwatch import ROOT

_SLICES, _MATRIX = 16, 256
WAYS = {"1 x 1": (1, 1), "2 x 1": (2, 1), "1 x 2": (1, 2)}  # workers, threads each


def rows(bench: Bench) -> Iterator[Row]:
    """Scans per minute of each way, start of the processes included, and what two workers gain."""
    scan = written(bench.folder, _SLICES, _MATRIX, "nifti")
    cohort = bench.folder / f"cohort_{bench.batch_cases}"
    for n in range(bench.batch_cases):
        place = cohort / f"case{n:03d}" / "ct.nii.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copy(scan, place)
    speed: dict[str, float] = {}
    for name, (workers, threads) in WAYS.items():
        out = bench.folder / "batch"
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "Testing.benchmarks.batch_throughput", cohort, out, str(workers), str(threads)],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        speed[name] = 60 * bench.batch_cases / seconds
        note = f"{bench.batch_cases} scans of {_SLICES} slices of {_MATRIX} x {_MATRIX}, reports included"
        yield Row("batch", f"{name.replace(' x ', ' worker(s) x ')} thread(s)", speed[name], "scans/min", note=note)
    yield Row("batch", "two workers against one", speed["2 x 1"] / speed["1 x 1"], "x", limit=1.7, at_least=True)
    yield Row(
        "batch", "two workers against one with two threads", speed["2 x 1"] / speed["1 x 2"], "x", limit=1.0,
        at_least=True,
    )  # fmt: skip


def run(cohort: Path, out: Path, workers: int, threads: int) -> None:
    """The batch of this process and of its workers."""
    import torch

    from ICHAnalysisLib.batch import run_batch
    from ICHAnalysisLib.batch_cases import find_cases
    from ICHAnalysisLib.config.batch import BatchOptions

    torch.set_num_threads(threads)
    analyzer = analyze_with_two_threads if threads == 2 else None
    options = BatchOptions(workers=workers, worker_memory_gb=1.5)
    extra = {} if analyzer is None else {"analyzer": analyzer}
    result = run_batch(find_cases(cohort), out, options, **extra)
    if result.count("ok") != len(result.rows):
        raise RuntimeError("Not every case of the batch was analyzed.")


def analyze_with_two_threads(case, folder, options):  # type: ignore[no-untyped-def]
    """A case with two torch threads, which the batch itself never gives a worker."""
    import torch

    from ICHAnalysisLib.batch_task import analyze_case

    torch.set_num_threads(2)
    return analyze_case(case, folder, options)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
