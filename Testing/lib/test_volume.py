"""CTVolume: heights, tilt, gaps, and points there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError


def stack(positions, thickness, tilt: float = 0.0, shape: tuple[int, int] = (6, 8)) -> CTVolume:
    """A stack with the table at `positions` (mm along S) and the gantry tilted by `tilt` degrees."""
    positions = np.asarray(positions, dtype=float)
    angle = np.radians(tilt)
    return CTVolume(
        np.zeros((len(positions), *shape), np.float32),
        np.array([-0.5, 0.0, 0.0]),
        0.5 * np.array([0.0, -np.cos(angle), -np.sin(angle)]),
        np.outer(positions, [0.0, 0.0, 1.0]) + np.array([10.0, 20.0, 30.0]),
        np.broadcast_to(np.asarray(thickness, dtype=float), positions.shape).copy(),
    )


def test_even_stack_heights_and_volume() -> None:
    volume = stack(np.arange(10) * 5.0, 5.0)
    assert volume.slice_heights_mm == pytest.approx(np.full(10, 5.0))
    assert volume.mask_volume_ml(np.ones(volume.shape, bool)) == pytest.approx(10 * 48 * 0.25 * 5.0 / 1000)
    assert volume.is_regular


def test_tilt_shortens_the_distance_between_slices() -> None:
    volume = stack(np.arange(10) * 5.0, 5.0, tilt=20.0)
    assert volume.tilt_degrees == pytest.approx(20.0)
    assert volume.steps_mm == pytest.approx(np.full(9, 5.0 * np.cos(np.radians(20.0))))
    assert not volume.is_regular and volume.is_even


def test_five_and_ten_mm_stack() -> None:
    volume = stack([0, 5, 10, 17.5, 27.5, 37.5], [5, 5, 5, 10, 10, 10])
    assert volume.slice_heights_mm == pytest.approx([5.0, 5.0, 6.25, 8.75, 10.0, 10.0])
    assert not volume.is_even and len(volume.missing_after) == 0


def test_missing_slice_adds_no_height() -> None:
    positions = np.delete(np.arange(12) * 5.0, 6)
    volume = stack(positions, 5.0)
    assert volume.missing_after.tolist() == [5]
    assert volume.slice_heights_mm == pytest.approx(np.full(11, 5.0))


def test_stack_with_gaps_throughout_misses_nothing() -> None:
    positions = np.r_[np.arange(8) * 10.0, 70.5 + 10.0 * np.arange(4)]
    assert len(stack(positions, 5.0).missing_after) == 0


def test_single_slice_stands_for_its_thickness() -> None:
    assert stack([3.0], 4.0).slice_heights_mm == pytest.approx([4.0])


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.floats(0.5, 12.0), min_size=3, max_size=12),
    tilt=st.floats(-28.0, 28.0),
    seed=st.integers(0, 2**16),
)
def test_points_go_there_and_back(steps: list[float], tilt: float, seed: int) -> None:
    volume = stack(np.cumsum([0.0, *steps]), 5.0, tilt=tilt)
    ijk = np.random.default_rng(seed).uniform(-0.4, 1.4, (20, 3)) * np.array(volume.shape)[::-1]
    assert volume.ras_to_ijk_points(volume.ijk_to_ras_points(ijk)) == pytest.approx(ijk, abs=1e-6)
    heights = volume.slice_heights_mm
    if not len(volume.missing_after):
        assert heights.sum() == pytest.approx(np.abs(volume.steps_mm).sum() + 5.0)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(UsageError, match="three axes"):
        CTVolume.from_affine(np.zeros((3, 3), np.float32), np.eye(4))
    good = stack([0, 5, 10], 5.0)
    with pytest.raises(UsageError, match="3 slices need as many origins"):
        CTVolume(good.hu, good.column_step_ras, good.row_step_ras, np.zeros((2, 3)), good.slice_thickness_mm)
