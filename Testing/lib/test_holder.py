"""Holder removal: on simulated heads against their truth, on a real scan, on clipped and padded ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from ICHAnalysisLib.holder import OUTSIDE_HU, convex_hull, paper_head_mask, remove_holder


@pytest.fixture(scope="module")
def heads() -> list[tuple[np.ndarray, tuple[float, ...], np.ndarray]]:
    """HU with a holder, spacing, and the head as it is without one, of two simulated heads."""
    from ICHAnalysisLib.simulate.acquisition import AcquisitionSpec
    from ICHAnalysisLib.simulate.cohort import CaseSpec, simulate_case

    found = []
    for seed in (5, 6):
        held, free = (
            simulate_case(seed, CaseSpec(acquisition=AcquisitionSpec(holder=holder, storage="full"))).volume
            for holder in (True, False)
        )
        truth = np.stack([ndimage.binary_fill_holes(plane) for plane in free.hu > -300])
        found.append((held.hu, held.spacing_mm, truth))
    return found


def test_the_head_stays_and_the_holder_goes(heads: list) -> None:
    for hu, spacing, truth in heads:
        cleaned, mask = remove_holder(hu, spacing)
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) >= 0.99
        assert (mask & truth).sum() / truth.sum() >= 0.995
        holder = (hu > -300) & ~ndimage.binary_dilation(truth, iterations=2)
        assert holder.sum() > 1000  # there was one
        assert (mask & holder).sum() <= 0.25 * holder.sum()  # what is left of a cup is pressed against the head
        assert (cleaned[mask] == hu[mask]).all()
        assert (cleaned[~mask] == OUTSIDE_HU).all()


def test_paper_rule_keeps_the_middle_slice(heads: list) -> None:
    hu, _, truth = heads[0]
    k = len(hu) // 2
    mask = paper_head_mask(hu[k], -300.0, radius=2, edge_columns=5)
    assert 2 * (mask & truth[k]).sum() / (mask.sum() + truth[k].sum()) >= 0.97
    assert not paper_head_mask(np.full((40, 40), -1000.0), -300.0).any()


@pytest.mark.parametrize("window", [(-20, 100), (0, 120)])
def test_clipped_scans_keep_the_brain(heads: list, window: tuple[int, int]) -> None:
    hu, spacing, truth = heads[0]
    _, mask = remove_holder(np.clip(hu, *window), spacing)
    brain = ndimage.binary_erosion(truth, np.ones((1, 25, 25), dtype=bool))
    brain[: len(brain) // 2] = False  # below lie fat and air, which clipping makes one with the outside
    assert (mask & brain).sum() / brain.sum() > 0.999


def test_padding_and_empty_scans(heads: list) -> None:
    hu, spacing, _ = heads[0]
    padded = hu.copy()
    y, x = np.ogrid[: hu.shape[1], : hu.shape[2]]
    outside = np.hypot(y - hu.shape[1] / 2, x - hu.shape[2] / 2) > hu.shape[1] / 2
    padded[:, outside] = -3024
    assert np.mean(remove_holder(padded, spacing)[1] != remove_holder(hu, spacing)[1]) < 0.002
    uniform = np.full((3, 32, 32), -1000.0, np.float32)
    cleaned, mask = remove_holder(uniform, (1.0, 1.0, 5.0))
    assert mask.all() and (cleaned == uniform).all()


def test_a_real_holder_goes_and_the_face_stays(shared_data: Path) -> None:
    from ICHAnalysisLib.ct.readers import inspect_scan

    volume = inspect_scan(shared_data / "head_ct_ge")
    cleaned, mask = remove_holder(volume.hu, volume.spacing_mm)
    tissue = volume.hu > -300
    kept = (mask & tissue).sum() / tissue.sum()
    assert 0.93 < kept < 0.985  # the walls of the holder are a few percent of what is dense
    bone = ndimage.label(cleaned > 300)[0]
    sizes = np.sort(np.bincount(bone.ravel())[1:])
    assert sizes[-1] > 0.9 * sizes.sum()  # one skull, no second large dense object
    lowest = mask[int(np.argmin(volume.positions_mm * np.sign(volume.normal_ras[2])))]
    assert lowest.sum() * volume.voxel_area_mm2 > 15_000  # the face, nose included, mm2


def test_convex_hull_as_of_skimage() -> None:
    """The same pixels as skimage's hull, and a line's own pixels where skimage refuses it."""
    from skimage.morphology import convex_hull_image

    rng = np.random.default_rng(1)
    for shape in ((40, 31), (9, 60), (25, 25)):
        blob = ndimage.gaussian_filter(rng.random(shape), 1.5) > 0.52
        assert blob.any()
        np.testing.assert_array_equal(convex_hull(blob), convex_hull_image(blob, offset_coordinates=False))
    line = np.zeros((4, 7), dtype=bool)
    line[2, [1, 5]] = True
    assert np.array_equal(np.argwhere(convex_hull(line)), [[2, i] for i in range(1, 6)])
    assert not convex_hull(np.zeros((3, 3), dtype=bool)).any()
