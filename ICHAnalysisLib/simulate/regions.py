"""Where deep, lobar and subtentorial lie in head coordinates: shared by procedural heads and real backgrounds."""

from __future__ import annotations

import numpy as np

from ICHAnalysisLib.simulate.scene import DEEP, LOBAR, SUBTENTORIAL


def tentorium_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Head z (mm) of the tentorium over x, y: a ridge at the midline that falls to all sides."""
    across = np.abs(x)
    ridge = -6.0 - 0.004 * (y + 38.0) ** 2
    return ridge - 0.30 * across - 0.0022 * across**2


def below_tentorium(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """True for cerebellum, pons and medulla; the midbrain counts to the deep structures above."""
    stem = (np.abs(x) < 18) & (y > -36) & (y < 4) & (z < -24)
    behind = (z < tentorium_height(x, y)) & (y < -18.0 - 0.12 * np.abs(x))
    return stem | behind


def region_of(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """uint8 region code of head coordinates (mm), for points known to lie in the brain."""
    across = np.abs(x)
    core = ((across / 37.0) ** 2 + ((y - 0.0) / 34.0) ** 2 + ((z - 5.0) / 21.0) ** 2) < 1
    midbrain = (across < 18) & (y > -32) & (y < 4) & (z <= 0) & (z >= -24)
    low = below_tentorium(x, y, z)
    return np.where(low, SUBTENTORIAL, np.where(core | midbrain, DEEP, LOBAR)).astype(np.uint8)
