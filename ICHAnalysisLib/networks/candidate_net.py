"""The candidate net: whether an outlined region is hemorrhage, from the tissue in and around it.

ICH-SCNet sees one slice at a time; what runs on through the slices above and below, or lies where calcium usually
does, is told apart here. Legend: N candidates, W windows, S slices of a crop, H = width and height in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.config.candidate_net import CandidateNetConfig

#: Slices seen in the wide view.
_WIDE_SLICES = 3
#: Share of pixels that is added to a candidate's own, so that one without any is no division by zero.
_NOWHERE = 0.05


class CandidateNet(nn.Module):
    """Crops around candidates to the log-odds that each is intracerebral hemorrhage."""

    def __init__(self, cfg: CandidateNetConfig) -> None:
        super().__init__()
        self.cfg = cfg
        seen = cfg.in_chans + 1  # windows and the outline
        self.near = View(seen * cfg.slices, cfg.width)
        self.wide = View(seen * _WIDE_SLICES, cfg.width)
        self.head = nn.Sequential(
            nn.Linear(2 * self.near.features + 1, cfg.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(cfg.dropout),
            nn.Linear(cfg.hidden, 1),
        )

    def forward(self, crops: Tensor, outlines: Tensor, log_height: Tensor) -> Tensor:
        """(N, W, S, H, H) windows in [0, 1], (N, S, H, H) outlines 0 or 1 and (N,) ln(slice height / 5 mm) to (N,)."""
        planes = torch.cat([2 * crops - 1, outlines.unsqueeze(1)], dim=1)  # (N, W + 1, S, H, H)
        quarter, middle = self.cfg.size // 4, self.cfg.slices // 2
        near = planes[..., quarter:-quarter, quarter:-quarter]
        wide = planes[:, :, middle - 1 : middle + 2].flatten(1, 2)
        wide = F.avg_pool2d(F.avg_pool2d(wide, 3, 1, 1), 2)
        near_outline = outlines[..., quarter:-quarter, quarter:-quarter].amax(dim=1, keepdim=True)
        wide_outline = wide[:, -_WIDE_SLICES:].amax(dim=1, keepdim=True)
        features = [self.near(near.flatten(1, 2), near_outline), self.wide(wide, wide_outline), log_height[:, None]]
        return self.head(torch.cat(features, dim=1)).squeeze(1).float()


class View(nn.Module):
    """One view to features: inside the outline at a quarter of the resolution, and mean and highest at an eighth."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.features = (3 + 4 + 4) * width
        self.fine = nn.Sequential(
            Block(channels, width, 1),
            Block(width, 2 * width, 2),
            Block(2 * width, 2 * width, 1),
            Block(2 * width, 3 * width, 2),
            Block(3 * width, 3 * width, 1),
        )
        self.coarse = nn.Sequential(Block(3 * width, 4 * width, 2), Block(4 * width, 4 * width, 1))

    def forward(self, planes: Tensor, outline: Tensor) -> Tensor:
        """(N, channels, h, h) planes and (N, 1, h, h) outline to (N, features)."""
        fine = self.fine(planes)
        share = F.adaptive_avg_pool2d(outline, fine.shape[-1])
        inside = (fine * share).sum(dim=(2, 3)) / (share.sum(dim=(2, 3)) + _NOWHERE)
        coarse = self.coarse(fine)
        return torch.cat([inside, coarse.mean(dim=(2, 3)), coarse.amax(dim=(2, 3))], dim=1)


class Block(nn.Module):
    """Convolution, batch norm, ReLU."""

    foldable = (("conv", "norm"),)

    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inplanes, h, h) to (N, planes, h / stride, h / stride)."""
        return F.relu(self.norm(self.conv(x)), inplace=True)
