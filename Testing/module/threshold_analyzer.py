"""In place of the networks: dense voxels inside the head, measured by the library's own functions.

The environment variable ICH_TEST_SLOW makes it take that many seconds, in small stages.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.analysis import Analysis, AnalysisArrays, Interval, Presence
from ICHAnalysisLib.results import describe_lesions, describe_volumes


def analyze(volume, prompts=None, clinical=None, models=None, options=None, progress=None, *, text=None):
    """Voxels of 55 to 90 HU as ICH, outside every box and around negative points left out."""
    seconds = float(os.environ.get("ICH_TEST_SLOW", "0"))
    for stage in range(20):
        progress(stage / 20, f"Stage {stage + 1}")
        time.sleep(seconds / 20)
    mask = ndimage.binary_opening((volume.hu > 55) & (volume.hu < 90))
    if prompts is not None and prompts.boxes:
        mask &= inside_boxes(volume, prompts)
    labels = mask.astype(np.uint8)
    for point in prompts.points if prompts is not None else ():
        i, j, k = np.round(volume.ras_to_ijk_points(np.array(point.ras))[0]).astype(int)
        labels[k, max(0, j - 2) : j + 3, max(0, i - 2) : i + 3] = int(point.positive)
    volumes, lines, measurements = describe_volumes(volume, labels)
    volumes["network"] = 12.5
    share = labels.any(axis=(1, 2)).astype(float)
    analysis = Analysis(
        status="ok",
        findings=volume.findings,
        presence=Presence(float(share.max()), bool(labels.any()), tuple(share.tolist())),
        lesions=describe_lesions(volume, labels == 1),
        volumes_ml=volumes,
        intervals={"network": Interval(12.5, 8.0, 19.0, "mL")},
        abc2_lines=lines,
        measurements=measurements,
        mode="automatic" if prompts is None else "prompted",
    )
    heatmap = ndimage.gaussian_filter(labels.astype(np.float32), 2) if options.heatmap else None
    if heatmap is not None and heatmap.max() > 0:
        heatmap = heatmap / heatmap.max()
    return analysis, AnalysisArrays(labels, heatmap)


def analyze_case(case, folder, options):
    """A case of a batch: read from its file, analyzed as above; writes no files."""
    from ICHAnalysisLib.ct.readers import read_scan

    volume = read_scan(case.scan, accept=options.analyze.accept)
    analysis, _arrays = analyze(volume, options=options.analyze, progress=lambda _done, _message: None)
    return replace(analysis, case_id=case.case_id)


def inside_boxes(volume, prompts) -> np.ndarray:
    """(K, J, I) bool, voxels within the index bounds of any box (exact on upright scans)."""
    inside = np.zeros(volume.shape, bool)
    for box in prompts.boxes:
        ijk = volume.ras_to_ijk_points(box.corners)
        low = np.clip(np.ceil(ijk.min(axis=0)), 0, None).astype(int)
        high = np.floor(ijk.max(axis=0)).astype(int) + 1
        inside[low[2] : high[2], low[1] : high[1], low[0] : high[0]] = True
    return inside
