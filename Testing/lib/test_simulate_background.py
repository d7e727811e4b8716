"""Bleeds inserted into a given bleed-free head: a procedural one stands in, and the real one where it is at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate import AcquisitionSpec, CaseSpec, insert, simulate_case
from ICHAnalysisLib.simulate.background import background_scene, draw_variation, identity_variation, prepare
from ICHAnalysisLib.simulate.hemorrhage import center_of
from ICHAnalysisLib.simulate.insert import Blood
from ICHAnalysisLib.simulate.scene import VENTRICLE, Grid
from ICHAnalysisLib.simulate.ventricles import with_ventricles_resized

SCANNER = AcquisitionSpec(
    matrix=128, spacing_mm=1.8, thickness_mm=6.0, gap_mm=0.0, uneven=False, tilt_degrees=0.0, detail_mm=1.8,
    storage="full", noise_hu=2.0, bottom_mm=-60.0, top_mm=84.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def head() -> CTVolume:
    return simulate_case(3, CaseSpec(has_ich=False, confounders=0.0, acquisition=SCANNER)).volume


def test_kept_as_it_is_outside_the_bleed(head: CTVolume) -> None:
    spec = CaseSpec(
        has_ich=True, location="lobar", volume_ml=20.0, ivh=False, edema_mm=0.0, mass_effect=0.0, randomize=0.0,
        confounders=0.0,
    )  # fmt: skip
    case = simulate_case(1, spec, head)
    changed = np.abs(case.volume.hu - np.rint(head.hu)) > 1.0
    assert case.volume.hu.shape == head.hu.shape
    assert np.allclose(case.volume.slice_origins_ras, head.slice_origins_ras, atol=1e-6)
    assert changed[case.labels == 1].mean() > 0.9
    from scipy import ndimage

    near = ndimage.binary_dilation(case.labels == 1, iterations=5)
    assert changed[~near].mean() < 1e-4
    assert case.volume.mask_volume_ml(case.labels == 1) == pytest.approx(20.0, rel=0.06)


def test_clot_stays_out_of_bone(head: CTVolume) -> None:
    case = simulate_case(
        2, CaseSpec(has_ich=True, location="lobar", volume_ml=35.0, randomize=0.0, confounders=0.0), head
    )
    assert (head.hu[case.labels == 1] > 150).mean() < 0.01


def test_clot_in_bone_between_the_slices_is_grown_elsewhere(head: CTVolume) -> None:
    wanted = Blood(
        True, "lobar", "right", 4.0, 62.0, "plain", False, 0.0, 0.4, satellites=0, mass_effect=0.0, exact=True
    )
    background = prepare(head)
    grid = Grid((-70.0, -90.0, -80.0), (3.0, 2.0, 2.0), (50, 90, 80))
    scene = background_scene(background, identity_variation(), grid)
    assert scene.bone is not None and 0.02 < scene.bone((slice(0, 50), slice(0, 90), slice(0, 80))).mean() < 0.5

    def clot() -> tuple[np.ndarray, float]:
        rng = np.random.default_rng(5)
        box, alpha, _ = insert._main_clot(scene, wanted, insert.choose_start(scene, wanted, rng), rng)
        return center_of(alpha, scene.box_grid(box)), scene.bone_share(box, alpha)

    there, share = clot()
    assert share <= insert.MOST_BONE

    def near(box: tuple[slice, slice, slice]) -> np.ndarray:
        z, y, x = np.meshgrid(*scene.box_grid(box).axes(), indexing="ij")
        return (x - there[0]) ** 2 + (y - there[1]) ** 2 + (z - there[2]) ** 2 < 12.0**2

    scene.bone = near
    elsewhere, share = clot()
    assert share <= insert.MOST_BONE and np.linalg.norm(elsewhere - there) > 10
    scene.bone = lambda box: np.ones(scene.box_grid(box).shape, bool)
    with pytest.raises(UsageError, match=r"No lobar clot of 4\.0 mL fits"):
        clot()


def test_one_head_many_looks(head: CTVolume) -> None:
    spec = CaseSpec(has_ich=True, acquisition=replace(SCANNER, bottom_mm=None, top_mm=None))
    first, again, other = simulate_case(1, spec, head), simulate_case(1, spec, head), simulate_case(2, spec, head)
    assert np.array_equal(first.volume.hu, again.volume.hu)
    middle = [case.volume.hu[case.volume.shape[0] // 2] for case in (first, other)]
    assert np.abs(middle[0] - middle[1]).mean() > 20


def test_flipped_and_reversed_file_is_the_same_head(head: CTVolume) -> None:
    turned = CTVolume(
        np.ascontiguousarray(head.hu[::-1, :, ::-1]),
        -head.column_step_ras,
        head.row_step_ras,
        (head.slice_origins_ras + head.column_step_ras * (head.hu.shape[2] - 1))[::-1].copy(),
        head.slice_thickness_mm[::-1].copy(),
    )
    straight, mirrored = prepare(head), prepare(turned)
    assert np.array_equal(straight.tissue, mirrored.tissue)
    assert np.allclose(straight.head, mirrored.head)


def test_ventricles_widen_inside_the_same_brain(head: CTVolume) -> None:
    background, as_it_is = prepare(head), draw_variation(prepare(head), np.random.default_rng(1), 0.0)
    grid = Grid((-60.0, -90.0, -75.0), (2.0, 1.5, 1.5), (65, 120, 100))
    sizes, ventricles, brains = [], [], []
    for seed in range(6):
        varied = with_ventricles_resized(background, as_it_is, np.random.default_rng(seed))
        tissue = background_scene(background, varied, grid).tissue
        sizes.append(np.prod(varied.parameters["ventricle_size"]))
        ventricles.append((tissue == VENTRICLE).sum() * grid.voxel_ml)
        brains.append((tissue > 0).sum() * grid.voxel_ml)
    usual = background_scene(background, as_it_is, grid).tissue
    assert np.corrcoef(sizes, ventricles)[0, 1] > 0.9
    assert min(sizes) < 1 < 1.8 < max(sizes)
    assert max(ventricles) > 1.4 * (usual == VENTRICLE).sum() * grid.voxel_ml
    assert np.ptp(brains) < 0.07 * (usual > 0).sum() * grid.voxel_ml


def test_ventricles_that_cannot_vary_are_refused(head: CTVolume) -> None:
    with pytest.raises(UsageError, match=r"ventricles 1\.5 must lie between 0 and 1"):
        CaseSpec(ventricles=1.5)
    with pytest.raises(UsageError, match=r"ventricles 0\.5 cannot vary .* raise randomize"):
        simulate_case(1, CaseSpec(ventricles=0.5, randomize=0.0), head)


def test_gap_of_the_skull_does_not_hide_the_brain(head: CTVolume) -> None:
    whole = prepare(head)
    open_skull = head.hu.copy()
    half = head.hu.shape[2] // 2
    row = np.argmax(head.hu[12, :, half] > 300)  # the forehead of a slice in the middle
    gap = open_skull[9:16, row - 4 : row + 12, half - 5 : half + 5]  # 18 mm wide
    gap[gap > 150] = 40.0
    opened = prepare(replace(head, hu=open_skull))
    brains = [(background.tissue[9:16] > 0).sum((1, 2)) for background in (whole, opened)]
    assert brains[0].min() > 3000
    assert np.abs(brains[1] / brains[0] - 1).max() < 0.05
    assert np.allclose(whole.head, opened.head, atol=3.0)  # the brain grows a little into the gap


def test_no_brain_is_refused() -> None:
    ball = np.full((20, 96, 96), -1000.0, dtype=np.float32)
    ball[4:16, 30:60, 30:60] = 40.0
    volume = CTVolume.from_affine(ball, np.diag([-2.0, -2.0, 5.0, 1.0]))
    with pytest.raises(UsageError, match="brain"):
        simulate_case(1, CaseSpec(has_ich=True), volume)


def test_real_head_native_and_varied(shared_data: Path) -> None:
    from ICHAnalysisLib.ct.readers import read_scan

    scan = read_scan(shared_data / "head_ct_ge", accept=True)
    spec = CaseSpec(has_ich=True, location="deep", volume_ml=15.0, ivh=False, randomize=0.0, confounders=0.0)
    case = simulate_case(1, spec, scan)
    assert case.volume.shape == scan.shape
    assert case.truth["mask_volume_ml"] == pytest.approx(15.0, rel=0.1)
    assert np.median(case.volume.hu[case.labels == 1]) > 45
