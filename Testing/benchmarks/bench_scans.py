"""Simulated scans to measure on, made once in the benchmark's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.simulate.acquisition import AcquisitionSpec
from ICHAnalysisLib.simulate.cohort import CaseSpec, SimulatedCase, simulate_case
from ICHAnalysisLib.simulate.writing import write_case

_BOTTOM_MM, _COVER_MM = -70.0, 160.0


def case(slices: int, matrix: int, has_ich: bool = True, seed: int = 7) -> SimulatedCase:
    """A head of 160 mm in `slices` slices, with a deep bleed of 24 mL or none."""
    thickness = _COVER_MM / slices
    acquisition = AcquisitionSpec(
        matrix=matrix, spacing_mm=230.4 / matrix, thickness_mm=thickness, gap_mm=0.0, uneven=False, tilt_degrees=0.0,
        storage="full", bottom_mm=_BOTTOM_MM, top_mm=_BOTTOM_MM + _COVER_MM - thickness / 2,
    )  # fmt: skip
    bleed = {"location": "deep", "volume_ml": 24.0} if has_ich else {}
    return simulate_case(seed, CaseSpec(has_ich=has_ich, acquisition=acquisition, **bleed))


def written(folder: Path, slices: int, matrix: int, format: str = "dicom") -> Path:
    """The scan of `case` as a file or DICOM folder; written where it does not stand yet."""
    place = folder / f"scan_{slices}_{matrix}_{format}"
    scan = place / ("dicom" if format == "dicom" else "ct.nii.gz")
    if not scan.exists():
        write_case(case(slices, matrix), place, format)  # type: ignore[arg-type]
    return scan


def restacked(volume: CTVolume, slices: int) -> CTVolume:
    """The same head cut into another number of slices, interpolated along the stack, so that only the count changes."""
    depth = volume.shape[0]
    at = (np.arange(slices) + 0.5) * depth / slices - 0.5
    low = np.clip(np.floor(at).astype(int), 0, depth - 2)
    weight = np.clip(at - low, 0, 1)[:, None, None].astype(np.float32)
    hu = volume.hu[low] * (1 - weight) + volume.hu[low + 1] * weight
    step = (volume.slice_origins_ras[-1] - volume.slice_origins_ras[0]) / (depth - 1)
    origins = volume.slice_origins_ras[0] + at[:, None] * step
    thickness = np.full(slices, float(np.mean(volume.slice_thickness_mm)) * depth / slices)
    return replace(volume, hu=hu, slice_origins_ras=origins, slice_thickness_mm=thickness, instances=())


def with_lesions(volume: CTVolume, count: int, brain: np.ndarray, radius_mm: float = 9.0) -> CTVolume:
    """The volume with `count` balls of 65 HU, as far from each other as the brain (K, J, I) lets them."""
    from scipy import ndimage

    spacing = np.array([float(np.mean(volume.slice_heights_mm)), volume.spacing_mm[1], volume.spacing_mm[0]])
    coarse = brain[:, ::4, ::4]
    free = ndimage.distance_transform_edt(coarse, sampling=spacing * (1, 4, 4))
    indices = np.argwhere(free > radius_mm + 2)
    hu = volume.hu.copy()
    if count == 0 or not len(indices):
        return volume
    grid = np.meshgrid(*(np.arange(n) for n in hu.shape), indexing="ij", sparse=True)
    chosen = [indices[len(indices) // 2]]
    while len(chosen) < count:
        gaps = np.min([np.linalg.norm((indices - c) * (1, 4, 4) * spacing, axis=1) for c in chosen], axis=0)
        chosen.append(indices[int(gaps.argmax())])
    for k, j, i in (np.array(c) * (1, 4, 4) for c in chosen):
        squared = sum(((axis - at) * mm) ** 2 for axis, at, mm in zip(grid, (k, j, i), spacing))
        hu[np.asarray(squared, dtype=float) <= radius_mm**2] = 65.0
    return replace(volume, hu=hu)
