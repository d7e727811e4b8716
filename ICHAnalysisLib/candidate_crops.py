"""Crops around candidates: what the candidate net sees of the stack. S slices, H rows, W columns of the stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.config.candidate_net import CandidateNetConfig
from ICHAnalysisLib.config.preprocess import HUWindow
from ICHAnalysisLib.preprocess import AIR_HU, SliceStack, log_heights, windows_to_channels


@dataclass(frozen=True, eq=False)
class CandidateCrop:
    """hu: float32 (slices, size, size) HU, air beyond the stack; outline: bool, the same shape; log_height: of its
    largest slice, ln(mm / 5)."""

    hu: np.ndarray
    outline: np.ndarray
    log_height: float


def cut_crop(
    stack: SliceStack,
    components: np.ndarray,
    label: int,
    box: tuple[slice, ...],
    cfg: CandidateNetConfig,
    pixel_mm: float,
) -> CandidateCrop:
    """The crop around candidate `label`, which fills a part of `box` of `components` (S, H, W) on the stack.

    Its middle slice is the one that holds most of the candidate, its middle pixel that slice's center of mass. A stack
    of other pixels than `pixel_mm` is resampled.
    """
    inside = components[box] == label
    largest = int(inside.sum(axis=(1, 2)).argmax())
    ys, xs = np.nonzero(inside[largest])
    center = (
        box[0].start + largest,
        box[1].start + round(float(ys.mean())),
        box[2].start + round(float(xs.mean())),
    )
    # Even sides, so that the center keeps its place in a resampled crop.
    sides = (cfg.slices, *(2 * max(round(cfg.size * pixel_mm / step / 2), 1) for step in stack.spacing_mm[::-1]))
    tissue = _window(stack.hu, center, sides, AIR_HU).astype(np.float32)
    outline = _window(components, center, sides, 0) == label
    if tissue.shape[1:] != (cfg.size, cfg.size):
        factors = (1.0, cfg.size / sides[1], cfg.size / sides[2])
        tissue = ndimage.zoom(tissue, factors, order=1, grid_mode=True, mode="nearest")
        outline = ndimage.zoom(outline.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest") >= 0.5
    return CandidateCrop(tissue, outline, float(log_heights(stack.heights_mm, [center[0]])[0]))


def candidate_arrays(
    crops: Sequence[CandidateCrop], windows: tuple[HUWindow, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the net reads, float32: windows (n, W, slices, size, size) in [0, 1], outlines without W, log heights (n,).

    n crops, W windows.
    """
    tissue = windows_to_channels(np.stack([crop.hu for crop in crops]), windows).swapaxes(1, 2)
    outlines = np.stack([crop.outline for crop in crops]).astype(np.float32)
    return np.ascontiguousarray(tissue), outlines, np.array([crop.log_height for crop in crops], np.float32)


def _window(array: np.ndarray, center: tuple[int, ...], sides: tuple[int, ...], fill: float) -> np.ndarray:
    """The box of `sides` around `center`, `fill` beyond the array; the center is at sides // 2."""
    window = np.full(sides, fill, dtype=array.dtype)
    here, there = [], []
    for place, side, size in zip(center, sides, array.shape, strict=True):
        start = place - side // 2
        low, high = max(start, 0), min(start + side, size)
        here.append(slice(low, high))
        there.append(slice(low - start, high - start))
    window[tuple(there)] = array[tuple(here)]
    return window
