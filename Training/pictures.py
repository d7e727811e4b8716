"""Pictures of cases for failure lists: gray slices with the reference's outline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.config.preprocess import BRAIN
from ICHAnalysisLib.preprocess import apply_window
from Training.data.cache import UNKNOWN

_RED, _BLUE = (255, 64, 64), (64, 160, 255)
_COLUMNS = 8


def montage(items: Sequence[dict[str, Any]]) -> np.ndarray | None:
    """RGB uint8 (H, W, 3) of a case's slices in the brain window: edges of labels in red, of what was found in blue.

    Items carry "hu" (H, W) or (D, H, W), else "image" (C, H, W) or (C, D, H, W) in [0, 1], whose first channel is
    shown; and "labels" and "found" (H, W) or (D, H, W) where there are some. None without either picture.
    """
    planes = [apply_window(plane, BRAIN) for plane in _planes(items, "hu")] or _first_channels(items)
    if not planes:
        return None
    tiles = [_tile(plane) for plane in planes]
    for key, color in (("found", _BLUE), ("labels", _RED)):
        for tile, mask in zip(tiles, _planes(items, key)):
            _outline(tile, (mask > 0) & (mask < UNKNOWN), color)
    columns = min(_COLUMNS, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[n : n + columns], axis=1) for n in range(0, len(tiles), columns)]
    return np.concatenate(rows, axis=0)


def _planes(items: Sequence[dict[str, Any]], key: str) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for item in items:
        if key in item:
            array = np.asarray(item[key])
            found += list(array) if array.ndim == 3 else [array]
    return found


def _first_channels(items: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    return _planes([{"image": np.asarray(item["image"])[0]} for item in items if "image" in item], "image")


def _tile(plane: np.ndarray) -> np.ndarray:
    """One slice in [0, 1] at half size, RGB uint8."""
    return np.repeat((255 * plane).astype(np.uint8)[::2, ::2, None], 3, axis=2)


def _outline(tile: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    """The edge of a mask (H, W) bool on its tile of half the size, in place; any pixel of the edge is kept."""
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    height, width = tile.shape[:2]
    padded = np.zeros((2 * height, 2 * width), dtype=bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask & ~inner
    tile[padded.reshape(height, 2, width, 2).any(axis=(1, 3))] = color


def save_rgb(path: Path, picture: np.ndarray) -> None:
    """PNG of RGB uint8 (H, W, 3), whole or not at all."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    Image.fromarray(picture).save(temporary)
    temporary.replace(path)
