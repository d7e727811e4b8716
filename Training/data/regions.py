"""Rough regions of a CT slice from its HU alone, on a grid four times coarser: inside the skull, bone, head.

Good enough to place augmentations and to find slices worth training on; never used for a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy import ndimage

#: Pixels of the image a coarse pixel stands for along each axis.
FACTOR = 4
BONE_HU = 200.0
HEAD_HU = -300.0
_DISK = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True, eq=False)
class Regions:
    """Coarse masks of one slice, bool (H / 4, W / 4): head, bone, and inside (enclosed by bone, without it)."""

    head: np.ndarray
    bone: np.ndarray
    inside: np.ndarray


def find_regions(hu: np.ndarray) -> Regions:
    """The regions of one slice, HU (H, W) with H and W multiples of 4.

    `inside` is empty where the bone is no closed ring, as at the skull base.
    """
    image = torch.from_numpy(np.ascontiguousarray(hu, dtype=np.float32))[None]
    bone = (F.max_pool2d(image, FACTOR)[0] > BONE_HU).numpy()
    head = _fill(F.avg_pool2d(image, FACTOR)[0].numpy() > HEAD_HU)
    closed = ndimage.binary_closing(np.pad(bone, 2), _DISK, iterations=2)[2:-2, 2:-2] | bone
    return Regions(head, bone, _fill(closed) & ~closed)


def _fill(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes filled: what the border cannot reach."""
    labels, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return labels[1:-1, 1:-1] != labels[0, 0]


def grow(coarse: np.ndarray) -> np.ndarray:
    """A coarse mask at the image's size."""
    return coarse.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1)
