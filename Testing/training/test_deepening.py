"""A margin net of wider and further levels answers as the one before, and all of it learns."""

from __future__ import annotations

import pytest
import torch

from ICHAnalysisLib.config.margin_net import PREPROCESS, MarginNetConfig
from ICHAnalysisLib.errors import WeightsError
from ICHAnalysisLib.networks.margin_net import MarginNet
from ICHAnalysisLib.weights.registry import LoadedWeights, load_state
from Training.config import config_from_dict
from Training.tasks.margin_net import MarginNetTask


def task(widths: tuple[int, ...]) -> MarginNetTask:
    network = {"widths": list(widths)}
    return MarginNetTask(config_from_dict({"task": {"name": "margin_net", "preset": "tiny", "network": network}}))


def shallow_network() -> MarginNet:
    """Weights and statistics of any size, and statistics of the bottom that are true on `asked`."""
    torch.manual_seed(3)
    network = MarginNet(MarginNetConfig(widths=(4, 8, 12), size=32))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.momentum = 1.0
        network.train()(*asked(16))
    return network.eval()


def asked(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    image = torch.rand(count, 4, 32, 32, generator=generator)
    return image, (torch.rand(count, 1, 32, 32, generator=generator) > 0.5).float(), torch.zeros(count)


@pytest.mark.parametrize(
    "widths", [(4, 8, 12), (4, 8, 20), (8, 16, 24), (4, 8, 12, 8), (6, 12, 12, 16), (6, 8, 16, 16, 8)]
)
def test_it_answers_as_the_one_before_and_learns(widths: tuple[int, ...]) -> None:
    shallow = shallow_network()
    torch.manual_seed(5)
    deep = task(widths).build_model()
    deep.load_state_dict(task(widths).initial_state(deep, shallow.state_dict()))
    told = shallow(*asked(2)).detach()
    assert float(told.std()) > 0.05
    torch.testing.assert_close(deep.eval()(*asked(2)), told, rtol=1e-3, atol=1e-3)
    deep.train()
    shallow.train()
    learning, before = deep(*asked(16)).detach(), shallow(*asked(16)).detach()
    assert float(torch.corrcoef(torch.stack([learning.flatten(), before.flatten()]))[0, 1]) > 0.95
    optimizer = torch.optim.SGD(deep.parameters(), 1e-2)
    for _ in range(3):  # what nobody reads yet gets its gradient once a step made somebody read it
        optimizer.zero_grad()
        deep(*asked(4)).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in deep.parameters())


@pytest.mark.parametrize("widths", [(4, 8), (4, 8, 8), (2, 8, 12, 16), (4, 8, 8, 16)])
def test_fewer_or_narrower_levels_are_refused(widths: tuple[int, ...]) -> None:
    deep = task(widths).build_model()
    state = task(widths).initial_state(deep, shallow_network().state_dict())
    with pytest.raises(WeightsError):
        load_state(deep, LoadedWeights("margin_net", {}, PREPROCESS["tiny"], state))
