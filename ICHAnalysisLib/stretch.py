"""A scan stretched to a fixed size, as paper 003 does (decision R2): the head's box, whatever its size in mm.

A stretched scan cannot tell its volume, so the volume of one voxel goes with it. Arrays are (S, H, W) of a stack and
(D, h, w) of the network; linear interpolation along every axis, slices at their true positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ICHAnalysisLib.config.preprocess import PreprocessConfig
from ICHAnalysisLib.holder import HEAD_THRESHOLD_HU


@dataclass(frozen=True, eq=False)
class Stretch:
    """The weights (D, S), (h, H), (w, W) of the three axes, and the volume of a stretched voxel in mL."""

    along: np.ndarray
    down: np.ndarray
    across: np.ndarray
    voxel_ml: float

    @classmethod
    def of(
        cls, hu: np.ndarray, positions_mm: np.ndarray, heights_mm: np.ndarray, spacing_mm: float, cfg: PreprocessConfig
    ) -> Stretch:
        """The box of what is denser than -300 HU in a stack (S, H, W), from its lowest to its highest slice edge.

        positions_mm, heights_mm: (S,) along the normal, ascending. Slices above and below the box's in-plane content
        are kept: the scan's whole height is stretched. A stack of air keeps all of its plane.
        """
        if cfg.depth is None:
            raise ValueError("A stretched scan needs a preprocessing with a depth.")
        head = np.any(np.asarray(hu) > HEAD_THRESHOLD_HU, axis=0)
        rows, columns = (
            np.flatnonzero(head.any(axis=axis)) if head.any() else np.arange(head.shape[1 - axis]) for axis in (1, 0)
        )
        low = float(positions_mm[0] - heights_mm[0] / 2)
        high = float(positions_mm[-1] + heights_mm[-1] / 2)
        targets = low + (np.arange(cfg.depth) + 0.5) * (high - low) / cfg.depth
        slices = np.interp(targets, positions_mm, np.arange(len(positions_mm)))
        height_mm, width_mm = (float(box[-1] + 1 - box[0]) * spacing_mm for box in (rows, columns))
        voxel_mm3 = (high - low) / cfg.depth * height_mm / cfg.size * width_mm / cfg.size
        return cls(
            _weights(slices, len(positions_mm)),
            _box_weights(rows, cfg.size, head.shape[0]),
            _box_weights(columns, cfg.size, head.shape[1]),
            voxel_mm3 / 1000.0,
        )

    def apply(self, values: np.ndarray) -> np.ndarray:
        """(S, H, W) HU or a mask to float32 (D, h, w); of a mask the share of each voxel."""
        planes = np.tensordot(self.along, np.asarray(values, dtype=np.float32), axes=1)
        return np.einsum("hH,dHW,wW->dhw", self.down, planes, self.across, optimize=True).astype(np.float32)

    def back(self, values: np.ndarray) -> np.ndarray:
        """(D, h, w) such as a heatmap to float32 (S, H, W): means of the voxels that a place fed; 0 outside the box."""
        along, down, across = (
            np.divide(w, w.sum(axis=0), out=np.zeros_like(w), where=w.sum(axis=0) > 0)
            for w in (self.along, self.down, self.across)
        )
        planes = np.tensordot(along.T, np.asarray(values, dtype=np.float32), axes=1)
        return np.einsum("hH,shw,wW->sHW", down, planes, across, optimize=True).astype(np.float32)


def _box_weights(box: np.ndarray, size: int, count: int) -> np.ndarray:
    """(size, count) weights of `size` pixels over the pixels from the first to the last of `box`."""
    first, length = float(box[0]), float(box[-1] + 1 - box[0])
    return _weights(first + (np.arange(size) + 0.5) * length / size - 0.5, count)


def _weights(targets: np.ndarray, count: int) -> np.ndarray:
    """(N, count) weights of linear interpolation at fractional indices, held at the ends."""
    low = np.clip(np.floor(targets).astype(int), 0, max(count - 2, 0))
    share = np.clip(targets - low, 0.0, 1.0).astype(np.float32)
    weights = np.zeros((len(targets), count), dtype=np.float32)
    weights[np.arange(len(targets)), low] = 1 - share
    if count > 1:
        weights[np.arange(len(targets)), low + 1] += share
    return weights
