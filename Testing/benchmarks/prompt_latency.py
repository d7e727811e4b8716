"""A new box or point to the new mask, as a session answers it: towers seen, decoders anew."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from Testing.benchmarks.bench_scans import written
from Testing.benchmarks.bench_settings import Bench
from Testing.benchmarks.report_table import Row
from Testing.benchmarks.stopwatch import repeated


def rows(bench: Bench) -> Iterator[Row]:
    """The slice in view by box and by point, and all slices of a lesion of ten slices by box."""
    import torch

    from ICHAnalysisLib.config.analyze import PostprocessConfig
    from ICHAnalysisLib.ct.readers import read_scan
    from ICHAnalysisLib.postprocess import native_labels
    from ICHAnalysisLib.predict import Models
    from ICHAnalysisLib.prompt_projection import project_prompts
    from ICHAnalysisLib.prompts import Box, Point, Prompts
    from ICHAnalysisLib.stages import Evidence

    torch.set_num_threads(bench.threads)
    volume, models = read_scan(written(bench.folder, bench.slices, bench.matrix)), Models.load()
    evidence = Evidence.of(volume, models)
    stack = evidence.stack(models.ich_scnet.preprocess)
    session = models.session(stack, None)
    indices = evidence.brain_slices(stack)
    ich, ivh = np.zeros_like(stack.hu), np.zeros_like(stack.hu)
    ich[indices], ivh[indices] = session.predict(indices)
    k = int(np.argmax(np.count_nonzero(ich > 0.5, axis=(1, 2))))
    js, is_ = np.nonzero(ich[k] > 0.5)
    corners = stack.ij_of_px(np.array([[is_.min() - 2, js.min() - 2], [is_.max() + 2, js.max() + 2]]))

    def ras(ij: np.ndarray, at: float) -> np.ndarray:
        return volume.ijk_to_ras_points(np.concatenate([ij, np.full((len(ij), 1), at)], axis=1))

    def box(first: int, last: int) -> Prompts:
        low, high = ras(corners, volume_k(first) - 0.3)[0], ras(corners, volume_k(last) + 0.3)[1]
        return Prompts(boxes=(Box(tuple(low), tuple(high)),))

    def volume_k(s: int) -> float:
        return float(np.mean(stack.native_slices[s]))

    def answer(prompts: Prompts) -> int:
        projected = project_prompts(prompts, stack)
        asked = np.flatnonzero(projected.boxed | projected.pointed).tolist()
        new_ich, new_ivh = np.zeros_like(ich), np.zeros_like(ivh)
        new_ich[asked], new_ivh[asked] = session.obeying(asked, projected)
        native_labels(new_ich, new_ivh, stack, PostprocessConfig())
        return len(asked)

    middle = Prompts(points=(Point(tuple(ras(corners.mean(axis=0, keepdims=True), volume_k(k))[0])),))
    ten = (k - 5, k + 4)
    for name, prompts, limit, slices in (
        ("box to the mask of the slice in view", box(k, k), 0.1, 1),
        ("point to the mask of the slice in view", middle, 0.1, 1),
        ("box to all slices of a lesion", box(*ten), 0.5, 10),
    ):
        count = answer(prompts)
        lap = repeated(lambda prompts=prompts: answer(prompts), bench.runs)
        note = f"{count} slices, back on the acquired pixels" if count == slices else f"{count} slices, not {slices}"
        yield Row("prompt", name, lap.seconds, runs=lap.runs, limit=limit, note=note)
