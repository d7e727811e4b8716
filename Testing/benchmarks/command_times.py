"""Fresh processes: `--help`, `info` and a whole `analyze` with its report, imports and peak memory included."""

from __future__ import annotations

from collections.abc import Iterator

from Testing.benchmarks.bench_scans import written
from Testing.benchmarks.bench_settings import Bench
from Testing.benchmarks.report_table import Row
from Testing.benchmarks.stopwatch import command

_MODULE = ("-m", "ICHAnalysisLib")


def rows(bench: Bench) -> Iterator[Row]:
    """Times of the three commands and the peak of the largest."""
    scan = str(written(bench.folder, bench.slices, bench.matrix))
    bytecode = bench.folder / "bytecode"
    size = f"{bench.slices} DICOM slices of {bench.matrix} x {bench.matrix}"
    lap = command([*_MODULE, "--help"], bench.runs, bench.threads, bytecode)
    yield Row("commands", "`ich-analysis --help`", lap.seconds, runs=lap.runs, limit=0.5)
    lap = command([*_MODULE, "info", scan], bench.runs, bench.threads, bytecode)
    yield Row("commands", "`ich-analysis info`", lap.seconds, runs=lap.runs, limit=1.5, note=size)
    lap = command([*_MODULE, "analyze", scan, "--out", str(bench.folder / "cold")], bench.runs, bench.threads, bytecode)
    yield Row("cold", "`ich-analysis analyze`, report included", lap.seconds, runs=lap.runs, limit=10.0, note=size)
    yield Row("cold", "largest resident memory", (lap.peak_mib or 0.0) / 1024, "GiB", lap.runs, limit=1.5)
