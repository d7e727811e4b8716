"""Batch norms folded into convolutions: the same answers, whatever the norms have learned."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ICHAnalysisLib.config.ich_scnet import ICHSCNetConfig
from ICHAnalysisLib.config.volume_net import PRESETS as VOLUME
from ICHAnalysisLib.networks.folding import fold_batch_norms
from ICHAnalysisLib.networks.ich_scnet import build_ich_scnet
from ICHAnalysisLib.networks.mtff import GroupAggregationBridge, ResidualBlock
from ICHAnalysisLib.networks.volume_net import build_volume_net
from ICHAnalysisLib.prompts import PromptBatch
from Testing.lib.scnet_sizes import frozen, trained

_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def taught(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, its batch norms with factors, summands and statistics of their own."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, _NORMS):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3.0)
    return network.eval()


def norms(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, _NORMS)]


@torch.no_grad()
@pytest.mark.parametrize("block", [ResidualBlock(6, "batch"), GroupAggregationBridge(8, 4, (1, 3, 5, 7), "batch")])
def test_blocks_answer_the_same(block: nn.Module) -> None:
    block = taught(block)
    inputs = [torch.randn(2, 6, 9, 11)]
    if isinstance(block, GroupAggregationBridge):
        inputs = [torch.randn(2, 8, 12, 12), torch.rand(2, 1, 12, 12), torch.randn(2, 4, 6, 6)]
    before = block(*inputs)
    fold_batch_norms(block)
    assert torch.allclose(block(*inputs), before, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("cfg", [trained(), frozen()], ids=["batch norms", "layer norms"])
def test_ich_scnet_answers_the_same(cfg: ICHSCNetConfig) -> None:
    """What stays are the norms before a padded convolution, and those of torchvision's DenseNet."""
    network = taught(build_ich_scnet(cfg))
    image, prompts = torch.rand(2, cfg.image_channels, 64, 64), PromptBatch.empty(2)
    before, had = network(image, prompts), norms(network)
    fold_batch_norms(network)
    after, left = network(image, prompts), norms(network)
    assert torch.allclose(after.segmentation, before.segmentation, atol=2e-4)
    assert torch.allclose(after.outcome, before.outcome, atol=2e-4)
    assert all(".groups." in name or name.startswith("classifier.") for name in left)
    assert (len(left) < len(had)) == (cfg.norm == "batch")


@torch.no_grad()
def test_volume_net_keeps_its_answer_and_the_names_of_its_layers() -> None:
    network = taught(build_volume_net(VOLUME["tiny"]))
    scan = torch.rand(1, 2, 16, 32, 32)
    before = network(scan)
    fold_batch_norms(network)
    after = network(scan)
    assert all(torch.allclose(after[name], before[name], rtol=1e-3, atol=1e-3) for name in before)
    assert not norms(network)
    assert network.cam_layer("size") in dict(network.named_modules())


def test_training_and_padded_convolutions_are_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        fold_batch_norms(ResidualBlock(4, "batch"))
    padded = nn.Module()
    padded.norm, padded.conv, padded.foldable = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), (("norm", "conv"),)
    with pytest.raises(ValueError, match="1x1"):
        fold_batch_norms(padded.eval())
