"""Ventricles of procedural heads: as before where nothing is asked for, of other sizes and shapes where it is."""

from __future__ import annotations

from dataclasses import fields, replace

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
    horns, thirds, fourths = (np.array([getattr(a, f"{n}_size") for a in drawn]) for n in ("horn", "third", "fourth"))
    assert 0.74 < horns.min() < 0.78 and 1.6 < horns.max() < 1.65
    assert 0.74 < thirds.min() < 0.78 and 2.1 < thirds.max() < 2.23
    assert 0.67 < fourths.min() < 0.7 and 1.08 < fourths.max() < 1.11
    shifts = np.array([a.lateral_shift_mm for a in drawn])
    assert shifts.min() == pytest.approx(-5, abs=0.1) and shifts.max() == pytest.approx(5, abs=0.1)
    assert np.std([a.ventricle_asymmetry for a in drawn]) == pytest.approx(0.12, abs=0.02)
    everything = {f.name for f in fields(usual) if getattr(drawn[0], f.name) != getattr(usual, f.name)}
    assert everything <= {
        *("ventricle_size", "ventricle_asymmetry", "trigone_mm", "cavum_mm"),
        *("horn_size", "third_size", "fourth_size", "lateral_shift_mm"),
    }
    assert with_other_ventricles(usual, rng, strength=0.0) == usual


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


def test_proportions_are_painted() -> None:
    usual = replace(draw_anatomy(np.random.default_rng(2)), atrophy=0.4)
    before = ventricles(usual)
    z, y, x = GRID.axes()
    near_y, near_x = np.abs(y + 8) < 10, np.abs(x) < 9
    wide = ventricles(replace(usual, third_size=2.0))
    assert wide[:, near_y][..., near_x].sum() > 1.3 * before[:, near_y][..., near_x].sum()
    assert ventricles(replace(usual, horn_size=1.5)).sum() > 1.1 * before.sum()
    below = before[z < -24].sum()
    assert ventricles(replace(usual, fourth_size=0.6))[z < -24].sum() < 0.85 * below
    moved = ventricles(replace(usual, lateral_shift_mm=(5.0, 4.0)))
    middles = [np.average(z, weights=mask.sum(axis=(1, 2)) * (z > 0)) for mask in (before, moved)]
    assert 1.5 < middles[1] - middles[0] < 5
