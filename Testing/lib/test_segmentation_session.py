"""A session asks the towers once a slice, whatever prompts follow, and joins slices to a patient by a stated rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ICHAnalysisLib.config.base import to_dict  # noqa: E402
from ICHAnalysisLib.config.ich_scnet import ICHSCNetConfig  # noqa: E402
from ICHAnalysisLib.config.preprocess import PreprocessConfig  # noqa: E402
from ICHAnalysisLib.config.volume_net import PREPROCESS as SCANS  # noqa: E402
from ICHAnalysisLib.config.volume_net import PRESETS as SCAN_NETS  # noqa: E402
from ICHAnalysisLib.ct.volume import CTVolume  # noqa: E402
from ICHAnalysisLib.errors import WeightsError  # noqa: E402
from ICHAnalysisLib.networks.ich_scnet import build_ich_scnet  # noqa: E402
from ICHAnalysisLib.networks.volume_net import build_volume_net  # noqa: E402
from ICHAnalysisLib.predict import ICHSCNetPredictor, VolumeNetPredictor  # noqa: E402
from ICHAnalysisLib.preprocess import make_stack  # noqa: E402
from ICHAnalysisLib.prompt_projection import project_prompts  # noqa: E402
from ICHAnalysisLib.prompts import Box, Point, PromptBatch, Prompts, SlicePrompts, with_mask_prompts  # noqa: E402
from ICHAnalysisLib.segmentation_session import SegmentationSession  # noqa: E402
from ICHAnalysisLib.weights.registry import LoadedWeights  # noqa: E402
from Testing.lib.scnet_sizes import frozen, trained  # noqa: E402

PREPROCESS = PreprocessConfig(spacing_mm=2.0, size=64, remove_holder=False)
BESIDE = replace(PREPROCESS, neighbor_windows=PREPROCESS.windows[:2])  # as the small network of `trained` reads


def head() -> CTVolume:
    """Five slices of a disk of brain with a denser disk in it, RAS (0, 0) in the middle."""
    j, i = np.mgrid[:64, :64] - 31.5
    plane = np.where(np.hypot(i, j) < 28, 35.0, -1000.0)
    plane[np.hypot(i - 8, j) < 6] = 70
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    affine[:2, 3] = 63.0
    return CTVolume.from_affine(np.repeat(plane[None], 5, axis=0).astype(np.float32), affine)


def session(cfg: ICHSCNetConfig, temperature: float = 1.0, seen: PreprocessConfig | None = None) -> SegmentationSession:
    torch.manual_seed(0)
    network = build_ich_scnet(cfg)
    seen = seen or (BESIDE if cfg.neighbor_channels else PREPROCESS)
    weights = LoadedWeights("ich_scnet", to_dict(cfg), seen, network.state_dict(), card={"temperature": temperature})
    predictor = ICHSCNetPredictor(network, weights, torch.device("cpu"))
    return SegmentationSession(predictor, make_stack(head(), seen), None)


@pytest.mark.parametrize("cfg", [trained(), frozen()], ids=["compact", "base"])
def test_the_towers_see_each_slice_once(cfg: ICHSCNetConfig) -> None:
    asked, seen = session(cfg), []
    for tower in (asked.predictor.network.sam_image, asked.predictor.network.clip_image):
        tower.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    asked.predict([1, 2])
    assert sum(seen) == 2 * 2
    for prompts in (Prompts(points=(Point((-16, 0, 10)),)), Prompts(boxes=(Box((-30, -15, 4), (0, 15, 16)),))):
        asked.predict([1, 2, 3], project_prompts(prompts, asked.stack), with_outcome=True)
    assert sum(seen) == 2 * 3
    assert session(frozen(per_scale=True)).predict([1])[0].shape == (1, 64, 64)  # without a cache


def test_a_rough_mask_reaches_a_network_that_draws_no_prompts() -> None:
    """As the box and the points that SAM's own prompt encoder reads (paper 000; decisions S15 and S16)."""
    mask = np.zeros((5, 64, 64), bool)
    mask[2, 26:38, 34:46] = True
    asked = session(frozen())
    projected = project_prompts(Prompts(mask=mask), asked.stack)
    plain, _ = asked.predict([2])
    hinted, _ = asked.predict([2], projected)
    assert np.abs(hinted - plain).max() > 1e-6
    given = with_mask_prompts(projected.slices[2], np.random.default_rng(2))
    assert len(given.boxes) == 1 and given.point_labels.tolist() == [1, 1, 1, 0]
    explicit = PromptBatch.from_slices([SlicePrompts(given.boxes, given.points, given.point_labels)])
    with torch.inference_mode(), asked.predictor.autocast():
        output = asked.predictor.network(asked._image([2]), explicit)
    np.testing.assert_allclose(hinted[0], torch.sigmoid(output.segmentation[0, 0].float()).numpy(), atol=1e-5)


def test_weights_that_cannot_carry_an_analysis_are_refused() -> None:
    with pytest.raises(WeightsError, match="classify only"):
        session(trained(tasks="cla"))
    with pytest.raises(WeightsError, match="read 7 channels and their preprocessing makes 3"):
        session(trained(), seen=PREPROCESS)
    cfg = replace(
        SCAN_NETS["tiny"], classification=False, outcome_from_size=False, volume_pool="average", aux_density=False
    )
    network = build_volume_net(cfg)
    weights = LoadedWeights("volume_net", to_dict(cfg), SCANS["tiny"], network.state_dict())
    with pytest.raises(WeightsError, match="one head"):
        VolumeNetPredictor(network, weights, torch.device("cpu"))


def test_a_patient_is_the_mean_logit_weighted_by_area() -> None:
    """Decision S27, calibrated by the temperature of the card."""
    asked = session(trained(), temperature=2.0)
    asked.predict([1, 3], with_outcome=True)
    mask = np.zeros((5, 64, 64), bool)
    mask[1, :10, :3], mask[3, :10, :1] = True, True
    logits = np.array([asked._outcome[1], asked._outcome[3]])
    expected = 1 / (1 + np.exp(-(0.75 * logits[0] + 0.25 * logits[1]) / 2.0))
    assert asked.poor_probability([1, 3], mask) == pytest.approx(expected)
    assert asked.poor_probability([0, 2], mask) is None
    lone = session(trained(), temperature=2.0)
    assert lone.poor_probability([0, 1, 3], mask) == pytest.approx(expected, abs=1e-5)
