"""Grad-CAM: which places of the input drove an output. 1 is the most important place, 0 none.

Own implementation: importance is never inverted, hooks never stay, tokens are rearranged by the network itself.
Legend: B items, P channels of a layer, spatial sizes (h, w) or (d, h, w).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.errors import UsageError


def grad_cam(
    network: nn.Module,
    image: Tensor,
    target_layer: str,
    score: Callable[[dict[str, Tensor]], Tensor],
    rearrange: Callable[[Tensor], Tensor] | None = None,
    besides: tuple[Tensor, ...] = (),
) -> tuple[dict[str, Tensor], Tensor]:
    """ReLU of the sum over channels of pooled gradient times activation (paper 003, Eq. 3 and 4), not normalized.

    Returns the network's answer, without gradients, and the map behind it, float32 (B, ...) on the layer's grid, from
    one pass.

    image: (B, C, ...). target_layer: a name of `network.named_modules()`. score: from the network's output to (B,).
    rearrange: from the layer's output to (B, P, ...) maps, for layers of tokens; the gradient is pooled over all
    spatial axes (decision R20). besides: what the network takes after the image. Parameters may be frozen; the
    network's mode, gradients and hooks are left as they were. Raises UsageError for an unknown layer.
    """
    layer = dict(network.named_modules()).get(target_layer)
    if layer is None or not target_layer:
        names = ", ".join(name for name, _ in network.named_children())
        raise UsageError(f"Grad-CAM: layer {target_layer!r} does not exist in {type(network).__name__} ({names}).")
    kept: list[Tensor] = []

    def watch(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_(True)  # works with frozen parameters, and nothing before it is stored
        kept.append(leaf)
        return leaf.clone()  # an in-place ReLU behind the layer must not change what is explained

    handle = layer.register_forward_hook(watch)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            output = network(image.clone(), *besides)
            (gradient,) = torch.autograd.grad(score(output).sum(), kept[-1])
    finally:
        handle.remove()
    activation = kept[-1].detach().float()
    gradient = gradient.float()
    if rearrange is not None:
        activation, gradient = rearrange(activation), rearrange(gradient)
    spatial = tuple(range(2, activation.ndim))
    weights = gradient.mean(dim=spatial, keepdim=True)  # (B, P, 1, ...)
    return {name: value.detach() for name, value in output.items()}, (weights * activation).sum(dim=1).relu()


def normalize(cam: Tensor) -> Tensor:
    """Each item of (B, ...) divided by its maximum; all zero where nothing is positive."""
    peak = cam.flatten(1).amax(dim=1).reshape(-1, *[1] * (cam.ndim - 1))
    return torch.where(peak > 0, cam / peak.clamp_min(1e-12), torch.zeros_like(cam))


def volume_heatmap(
    network: Any, scan: Tensor, layer: str | None = None, target: str = "size", voxel_ml: Tensor | None = None
) -> np.ndarray:
    """Attention of the volume net to one scan, as `volume_answer_and_heatmap` returns it."""
    return volume_answer_and_heatmap(network, scan, layer, target, voxel_ml)[1]


def volume_answer_and_heatmap(
    network: Any, scan: Tensor, layer: str | None = None, target: str = "size", voxel_ml: Tensor | None = None
) -> tuple[dict[str, Tensor], np.ndarray]:
    """The volume net's answer to one scan and its attention, float32 (D, H, W) in [0, 1] on the input's grid.

    scan: (1, C, D, H, W). voxel_ml: (1,) for networks of stretched scans. target: "size" (regression) or "poor"
    (logit of the poor outcome). layer: by default the last maps behind the target, as in paper 003; layer3 or layer4
    may be asked for. It is model attention, not a segmentation; without anything that raises the target it is 0
    everywhere.
    """
    if target not in ("size", "poor"):
        raise UsageError(f"Grad-CAM: target {target!r} is neither 'size' nor 'poor'.")
    if not (network.cfg.regression if target == "size" else network.cfg.classification):
        raise UsageError(f"Grad-CAM: this network was built without the head for {target!r}.")
    besides = () if voxel_ml is None else (voxel_ml,)
    answer, cam = grad_cam(network, scan, layer or network.cam_layer(target), _score(target), besides=besides)
    full = F.interpolate(normalize(cam).unsqueeze(1), size=scan.shape[2:], mode="trilinear", align_corners=False)
    return answer, full[0, 0].clamp(0, 1).cpu().numpy()


def slice_heatmap(network: Any, image: Tensor) -> np.ndarray:
    """Attention of DTViT, or of a comparator, to "hemorrhage" on each slice: float32 (B, H, W) in [0, 1]."""
    _, cam = grad_cam(network, image, network.cam_layer, lambda output: output["presence_logits"], network.cam_map)
    full = F.interpolate(normalize(cam).unsqueeze(1), size=image.shape[2:], mode="bilinear", align_corners=False)
    return full[:, 0].clamp(0, 1).cpu().numpy()


def _score(target: str) -> Callable[[dict[str, Tensor]], Tensor]:
    """From the volume net's output to what is explained."""
    if target == "size":
        return lambda output: output["size_mm"]
    return lambda output: output["outcome_logits"][:, 1] - output["outcome_logits"][:, 0]
