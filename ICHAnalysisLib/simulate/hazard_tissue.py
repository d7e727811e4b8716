"""Makers of scans whose values or tissue are hazardous, from a known scan, as DICOM folders with their truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ICHAnalysisLib.simulate.hazard_scans import Bench, MadeScan
from ICHAnalysisLib.simulate.rescan import KnownScan, centroid_ras


def noisy(bench: Bench, folder: Path) -> MadeScan:
    rng = np.random.default_rng(9)
    sharp = bench.usual.volume.hu + rng.normal(0.0, 22.0, bench.usual.volume.shape)
    return bench.write(folder, bench.with_hu(sharp))


def wrong_density(bench: Bench, folder: Path) -> MadeScan:
    hu = bench.usual.volume.hu
    return bench.write(folder, bench.with_hu(np.where(hu > -900, hu + 60.0, hu)))


def contrast_vessels(bench: Bench, folder: Path) -> MadeScan:
    """Enhanced vessels: dense winding tubes through the brain."""
    volume = bench.usual.volume
    hu = volume.hu.copy()
    k, j, i = np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij")
    middle = np.array(volume.shape)[:, None] / 2
    for turn in range(6):
        angle = turn * np.pi / 3
        tube_j = middle[1] + 14 * np.sin(angle) + 4 * np.sin(k / 2.0)
        tube_i = middle[2] + 14 * np.cos(angle) + 4 * np.cos(k / 2.0)
        reach = (np.hypot(j - tube_j, i - tube_i) < 2.0) & (np.abs(k - middle[0]) < 6) & bench.brain()
        hu[reach] = 240.0
    return bench.write(folder, bench.with_hu(hu))


def small_head(bench: Bench, folder: Path) -> MadeScan:
    volume = bench.usual.volume
    shrunk = replace(
        volume,
        column_step_ras=volume.column_step_ras * 0.68,
        row_step_ras=volume.row_step_ras * 0.8,
        slice_origins_ras=volume.slice_origins_ras * [0.68, 0.8, 1.0],
    )
    made = bench.write(folder, KnownScan(shrunk, bench.usual.labels))
    truth = shrunk.mask_volume_ml(bench.usual.labels == 1)
    return replace(made, truth_ml=truth, centroid_ras=centroid_ras(shrunk, bench.usual.labels == 1))


def emptied(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, bench.with_hu(np.full(bench.usual.volume.shape, -1000.0)))


def no_brain(bench: Bench, folder: Path) -> MadeScan:
    """A skull with air inside, as a phantom has."""
    hu = bench.usual.volume.hu.copy()
    hu[bench.brain()] = -990.0
    return bench.write(folder, bench.with_hu(hu))


def metal(bench: Bench, folder: Path) -> MadeScan:
    """A clip of 3071 HU saturates many scanners; this one reaches further, as extended scales do."""
    volume = bench.usual.volume
    hu = volume.hu.copy()
    k, j, i = np.argwhere(bench.usual.labels == 1)[0]
    hu[k, j : j + 3, i : i + 3] = 6000.0
    return bench.write(folder, bench.with_hu(hu))


def craniectomy(bench: Bench, folder: Path) -> MadeScan:
    """A window of skull over the convexity removed, with air under it."""
    volume = bench.usual.volume
    hu = volume.hu.copy()
    depth, _, columns = volume.shape
    bone = (hu > 60.0) & ~bench.brain()
    region = np.zeros(volume.shape, dtype=bool)
    region[int(depth * 0.5) : int(depth * 0.8), :, : int(columns * 0.3)] = True
    hu[bone & region] = 20.0
    return bench.write(folder, bench.with_hu(hu))


def old_blood(bench: Bench, folder: Path) -> MadeScan:
    hu = np.where(bench.usual.labels == 1, 40.0, bench.usual.volume.hu)
    return bench.write(folder, bench.with_hu(hu))


def calcium(bench: Bench, folder: Path) -> MadeScan:
    """A dense pineal gland."""
    volume = bench.usual.volume
    hu = volume.hu.copy()
    center = np.argwhere(bench.brain()).mean(axis=0).astype(int)
    k, j, i = center + np.array([1, 6, 0])
    hu[k, j : j + 3, i : i + 3] = 220.0
    return bench.write(folder, bench.with_hu(hu))
