"""What the volume net tells an analysis about a scan: its size, its outcome, and where it sees blood."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from stacks import stack_of

from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.config.volume_net import PREPROCESS, PRESETS
from ICHAnalysisLib.networks.volume_net import build_volume_net
from ICHAnalysisLib.predict import Models, VolumeNetPredictor
from ICHAnalysisLib.preprocess import SliceStack, make_stack, native_to_stack
from ICHAnalysisLib.simulate.cohort import CaseSpec, SimulatedCase, simulate_case
from ICHAnalysisLib.weights.registry import LoadedWeights


@pytest.fixture(scope="module")
def case() -> SimulatedCase:
    return simulate_case(11, CaseSpec(has_ich=True, location="lobar", volume_ml=30.0, confounders=0.0, ivh=False))


@pytest.fixture(scope="module")
def shipped() -> VolumeNetPredictor:
    return Models.load().volume_net


@pytest.fixture(scope="module")
def stack(case: SimulatedCase, shipped: VolumeNetPredictor) -> SliceStack:
    return make_stack(case.volume, shipped.preprocess)


def test_left_and_right_are_alike(shipped: VolumeNetPredictor, stack: SliceStack) -> None:
    here = shipped.predict(stack, want_heatmap=False)
    mirrored = shipped.predict(replace(stack, hu=np.ascontiguousarray(stack.hu[:, :, ::-1])), want_heatmap=False)
    assert mirrored.volume_ml == pytest.approx(here.volume_ml, rel=1e-3)
    assert mirrored.poor_probability == pytest.approx(here.poor_probability, abs=1e-3)
    np.testing.assert_allclose(mirrored.blood[:, :, ::-1], here.blood, atol=5e-3)


def test_the_heatmap_changes_no_number(shipped: VolumeNetPredictor, stack: SliceStack) -> None:
    plain, explained = (shipped.predict(stack, want_heatmap=wanted) for wanted in (False, True))
    assert plain.heatmap is None and explained.heatmap.shape == stack.hu.shape
    assert explained.volume_ml == pytest.approx(plain.volume_ml, rel=1e-3)
    assert explained.poor_probability == pytest.approx(plain.poor_probability, abs=1e-3)
    np.testing.assert_allclose(explained.blood, plain.blood, atol=5e-3)


def test_blood_lies_in_the_clot_and_adds_up(
    shipped: VolumeNetPredictor, stack: SliceStack, case: SimulatedCase
) -> None:
    answer = shipped.predict(stack, want_heatmap=False)
    clot = native_to_stack((case.labels == 1).astype(np.float32), stack) > 0.5
    far = native_to_stack((case.labels == 0).astype(np.float32), stack) > 0.5
    assert answer.blood.shape == stack.hu.shape and answer.blood.min() >= 0 and answer.blood.max() <= 1
    assert answer.blood[clot].mean() > 0.6 and answer.blood[far].mean() < 0.01
    summed = float(answer.blood.sum(axis=(1, 2)) @ stack.pixel_volumes_ml)
    assert summed == pytest.approx(answer.volume_ml, rel=0.35)  # before dead zone and learned correction
    assert answer.volume_ml == pytest.approx(30.0, rel=0.4)


def test_slices_below_the_grid_are_unknown(shipped: VolumeNetPredictor) -> None:
    """32 slices of 5 mm from the highest one down; what a long scan shows below is not seen."""
    long = stack_of(np.full((40, 128, 128), 35.0, np.float32), 1.8)
    blood = shipped.predict(long, want_heatmap=False).blood
    assert np.isnan(blood[:8]).all() and np.isfinite(blood[8:]).all()


def test_networks_without_cells_tell_no_blood() -> None:
    cfg = replace(PRESETS["tiny"], volume_pool="average", aux_density=False, outcome_from_size=False)
    torch.manual_seed(0)
    network = build_volume_net(cfg)
    predictor = VolumeNetPredictor(
        network,
        LoadedWeights("volume_net", to_dict(cfg), PREPROCESS["tiny"], network.state_dict()),
        torch.device("cpu"),
    )
    scan = simulate_case(3, CaseSpec(has_ich=False, confounders=0.0)).volume
    answer = predictor.predict(make_stack(scan, PREPROCESS["compact"]), want_heatmap=False)
    assert answer.blood is None and np.isfinite(answer.volume_ml)
