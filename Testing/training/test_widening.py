"""A widened network answers as the narrow one, and all of it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ICHAnalysisLib.config.volume_net import PREPROCESS, PRESETS, VolumeNetConfig
from ICHAnalysisLib.errors import WeightsError
from ICHAnalysisLib.networks.volume_net import build_volume_net
from ICHAnalysisLib.weights.registry import LoadedWeights, load_state
from Training.config import config_from_dict
from Training.tasks.volume_net import VolumeNetTask
from Training.widening import widened

NARROW = replace(PRESETS["tiny"], planes=(8, 8, 12, 16))
PLANES = [8, 16, 16, 24]


def task() -> VolumeNetTask:
    network = {"planes": PLANES}
    return VolumeNetTask(config_from_dict({"task": {"name": "volume_net", "preset": "tiny", "network": network}}))


def narrow_network() -> torch.nn.Module:
    torch.manual_seed(1)
    network = build_volume_net(NARROW)
    for parameter in network.parameters():  # nothing may be 0 or 1 by its initialization
        torch.nn.init.normal_(parameter, std=0.2)
    network.target_mean.fill_(20.0)
    return network


def test_the_wide_network_answers_as_the_narrow_one_and_learns() -> None:
    narrow, wide = narrow_network(), task().build_model()
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    state = task().initial_state(wide, narrow.state_dict())
    wide.load_state_dict(state)
    scan = torch.rand(2, 2, 16, 32, 32, generator=torch.Generator().manual_seed(2))
    told, asked = narrow(scan), wide(scan)
    assert float(told["size_mm"].detach().std()) > 1e-3
    for name, value in told.items():
        torch.testing.assert_close(asked[name], value, rtol=1e-4, atol=1e-4)
    new = wide.layer2[0].conv1.weight  # (16, 8, ...) of (8, 8, ...): the further outputs are as they were initialized
    assert torch.equal(new[8:], before["layer2.0.conv1.weight"][8:])
    assert not wide.layer2[0].conv2.weight[:8, 8:].any() and wide.layer2[0].conv2.weight[8:, :8].any()
    optimizer = torch.optim.SGD(wide.parameters(), 1e-3)
    for _ in range(2):  # what nobody reads yet gets its gradient once the first step made somebody read it
        optimizer.zero_grad()
        sum(value.square().mean() for value in wide(scan).values()).backward()
        optimizer.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in wide.parameters())


def test_the_inputs_behind_the_channels_stay_behind() -> None:
    narrow, wide = torch.arange(6.0).reshape(2, 3, 1, 1, 1), torch.full((2, 6, 1, 1, 1), 9.0)
    found = widened({"w": narrow}, {"w": wide}, {"w": [0, 1, 5]})["w"]
    assert found.flatten(1).tolist() == [[0, 1, 0, 0, 0, 2], [3, 4, 0, 0, 0, 5]]


@pytest.mark.parametrize("cfg", [replace(NARROW, blocks=(1, 2, 1, 1)), replace(NARROW, planes=(16, 16, 16, 16))])
def test_what_cannot_be_widened_is_refused(cfg: VolumeNetConfig) -> None:
    wide = task().build_model()
    state = task().initial_state(wide, build_volume_net(cfg).state_dict())
    with pytest.raises(WeightsError):
        load_state(wide, LoadedWeights("volume_net", {}, PREPROCESS["tiny"], state))
