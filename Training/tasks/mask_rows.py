"""Masks inside the rows of an evaluation: packed to bits, measured by scan, and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ICHAnalysisLib.overlap import hd95, pro
from Training.tasks.base import Row


def packed_masks(truth: Tensor, found: Tensor) -> list[np.ndarray]:
    """(2, pixels / 8) bits of reference and prediction of each slice (B, H, W); (2, 0) where both are empty."""
    pairs = torch.stack([truth, found], dim=1).flatten(2).cpu().numpy()  # (B, 2, H W)
    return [np.packbits(pair, axis=1) if pair.any() else np.zeros((2, 0), np.uint8) for pair in pairs]


def case_surfaces(members: Sequence[Row]) -> tuple[float, float]:
    """HD95 in mm (larger of the directions, infinite where a mask is empty) and PRO of a scan's slices in order."""
    masks = [row["ich_masks"] for row in members]
    if not any(mask.size for mask in masks):
        return float("nan"), float("nan")
    width = max(mask.shape[1] for mask in masks)
    stacked = np.stack([mask if mask.size else np.zeros((2, width), np.uint8) for mask in masks], axis=1)
    spacing = tuple(float(value) for value in members[0]["voxel_mm"])
    return _surfaces(stacked.tobytes(), len(masks), members[0]["side_px"], spacing)


@lru_cache(maxsize=1024)
def _surfaces(bits: bytes, slices: int, side: int, spacing_mm: tuple[float, ...]) -> tuple[float, float]:
    """Kept between calls: intervals by resampling ask for the same scans a thousand times."""
    pixels = np.unpackbits(np.frombuffer(bits, np.uint8).reshape(2, slices, -1), axis=2).astype(bool)
    truth, found = pixels[..., : side * side].reshape(2, slices, side, side)
    return hd95(found, truth, spacing_mm)[0], pro(found, truth)


def found_mask(row: Row) -> np.ndarray:
    """The prediction of one slice, bool (side, side)."""
    side, bits = row["side_px"], row["ich_masks"]
    if not bits.size:
        return np.zeros((side, side), dtype=bool)
    return np.unpackbits(bits[1])[: side * side].reshape(side, side).astype(bool)
