"""What the shipped networks outline on every hazardous scan, against the clean scan of the same head.

The head of the other columns is a phantom that no network has learned; this one comes from the simulator.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ICHAnalysisLib.analysis import LABEL_ICH
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.atomic import write_text
from ICHAnalysisLib.simulate.hazard_scans import Bench
from ICHAnalysisLib.simulate.rescan import KnownScan

#: The simulated head: a deep hemorrhage of 25 mL, sampled finely enough to be scanned anew.
SEED, VOLUME_ML, STEP_MM, PIXEL_MM = 11, 25.0, 2.5, 1.0

#: A volume to the milliliters of hemorrhage that are outlined on it.
Outline = Callable[[CTVolume], float]


def simulated_bench() -> Bench:
    """A simulated head and its usual scan: 5 mm, upright, 1 mm pixels."""
    from ICHAnalysisLib.simulate.acquisition import AcquisitionSpec
    from ICHAnalysisLib.simulate.cohort import CaseSpec, simulate_case

    acquisition = AcquisitionSpec(
        matrix=224, spacing_mm=PIXEL_MM, thickness_mm=STEP_MM, gap_mm=0.0, uneven=False, tilt_degrees=0.0,
        storage="full", holder=False, artifacts=False,
    )  # fmt: skip
    spec = CaseSpec(has_ich=True, location="deep", volume_ml=VOLUME_ML, confounders=0.0, acquisition=acquisition)
    case = simulate_case(SEED, spec)
    known = KnownScan(case.volume, (case.labels == LABEL_ICH).astype(np.uint8))
    return Bench.of(known, pixel_mm=PIXEL_MM)


def outlined_ml() -> Outline:
    """The default analysis with the shipped weights, without prompts."""
    from ICHAnalysisLib.analyze import analyze
    from ICHAnalysisLib.config.analyze import AnalyzeOptions
    from ICHAnalysisLib.predict import Models

    models = Models.load()
    options = AnalyzeOptions(heatmap=False, intervals=False, accept=True)

    def outline(volume: CTVolume) -> float:
        _, arrays = analyze(volume, models=models, options=options)
        return volume.mask_volume_ml(arrays.labels == LABEL_ICH)

    return outline


def shipped_weights() -> str:
    """The digests of all weights that ship with the library, as one text."""
    from ICHAnalysisLib.weights.registry import FILE_NAMES, file_sha256, weights_path

    return " ".join(file_sha256(weights_path(network)) for network in sorted(FILE_NAMES))


def remembered(outline: Outline, path: Path | None = None, weights: str = "") -> Outline:
    """The same, asked once for scans that are equal to the HU and to the micrometer, as most hazards of headers are.

    path: a JSON file that keeps the answers, so that a run can be stopped and taken up again. weights: what the answers
    depend on beside the scan.
    """
    known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}

    def ask(volume: CTVolume) -> float:
        key = _key(volume, weights)
        if key not in known:
            known[key] = outline(volume)
            print(f"{len(known)} scans outlined, the last with {known[key]:.2f} mL", file=sys.stderr, flush=True)
            if path is not None:
                write_text(path, json.dumps(known, indent=1))
        return known[key]

    return ask


def _key(volume: CTVolume, weights: str) -> str:
    """Digest of the weights and of everything the networks see of a scan."""
    digest = hashlib.sha256(weights.encode())
    digest.update(np.ascontiguousarray(np.rint(volume.hu).astype(np.int16)).tobytes())
    steps = (volume.column_step_ras, volume.row_step_ras, volume.slice_origins_ras, volume.slice_thickness_mm)
    for values in steps:
        digest.update(np.rint(np.asarray(values) * 1000).astype(np.int64).tobytes())
    return digest.hexdigest()
