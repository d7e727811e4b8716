"""Networks loaded: reading, checking and analyzing one scan, stage by stage, and writing its files."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from Testing.benchmarks.bench_scans import written
from Testing.benchmarks.bench_settings import Bench
from Testing.benchmarks.report_table import Row

_STAGES = {
    "preprocess": "holder removed, resampled once for all networks",
    "slices": "DTViT on every slice that holds brain",
    "segmentation": "ICH-SCNet, first pass and proposed boxes",
    "scan": "volume net with its heatmap on the scan and its mirror image, the brain found beside it",
    "measure": "volumes, shape, location, scores, findings",
}


def rows(bench: Bench) -> Iterator[Row]:
    """Medians by stage; the sum is compared with peers later."""
    import torch

    from ICHAnalysisLib.analyze import analyze
    from ICHAnalysisLib.ct.readers import read_scan
    from ICHAnalysisLib.outputs.files import write_outputs
    from ICHAnalysisLib.predict import Models

    torch.set_num_threads(bench.threads)
    scan = written(bench.folder, bench.slices, bench.matrix)
    start = time.perf_counter()
    models = Models.load()
    load = time.perf_counter() - start
    times: dict[str, list[float]] = {}
    for run in range(bench.runs + 1):
        laps = {}
        start = time.perf_counter()
        volume = read_scan(scan)
        laps["read"], start = time.perf_counter() - start, time.perf_counter()
        analysis, arrays = analyze(volume, models=models)
        laps["analysis"], start = time.perf_counter() - start, time.perf_counter()
        write_outputs(analysis, arrays, volume, bench.folder / "warm")
        laps["write"] = time.perf_counter() - start
        laps |= {name: analysis.timings_s[name] for name in _STAGES}
        if run:  # the first one fills caches
            for name, value in laps.items():
                times.setdefault(name, []).append(value)
    median = {name: statistics.median(values) for name, values in times.items()}
    bench.shared["analysis"] = median["analysis"]
    kind = str(models.ich_scnet.dtype).removeprefix("torch.")
    size = f"{bench.slices} slices of {bench.matrix} x {bench.matrix}, {bench.threads} threads, {kind}"
    yield Row("warm", "loading the networks, once", load)
    yield Row("warm", "reading and checking the DICOM series", median["read"], runs=bench.runs, note=size)
    yield Row("warm", "**analysis: three networks, volumes, findings**", median["analysis"], runs=bench.runs, note=size)
    for name, words in _STAGES.items():
        yield Row("warm", f"of it: {words}", median[name], runs=bench.runs)
    yield Row("warm", "all files and the report", median["write"], runs=bench.runs)
