"""Hand formulas against closed forms: ellipsoids, cylinders, tilted and uneven stacks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.interval import size_of_volume
from ICHAnalysisLib.volumetry import growth, kothari_weights, lesion_components, manual_volumes, measure_lesion


def grid(shape: tuple[int, int, int], spacing: tuple[float, float, float], phase: float = 0.0) -> tuple:
    """Centers (k, j, i) in mm about the middle, k shifted by `phase` slices; spacing in k, j, i."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    axes[0] = axes[0] + phase * spacing[0]
    return np.meshgrid(*axes, indexing="ij")


def stack(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> CTVolume:
    return CTVolume.from_affine(np.zeros(shape, np.float32), np.diag([spacing[2], spacing[1], spacing[0], 1.0]))


def ellipsoid(spacing: tuple[float, float, float], phase: float = 0.0) -> tuple[CTVolume, np.ndarray, float]:
    """Half axes 20 (k), 18 (j), 24.5 (i) mm: 36.9 mL."""
    shape = tuple(int(2 * r / s) + 8 for r, s in zip((20, 18, 24.5), spacing, strict=True))
    k, j, i = grid(shape, spacing, phase)
    mask = (i / 24.5) ** 2 + (j / 18) ** 2 + (k / 20) ** 2 <= 1
    return stack(shape, spacing), mask, 4 / 3 * np.pi * 20 * 18 * 24.5 / 1000


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2])
def test_components_are_those_of_the_whole_grid(share: float) -> None:
    mask = np.zeros((6, 20, 24), dtype=bool)
    mask[2:5, 4:15, 6:20] = np.random.default_rng(3).random((3, 11, 14)) < share
    labels, count = lesion_components(mask)
    expected, expected_count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert count == expected_count
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("abc2", 0.955),
        ("abc2_kothari", 0.652),
        ("abc2_4", 0.796),
        ("abc3", 0.637),
        ("two_thirds_sh", 1.0),
        ("half_sh", 0.75),
    ],
)
def test_formulas_on_a_fine_ellipsoid(name: str, ratio: float) -> None:
    volume, mask, true_ml = ellipsoid((0.25, 0.5, 0.5))
    totals, _ = manual_volumes(volume, mask)
    # The pixel corners add half a pixel to each end: 1.5 % of A and B here.
    assert totals[name] / true_ml == pytest.approx(ratio, rel=0.035)
    assert volume.mask_volume_ml(mask) == pytest.approx(true_ml, rel=0.002)


@pytest.mark.parametrize(("name", "ratio"), [("abc2", 0.637), ("two_thirds_sh", 0.667), ("half_sh", 0.5)])
def test_formulas_on_an_upright_cylinder(name: str, ratio: float) -> None:
    k, j, i = grid((60, 140, 140), (0.5, 0.25, 0.25))
    mask = (i**2 + j**2 <= 15**2) & (np.abs(k) < 10)
    volume = stack((60, 140, 140), (0.5, 0.25, 0.25))
    totals, (lesion,) = manual_volumes(volume, mask)
    assert totals[name] / (np.pi * 1.5**2 * 2) == pytest.approx(ratio, rel=0.02)
    assert lesion.c_cm == pytest.approx(2.0)
    assert lesion.c_kothari_cm == pytest.approx(2.0)


@pytest.mark.parametrize("phase", [0.1, 0.25, 0.4, 0.75, 0.9])
def test_five_mm_slices_scatter_as_known(phase: float) -> None:
    volume, mask, true_ml = ellipsoid((5.0, 0.5, 0.5), phase)
    totals, _ = manual_volumes(volume, mask)
    assert 0.95 <= totals["abc2"] / true_ml <= 1.09
    assert 0.59 <= totals["abc2_kothari"] / true_ml <= 0.73


