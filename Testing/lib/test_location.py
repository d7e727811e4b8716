"""Location: side from geometry on turned heads, class from slices, scan decisions."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.location import describe, epicenter_ras, midline_offset_mm, scan_location, scan_presence


def head(turn_degrees: float = 0.0, shift_mm: float = 0.0, flipped: bool = False) -> tuple[CTVolume, np.ndarray]:
    """An egg-shaped head turned in plane, with a bleed 25 mm to the patient's right. i grows toward the left.

    flipped: i grows toward the right instead.
    """
    size, pixel = 120, 2.0
    affine = np.diag([-pixel, -pixel, 5.0, 1.0])
    affine[:3, 3] = [pixel * size / 2, pixel * size / 2, 0]
    if flipped:
        affine[0, 0], affine[0, 3] = pixel, -pixel * size / 2
    volume = CTVolume.from_affine(np.zeros((6, size, size), np.float32), affine)
    k, j, i = np.meshgrid(*map(np.arange, volume.shape), indexing="ij")
    ras = volume.ijk_to_ras_points(np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1))[:, :2] - [shift_mm, 0]
    angle = np.radians(turn_degrees)
    right, front = ras @ [np.cos(angle), np.sin(angle)], ras @ [-np.sin(angle), np.cos(angle)]
    inside = (right / (70 - 0.05 * front)) ** 2 + (front / 90) ** 2 <= 1
    bleed = (right - 25) ** 2 + (front - 5) ** 2 <= 12**2
    hu = np.where(inside, 35.0, -1000.0).reshape(volume.shape).astype(np.float32)
    mask = bleed.reshape(volume.shape)
    mask[[0, 5]] = False
    hu[mask] = 65
    return CTVolume.from_affine(hu, affine), mask


@pytest.mark.parametrize(("turn", "shift"), [(0, 0), (15, 0), (-20, 8), (0, -12), (30, 5)])
@pytest.mark.parametrize("flipped", [False, True])
def test_side_follows_the_head_not_the_frame(turn: float, shift: float, flipped: bool) -> None:
    volume, mask = head(turn, shift, flipped)
    assert midline_offset_mm(volume, mask) == pytest.approx(25, abs=4)
    found, notes = describe(volume, mask, None)
    assert found.side == "right" and notes == ()
    assert describe(volume, mask[:, :, ::-1] if shift == turn == 0 else mask, None)[0].side in ("left", "right")


def test_left_and_midline() -> None:
    volume, mask = head()
    assert describe(volume, mask[:, :, ::-1], None)[0].side == "left"
    assert describe(volume, np.roll(mask, 12, axis=2), None)[0].side == "midline"


def test_no_side_where_the_scan_does_not_tell() -> None:
    volume, mask = head()
    unsided = CTVolume(
        volume.hu,
        volume.column_step_ras,
        volume.row_step_ras,
        volume.slice_origins_ras,
        volume.slice_thickness_mm,
        side_known=False,
    )
    assert describe(unsided, mask, None)[0].side is None


def test_class_is_weighted_by_mask_area() -> None:
    volume, mask = head()
    mask = mask.copy()
    mask[1] = np.roll(mask[1], 0) & (np.arange(120) % 8 == 0)[None]  # a small slice
    slices = np.full((6, 3), np.nan)
    slices[1] = [0.0, 1.0, 0.0]
    slices[2:5] = [0.9, 0.1, 0.0]
    found, notes = describe(volume, mask, slices)
    assert found.label == "deep"
    assert found.probabilities["deep"] > 0.8
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert notes == ()
    assert describe(volume, mask, slices, label="lobar")[0].label == "lobar"


def test_rivals_are_named() -> None:
    volume, mask = head()
    found, notes = describe(volume, mask, np.tile([0.52, 0.45, 0.03], (6, 1)))
    assert found.label == "deep"
    assert notes[0].code == "location_uncertain"
    assert "lobar" in notes[0].message


def test_no_blood_no_location() -> None:
    volume, mask = head()
    found, notes = describe(volume, np.zeros_like(mask), None)
    assert found.label is None and found.side is None and notes == ()


def test_epicenter_is_that_of_the_largest_lesion_by_true_heights() -> None:
    volume, mask = head()
    extra = np.zeros_like(mask)
    extra[2, 5:7, 5:7] = True
    assert epicenter_ras(volume, mask | extra) == pytest.approx(epicenter_ras(volume, mask))
    with pytest.raises(ValueError, match="empty"):
        epicenter_ras(volume, np.zeros_like(mask))


def test_scan_decisions() -> None:
    assert scan_presence(np.array([0.1, 0.9, 0.8, 0.7, np.nan])) == pytest.approx(0.8)
    assert scan_presence(np.array([0.4])) == 0.4
    assert scan_presence(np.array([np.nan])) == 0.0
    weighted = scan_location(np.array([[1.0, 0, 0], [0, 1.0, 0], [np.nan] * 3]), np.array([3.0, 1.0, 9.0]))
    assert weighted == pytest.approx([0.75, 0.25, 0])
    assert scan_location(np.zeros((2, 3)), np.zeros(2)) is None
