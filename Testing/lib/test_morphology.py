"""Flat morphology and growing of coarse masks against scipy's own answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ICHAnalysisLib.ct import morphology
from ICHAnalysisLib.ct.head import disk, to_native

PAIRS = (
    (morphology.erode, ndimage.binary_erosion),
    (morphology.dilate, ndimage.binary_dilation),
    (morphology.opening, ndimage.binary_opening),
    (morphology.closing, ndimage.binary_closing),
)


def blobs(shape: tuple[int, int, int], seed: int = 3) -> np.ndarray:
    """Smooth random regions, some of which touch the border."""
    return ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), (0, 2, 2)) > 0.5


@pytest.mark.parametrize("radius", [1.0, 3.0, 6.0])
def test_disks_as_scipy(radius: float) -> None:
    """Every operation with a disk, borders included."""
    mask, element = blobs((3, 40, 31)), disk(2.0 * radius, 2.0)
    for ours, theirs in PAIRS:
        np.testing.assert_array_equal(ours(mask, element), theirs(mask, element))


def test_asymmetric_element_as_scipy() -> None:
    """Dilation mirrors its element, erosion does not."""
    element = np.zeros((1, 5, 3), dtype=bool)
    element[0, [0, 1, 2, 2], [0, 0, 1, 2]] = True
    for ours, theirs in PAIRS:
        np.testing.assert_array_equal(ours(blobs((2, 20, 25)), element), theirs(blobs((2, 20, 25)), element))


def test_element_larger_than_the_stack() -> None:
    """Nothing fits, everything is reached."""
    mask = np.zeros((1, 4, 4), dtype=bool)
    mask[0, 2, 1] = True
    assert not morphology.erode(~mask, disk(10.0, 2.0)).any()
    assert morphology.dilate(mask, disk(20.0, 2.0)).all()


def test_bounding_box() -> None:
    """The box holds all and no more; an empty mask has an empty box."""
    mask = np.zeros((4, 6, 8), dtype=bool)
    assert mask[morphology.bounding_box(mask)].size == 0
    mask[1, 2, 3] = mask[2, 5, 1] = True
    assert morphology.bounding_box(mask) == (slice(1, 3), slice(2, 6), slice(1, 4))


@pytest.mark.parametrize("shape", [(1, 4, 3), (2, 3, 3), (3, 3)])
def test_element_without_a_center_is_refused(shape: tuple[int, ...]) -> None:
    """Only flat elements of odd size."""
    with pytest.raises(ValueError, match="flat element"):
        morphology.erode(blobs((1, 9, 9)), np.ones(shape, dtype=bool))


@pytest.mark.parametrize("factors", [(1, 1, 1), (1, 4, 4), (3, 5, 2), (2, 3, 3)])
def test_coarse_mask_grows_as_by_linear_zoom(factors: tuple[int, int, int]) -> None:
    """`to_native` is scipy's linear zoom on the grid of blocks, cut at one half."""
    mask = blobs((3, 12, 17))
    soft = ndimage.zoom(mask.astype(float), (1, *factors[1:]), order=1, grid_mode=True, mode="nearest")
    wanted = np.repeat(soft > 0.5, factors[0], axis=0)[:7, :45, :60]
    np.testing.assert_array_equal(to_native(mask, factors, (7, 45, 60)), wanted)
