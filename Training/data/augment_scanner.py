"""Randomized scanners: resolution, kernel, noise, streaks, motion, field of view, storage. Never changes a label."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from Training.data.fields import blur, coordinates, smooth_field, white_noise

#: HU ranges in which scans are stored or were windowed before they came here.
STORED_RANGES = ((-20, 100), (0, 80), (0, 120), (-40, 120), (-5, 90), (-100, 200), (-200, 300), (-1024, 300))
_PADDING_HU = (-1024.0, -1000.0, -2000.0, 0.0)


def vary(image: torch.Tensor, rng: np.random.Generator, strength: float = 1.0, zoom: float = 1.0) -> torch.Tensor:
    """All scanner changes on (N, H, W) HU, in the order of the imaging chain. zoom: pixels per 0.9 mm."""
    for probability, step in (
        (0.40, _shading),
        (0.18, _streaks),
        (0.10, _interpetrous_band),
        (0.06, _motion),
        (0.30, _resolution),
        (0.45, _kernel),
        (0.75, _noise),
        (0.15, _field_of_view),
        (0.50, _storage),
    ):
        if rng.random() < min(1.0, probability * strength):
            image = step(image, rng, zoom)
    return image


def _shading(image: torch.Tensor, rng: np.random.Generator, zoom: float) -> torch.Tensor:
    """Low-order shading (cupping, miscalibration) of a few HU, and a small offset of each slice."""
    field = smooth_field(rng, (1, *image.shape[1:]), 3) * rng.uniform(0.3, 3.0)
    offsets = torch.from_numpy(rng.normal(0, rng.uniform(0, 1.2), (image.shape[0], 1, 1)).astype(np.float32))
    return image + field + offsets


def _streaks(image: torch.Tensor, rng: np.random.Generator, zoom: float) -> torch.Tensor:
    """Streaks of one direction, strongest in a band, each slice its own."""
    y, x = coordinates(image.shape)
    for n in range(image.shape[0]):
        angle = rng.uniform(0, np.pi) if rng.random() < 0.5 else rng.normal(0, 0.2)
        across = y * np.cos(angle) - x * np.sin(angle)
        along = y * np.sin(angle) + x * np.cos(angle)
        center, width = rng.uniform(0.2, 0.9) * image.shape[1], rng.uniform(8, 60) * zoom
        course = np.convolve(rng.standard_normal(1024), np.hanning(int(rng.integers(3, 10))), mode="same")
        profile = torch.from_numpy((course / course.std()).astype(np.float32))
        index = (across * (2 / zoom) + 400).clamp(0, 1023).to(torch.int64)
        fade = torch.sigmoid(torch.cos(along * (np.pi / image.shape[2]) + rng.uniform(0, 6)) * 3)
        envelope = torch.exp(-(((across - center * np.cos(angle)) / width) ** 2)) * fade
        image[n] += profile[index] * envelope * rng.uniform(1.5, 9)
    return image


def _interpetrous_band(image: torch.Tensor, rng: np.random.Generator, zoom: float) -> torch.Tensor:
    """The dark (sometimes bright) band of beam hardening between the petrous bones."""
    y, x = coordinates(image.shape)
    height, width = image.shape[1:]
    row, half = rng.uniform(0.4, 0.7) * height, rng.uniform(3, 14) * zoom
    across = torch.exp(-(((y - row - rng.normal(0, 0.06) * (x - width / 2)) / half) ** 2))
    reach = torch.sigmoid((0.3 * width - (x - width / 2).abs()) / (8 * zoom))
    depth = rng.uniform(4, 16) if rng.random() < 0.8 else -rng.uniform(3, 9)
    return image - depth * across * reach * (image > -50)


def _motion(image: torch.Tensor, rng: np.random.Generator, zoom: float) -> torch.Tensor:
    """A ghost of the head, shifted by a few millimeters."""
    shifts = tuple(int(s) for s in np.rint(rng.normal(0, 2.5 * zoom, 2)))
    return image + rng.uniform(0.1, 0.4) * (torch.roll(image, shifts, dims=(1, 2)) - image)


def _resolution(image: torch.Tensor, rng: np.random.Generator, zoom: float) -> torch.Tensor:
    """A coarser matrix: sampled down and up again."""
    factor = rng.uniform(1.1, 2.0) * max(zoom, 0.7)
    if factor <= 1.05:
        return image
    size = [max(16, round(side / factor)) for side in image.shape[1:]]
    small = F.interpolate(image[:, None], size=size, mode="bilinear", antialias=True, align_corners=False)
    mode = "bilinear" if rng.random() < 0.8 else "nearest"
    corners = False if mode == "bilinear" else None
    return F.interpolate(small, size=image.shape[1:], mode=mode, align_corners=corners)[:, 0]


def _kernel(image: torch.Tensor, rng: np.random.Generator, zoom: float) -> torch.Tensor:
    """A smoother or a sharper reconstruction kernel."""
    if rng.random() < 0.55:
        return blur(image, rng.uniform(0.3, 1.3) * zoom)
    return image + rng.uniform(0.2, 1.4) * (image - blur(image, rng.uniform(0.6, 1.4) * max(zoom, 0.5)))


def _noise(image: torch.Tensor, rng: np.random.Generator, zoom: float) -> torch.Tensor:
    """Correlated noise of up to 7 HU, stronger in the middle of the head; sharp kernels without low frequencies."""
    noise = white_noise(rng, image.shape)
    grain = rng.uniform(0, 1.3) * zoom
    noise = blur(noise, grain)
    if grain > 0.3 and rng.random() < 0.4:
        noise = noise - blur(noise, 3 * grain)
    y, x = coordinates(image.shape)
    height, width = image.shape[1:]
    radius = ((y - height / 2) / height) ** 2 + ((x - width / 2) / width) ** 2
    profile = 1 - rng.uniform(0, 1.5) * radius
    sd = rng.uniform(0.3, 4.0) if rng.random() < 0.8 else rng.uniform(3.5, 7.0)
    return image + noise * (sd / float(noise.std())) * profile


def _field_of_view(image: torch.Tensor, rng: np.random.Generator, zoom: float) -> torch.Tensor:
    """A reconstruction circle, or a crop at one or two borders, with the padding some scanners write."""
    padding = float(rng.choice(_PADDING_HU, p=(0.6, 0.15, 0.15, 0.1)))
    y, x = coordinates(image.shape)
    height, width = image.shape[1:]
    if rng.random() < 0.5:
        center = np.array([height, width]) * (0.5 + rng.normal(0, 0.03, 2))
        radius = rng.uniform(0.40, 0.60) * width
        outside = (y - center[0]) ** 2 + (x - center[1]) ** 2 > radius**2
    else:
        cut = rng.uniform(0, 0.16, 4) * (rng.random(4) < 0.4)
        outside = (y < cut[0] * height) | (y >= (1 - cut[1]) * height)
        outside = outside | (x < cut[2] * width) | (x >= (1 - cut[3]) * width)
    return torch.where(outside[None], padding, image)


def _storage(image: torch.Tensor, rng: np.random.Generator, zoom: float) -> torch.Tensor:
    """Missing tails of the HU range, and 8-bit or coarser gray levels."""
    low, high = STORED_RANGES[int(rng.integers(len(STORED_RANGES)))]
    if rng.random() < 0.75:
        image = image.clamp(low, high)
    if rng.random() < 0.4:
        step = (high - low) / 255 if high - low < 600 else 1.0
        step = max(step, rng.uniform(0.5, 2.5) if rng.random() < 0.3 else 0.0)
        image = torch.round(image / step) * step
    return image
