"""Shape and density against balls, ellipsoids and known holes."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.shape import density_measures, shape_measures, surface_area_mm2


def body(radii: tuple[float, float, float], spacing: tuple[float, float, float]) -> tuple[CTVolume, np.ndarray]:
    """An ellipsoid of half axes k, j, i mm at 60 HU in 30 HU."""
    counts = [int(2 * r / s) + 9 for r, s in zip(radii, spacing, strict=True)]
    grids = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(counts, spacing, strict=True)], indexing="ij"
    )
    mask = sum((g / r) ** 2 for g, r in zip(grids, radii, strict=True)) <= 1
    hu = np.where(mask, 60.0, 30.0).astype(np.float32)
    return CTVolume.from_affine(hu, np.diag([*spacing[::-1], 1.0])), mask


def test_a_ball_is_regular_with_the_right_surface() -> None:
    volume, mask = body((18, 18, 18), (1.0, 1.0, 1.0))
    assert surface_area_mm2(volume, mask) == pytest.approx(4 * np.pi * 18**2, rel=0.03)
    found = shape_measures(volume, mask)
    assert found["surface_regularity"] > 0.95
    assert found["flatness"] == pytest.approx(1.0, abs=0.02)


def test_five_mm_slices_stay_near_it() -> None:
    volume, mask = body((18, 18, 18), (5.0, 0.5, 0.5))
    assert shape_measures(volume, mask)["surface_regularity"] > 0.8


def test_irregular_clots_score_lower() -> None:
    volume, mask = body((20, 20, 20), (1.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    holes = mask.copy()
    for k, j, i in rng.integers(8, 40, (30, 3)):
        holes[k - 4 : k + 4, j - 4 : j + 4, i - 4 : i + 4] = False
    assert shape_measures(volume, holes)["surface_regularity"] < 0.7
    flat, slab = body((5, 20, 20), (1.0, 1.0, 1.0))
    assert shape_measures(flat, slab)["flatness"] == pytest.approx(0.25, abs=0.02)


def test_density_and_black_hole() -> None:
    volume, mask = body((10, 20, 20), (5.0, 1.0, 1.0))
    middle = volume.hu.shape[0] // 2
    volume.hu[middle, 20:26, 20:26] = 25
    found = density_measures(volume, mask)
    assert found["median_hu"] == 60
    assert found["mean_hu"] == pytest.approx(np.average(volume.hu[mask]))
    assert found["sd_hu"] == pytest.approx(np.std(volume.hu[mask]), rel=1e-5)
    assert found["black_hole_ml"] == pytest.approx(36 * 5 / 1000, rel=0.45)
    volume.hu[middle, 20:26, 20:26] = 45  # only 15 HU darker
    assert density_measures(volume, mask)["black_hole_ml"] == 0.0


def test_small_and_empty_masks_measure_nothing() -> None:
    volume, mask = body((3, 3, 3), (1.0, 1.0, 1.0))
    assert shape_measures(volume, mask) == {}
    assert density_measures(volume, np.zeros_like(mask)) == {}
