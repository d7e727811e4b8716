"""How the warm analysis grows with slices and with lesions."""

from __future__ import annotations

from collections.abc import Iterator

from Testing.benchmarks.bench_scans import case, restacked, with_lesions
from Testing.benchmarks.bench_settings import Bench
from Testing.benchmarks.report_table import Row
from Testing.benchmarks.stopwatch import repeated

SLICES = (16, 32, 64, 128, 256, 512)
LESIONS = (0, 1, 2, 4, 8)


def rows(bench: Bench) -> Iterator[Row]:
    """One head in 16 to 512 slices; one head with 0 to 8 balls of blood's density."""
    import torch

    from ICHAnalysisLib.analyze import analyze
    from ICHAnalysisLib.ct.head import brain_mask
    from ICHAnalysisLib.predict import Models

    torch.set_num_threads(bench.threads)
    models, runs = Models.load(), max(1, bench.runs // 2)
    volume = case(32, bench.matrix).volume
    for count in SLICES:
        scan = restacked(volume, count)
        lap = repeated(lambda scan=scan: analyze(scan, models=models), runs)
        note = f"{1000 * lap.seconds / count:.0f} ms a slice; thin slices are averaged to slabs of 5 mm"
        yield Row(
            "scaling",
            f"analysis of {count} slices of {bench.matrix} x {bench.matrix}",
            lap.seconds,
            runs=runs,
            note=note,
        )
    empty = case(32, bench.matrix, has_ich=False).volume
    brain = brain_mask(empty)
    for count in LESIONS:
        scan = with_lesions(empty, count, brain)
        analysis, _ = analyze(scan, models=models)
        lap = repeated(lambda scan=scan: analyze(scan, models=models), runs, warm_up=0)
        yield Row(
            "scaling", f"analysis with {count} lesions", lap.seconds, runs=runs, note=f"{len(analysis.lesions)} found"
        )
