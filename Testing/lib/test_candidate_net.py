"""The candidate net and its crops: where a crop lies, what the net sees of it, mirror images judged alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ICHAnalysisLib.candidate_crops import CandidateCrop, candidate_arrays, cut_crop
from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.config.candidate_net import PREPROCESS, PRESETS, CandidateNetConfig
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.networks.candidate_net import CandidateNet
from ICHAnalysisLib.predict import CandidatePredictor, Models
from ICHAnalysisLib.preprocess import AIR_HU
from ICHAnalysisLib.weights.registry import LoadedWeights, load_weights, weights_path
from Testing.lib.norms import draw_statistics
from Testing.lib.stacks import stack_of

TINY = PRESETS["tiny"]
PIXEL_MM = PREPROCESS["tiny"].spacing_mm


def crops(count: int, seed: int = 0) -> list[CandidateCrop]:
    rng = np.random.default_rng(seed)
    shape = (TINY.slices, TINY.size, TINY.size)
    found = []
    for _ in range(count):
        outline = np.zeros(shape, bool)
        outline[2, 13:20, 12:19] = True
        found.append(CandidateCrop(rng.normal(40, 20, shape).astype(np.float32), outline, 0.1))
    return found


def inputs(found: list[CandidateCrop]) -> list[torch.Tensor]:
    return [torch.from_numpy(part) for part in candidate_arrays(found, PREPROCESS["tiny"].windows)]


def test_a_crop_lies_around_the_largest_slice_with_air_beyond_the_scan() -> None:
    hu = np.full((6, 64, 64), 35.0, np.float32)
    components = np.zeros(hu.shape, int)
    components[1, 10:13, 4:9] = 7  # 15 pixels, the larger slice: center (11, 6)
    components[2, 10:12, 4:6] = 7
    hu[1, 11, 6] = 61.0
    box = (slice(1, 3), slice(10, 13), slice(4, 9))
    crop = cut_crop(stack_of(hu, PIXEL_MM, 10.0), components, 7, box, TINY, PIXEL_MM)
    assert crop.hu.shape == crop.outline.shape == (5, 32, 32)
    assert crop.hu[2, 16, 16] == 61.0 and np.argwhere(crop.hu == 61.0).tolist() == [[2, 16, 16]]
    assert crop.outline.sum(axis=(1, 2)).tolist() == [0, 0, 15, 4, 0]
    assert (crop.hu[0] == AIR_HU).all()  # below the lowest slice
    assert (crop.hu[2, :, :10] == AIR_HU).all() and (crop.hu[2, 5:, 10:] >= 35).all()
    assert crop.log_height == pytest.approx(np.log(2.0))


def test_other_pixels_are_resampled_to_the_crop_s_own() -> None:
    fine = PIXEL_MM / 3
    hu = np.full((5, 192, 192), 35.0, np.float32)
    components = np.zeros(hu.shape, int)
    components[2, 81:111, 84:108] = 1  # 30 x 24 pixels of 1.2 mm
    hu[components == 1] = 70.0
    box = (slice(2, 3), slice(81, 111), slice(84, 108))
    crop = cut_crop(stack_of(hu, fine), components, 1, box, TINY, PIXEL_MM)
    assert crop.outline[2].sum() == 10 * 8
    ys, xs = np.nonzero(crop.outline[2])
    assert (ys.mean() + 0.5, xs.mean() + 0.5) == pytest.approx((16, 16), abs=0.51)
    assert crop.hu[2][crop.outline[2]].mean() == pytest.approx(70, abs=1.5)
    assert crop.hu[1].min() == pytest.approx(35)


def test_the_windows_are_those_of_the_preprocessing() -> None:
    tissue, outlines, heights = candidate_arrays(crops(1), PREPROCESS["tiny"].windows)
    crop = crops(1)[0]
    assert tissue.shape == (1, 2, 5, 32, 32) and outlines.shape == (1, 5, 32, 32)
    np.testing.assert_allclose(tissue[0, 0], np.clip(crop.hu / 80, 0, 1), rtol=1e-6)
    np.testing.assert_allclose(tissue[0, 1], np.clip((crop.hu + 100) / 400, 0, 1), rtol=1e-6)
    assert heights.tolist() == pytest.approx([0.1])


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = CandidateNet(TINY).train()
    output = network(*inputs(crops(4)))
    assert output.shape == (4,)
    output.square().sum().backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert dead == []


def test_what_lies_outside_both_views_changes_nothing() -> None:
    torch.manual_seed(0)
    network = CandidateNet(TINY).eval()
    first, far, near = crops(1), crops(1), crops(1)
    far[0].hu[0, :6] = 75.0  # the lowest slice, outside the middle half: neither near nor wide
    near[0].hu[0, 8:24, 8:24] = 75.0
    with torch.inference_mode():
        before, same, other = (float(network(*inputs(found))) for found in (first, far, near))
    assert same == before
    assert other != before


def predictor() -> CandidatePredictor:
    torch.manual_seed(0)
    network = CandidateNet(TINY)
    draw_statistics(network)
    weights = LoadedWeights("candidate_net", to_dict(TINY), PREPROCESS["tiny"], network.state_dict())
    return CandidatePredictor(CandidateNet(TINY), weights, torch.device("cpu"))


def test_mirror_images_are_judged_alike_and_batches_change_nothing() -> None:
    judge = predictor()
    found = crops(11)
    mirrored = [CandidateCrop(c.hu[..., ::-1].copy(), c.outline[..., ::-1].copy(), c.log_height) for c in found]
    answers = judge.predict(found)
    assert answers.shape == (11,) and np.ptp(answers) > 0
    np.testing.assert_allclose(judge.predict(mirrored), answers, atol=1e-5)
    np.testing.assert_allclose(judge.predict(found[9:]), answers[9:], atol=1e-5)
    assert judge.predict([]).shape == (0,)


def test_sizes_that_do_not_halve_are_refused() -> None:
    with pytest.raises(UsageError, match="size 40"):
        replace(TINY, size=40)
    with pytest.raises(UsageError, match="slices 4"):
        CandidateNetConfig(slices=4)


def test_a_folder_of_other_weights_needs_no_candidate_net(tmp_path: Path) -> None:
    for name in ("ich_scnet", "dtvit", "volume_net"):
        (tmp_path / f"{name}.safetensors").symlink_to(weights_path(name))
    models = Models.load(tmp_path, "cpu")
    assert models.candidate_net.weights.path == weights_path("candidate_net")
    assert [info.network for info in models.infos()] == [
        "ich_scnet",
        "dtvit",
        "volume_net",
        "candidate_net",
        "margin_net",
    ]


def test_the_shipped_net_tells_a_clot_from_the_falx_and_from_blood_along_the_skull() -> None:
    weights = load_weights(weights_path("candidate_net"), "candidate_net")
    judge = CandidatePredictor(CandidateNet(CandidateNetConfig(**weights.config)), weights, torch.device("cpu"))
    z, y, x = np.ogrid[-2:3, -64:64, -64:64]

    def crop(inside: np.ndarray, hu: float, center_x: float) -> CandidateCrop:
        """In a round head of 54 mm with its center at x."""
        radius = np.hypot(y, x - center_x) * np.ones((5, 1, 1))
        tissue = np.select([radius < 60, radius < 68, radius < 74], [32.0, 1000.0, 20.0], -1000.0)
        inside = inside & (radius < 60)
        tissue = np.where(inside, hu, tissue) + np.random.default_rng(0).normal(0, 3, inside.shape)
        return CandidateCrop(tissue.astype(np.float32), inside, 0.0)

    clot = crop(np.hypot(np.hypot(y, x) / 12, z / 1.6) < 1, 64, 0)
    lens = crop((np.hypot(y, x + 54) > 52) & (np.abs(y) < 28) & (x < 20) & (np.abs(z) < 3), 66, -54)
    falx = crop((np.abs(x) < 2) & (np.abs(y) < 40) & (np.abs(z) < 3), 52, 0)
    answers = judge.predict([clot, lens, falx])
    assert answers[0] > 1 and (answers[1:] < -1).all()
