"""The margin net: what a box holds, outlined at the pixels of the slice with the slices below and above in view.

ICH-SCNet answers on whole slices at half their resolution and sees one at a time; where a clot ends between two slices,
or has a darker part, is settled here. A box around everything asks for whatever there is to see. Legend: N pictures, C
channels, H and W rows and columns of a picture.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.config.margin_net import MarginNetConfig


class MarginNet(nn.Module):
    """Pictures and the boxes in them to the logits of intracerebral hemorrhage: a U-Net (Ronneberger et al. 2015)."""

    def __init__(self, cfg: MarginNetConfig) -> None:
        super().__init__()
        self.cfg = cfg
        first, *_ = widths = cfg.widths
        self.stem = Level(cfg.in_chans + 2, first)  # with the box and the slice's height
        self.down = nn.ModuleList(Level(fine, coarse) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(Level(fine + coarse, fine) for fine, coarse in reversed(list(pairwise(widths))))
        self.head = nn.Conv2d(first, 1, 1)

    def forward(self, image: Tensor, box: Tensor, log_height: Tensor) -> Tensor:
        """(N, C, H, W) windows in [0, 1], (N, 1, H, W) boxes 0 or 1 and (N,) ln(slice height / 5 mm) to (N, 1, H, W).

        H and W must be multiples of `cfg.step`.
        """
        height = log_height[:, None, None, None].expand_as(box)
        x = self.stem(torch.cat([2 * image - 1, 2 * box - 1, height], dim=1))
        finer = []
        for level in self.down:
            finer.append(x)
            x = level(F.max_pool2d(x, 2))
        for level in self.up:
            x = level(torch.cat([finer.pop(), F.interpolate(x, scale_factor=2.0, mode="nearest")], dim=1))
        return self.head(x).float()


class Level(nn.Module):
    """Two convolutions with batch norm and ReLU."""

    foldable = (("first", "first_norm"), ("second", "second_norm"))

    def __init__(self, inplanes: int, planes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inplanes, planes, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(planes)
        self.second = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inplanes, H, W) to (N, planes, H, W)."""
        x = F.relu(self.first_norm(self.first(x)), inplace=True)
        return F.relu(self.second_norm(self.second(x)), inplace=True)
