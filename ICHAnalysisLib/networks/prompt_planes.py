"""Prompts drawn as image channels, for networks whose prompt encoder is too young to carry them to full resolution."""

from __future__ import annotations

import torch
from torch import Tensor

from ICHAnalysisLib.prompts import PromptBatch

#: Channels that `prompt_planes` returns: boxes, positive points, negative points, prior mask.
PLANES = 4
POINT_SIGMA_PX = 3.0


def prompt_planes(prompts: PromptBatch, image: Tensor) -> Tensor:
    """The prompts of `image` (B, C, H, W) as (B, 4, H, W) of its type.

    Boxes: 1 inside any box, -1 outside where the image has a box, 0 everywhere where it has none, so that every
    pixel knows whether boxes restrict it. Points: Gaussian spots of 3 pixels. Prior mask as it is. A missing kind is
    a channel of zeros.
    """
    boxes, box_valid, points, mask = prompts.boxes, prompts.box_valid, prompts.points, prompts.mask
    height, width = image.shape[-2:]
    y = torch.arange(height, device=boxes.device, dtype=torch.float32)
    x = torch.arange(width, device=boxes.device, dtype=torch.float32)
    valid = box_valid.float().unsqueeze(-1)  # (B, Nb, 1)
    rows = ((y >= boxes[..., 1:2]) & (y <= boxes[..., 3:4])).float() * valid  # (B, Nb, H)
    columns = ((x >= boxes[..., 0:1]) & (x <= boxes[..., 2:3])).float()  # (B, Nb, W)
    inside = torch.einsum("bnh,bnw->bhw", rows, columns).clamp(max=1.0)
    any_box = box_valid.any(dim=1).float()[:, None, None]
    near_y = _bell(y - points[..., 1:2])  # (B, Np, H)
    near_x = _bell(x - points[..., 0:1])
    spots = [
        torch.einsum("bnh,bnw->bhw", near_y * (prompts.point_labels == label).unsqueeze(-1), near_x).clamp(max=1.0)
        for label in (1, 0)
    ]
    prior = torch.zeros_like(inside) if mask is None else mask[:, 0].float()
    return torch.stack([2 * inside - any_box, *spots, prior], dim=1).to(image.dtype)


def _bell(distance: Tensor) -> Tensor:
    """Gaussian of a distance in pixels, 1 at 0."""
    return torch.exp(-0.5 * (distance / POINT_SIGMA_PX) ** 2)
