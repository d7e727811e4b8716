"""Ventricles of procedural heads: as before where nothing is asked for, of other sizes and shapes where it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ICHAnalysisLib.simulate.anatomy import Anatomy, build_head, draw_anatomy
from ICHAnalysisLib.simulate.scene import VENTRICLE, Grid
from ICHAnalysisLib.simulate.ventricles import with_other_ventricles

GRID = Grid((-50.0, -90.0, -75.0), (3.0, 2.0, 2.0), (42, 90, 76))


def ventricles(anatomy: Anatomy) -> np.ndarray:
    """Bool (Z, Y, X) of a head with this anatomy, not turned."""
    return build_head(GRID, np.random.default_rng(4), replace(anatomy, pose_deg=(0.0, 0.0, 0.0))).tissue == VENTRICLE


def test_drawn_sizes_and_shapes() -> None:
    usual = draw_anatomy(np.random.default_rng(2))
    assert (usual.ventricle_size, usual.trigone_mm, usual.cavum_mm) == (1.0, 23.0, 0.0)
    rng = np.random.default_rng(5)
    drawn = [with_other_ventricles(usual, rng) for _ in range(300)]
    sizes, trigones, cavities = (
        np.array([getattr(a, n) for a in drawn]) for n in ("ventricle_size", "trigone_mm", "cavum_mm")
    )
    assert 0.77 < sizes.min() < 0.8 and 1.45 < sizes.max() < 1.5
    assert 12 < trigones.min() < 13 and 22 < trigones.max() < 23
    assert (cavities > 0).mean() == pytest.approx(1 / 3, abs=0.08) and cavities[cavities > 0].min() > 2
    assert all(replace(a, ventricle_size=1.0, trigone_mm=23.0, cavum_mm=0.0) == usual for a in drawn)


def test_they_are_painted() -> None:
    usual = replace(draw_anatomy(np.random.default_rng(2)), atrophy=0.4)
    before, wide = ventricles(usual), ventricles(replace(usual, ventricle_size=1.4))
    assert 1.4 < wide.sum() / before.sum() < 2.8
    x = GRID.axes()[2]
    near = ventricles(replace(usual, trigone_mm=13.0))
    behind = slice(62, 66)  # y from 34 to 42 mm behind the middle: the trigones
    away = [np.abs(x[np.nonzero(mask[:, behind].any(axis=(0, 1)))]).max() for mask in (before, near)]
    assert away[1] < away[0] - 3
    cavity = ventricles(replace(usual, cavum_mm=5.0))
    middle = np.abs(x) < 1.5
    assert cavity[..., middle].sum() > 1.5 * before[..., middle].sum() and (before & ~cavity).mean() < 1e-3