def test_a_box_is_measured_between_pixel_corners() -> None:
    mask = np.zeros((5, 20, 20), dtype=bool)
    mask[1:4, 5:8, 4:16] = True  # 12 x 3 pixels, 3 slices
    volume = stack((5, 20, 20), (5.0, 1.0, 1.0))
    lesion = measure_lesion(volume, mask)
    assert lesion.a_cm == pytest.approx(np.hypot(1.2, 0.3))  # the diagonal
    assert lesion.b_cm == pytest.approx(2 * 1.2 * 0.3 / np.hypot(1.2, 0.3))
    assert lesion.c_cm == pytest.approx(1.5)
    assert lesion.area_cm2 == pytest.approx(0.36)
    abc = 2 * 1.2 * 0.3 * 1.5  # A x B of a box's diagonal is twice its area
    expected = {
        "abc2": abc / 2, "abc2_kothari": abc / 2, "abc2_4": abc / 2.4, "abc3": abc / 3,
        "two_thirds_sh": 2 / 3 * 0.36 * 1.5, "half_sh": 0.36 * 1.5 / 2,
    }  # fmt: skip
    assert lesion.volumes_ml == pytest.approx(expected)
    assert lesion.index_slice == 2  # the middle one of three equal slices
    ends = np.array(lesion.a_line_ras_mm)
    across = np.array(lesion.b_line_ras_mm)
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(10 * lesion.a_cm)
    assert np.linalg.norm(across[1] - across[0]) == pytest.approx(10 * lesion.b_cm)
    assert (ends[1] - ends[0]) @ (across[1] - across[0]) == pytest.approx(0, abs=1e-9)
    assert sorted(ends[:, 0]) == pytest.approx([3.5, 15.5])
    assert ends[:, 2] == pytest.approx([10.0, 10.0])


def test_chord_is_shorter_than_extent_on_a_bent_lesion() -> None:
    mask = np.zeros((3, 40, 60), dtype=bool)
    mask[1, 20:24, 5:55] = True
    mask[1, 5:24, 5:9] = True
    mask[1, 20:35, 51:55] = True
    volume = stack((3, 40, 60), (5.0, 1.0, 1.0))
    extent, chord = measure_lesion(volume, mask), measure_lesion(volume, mask, "chord")
    assert chord.a_cm == extent.a_cm
    assert chord.b_cm < 0.8 * extent.b_cm


def test_lesions_are_measured_apart_and_summed() -> None:
    volume, one, _ = ellipsoid((2.5, 1.0, 1.0))
    two = np.concatenate([one, one], axis=2)
    wide = stack(two.shape, (2.5, 1.0, 1.0))
    single, _ = manual_volumes(volume, one)
    double, lesions = manual_volumes(wide, two)
    assert len(lesions) == 2
    assert double == pytest.approx({name: 2 * value for name, value in single.items()})


def test_an_empty_mask_gives_zero_and_no_lesion() -> None:
    volume = stack((3, 8, 8), (5.0, 1.0, 1.0))
    totals, lesions = manual_volumes(volume, np.zeros((3, 8, 8), dtype=bool))
    assert set(totals.values()) == {0.0}
    assert lesions == ()
    with pytest.raises(UsageError, match="empty"):
        measure_lesion(volume, np.zeros((3, 8, 8), dtype=bool))


def test_gantry_tilt_uses_the_perpendicular_height() -> None:
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[1, 2], affine[2, 2] = 5 * np.sin(np.radians(20)), 5 * np.cos(np.radians(20))
    volume = CTVolume.from_affine(np.zeros((6, 10, 10), np.float32), affine)
    mask = np.ones(volume.shape, dtype=bool)
    assert volume.slice_heights_mm == pytest.approx(4.698, abs=1e-3)
    assert 5.0 * mask.sum() / 1000 / volume.mask_volume_ml(mask) == pytest.approx(1.064, abs=1e-3)
    lesion = measure_lesion(volume, mask)
    assert lesion.c_cm == pytest.approx(6 * 0.4698, abs=1e-3)


def test_mixed_steps_keep_their_own_heights() -> None:
    positions = np.concatenate([np.arange(13) * 5.0, 60 + 10.0 * np.arange(1, 8)])
    origins = np.stack([0 * positions, 0 * positions, positions], axis=1)
    volume = CTVolume(
        np.zeros((20, 4, 4), np.float32), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), origins, np.full(20, 5.0)
    )
    assert np.mean(np.diff(positions)) == pytest.approx(6.842, abs=1e-3)  # what one spacing would say
    mask = np.zeros(volume.shape, dtype=bool)
    mask[2:6] = True
    assert volume.mask_volume_ml(mask) == pytest.approx(4 * 5 * 16 / 1000)
    assert measure_lesion(volume, mask).c_cm == pytest.approx(2.0)


