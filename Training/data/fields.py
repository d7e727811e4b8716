"""Smooth random fields, blurs and ramps on (N, H, W) tensors: the brushes of the augmentation."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], cells: float) -> torch.Tensor:
    """(N, H, W) field of about unit variance with `cells` independent knots across the width, each slice its own."""
    n, height, width = shape
    across = max(2, round(cells))
    down = max(2, round(cells * height / width))
    knots = torch.from_numpy(rng.standard_normal((n, 1, down, across), dtype=np.float32))
    # Interpolating between independent knots halves the variance about; the factor restores it.
    return 1.4 * F.interpolate(knots, size=(height, width), mode="bilinear", align_corners=True)[:, 0]


def white_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    """(N, H, W) independent unit normals."""
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))


def blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (N, H, W) in plane, sigma in pixels, edges replicated; below 0.2 pixels nothing changes."""
    if sigma < 0.2:
        return image
    radius = max(1, round(2.5 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (weights / weights.sum()).tolist()
    padded = F.pad(image[:, None], (radius,) * 4, mode="replicate")[:, 0]
    return _along(_along(padded, kernel, 1), kernel, 2)


def _along(padded: torch.Tensor, kernel: list[float], dim: int) -> torch.Tensor:
    """Weighted sum of shifted copies: several times faster than conv2d, which is made for many channels."""
    length = padded.shape[dim] - len(kernel) + 1
    result = padded.narrow(dim, 0, length) * kernel[0]
    for n, weight in enumerate(kernel[1:], start=1):
        result.add_(padded.narrow(dim, n, length), alpha=weight)
    return result


def enlarge(coarse: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """(N, h, w) coarse values, smoothly at (N, H, W)."""
    tensor = torch.from_numpy(np.ascontiguousarray(coarse, dtype=np.float32))[:, None]
    return F.interpolate(tensor, size=tuple(shape[-2:]), mode="bilinear", align_corners=False)[:, 0]


def coordinates(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column index of each pixel, (H, 1) and (1, W)."""
    return torch.arange(shape[-2], dtype=torch.float32)[:, None], torch.arange(shape[-1], dtype=torch.float32)[None]


def ellipse(
    shape: tuple[int, ...], center: tuple[float, float], radii: tuple[float, float], angle: float, edge: float = 0.7
) -> torch.Tensor:
    """(H, W) soft ellipse in [0, 1]; center (row, column), radii and edge in pixels, angle in radians."""
    y, x = coordinates(shape)
    dy, dx = y - center[0], x - center[1]
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / radii[0]
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / radii[1]
    return torch.sigmoid((1.0 - torch.sqrt(u * u + v * v)) * (min(radii) / edge))


def strip(shape: tuple[int, ...], start: np.ndarray, end: np.ndarray, width: float, bend: float = 0.0) -> torch.Tensor:
    """(H, W) soft bar in [0, 1] from start to end (row, column); `bend` is the sagitta in pixels."""
    y, x = coordinates(shape)
    along = end - start
    length = max(float(np.linalg.norm(along)), 1.0)
    ty, tx = along / length
    t = (y - start[0]) * ty + (x - start[1]) * tx
    across = (x - start[1]) * ty - (y - start[0]) * tx
    fraction = t / length
    across = across - bend * 4 * fraction * (1 - fraction)
    inside = torch.sigmoid(torch.minimum(t, length - t) / 1.5)
    return torch.sigmoid((width / 2 - across.abs()) / 0.45) * inside
