"""Carrying arrays between acquired slices and upright grids."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.ct.geometry import axial_copy, resample_to_ras, return_to_original
from ICHAnalysisLib.ct.head import brain_mask, head_mask
from ICHAnalysisLib.simulate.rescan import centroid_ras


@pytest.mark.parametrize(
    "options",
    [
        {"tilt_degrees": 18.0},
        {"tilt_degrees": -25.0},
        {"heights_mm": np.r_[np.full(18, 4.0), np.full(20, 8.0)]},
        {"plane": "coronal", "heights_mm": 4.0},
        {"plane": "sagittal", "heights_mm": 4.0},
        {"shear_degrees": 12.0},
    ],
    ids=["tilt", "tilt back", "uneven", "coronal", "sagittal", "sheared"],
)
def test_bleed_lands_in_its_true_place(bench, options) -> None:
    scan = bench.again(**options)
    labels, affine = resample_to_ras(scan.volume, scan.labels, (2.0, 2.0, 2.0), order=0)
    k, j, i = np.nonzero(labels)
    center = (affine @ np.array([i.mean(), j.mean(), k.mean(), 1.0]))[:3]
    assert center == pytest.approx(bench.known.centroid_ras, abs=1.0)
    assert labels.sum() * 8.0 / 1000.0 == pytest.approx(bench.known.truth_ml, rel=0.03)
    assert np.linalg.det(affine[:3, :3]) > 0 and np.count_nonzero(affine[:3, :3]) == 3


def test_values_outside_the_stack_are_air(bench) -> None:
    scan = bench.again(tilt_degrees=20.0)
    hu, _ = resample_to_ras(scan.volume, scan.volume.hu, 4.0)
    assert hu.min() == -1024.0 and hu[0, 0, 0] == -1024.0
    assert hu.dtype == np.float32


@pytest.mark.parametrize(
    "options", [{"plane": "coronal"}, {"plane": "sagittal"}, {"shear_degrees": 12.0}], ids=["cor", "sag", "sheared"]
)
def test_what_is_not_axial_goes_to_axial_and_back(bench, options) -> None:
    scan = bench.again(heights_mm=3.0, **options)
    axial = axial_copy(scan.volume)
    assert axial.shear_degrees == pytest.approx(0.0, abs=1e-6)
    assert axial.normal_ras == pytest.approx([0, 0, 1], abs=1e-9)
    brain = brain_mask(axial)
    back = return_to_original(brain, axial, scan.volume, order=0)
    assert back.shape == scan.volume.shape and back.dtype == bool
    assert scan.volume.mask_volume_ml(back) == pytest.approx(axial.mask_volume_ml(brain), rel=0.03)
    assert centroid_ras(scan.volume, back) == pytest.approx(centroid_ras(axial, brain), abs=1.5)


def test_axial_scan_is_its_own_copy(bench) -> None:
    tilted = bench.again(tilt_degrees=25.0).volume
    assert axial_copy(tilted) is tilted
    array = np.ones(tilted.shape, np.uint8)
    assert return_to_original(array, tilted, tilted) is array


def test_brain_lies_in_the_head_and_holds_the_bleed(bench) -> None:
    volume, labels = bench.usual.volume, bench.usual.labels == 1
    brain, head = brain_mask(volume), head_mask(volume)
    assert not (brain & ~head).any()
    assert (brain & labels).sum() >= 0.99 * labels.sum()
    true_brain_ml = 4 / 3 * np.pi * 66 * 84 * 74 / 1000
    assert volume.mask_volume_ml(brain) == pytest.approx(true_brain_ml, rel=0.08)


@pytest.mark.parametrize("window", [(0, 80), (-20, 100), (-1024, 80), (-100, 200), (0, 255)])
def test_brain_of_values_cut_to_a_window(bench, window) -> None:
    from dataclasses import replace

    volume = bench.usual.volume
    full = brain_mask(volume)
    cut = brain_mask(replace(volume, hu=np.clip(volume.hu, *window)))
    assert 2 * (full & cut).sum() / (full.sum() + cut.sum()) > 0.93
