"""A few tiny heads in a cache: an ellipse of skull with brain and, in some, a clot. For tests of the data pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.config.preprocess import PreprocessConfig
from Training.data.cache import CacheCase, cache_key, open_cache, write_case

SIZE, SLICES = 64, 6
PREPROCESS = PreprocessConfig(spacing_mm=3.6, size=SIZE)


def head(seed: int, clot: bool, size: int = SIZE, slices: int = SLICES) -> tuple[np.ndarray, np.ndarray]:
    """HU float32 (S, H, W) and labels uint8 of one head; the clot is on the two middle slices."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    hu = np.full((slices, size, size), -1024.0, dtype=np.float32)
    labels = np.zeros(hu.shape, dtype=np.uint8)
    for s in range(slices):
        radius = np.hypot(y / 0.42, x / 0.34) / np.sqrt(1 - (s / slices - 0.5) ** 2)
        hu[s][radius < 1.1] = 20
        hu[s][radius < 1] = 900
        hu[s][radius < 0.86] = 32
    if clot:
        blob = np.hypot(y - 0.03, x - 0.1) < 0.09
        for s in (slices // 2 - 1, slices // 2):
            hu[s][blob], labels[s][blob] = 62, 1
    return np.maximum(hu + rng.normal(0, 1, hu.shape).astype(np.float32), -1024), labels


def write_head(folder: Path, number: int, clot: bool = True, **meta: object) -> Path:
    """One head in the cache; `meta` replaces or adds facts."""
    hu, labels = head(number, clot)
    facts = {
        "case_id": f"case{number:02d}",
        "patient_id": f"patient{number:02d}",
        "positions_mm": 5.0 * np.arange(SLICES),
        "heights_mm": np.full(SLICES, 5.0),
        "spacing_mm": (3.6, 3.6),
        "preprocess": to_dict(PREPROCESS),
        "synthetic": True,
        "has_ich": clot,
        "location": ("deep", "lobar", "subtentorial")[number % 3] if clot else None,
        "volume_ml": 12.0 if clot else 0.0,
        "ivh_ml": 0.0,
        "record": {"age": 60 + number},
        "outcome": {"dead_30d": number % 2, "gos": 4, "mrs_90d": 2, "poor_outcome": 0} if clot else {},
        **meta,
    }
    return write_case(folder, cache_key((str(number), str(clot)), PREPROCESS), hu, labels, facts)


def make_cache(folder: Path, count: int = 4) -> list[CacheCase]:
    """`count` heads; every fourth bleeds not."""
    for number in range(count):
        write_head(folder, number, clot=number % 4 != 3)
    return open_cache(folder)
