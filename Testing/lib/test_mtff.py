"""Group aggregation bridges and fusion: equal to what they stand for, gradients checked in numbers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from ICHAnalysisLib.networks.mtff import (  # noqa: E402
    MTFF,
    ConcatFusion,
    DilatedDepthwise,
    GroupAggregationBridge,
    _side_by_side,
)

DILATIONS = (1, 3, 5, 7)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dilation", DILATIONS)
@pytest.mark.parametrize("size", [(12, 12), (11, 17), (5, 4)])
def test_subgrids_are_the_dilated_convolution(dilation: int, size: tuple[int, int]) -> None:
    module = DilatedDepthwise(5, dilation)
    x = torch.randn(2, 5, *size)
    expected = F.conv2d(x, module.weight, module.bias, padding=dilation, dilation=dilation, groups=5)
    assert torch.allclose(module(x), expected, atol=1e-5)


def test_bfloat16_backward_of_large_dilations_is_finite() -> None:
    module = DilatedDepthwise(9, 7).to(memory_format=torch.channels_last)
    x = torch.rand(2, 9, 64, 64).to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        module(x).float().sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(module.weight.grad).all()


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_numerical_gradients_of_a_bridge(norm: str) -> None:
    module = GroupAggregationBridge(4, 4, DILATIONS, norm).double()
    image = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    deeper = torch.randn(1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (image, mask, deeper), atol=1e-6)


@pytest.mark.parametrize("pool", [1, 2])
def test_numerical_gradients_of_a_bridge_with_batch_statistics(pool: int) -> None:
    """As in `compact`, and on averages over blocks."""
    module = GroupAggregationBridge(4, 4, DILATIONS, "batch", pool).double()
    image = torch.randn(2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    deeper = torch.randn(2, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (image, mask, deeper), atol=1e-6)


@pytest.mark.parametrize("kind", ["mtff", "concat"])
def test_numerical_gradients_of_the_fusions(kind: str) -> None:
    widths = (4, 4, 4, 4)
    module = MTFF(widths, 6, DILATIONS, (0, 0, 0, 0), "layer") if kind == "mtff" else ConcatFusion(widths, 6, "layer")
    module = module.double()
    sides = (4, 2, 1, 1)
    images = [torch.randn(1, 4, side, side, dtype=torch.float64, requires_grad=True) for side in sides]
    masks = [torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True) for side in sides]
    assert torch.autograd.gradcheck(lambda *all_: tuple(module(all_[:4], all_[4:])[1]), (*images, *masks), atol=1e-6)


def test_bridge_hears_all_three_inputs() -> None:
    module = GroupAggregationBridge(8, 16, DILATIONS, "layer")
    image, mask, deeper = torch.randn(1, 8, 8, 8), torch.rand(1, 1, 8, 8), torch.randn(1, 16, 4, 4)
    out = module(image, mask, deeper)
    assert out.shape == (1, 8, 8, 8)
    for changed in ((image + torch.randn_like(image), mask, deeper), (image, mask * 0, deeper), (image, mask, -deeper)):
        assert (module(*changed) - out).abs().max() > 1e-3


def test_parts_are_joined_with_channels_last_whatever_their_layout() -> None:
    parts = [torch.randn(2, 8, 6, 5).to(memory_format=torch.channels_last), torch.rand(2, 1, 6, 5)]
    joined = _side_by_side(*parts)
    assert torch.equal(joined, torch.cat(parts, dim=1))
    assert joined.is_contiguous(memory_format=torch.channels_last)


def test_pooled_bridge_starts_from_the_image() -> None:
    module = GroupAggregationBridge(8, 8, DILATIONS, "layer", pool=2)
    nn.init.zeros_(module.tail.weight)
    nn.init.zeros_(module.tail.bias)
    image = torch.randn(1, 8, 8, 8)
    assert torch.equal(module(image, torch.rand(1, 1, 8, 8), torch.randn(1, 8, 4, 4)), image)


def test_stage_sums_add_what_each_scale_merged() -> None:
    widths = (4, 8, 8, 12)
    module = MTFF(widths, 6, DILATIONS, (0, 0, 0, 0), "layer")
    images = [torch.randn(2, width, 16 // 2**k, 16 // 2**k) for k, width in enumerate(widths)]
    masks = [torch.rand(2, 1, 16 // 2**k, 16 // 2**k) for k in range(4)]
    feature, sums = module(images, masks)
    assert feature.shape == (2, 6, 16, 16) and feature is sums[0]
    merged = module.bridges[3](images[3], masks[3], images[3])  # decision S20: the deepest takes I^3 itself
    assert torch.allclose(sums[3], module.lateral[3](merged), atol=1e-6)
    merged = module.bridges[2](images[2], masks[2], merged)
    up = F.interpolate(sums[3], size=(4, 4), mode="bilinear", align_corners=False)
    assert torch.allclose(sums[2], module.lateral[2](merged) + up, atol=1e-6)


def test_concatenation_is_one_convolution_of_everything_at_full_size() -> None:
    widths = (4, 8, 8, 12)
    module = ConcatFusion(widths, 6, "layer")
    images = [torch.randn(1, width, 16 // 2**k, 16 // 2**k) for k, width in enumerate(widths)]
    masks = [torch.rand(1, 1, 16 // 2**k, 16 // 2**k) for k in range(4)]
    everything = torch.cat(
        [
            F.interpolate(torch.cat(pair, dim=1), size=(16, 16), mode="bilinear", align_corners=False)
            for pair in zip(images, masks)
        ],
        dim=1,
    )
    weight = torch.cat([part.weight for part in module.parts], dim=1)
    bias = torch.stack([part.bias for part in module.parts]).sum(dim=0)
    expected = torch.relu(module.norm(F.conv2d(everything, weight, bias)))
    assert torch.allclose(module(images, masks)[0], expected, atol=1e-5)
