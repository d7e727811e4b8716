"""Grad-CAM: high means important, hooks and gradients leave no trace, tokens become maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ICHAnalysisLib.config.dtvit import PRESETS as DTVIT
from ICHAnalysisLib.config.volume_net import PRESETS as VOLUME
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.gradcam import grad_cam, normalize, slice_heatmap, volume_answer_and_heatmap, volume_heatmap
from ICHAnalysisLib.networks.dtvit import build_dtvit
from ICHAnalysisLib.networks.volume_net import build_volume_net
from ICHAnalysisLib.predict import Models
from ICHAnalysisLib.simulate import AcquisitionSpec, CaseSpec, simulate_case
from ICHAnalysisLib.slice_attention import slice_attention


class Bright(nn.Module):
    """The sum of one channel of a fixed convolution: its CAM is known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1, bias=False)
        with torch.no_grad():
            self.conv.weight[:] = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"score": self.relu(self.conv(x))[:, 0].sum(dim=(1, 2, 3)) * 3}


def test_cam_is_the_closed_form_and_is_not_inverted() -> None:
    network = Bright()
    x = torch.zeros(1, 1, 2, 3, 3)
    x[0, 0, 1, 1, 1] = 2.0
    x[0, 0, 0, 2, 2] = 1.0
    answer, cam = grad_cam(network, x, "conv", lambda output: output["score"])
    assert float(answer["score"]) == 3 * (2.0 + 1.0)
    # gradient of channel 0 is 3 where the activation is above 0: 2 of 18 places; channel 1 has none.
    assert cam[0, 1, 1, 1] == pytest.approx(3 * 2 / 18 * 2.0)
    assert cam[0, 0, 2, 2] == pytest.approx(3 * 2 / 18 * 1.0)
    assert float(cam.sum()) == pytest.approx(3 * 2 / 18 * 3.0)
    assert float(normalize(cam).max()) == 1.0
    assert float(normalize(torch.zeros(1, 2, 2)).abs().sum()) == 0.0


def test_the_answer_comes_from_the_same_pass() -> None:
    network = build_volume_net(VOLUME["tiny"]).eval()
    scan = torch.rand(1, 2, 16, 32, 32)
    with torch.inference_mode():
        answer, heat = volume_answer_and_heatmap(network, scan)
        alone = network(scan)
    assert answer.keys() == alone.keys()
    assert all(torch.allclose(answer[name], alone[name], atol=1e-5) for name in alone)
    assert not any(value.requires_grad for value in answer.values())
    assert np.array_equal(heat, volume_heatmap(network, scan))


def test_nothing_is_left_behind() -> None:
    network = build_volume_net(VOLUME["tiny"]).eval().requires_grad_(False)
    scan = torch.rand(1, 2, 16, 32, 32)
    with torch.inference_mode():
        before = network(scan)["size_mm"]
        volume_heatmap(network, scan, "layer3")
        after = network(scan)["size_mm"]
    assert torch.equal(before, after)
    assert all(not module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())
    assert not network.training


@pytest.mark.parametrize(("layer", "target"), [(None, "size"), ("layer3", "size"), ("layer4", "poor"), (None, "poor")])
def test_volume_heatmaps_lie_on_the_scan(layer: str | None, target: str) -> None:
    torch.manual_seed(0)
    network = build_volume_net(VOLUME["tiny"]).eval()
    torch.nn.init.zeros_(network.density.logit.bias)
    heat = volume_heatmap(network, torch.rand(1, 2, 16, 32, 32), layer, target)
    assert heat.shape == (16, 32, 32)
    assert heat.min() >= 0 and heat.max() <= 1


