"""Domain randomization: deterministic, harmless to labels, off at strength 0, and inserted things unlabeled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from Testing.training.cached_heads import head
from Training.data import augment_scanner, augment_tissue
from Training.data.augment import AugmentConfig, augment
from Training.data.augment_clot import insert_clot
from Training.data.fields import blur, ellipse, smooth_field, strip

OFF = AugmentConfig(strength=0.0)
SHAPE_ONLY = AugmentConfig(tissue=0.0, scanner=0.0, geometry=1.0)
LOOKS_ONLY = AugmentConfig(geometry=0.0, flip=0.0)


@pytest.fixture(scope="module")
def slice_() -> tuple[np.ndarray, np.ndarray]:
    hu, labels = head(0, clot=True, size=128, slices=3)
    return hu[1:2], labels[1:2]


def test_strength_zero_changes_nothing(slice_: tuple[np.ndarray, np.ndarray]) -> None:
    hu, labels, growth = augment(*slice_, np.random.default_rng(0), OFF)
    np.testing.assert_array_equal(hu, slice_[0])
    np.testing.assert_array_equal(labels, slice_[1])
    assert growth == 1.0


def test_same_generator_same_picture_and_input_untouched(slice_: tuple[np.ndarray, np.ndarray]) -> None:
    before = slice_[0].copy()
    for seed in range(6):
        first = augment(*slice_, np.random.default_rng(seed), AugmentConfig(), 1.8)
        torch.manual_seed(seed + 1)
        second = augment(*slice_, np.random.default_rng(seed), AugmentConfig(), 1.8)
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(before, slice_[0])


def test_image_and_label_move_together(slice_: tuple[np.ndarray, np.ndarray]) -> None:
    for seed in range(12):
        hu, labels, growth = augment(*slice_, np.random.default_rng(seed), SHAPE_ONLY)
        clot = labels == 1
        assert clot.sum() == pytest.approx(growth * (slice_[1] == 1).sum(), rel=0.12)
        bright = (hu > 50) & (hu < 75) & (augment_tissue.find_regions(hu[0]).inside.repeat(4, 0).repeat(4, 1)[None])
        overlap = (clot & bright).sum() / max(1, (clot | bright).sum())
        assert overlap > 0.7


def test_looks_never_change_labels(slice_: tuple[np.ndarray, np.ndarray]) -> None:
    for seed in range(20):
        hu, labels, _ = augment(*slice_, np.random.default_rng(seed), LOOKS_ONLY)
        np.testing.assert_array_equal(labels, slice_[1])
        assert np.isfinite(hu).all() and hu.dtype == np.float32


def test_clot_stays_denser_than_brain(slice_: tuple[np.ndarray, np.ndarray]) -> None:
    contrasts = []
    for seed in range(40):
        image, labels = torch.from_numpy(slice_[0].copy()), torch.from_numpy(slice_[1])
        scene = augment_tissue.Scene(image, labels, np.random.default_rng(seed))
        augment_tissue._clot_density(scene.around_blood(28), augment_tissue.brain_hu(scene))
        contrasts.append(float(image[labels == 1].mean()) - 32)
    assert min(contrasts) > 3
    assert np.ptp(contrasts) > 25  # faint and bright clots both occur


@pytest.mark.parametrize(
    "insert",
    [
        augment_tissue._calcifications,
        augment_tissue._strips,
        augment_tissue._sinus,
        augment_tissue._subdural,
        augment_tissue._dense_rim,
        augment_tissue._tissue_outside,
        augment_tissue._scalp_density,
    ],
)
def test_inserted_things_leave_the_clot_alone(insert, slice_: tuple[np.ndarray, np.ndarray]) -> None:
    changed = 0
    for seed in range(6):
        image, labels = torch.from_numpy(slice_[0].copy()), torch.from_numpy(slice_[1])
        insert(augment_tissue.Scene(image, labels, np.random.default_rng(seed), zoom=0.5))
        difference = np.abs(image.numpy() - slice_[0])
        changed += difference.max() > 3
        assert np.median(difference[slice_[1] == 1]) < 2
    assert changed >= 3


def test_a_new_clot_is_labeled_where_it_is_bright_and_nowhere_else() -> None:
    hu, _ = head(0, clot=False, size=128, slices=3)
    drawn, areas = 0, []
    for seed in range(30):
        image, target = torch.from_numpy(hu[1:2].copy()), torch.zeros((1, 128, 128), dtype=torch.uint8)
        scene = augment_tissue.Scene(image, target, np.random.default_rng(seed), zoom=0.5)
        base = augment_tissue.brain_hu(scene)
        if not insert_clot(scene):
            assert not target.any()
            np.testing.assert_array_equal(image.numpy(), hu[1:2])
            continue
        drawn += 1
        clot = (target == 1)[0].numpy()
        assert ndimage.label(clot)[1] == 1 and set(np.unique(target)) == {0, 1} and scene.has_blood
        areas.append(clot.sum() * 1.8**2)
        assert image[0][target[0] == 1].mean() > base + 4
        far = ~ndimage.binary_dilation(clot, iterations=4)
        np.testing.assert_array_equal(image[0].numpy()[far], hu[1][far])
    assert drawn > 15 and min(areas) < 150 and max(areas) > 900


def test_a_new_clot_goes_on_in_the_slices_beside_it_or_ends() -> None:
    """Where it ends in a slice and fills less than half of it, the slice is denser and has no label."""
    hu = np.repeat(head(0, clot=False, size=128, slices=3)[0][1:2], 3, axis=0)
    shown, ended = 0, 0
    for seed in range(60):
        image, target = torch.from_numpy(hu.copy()), torch.zeros((3, 128, 128), dtype=torch.uint8)
        scene = augment_tissue.Scene(image, target, np.random.default_rng(seed), zoom=0.5)
        if not insert_clot(scene, 1):
            assert not target.any()
            continue
        assert scene.has_blood == bool((target == 1).any())
        denser = (image - torch.from_numpy(hu)).numpy() > 5
        beside = [bool(denser[n].sum() >= 10) for n in (0, 2)]
        shown += any(beside)
        if not (target[1] == 1).any():
            ended += denser[1].sum() >= 10
            assert sum(beside) == 1 and bool((target == 1).any())  # it lies on one side of a slice that it ends in
    assert shown > 25 and ended >= 3


def test_what_a_clot_fills_in_part_takes_its_density_along() -> None:
    """A slice that holds a third of the clot shows a third of its excess after the clot got another density."""
    hu = np.full((3, 64, 64), 30.0, dtype=np.float32)
    labels = np.zeros((3, 64, 64), dtype=np.uint8)
    hu[1, 20:44, 20:44], labels[1, 20:44, 20:44] = 66.0, 1
    hu[2, 20:44, 20:44] = 42.0
    for seed in range(5):
        image = torch.from_numpy(hu.copy())
        scene = augment_tissue.Scene(image, torch.from_numpy(labels), np.random.default_rng(seed), zoom=1.0)
        scene.happens = lambda probability: probability > 0.5  # the density alone
        augment_tissue._clot_density(scene, 30.0)
        whole, third = (float(image[n, 30:34, 30:34].mean()) - 30 for n in (1, 2))
        assert abs(whole - 36) > 2 and third / whole == pytest.approx(1 / 3, abs=0.06)
        assert float(image[0].mean()) == pytest.approx(30.0, abs=0.2)


def test_only_slices_that_may_bleed_do() -> None:
    hu, labels = (array[1:2] for array in head(0, clot=False, size=128, slices=3))
    config = AugmentConfig(new_clot=1.0)
    bled = []
    for seed in range(8):
        _, drawn, _ = augment(hu, labels, np.random.default_rng(seed), config, 1.8, bled_into=0)
        bled.append(bool((drawn == 1).any()))
    assert sum(bled) >= 4
    for seed in range(8):
        assert not (augment(hu, labels, np.random.default_rng(seed), config, 1.8)[1] == 1).any()


def test_empty_slices_of_a_scan_survive() -> None:
    hu = np.full((3, 64, 64), -1024.0, dtype=np.float32)
    hu[1], labels = head(1, clot=False)[0][2], np.zeros((3, 64, 64), dtype=np.uint8)
    for seed in range(8):
        varied, _, _ = augment(hu, labels, np.random.default_rng(seed), AugmentConfig(strength=3.0), 3.6)
        assert np.isfinite(varied).all()


def test_unknown_pixels_stay_unknown() -> None:
    hu, labels = head(1, clot=False)
    labels[:] = 255
    _, moved, _ = augment(hu, labels, np.random.default_rng(1), LOOKS_ONLY)
    assert (moved == 255).all()


def test_storage_clips_and_quantizes() -> None:
    image = torch.linspace(-1000, 2000, 64 * 64).reshape(1, 64, 64)
    stored = [augment_scanner._storage(image.clone(), np.random.default_rng(s), 1.0) for s in range(40)]
    ranges = {(round(float(x.min())), round(float(x.max()))) for x in stored}
    assert len(ranges & set(augment_scanner.STORED_RANGES)) >= 4


def test_fields() -> None:
    rng = np.random.default_rng(0)
    field = smooth_field(rng, (40, 64, 64), 6)
    assert abs(float(field.mean())) < 0.15 and 0.6 < float(field.std()) < 1.3
    spike = torch.zeros(1, 33, 33)
    spike[0, 16, 16] = 1
    spread = blur(spike, 2.0)
    y = torch.arange(33.0) - 16
    assert float(spread.sum()) == pytest.approx(1, abs=1e-4)
    assert float((spread[0].sum(1) * y**2).sum()) ** 0.5 == pytest.approx(2.0, rel=0.08)
    area = float(ellipse((64, 64), (32, 32), (12, 8), 0.4, edge=0.5).sum())
    assert area == pytest.approx(np.pi * 12 * 8, rel=0.05)
    bar = strip((64, 64), np.array([10.0, 10.0]), np.array([50.0, 40.0]), 4.0)
    assert float(bar.sum()) == pytest.approx(50 * 4, rel=0.12)