def test_one_missing_slice_in_twenty() -> None:
    """A reader with one spacing would take 5.278 mm; here the neighbors keep 5 mm and nothing fills the gap."""
    positions = 5.0 * np.delete(np.arange(20), 10)
    assert np.mean(np.diff(positions)) == pytest.approx(5.278, abs=1e-3)
    origins = np.stack([0 * positions, 0 * positions, positions], axis=1)
    volume = CTVolume(
        np.zeros((19, 4, 4), np.float32), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), origins, np.full(19, 5.0)
    )
    mask = np.zeros(volume.shape, dtype=bool)
    mask[8:12] = True
    assert volume.mask_volume_ml(mask) == pytest.approx(4 * 5 * 16 / 1000)
    assert measure_lesion(volume, mask).c_cm == pytest.approx(2.0)


def test_heights_are_distances_of_slices_not_their_thickness() -> None:
    """6 mm slices every 3 mm: C and the volume count 3 mm each."""
    origins = np.stack([np.zeros(10), np.zeros(10), 3.0 * np.arange(10)], axis=1)
    volume = CTVolume(
        np.zeros((10, 8, 8), np.float32), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), origins, np.full(10, 6.0)
    )
    mask = np.zeros(volume.shape, dtype=bool)
    mask[3:7, 2:6, 2:6] = True
    assert measure_lesion(volume, mask).c_cm == pytest.approx(1.2)
    assert volume.mask_volume_ml(mask) == pytest.approx(4 * 3 * 16 / 1000)


def test_counting_equals_slicers_labelmap_volume_on_an_oblique_grid() -> None:
    """Voxels times the determinant of IJK to mm, which on a grid at right angles is the product of its spacing."""
    turn = np.radians(25)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([0.7, 0.8, 4.5])
    volume = CTVolume.from_affine(np.zeros((6, 20, 20), np.float32), affine)
    mask = np.random.default_rng(0).random(volume.shape) < 0.3
    assert volume.mask_volume_ml(mask) == pytest.approx(mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)
    assert abs(np.linalg.det(affine[:3, :3])) == pytest.approx(0.7 * 0.8 * 4.5)


def test_kothari_weights_at_their_limits() -> None:
    assert kothari_weights(np.array([1.0, 0.76, 0.75, 0.25, 0.24, 0.0])).tolist() == [1, 1, 0.5, 0.5, 0, 0]


@pytest.mark.parametrize(
    ("volume_ml", "size_mm"), [(1, 10.00), (5, 17.10), (15, 24.66), (30, 31.07), (60, 39.15), (100, 46.42)]
)
def test_cube_root_sizes(volume_ml: float, size_mm: float) -> None:
    assert float(size_of_volume(volume_ml)) == pytest.approx(size_mm, abs=5e-3)


@pytest.mark.parametrize(
    ("prior", "now", "expansion"), [(10, 13, False), (9, 12, True), (30, 35.9, False), (30, 36, True), (0, 5, False)]
)
def test_growth_by_a_third_or_six_ml(prior: float, now: float, expansion: bool) -> None:
    change = growth(prior, now)
    assert change.expansion is expansion
    assert change.change_ml == pytest.approx(now - prior)


def test_hand_formulas_on_simulated_bleeds_err_as_known() -> None:
    """ABC/2 with the full height reads irregular clots too large, Kothari's weights read too little."""
    from ICHAnalysisLib.simulate.cohort import CaseSpec, simulate_case

    ratios: dict[str, list[float]] = {"abc2": [], "abc2_kothari": [], "two_thirds_sh": []}
    for seed, volume_ml, place in ((1, 20.0, "deep"), (2, 45.0, "lobar"), (4, 80.0, "lobar")):
        case = simulate_case(seed, CaseSpec(has_ich=True, volume_ml=volume_ml, location=place))
        mask = case.labels == 1
        true_ml = case.volume.mask_volume_ml(mask)
        assert true_ml == pytest.approx(case.truth["volume_ml"], rel=0.06)
        totals, _ = manual_volumes(case.volume, mask)
        for name, values in ratios.items():
            values.append(totals[name] / true_ml)
    assert np.mean(ratios["abc2"]) > 1.05
    assert np.mean(ratios["abc2_kothari"]) < 0.95
    assert all(0.5 < k < a for k, a in zip(ratios["abc2_kothari"], ratios["abc2"], strict=True))
    assert np.std(ratios["two_thirds_sh"]) < np.std(ratios["abc2"])  # an area counts a bent clot better than A times B
