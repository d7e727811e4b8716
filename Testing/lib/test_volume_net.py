"""Volume net: shapes, gradients, physics of the sum, comparators, and what its configuration refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ICHAnalysisLib.config.base import from_dict, to_dict
from ICHAnalysisLib.config.volume_net import PREPROCESS, PRESETS, VolumeNetConfig, cell_volume_ml
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.networks.volume_net import BasicBlock, build_volume_net

TINY = PRESETS["tiny"]
AVERAGE = replace(TINY, volume_pool="average", aux_density=False, outcome_from_size=False)


@pytest.mark.parametrize(
    ("cfg", "keys"),
    [
        (TINY, {"size_mm", "outcome_logits", "density_logits"}),
        (AVERAGE, {"size_mm", "outcome_logits"}),
        (replace(AVERAGE, norm="batch"), {"size_mm", "outcome_logits"}),
        (replace(AVERAGE, classification=False), {"size_mm"}),
        (replace(AVERAGE, regression=False), {"outcome_logits"}),
    ],
)
def test_shapes_and_a_gradient_for_every_parameter(cfg: VolumeNetConfig, keys: set[str]) -> None:
    torch.manual_seed(0)
    network = build_volume_net(cfg)
    if network.density is not None:
        torch.nn.init.zeros_(network.density.logit.bias)  # else every cell is in the dead zone
    output = network(torch.rand(2, 2, 16, 32, 32))
    assert set(output) == keys
    assert output.get("size_mm", torch.zeros(2)).shape == (2,)
    assert output.get("outcome_logits", torch.zeros(2, 2)).shape == (2, 2)
    assert output.get("density_logits", torch.zeros(2, 8, 8, 8)).shape == (2, 8, 8, 8)
    sum(value.square().sum() for value in output.values()).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_the_shortcut_carries_gradient() -> None:
    block = BasicBlock(4, 8, 2, "batch").double()
    block.eval()
    x = torch.randn(1, 4, 4, 4, 4, dtype=torch.double, requires_grad=True)
    with torch.no_grad():
        for convolution in (block.conv1, block.conv2):
            convolution.weight.zero_()
    block(x).sum().backward()
    assert float(x.grad.abs().sum()) > 0
    assert torch.autograd.gradcheck(block, (torch.randn(1, 4, 2, 2, 2, dtype=torch.double, requires_grad=True),))


def test_paper_preset_is_the_3d_resnet34() -> None:
    with torch.device("meta"):
        network = build_volume_net(PRESETS["paper"])
        output = network(torch.empty(1, 1, 32, 224, 224))
    assert (
        sum(p.numel() for n, p in network.named_parameters() if "head" not in n) == 63_469_632
    )  # MONAI: 63,470,528 with biases in its shortcuts (896)
    assert [len(getattr(network, f"layer{n}")) for n in (1, 2, 3, 4)] == [3, 4, 6, 3]
    assert output["size_mm"].shape == (1,)
    maps = []
    with torch.device("meta"):
        network.layer4.register_forward_hook(lambda *args: maps.append(args[2].shape))
        network(torch.empty(1, 1, 32, 224, 224))
    assert maps == [(1, 512, 2, 7, 7)]  # decision R13: depth 32 to 2


def test_blood_fractions_add_up_to_the_volume() -> None:
    network = build_volume_net(TINY).eval()
    logits = torch.full((1, 8, 8, 8), -9.0)
    logits[0, :2, :2, :2] = 9.0
    size = network._size(torch.zeros(1), {"density_logits": logits})
    expected_mm3 = 8 * TINY.cell_volume_ml * 1000
    assert float(size) ** 3 == pytest.approx(expected_mm3, rel=0.01)
    moved = torch.roll(logits, (3, 2, 5), dims=(1, 2, 3))
    assert torch.equal(network._size(torch.zeros(1), {"density_logits": moved}), size)
    nothing = network._size(torch.zeros(1), {"density_logits": torch.full((1, 8, 8, 8), -4.0)})
    assert float(nothing) ** 3 / 1000 == pytest.approx(0.02, abs=1e-3)  # thousands of empty cells give 0.02 mL


def test_cells_of_the_compact_input() -> None:
    assert cell_volume_ml(PREPROCESS["compact"]) == pytest.approx(2 * 5 * (4 * 1.8) ** 2 / 1000)
    assert PRESETS["compact"].cell_volume_ml == cell_volume_ml(PREPROCESS["compact"])
    count = sum(parameter.numel() for parameter in build_volume_net(PRESETS["compact"]).parameters())
    assert count < 4e6  # 8 MB of the 24 MB that all weights together may take


def test_standardized_head_speaks_mm() -> None:
    network = build_volume_net(AVERAGE).eval()
    network.target_mean.fill_(25.0)
    network.target_sd.fill_(10.0)
    with torch.no_grad():
        network.size_head.weight.zero_()
        network.size_head.bias.fill_(0.5)
        assert float(network(torch.rand(1, 2, 16, 32, 32))["size_mm"]) == pytest.approx(30.0)


def test_a_relu_before_the_softmax_is_an_option_only() -> None:
    """Decision R8: printed so in the paper, it makes both classes equal where both logits are negative."""
    torch.manual_seed(0)
    network = build_volume_net(AVERAGE).eval()
    printed = build_volume_net(replace(AVERAGE, outcome_relu=True)).eval()
    with torch.no_grad():
        network.outcome_head.bias.copy_(torch.tensor([-3.0, -5.0]))
        printed.load_state_dict(network.state_dict())
        scan = torch.rand(1, 2, 16, 32, 32)
        logits = network(scan)["outcome_logits"]
        assert (logits < 0).all()
        assert printed(scan)["outcome_logits"].tolist() == [[0.0, 0.0]]


def test_learned_weights_of_the_losses_are_parameters() -> None:
    network = build_volume_net(replace(AVERAGE, uncertainty_weights=True))
    assert network(torch.rand(1, 2, 16, 32, 32))["log_variances"].tolist() == [0.0, 0.0]
    assert "log_variances" not in build_volume_net(AVERAGE).state_dict()


@pytest.mark.parametrize("name", ["paper_mc3", "paper_s3d"])
def test_comparators_have_the_same_heads(name: str) -> None:
    torch.manual_seed(0)
    network = build_volume_net(PRESETS[name]).eval()
    with torch.no_grad():
        output = network(torch.rand(1, 1, 16, 64, 64))
    assert output["size_mm"].shape == (1,) and output["outcome_logits"].shape == (1, 2)
    assert torch.isfinite(output["size_mm"]).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"regression": False, "classification": False},
        {"norm": "group", "planes": (6, 8, 8, 8)},
        {"volume_pool": "sum"},
        {"backbone": "r3d_18", "aux_density": True},
        {"outcome_from_size": True, "classification": False},
        {"uncertainty_weights": True, "regression": False},
        {"backbone": "r3d_18", "outcome_relu": True},
    ],
)
def test_wrong_configurations_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        VolumeNetConfig(**wrong)


def test_every_preset_survives_json() -> None:
    for name, cfg in PRESETS.items():
        assert from_dict(VolumeNetConfig, to_dict(cfg)) == cfg
        assert len(PREPROCESS[name].windows) == cfg.in_chans
