"""Overlap of masks against closed forms and MONAI."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.overlap import dice, hd95, jaccard, overlap, pro, summarize


def box(low: int, high: int, shape: tuple[int, int, int] = (6, 30, 30)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[1:5, low:high, low:high] = True
    return mask


def test_dice_and_jaccard_of_shifted_boxes() -> None:
    p, r = box(5, 15), box(10, 20)
    assert dice(p, r) == pytest.approx(0.25)
    assert jaccard(p, r) == pytest.approx(25 / 175)
    assert jaccard(p, r) == pytest.approx(dice(p, r) / (2 - dice(p, r)))


def test_mean_jaccard_is_at_least_that_of_the_mean_dice() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.random((4, 12, 12)) < a, rng.random((4, 12, 12)) < b) for a, b in rng.uniform(0.1, 0.9, (40, 2))]
    mean_dice = np.mean([dice(p, r) for p, r in pairs])
    assert np.mean([jaccard(p, r) for p, r in pairs]) >= mean_dice / (2 - mean_dice)


def test_empty_masks() -> None:
    empty, full = np.zeros((3, 4, 4), dtype=bool), np.ones((3, 4, 4), dtype=bool)
    both = overlap(empty, empty, (5, 1, 1))
    assert (both.dice, both.jaccard, both.empty_ok) == (1.0, 1.0, True)
    assert np.isnan(both.hd95_max) and np.isnan(both.pro)
    for p, r in ((empty, full), (full, empty)):
        one = overlap(p, r, (5, 1, 1))
        assert (one.dice, one.jaccard, one.hd95_max, one.empty_ok) == (0.0, 0.0, np.inf, False)


def test_a_missed_lesion_may_count_as_the_image_s_diagonal() -> None:
    empty, one = np.zeros((3, 40, 40), dtype=bool), np.zeros((3, 40, 40), dtype=bool)
    one[1, 10:20, 10:20] = True
    spacing = (5.0, 1.0, 0.5)
    diagonal = np.sqrt(15**2 + 40**2 + 20**2)
    assert hd95(empty, one, spacing, "diagonal") == pytest.approx((diagonal, diagonal))
    assert hd95(one, empty, spacing) == (np.inf, np.inf)
    assert np.isnan(hd95(empty, empty, spacing, "diagonal")).all()


def test_hd95_of_a_shift_is_the_shift_in_mm() -> None:
    p = np.zeros((3, 40, 40), dtype=bool)
    p[1, 10:20, 10:20] = True
    r = np.roll(p, 3, axis=2)
    assert hd95(p, r, (5.0, 1.0, 0.5))[0] == pytest.approx(1.5)
    assert hd95(p, p, (5.0, 1.0, 0.5)) == (0.0, 0.0)


def test_pooled_never_exceeds_max_and_max_is_monais() -> None:
    torch = pytest.importorskip("torch")
    monai_metrics = pytest.importorskip("monai.metrics")
    rng = np.random.default_rng(3)
    for _ in range(4):
        p, r = box(5, int(rng.integers(12, 20))), box(int(rng.integers(6, 10)), int(rng.integers(16, 24)))
        p[:, 2:4, 2:4] = rng.random() < 0.5
        largest, pooled = hd95(p, r, (5.0, 0.9, 0.9))
        assert pooled <= largest + 1e-9
        theirs = monai_metrics.compute_hausdorff_distance(
            torch.from_numpy(p[None, None]), torch.from_numpy(r[None, None]), percentile=95, spacing=(5.0, 0.9, 0.9)
        )
        assert largest == pytest.approx(float(theirs[0, 0]), abs=1e-4)


def test_both_conventions_by_all_distances() -> None:
    """Every surface voxel against every other, without a distance transform."""
    spacing = np.array([5.0, 0.9, 0.9])
    p, r = box(5, 14), box(8, 20)
    p[3, 25:27, 25:27] = True  # a piece far away: the two directions differ
    surfaces = []
    for mask in (p, r):
        inner = mask.copy()
        for axis in range(3):
            for step in (-1, 1):
                inner &= np.roll(mask, step, axis)
        surfaces.append(np.argwhere(mask & ~inner) * spacing)
    distances = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=2)
    to_r, to_p = distances.min(axis=1), distances.min(axis=0)
    largest, pooled = hd95(p, r, tuple(spacing))
    assert largest == pytest.approx(max(np.percentile(to_r, 95), np.percentile(to_p, 95)))
    assert pooled == pytest.approx(np.percentile(np.concatenate([to_r, to_p]), 95))
    assert pooled < largest
    assert hd95(r, p, tuple(spacing)) == pytest.approx((largest, pooled))  # whichever direction decides
    assert np.percentile(to_r, 95) != pytest.approx(np.percentile(to_p, 95))


def test_pro_is_the_mean_over_lesions_and_blind_to_false_positives() -> None:
    r = np.zeros((3, 20, 20), dtype=bool)
    r[1, 2:6, 2:6] = True  # 16 voxels
    r[1, 12:14, 12:14] = True  # 4 voxels
    p = np.zeros_like(r)
    p[1, 2:6, 2:4] = True
    assert pro(p, r) == pytest.approx((0.5 + 0.0) / 2)
    assert pro(np.ones_like(r), r) == 1.0
    found = overlap(np.ones_like(r), r, (5, 1, 1))
    assert found.false_positive_voxels == r.size - 20
    p[2, 17:19, 0:2] = True
    found = overlap(p, r, (5, 1, 1))
    assert (found.false_positive_lesions, found.missed_lesions, found.false_positive_voxels) == (1, 1, 4)


def test_diagonal_neighbors_are_one_lesion() -> None:
    r = np.zeros((3, 8, 8), dtype=bool)
    r[0, 2, 2] = r[1, 3, 3] = True
    p = np.zeros_like(r)
    p[0, 2, 2] = True
    assert pro(p, r) == pytest.approx(0.5)


def test_summary_leaves_empty_cases_and_failures_out_but_counts_them() -> None:
    empty = np.zeros((6, 30, 30), dtype=bool)
    cases = [overlap(p, r, (5, 1, 1)) for p, r in ((box(5, 15), box(5, 15)), (empty, empty), (empty, box(5, 9)))]
    found = summarize(cases)
    assert (found["cases"], found["both_empty"], found["hd95_failures"]) == (3, 1, 1)
    assert found["dice_mean"] == pytest.approx(0.5)
    assert found["hd95_max_mean"] == 0.0
    assert found["dice_pooled"] == pytest.approx(2 * 400 / (2 * 400 + 64))  # 4 x 10 x 10 found, 4 x 4 x 4 missed
    assert found["jaccard_pooled"] == pytest.approx(400 / 464)


def test_masks_of_two_grids_raise() -> None:
    with pytest.raises(UsageError, match="one grid"):
        overlap(box(5, 9), box(5, 9)[:, :-1], (5, 1, 1))
