"""Domain randomization of CT slices in Hounsfield units: one draw, applied alike to every slice of a stack.

A slice network passes one slice, alone or between its neighbors (N = 1 or 3), a scan network all of them (N = D), so
that both meet the same world: other anatomy (`augment`), other tissue (`augment_tissue`), other scanners
(`augment_scanner`). Every draw comes from the numpy Generator that is passed in; nothing else is random. Legend: N
slices, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from Training.data import augment_clot, augment_scanner, augment_tissue
from Training.data.cache import EDEMA, ICH, IVH, UNKNOWN

AIR_HU = -1024.0
_CLASSES = (ICH, IVH, EDEMA, UNKNOWN)


@dataclass(frozen=True)
class AugmentConfig:
    """How strongly slices are varied. `strength` scales every probability; 0 gives the slice back unchanged."""

    strength: float = 1.0
    rotation_sd: float = 9.0  # degrees; clipped at `rotation_max`
    rotation_max: float = 30.0
    scale: tuple[float, float] = (0.85, 1.2)
    aspect: float = 0.06  # the two axes differ by at most this fraction
    shift: float = 0.06  # of the image's width
    elastic_px: float = 5.0  # largest sd of the smooth displacement, in pixels of a 256 image
    flip: float = 0.5
    geometry: float = 0.9  # probability of any rotation, scale, shift or warp
    tissue: float = 1.0  # scales the probabilities of `augment_tissue`
    scanner: float = 1.0  # scales the probabilities of `augment_scanner`
    new_clot: float = 0.35  # of the slices of scans without hemorrhage get one drawn in
    new_patient: float = 0.0  # probability that a simulated hemorrhage gets another record and outcome at a visit
    sharpness: float = 0.0  # probability that a slice is sharpened after the windows (`sharpen`); paper 002: 0.5


def augment(
    hu: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    cfg: AugmentConfig,
    pixel_mm: float = 0.9,
    bled_into: int | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Vary one stack. hu (N, H, W) HU, labels uint8 (N, H, W) with 255 unknown, H and W multiples of 4.

    Returns float32 HU, uint8 labels, and the factor by which the clot's area, and so its volume, grew.
    pixel_mm: pixel size, so that noise grains and inserted structures keep their size in mm on coarser grids.
    bled_into: the slice that a clot may be drawn into, with its neighbors; only of a scan that is known to hold none.
    """
    image = torch.from_numpy(np.array(hu, dtype=np.float32))
    masks = _soft_masks(labels)
    image, masks, growth, angle = _geometry(image, masks, rng, cfg)
    target = _hard_labels(masks, image.shape)
    scene = augment_tissue.Scene(image, target, rng, cfg.strength * cfg.tissue, 0.9 / pixel_mm, angle)
    if bled_into is not None and scene.happens(cfg.new_clot):
        augment_clot.insert_clot(scene, bled_into)
    image = augment_tissue.vary(scene)
    image = augment_scanner.vary(image, rng, cfg.strength * cfg.scanner, 0.9 / pixel_mm)
    return image.numpy(), target.numpy(), growth


def sharpen(channels: np.ndarray, factor: float = 2.0) -> np.ndarray:
    """Sharpness of (C, H, W) channels in [0, 1] by `factor`, as torchvision's `adjust_sharpness` (paper 002, 3.1)."""
    from torchvision.transforms.functional import adjust_sharpness

    return adjust_sharpness(torch.from_numpy(np.ascontiguousarray(channels)), factor).numpy()


def _soft_masks(labels: np.ndarray) -> dict[int, torch.Tensor]:
    """Float masks (N, H, W) of the labels that occur."""
    present = np.bincount(np.asarray(labels).ravel(), minlength=256)
    return {c: torch.from_numpy((labels == c).astype(np.float32)) for c in _CLASSES if present[c]}


def _hard_labels(masks: dict[int, torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """uint8 (N, H, W): the class that covers at least half a pixel."""
    labels = torch.zeros(shape, dtype=torch.uint8)
    for value, mask in masks.items():
        labels[mask >= 0.5] = value
    return labels


def _geometry(
    image: torch.Tensor, masks: dict[int, torch.Tensor], rng: np.random.Generator, cfg: AugmentConfig
) -> tuple[torch.Tensor, dict[int, torch.Tensor], float, float]:
    """Rotation, scale, shift, flip and elastic warp. Returns image, masks, growth of areas, rotation in degrees."""
    if rng.random() < cfg.flip * min(1.0, cfg.strength):
        image = image.flip(-1)
        masks = {value: mask.flip(-1) for value, mask in masks.items()}
    if rng.random() >= cfg.geometry * min(1.0, cfg.strength):
        return image, masks, 1.0, 0.0
    grid, growth, angle = _sampling_grid(image.shape, rng, cfg)
    n = image.shape[0]
    channels = torch.stack([image - AIR_HU, *masks.values()]).reshape(1, -1, *image.shape[1:])  # (1, (1 + M) N, H, W)
    sampled = F.grid_sample(channels, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    planes = sampled.reshape(-1, n, *image.shape[1:])
    warped = dict(zip(masks, planes[1:], strict=True))
    before = float(masks[ICH].sum()) if ICH in masks else 0.0
    if before >= 20:  # the warp's own factor where the clot is large enough to measure it
        growth = float(warped[ICH].sum()) / before
    return planes[0] + AIR_HU, warped, growth, angle


def _sampling_grid(
    shape: torch.Size, rng: np.random.Generator, cfg: AugmentConfig
) -> tuple[torch.Tensor, float, float]:
    """grid_sample's grid (1, H, W, 2), the growth of areas, and the rotation in degrees."""
    height, width = shape[-2:]
    angle = float(np.clip(rng.normal(0, cfg.rotation_sd), -cfg.rotation_max, cfg.rotation_max))
    scale = float(np.exp(rng.uniform(*np.log(cfg.scale))))
    aspect = float(np.exp(rng.uniform(-cfg.aspect, cfg.aspect) / 2))
    sx, sy = scale * aspect, scale / aspect
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    shift = rng.uniform(-cfg.shift, cfg.shift, 2) * 2
    # Drawn on a coarse grid and enlarged linearly, which is exact for the affine part and a quarter of the time.
    coarse = (max(8, height // 4), max(8, width // 4))
    y, x = torch.linspace(-1, 1, coarse[0])[:, None], torch.linspace(-1, 1, coarse[1])[None]
    grid = torch.stack([(cos * x + sin * y) / sx + shift[0], (cos * y - sin * x) / sy + shift[1]])[None]
    if rng.random() < 0.7:
        cells = int(rng.integers(4, 8))
        amplitude = cfg.elastic_px * rng.uniform(0.1, 1.0) * (5.0 / cells)
        knots = torch.from_numpy(rng.normal(0, 2 * amplitude / 256, (1, 2, cells, cells)).astype(np.float32))
        grid = grid + F.interpolate(knots, size=coarse, mode="bicubic", align_corners=True)
    grid = F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    return grid, sx * sy, angle
