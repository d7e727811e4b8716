"""Multi-task feature fusion: group aggregation bridges and their running sum (paper 000, Fig. 1c, section II-B).

B batch; C_k channels, H_k and W_k size of scale k; C_F channels of the feature output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.networks.encoders import resize

GROUPS = 4


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of each pixel, (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def make_norm(kind: str, channels: int) -> nn.Module:
    """layer: per pixel over channels; batch; group: groups of at most 8 channels."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(1, channels // 8) if channels % 8 == 0 else 1, channels)
    return LayerNorm2d(channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    foldable = (("conv1", "norm1"), ("conv2", "norm2"))

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = make_norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(out)) + x)


class ConvBlock(nn.Module):
    """3x3 convolution of the given stride, then residual blocks: one down-sampling layer, or the stem."""

    foldable = (("conv", "norm"),)

    def __init__(self, in_channels: int, channels: int, stride: int, residual: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm = make_norm(norm, channels)
        self.relu = nn.ReLU(inplace=True)
        self.blocks = nn.Sequential(*(ResidualBlock(channels, norm) for _ in range(residual)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.relu(self.norm(self.conv(x))))


class DilatedDepthwise(nn.Conv2d):
    """Depthwise 3x3 convolution with a dilation, size kept.

    A dilation of d is the plain convolution on each of the d x d interleaved subgrids of the image, and is computed so:
    oneDNN's bfloat16 kernel for dilated depthwise convolutions crashes in the backward pass on large images.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        d = int(self.dilation[0])
        if d == 1 or x.is_cuda:
            return super().forward(x)
        b, c, height, width = x.shape
        x = F.pad(x, (0, -width % d, 0, -height % d)).permute(0, 2, 3, 1)  # (B, h d, w d, C)
        h, w = x.shape[1] // d, x.shape[2] // d
        x = x.reshape(b, h, d, w, d, c).permute(0, 2, 4, 1, 3, 5).reshape(b * d * d, h, w, c)
        x = F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, padding=1, groups=c).permute(0, 2, 3, 1)
        x = x.reshape(b, d, d, h, w, c).permute(0, 3, 1, 4, 2, 5).reshape(b, h * d, w * d, c)
        return x[:, :height, :width].permute(0, 3, 1, 2)


class GroupAggregationBridge(nn.Module):
    """Joins I^k, its valid mask and the feature from the next deeper scale (decision S21).

    Image and deeper feature are split into four channel groups; each group is concatenated with the mask, normalized
    and convolved depthwise 3x3 with its own dilation; the groups are joined by a 1x1 convolution.

    pool: the bridge works on averages over blocks of this many pixels and its result, resized, is added to I^k: a
    depthwise convolution of few channels at full size is all memory traffic on a CPU. 1 as in the paper.
    """

    foldable = (("tail_norm", "tail"),)

    def __init__(self, channels: int, deeper_channels: int, dilations: Sequence[int], norm: str, pool: int = 1) -> None:
        super().__init__()
        self.pool = pool
        self.project = nn.Conv2d(deeper_channels, channels, 1)
        width = 2 * channels // GROUPS + 1
        self.groups = nn.ModuleList(
            nn.Sequential(
                make_norm(norm, width),
                DilatedDepthwise(width, dilation),
            )
            for dilation in dilations
        )
        self.tail_norm = make_norm(norm, GROUPS * width)
        self.tail = nn.Conv2d(GROUPS * width, channels, 1)

    def forward(self, image: Tensor, mask: Tensor, deeper: Tensor) -> Tensor:
        """image and result (B, C_k, H_k, W_k), mask (B, 1, H_k, W_k) in [0, 1], deeper (B, C_k+1, any, any)."""
        if self.pool > 1:
            merged = self._merge(F.avg_pool2d(image, self.pool), F.avg_pool2d(mask, self.pool), deeper)
            return image + resize(merged, tuple(image.shape[-2:]))
        return self._merge(image, mask, deeper)

    def _merge(self, image: Tensor, mask: Tensor, deeper: Tensor) -> Tensor:
        """The bridge itself, on three inputs of which the first two share a size."""
        deeper = resize(self.project(deeper), tuple(image.shape[-2:]))
        parts = zip(self.groups, image.chunk(GROUPS, dim=1), deeper.chunk(GROUPS, dim=1))
        joined = [group(_side_by_side(high, low, mask)) for group, high, low in parts]
        return self.tail(self.tail_norm(torch.cat(joined, dim=1)))


def _side_by_side(*parts: Tensor) -> Tensor:
    """Channels of (B, C_n, H, W) parts joined, channels last in memory.

    `torch.cat` itself chooses the plain layout as soon as one part has a single channel, and the following operations
    then take three times as long.
    """
    return torch.cat([part.permute(0, 2, 3, 1) for part in parts], dim=3).permute(0, 3, 1, 2)


class MTFF(nn.Module):
    """Four bridges from the deepest scale up, a running sum of what they merge, and a mask at each stage (S22).

    Returns the feature output F (B, C_F, H, W) and, finest first, the sums (B, C_F, H_k, W_k) the masks come from.
    """

    def __init__(
        self,
        widths: Sequence[int],
        feature_channels: int,
        dilations: Sequence[int],
        refine: Sequence[int],
        norm: str,
        finest_pool: int = 1,
    ) -> None:
        super().__init__()
        deeper = [*widths[1:], widths[-1]]  # the deepest bridge has no deeper feature and takes I^3 itself (S20)
        self.bridges = nn.ModuleList(
            GroupAggregationBridge(width, below, dilations, norm, finest_pool if k == 0 else 1)
            for k, (width, below) in enumerate(zip(widths, deeper))
        )
        self.refine = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width, norm) for _ in range(count))) for width, count in zip(widths, refine)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, feature_channels, 1) for width in widths)

    def forward(self, images: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """images I^0..I^3 and masks of the same sizes."""
        merged, running = images[-1], None
        sums: list[Tensor] = []
        for k in reversed(range(len(images))):
            merged = self.refine[k](self.bridges[k](images[k], masks[k], merged))
            lateral = self.lateral[k](merged)
            running = lateral if running is None else lateral + resize(running, tuple(lateral.shape[-2:]))
            sums.insert(0, running)
        return sums[0], sums


class ConcatFusion(nn.Module):
    """The ablation of MTFF: I^k and masks at full size, concatenated, one 1x1 convolution (table II).

    A 1x1 convolution of a concatenation is the sum of 1x1 convolutions of its parts and commutes with bilinear
    resizing, so each scale is convolved first and resized after: the same map at a fraction of the cost.
    """

    def __init__(self, widths: Sequence[int], feature_channels: int, norm: str) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(width + 1, feature_channels, 1) for width in widths)
        self.norm = make_norm(norm, feature_channels)

    def forward(self, images: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """As `MTFF.forward`, with a single stage."""
        size = tuple(images[0].shape[-2:])
        maps = [part(torch.cat([image, mask], dim=1)) for part, image, mask in zip(self.parts, images, masks)]
        feature = torch.relu(self.norm(torch.stack([resize(item, size) for item in maps]).sum(dim=0)))
        return feature, [feature]
