"""Preprocessing: closed-form windows, one orientation for every file, and the exact way back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ICHAnalysisLib.config.preprocess import BRAIN, HEMORRHAGE, SUBDURAL, HUWindow, PreprocessConfig
from ICHAnalysisLib.config.volume_net import PREPROCESS as SCANS
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.preprocess import (
    apply_window,
    channels_of,
    make_stack,
    native_to_stack,
    scan_positions,
    scan_tensor,
    scan_to_stack,
    slice_channels,
    stack_to_native,
    windows_to_channels,
    with_neighbors,
)

CFG = PreprocessConfig(spacing_mm=2.0, size=128)


def test_bone_is_masked_before_the_windows_on_request() -> None:
    """Decision R3: in [40, 110] HU bone is as bright as the densest blood, and its rim looks like blood."""
    hu = np.full((2, 9, 9), 35.0, np.float32)
    hu[:, 1:3, 1:8], hu[:, 3, 1:8] = 900.0, 70.0  # bone, and its half-filled rim
    hu[0, 6, 4] = 75.0  # blood
    cfg = PreprocessConfig(windows=(HEMORRHAGE,))
    shown = channels_of(hu, cfg)
    assert shown.shape == (2, 1, 9, 9) and shown[0, 0, 1, 1] == 1.0 and shown[0, 0, 3, 4] > 0.4
    masked = channels_of(hu, replace(cfg, bone_hu=150.0))
    assert masked[:, 0, :5].max() == 0.0
    assert masked[0, 0, 6, 4] == pytest.approx(0.5) and masked[1].max() == 0.0  # blood stays; slices do not touch
    wide = SCANS["paper_wide"]
    assert (wide.windows[0].lower, wide.windows[0].upper, wide.bone_hu) == (0, 100, 150)
    assert SCANS["paper"].bone_hu is None and (SCANS["paper"].windows[0].lower, SCANS["paper"].windows[0].upper) == (
        40,
        110,
    )


def test_a_slice_is_seen_between_its_neighbors() -> None:
    hu = np.arange(4, dtype=np.float32)[:, None, None] * 10 + np.zeros((4, 2, 2), np.float32)
    around = with_neighbors(hu, [0, 2, 3])
    assert around[..., 0, 0].tolist() == [[0, 0, 10], [10, 20, 30], [20, 30, 30]]  # ends stand beside themselves
    cfg = PreprocessConfig(windows=(HUWindow(50, 100), HUWindow(25, 50)), neighbor_windows=(HUWindow(20, 40),))
    shown = slice_channels(around, cfg)
    assert cfg.channels == 4 and shown.shape == (3, 4, 2, 2) and shown.dtype == np.float32
    np.testing.assert_allclose(shown[1, :, 0, 0], [20 / 100, 20 / 50, 10 / 40, 30 / 40])
    np.testing.assert_allclose(shown[0, :, 0, 0], [0, 0, 0, 10 / 40])
    np.testing.assert_array_equal(
        slice_channels(around, PreprocessConfig()), channels_of(hu[[0, 2, 3]], PreprocessConfig())
    )
    with pytest.raises(UsageError, match="neighbor_windows"):
        PreprocessConfig(neighbor_windows=(BRAIN,), depth=8)


def head_volume(depth: int = 12, step: float = 5.0, pixels: int = 128, pixel: float = 1.8) -> CTVolume:
    """An ellipsoid head of water-like tissue with one dense ball toward the patient's left front."""
    k, j, i = np.meshgrid(np.arange(depth), np.arange(pixels), np.arange(pixels), indexing="ij")
    affine = np.diag([-pixel, -pixel, step, 1.0])
    affine[:3, 3] = [pixel * pixels / 2, pixel * pixels / 2, -step * depth / 2]
    x = affine[0, 3] + affine[0, 0] * i
    y = affine[1, 3] + affine[1, 1] * j
    z = affine[2, 3] + affine[2, 2] * k
    head = (x / 70) ** 2 + (y / 90) ** 2 + (z / 200) ** 2 < 1
    ball = (x + 30) ** 2 + (y - 30) ** 2 + z**2 < 15**2
    hu = np.where(head, 35.0, -1000.0)
    hu[ball] = 65.0
    return CTVolume.from_affine(hu.astype(np.float32), affine)


def flipped(volume: CTVolume, axes: tuple[int, ...], transpose: bool = False) -> CTVolume:
    """The same anatomy stored with flipped array axes (0 K, 1 J, 2 I) or rows and columns exchanged."""
    affine = volume.ijk_to_ras
    hu = volume.hu
    for axis in axes:
        column = 2 - axis
        affine = affine.copy()
        affine[:3, 3] = affine[:3, 3] + affine[:3, column] * (hu.shape[axis] - 1)
        affine[:3, column] = -affine[:3, column]
        hu = np.flip(hu, axis)
    if transpose:
        affine = affine[:, [1, 0, 2, 3]]
        hu = hu.transpose(0, 2, 1)
    return CTVolume.from_affine(np.ascontiguousarray(hu), affine)