def test_the_sum_network_looks_where_its_density_is() -> None:
    torch.manual_seed(0)
    network = build_volume_net(VOLUME["tiny"]).eval()
    with torch.no_grad():  # density = brightness of the first window, by construction
        for parameter in network.density.parameters():
            parameter.zero_()
        network.density.laterals[0].weight[0, 0] = 1.0
        network.density.predict[1].weight[0, 0, 1, 1, 1] = 1.0
        network.density.logit.weight[0, 0] = 5.0
        network.density.logit.bias.fill_(-4.0)
    scan = torch.zeros(1, 2, 16, 32, 32)
    scan[:, :, 4:8, 4:10, 20:28] = 1.0
    with torch.no_grad():
        density = network(scan)["density_logits"][0].sigmoid()
    heat = volume_heatmap(network, scan)
    expected = torch.nn.functional.interpolate(density[None, None], size=(16, 32, 32), mode="trilinear")[0, 0].numpy()
    flat_heat, flat_expected = torch.tensor(heat).flatten(), torch.tensor(expected).flatten()
    assert float(torch.corrcoef(torch.stack([flat_heat, flat_expected]))[0, 1]) > 0.7


def test_tokens_become_maps_without_the_class_token() -> None:
    network = build_dtvit(DTVIT["tiny"]).eval()
    tokens = torch.arange(17.0).reshape(1, 17, 1).expand(1, 17, 16)
    assert network.cam_map(tokens)[0, 0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]
    heat = slice_heatmap(network, torch.rand(2, 3, 64, 64))
    assert heat.shape == (2, 64, 64)
    assert heat.min() >= 0 and heat.max() <= 1


@pytest.mark.parametrize("preset", ["tiny", "class token"])
def test_every_pooling_has_a_slice_heatmap(preset: str) -> None:
    torch.manual_seed(0)
    cfg = DTVIT["tiny"] if preset == "tiny" else replace(DTVIT["tiny"], pool="cls", patch_head=False)
    network = build_dtvit(cfg).eval()
    with torch.no_grad():  # some place must speak for hemorrhage
        network.presence_decoder[-1].weight.abs_()
    heats = slice_heatmap(network, torch.rand(4, 3, 64, 64))
    assert heats.max() == pytest.approx(1.0, abs=0.2)


def test_the_shipped_weights_look_at_the_blood() -> None:
    """Where the brain's attention peaks there is blood, on the slice of a simulated head that shows most."""
    acquisition = AcquisitionSpec(
        matrix=200, spacing_mm=1.15, thickness_mm=5.0, gap_mm=0.0, uneven=False, tilt_degrees=0.0, storage="full",
        bottom_mm=-15.0, top_mm=35.0,
    )  # fmt: skip
    spec = CaseSpec(has_ich=True, location="deep", volume_ml=25.0, confounders=0.0, acquisition=acquisition)
    case = simulate_case(3, spec)
    blood = case.labels == 1
    k = int(blood.sum(axis=(1, 2)).argmax())
    heat = slice_attention(case.volume, Models.load(device="cpu").dtvit, [k])
    assert heat.shape == case.volume.shape and not heat[:k].any() and not heat[k + 1 :].any()
    assert 0 < heat[k].max() <= 1
    assert blood[k].flat[heat[k].argmax()]
    brain = (case.volume.hu[k] > 10) & (case.volume.hu[k] < 80) & ~blood[k]
    assert heat[k][blood[k]].mean() > 5 * heat[k][brain].mean()
    with pytest.raises(UsageError, match="Slices"):
        slice_attention(case.volume, Models.load(device="cpu").dtvit, [len(heat)])


def test_an_unknown_layer_or_target_raises() -> None:
    network = build_volume_net(VOLUME["tiny"])
    with pytest.raises(UsageError, match="layer9"):
        volume_heatmap(network, torch.rand(1, 2, 16, 32, 32), "layer9")
    with pytest.raises(UsageError, match="worse"):
        volume_heatmap(network, torch.rand(1, 2, 16, 32, 32), target="worse")
    plain = replace(VOLUME["tiny"], volume_pool="average", aux_density=False, outcome_from_size=False)
    for target, one_head in (("poor", {"classification": False}), ("size", {"regression": False})):
        with pytest.raises(UsageError, match=f"without the head for '{target}'"):
            volume_heatmap(build_volume_net(replace(plain, **one_head)), torch.rand(1, 2, 16, 32, 32), target=target)