def test_window_ends_and_center_in_closed_form():
    hu = np.array([-50.0, 0.0, 40.0, 80.0, 200.0])
    assert apply_window(hu, BRAIN).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert apply_window(np.array([80.0]), SUBDURAL)[0] == pytest.approx(0.5)
    assert windows_to_channels(np.zeros((4, 8, 8)), (BRAIN, SUBDURAL)).shape == (4, 2, 8, 8)


def test_zero_width_window_is_refused():
    with pytest.raises(UsageError, match="width 0"):
        HUWindow(40.0, 0.0)


@pytest.mark.parametrize(
    ("axes", "transpose"), [((), False), ((0,), False), ((1,), False), ((2,), False), ((0, 1, 2), True), ((), True)]
)
def test_every_storage_order_gives_the_same_stack(axes, transpose):
    reference = make_stack(head_volume(), CFG)
    stack = make_stack(flipped(head_volume(), axes, transpose), CFG)
    assert np.allclose(stack.hu, reference.hu, atol=1e-2)
    assert np.all(np.diff(stack.positions_mm) > 0)


@pytest.mark.parametrize(("axes", "transpose"), [((), False), ((0, 2), False), ((1,), True)])
def test_known_point_lands_on_its_pixel_and_mask_returns(axes, transpose):
    volume = flipped(head_volume(), axes, transpose)
    stack = make_stack(volume, CFG)
    x, y, position = stack.px_of_ras(np.array([[-30.0, 30.0, 0.0]]))[0]
    s = int(np.argmin(np.abs(stack.positions_mm - position)))
    assert stack.hu[s, round(y), round(x)] == pytest.approx(65.0, abs=1.0)
    assert x > 63.5  # the patient's left is on the image's right
    mask = volume.hu == 65.0
    there = native_to_stack(mask.astype(np.float32), stack)
    back = stack_to_native(there, stack) > 0.5
    dice = 2 * np.sum(back & mask) / (np.sum(back) + np.sum(mask))
    assert dice > 0.9
    assert volume.mask_volume_ml(back) == pytest.approx(volume.mask_volume_ml(mask), rel=0.05)


def test_thin_series_is_averaged_to_slabs_and_returns_to_every_slice():
    volume = head_volume(depth=48, step=1.25)
    stack = make_stack(volume, CFG)
    assert stack.hu.shape[0] == 12
    assert [len(group) for group in stack.native_slices] == [4] * 12
    assert np.allclose(stack.heights_mm, 5.0)
    back = stack_to_native(np.ones_like(stack.hu), stack, order=0)
    assert back.shape == volume.shape
    assert (back[:, 64, 64] == 1).all()


def test_scan_tensor_keeps_the_volume_of_a_ball_and_returns():
    volume = head_volume()
    stack = make_stack(volume, CFG)
    cfg = PreprocessConfig(spacing_mm=4.0, size=64, depth=24, slice_spacing_mm=5.0)
    ball = native_to_stack((volume.hu == 65.0).astype(np.float32), stack)
    dense = scan_tensor(ball, stack.positions_mm, 2.0, cfg, fill=0.0)
    assert dense.shape == (24, 64, 64)
    ml = dense.sum() * 4.0 * 4.0 * 5.0 / 1000
    assert ml == pytest.approx(volume.mask_volume_ml(volume.hu == 65.0), rel=0.02)
    back = scan_to_stack(dense, stack.positions_mm, 2.0, 128, cfg)
    assert back.sum() == pytest.approx(ball.sum(), rel=0.02)


def test_scan_taller_than_the_input_keeps_its_top():
    cfg = PreprocessConfig(spacing_mm=2.0, size=64, depth=8, slice_spacing_mm=5.0)
    target = scan_positions(np.arange(0, 200, 5.0), cfg)
    assert target[-1] == 195.0
    assert target[0] == 160.0


def test_stretch_fills_the_input_with_the_head():
    stack = make_stack(head_volume(), PreprocessConfig(size=64, layout="stretch"))
    middle = stack.head[6]
    assert middle.any(axis=0).mean() > 0.9
    assert middle.any(axis=1).mean() > 0.9
    assert stack.spacing_mm[0] != pytest.approx(stack.spacing_mm[1], rel=0.05)


def test_mask_of_another_grid_is_refused():
    stack = make_stack(head_volume(), CFG)
    with pytest.raises(UsageError, match="does not lie"):
        native_to_stack(np.zeros((3, 3, 3)), stack)
