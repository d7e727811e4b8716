"""Ventricles of other sizes and shapes: one head has ventricles of one size, patients have all sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ICHAnalysisLib.simulate.anatomy import Anatomy
from ICHAnalysisLib.simulate.background import Background, Variation

#: Middle of the lateral and third ventricles, head mm (right, front, up), and how far around it tissue moves.
_MIDDLE_MM = np.array([0.0, -4.0, 14.0])
_REACH_MM = np.array([24.0, 46.0, 24.0])
#: Logarithm of the narrowest and widest size.
_LOG_SIZE = (-0.2, 0.75)
#: How much of it shows from front to back and from bottom to top; all of it from side to side.
_SHARES = np.array([1.0, 0.4, 0.6])


def with_other_ventricles(anatomy: Anatomy, rng: np.random.Generator, strength: float = 1.0) -> Anatomy:
    """The anatomy with ventricles of another size and proportion, uneven ones and higher or lower ones.

    Trigones lie nearer to the midline; in a third of the heads there is a cavity between the lateral ventricles.
    """

    def factor(log_low: float, log_high: float) -> float:
        return float(np.exp(strength * rng.uniform(log_low, log_high)))

    return replace(
        anatomy,
        ventricle_size=factor(-0.25, 0.4),
        ventricle_asymmetry=anatomy.ventricle_asymmetry + strength * float(rng.normal(0, 0.12)),
        trigone_mm=23.0 - strength * float(rng.uniform(0.0, 11.0)),
        cavum_mm=strength * float(rng.uniform(2.0, 6.0)) if rng.random() < 1 / 3 else 0.0,
        horn_size=factor(-0.3, 0.5),
        third_size=factor(-0.3, 0.8),
        fourth_size=factor(-0.4, 0.1),
        lateral_shift_mm=(strength * float(rng.uniform(-5, 5)), strength * float(rng.uniform(-5, 5))),
    )


def with_ventricles_resized(
    background: Background, variation: Variation, rng: np.random.Generator, strength: float = 1.0
) -> Variation:
    """The variation with ventricles 0.8 to 2.1 times as wide (strength 1); tissue between them and the skull gives way.

    Around the middle of the ventricles a point h of the head shows what was at middle + (h - middle) * (1 - a w(h)),
    where w falls from 1 to 0 towards the skull: smooth, and nothing folds for a below 1. The brain grows and shrinks
    by up to 4 % with its ventricles.
    """
    size = np.exp(strength * rng.uniform(*_LOG_SIZE) * _SHARES)
    inward = 1.0 - 1.0 / size
    z, y, x = variation.warp_grid.axes()
    sz, sy, sx = np.meshgrid(z, y, x, indexing="ij")
    scene = np.stack([sx, sy, sz])
    source = np.tensordot(variation.matrix, scene, axes=1) + variation.pivot[:, None, None, None] + variation.warp
    linear, offset = background.head[:, :3], background.head[:, 3]
    from_middle = np.tensordot(linear, source, axes=1) + (offset - _MIDDLE_MM)[:, None, None, None]
    weight = np.exp(-0.5 * ((from_middle / _REACH_MM[:, None, None, None]) ** 2).sum(axis=0))
    moved = -inward[:, None, None, None] * weight * from_middle
    warp = variation.warp + np.tensordot(np.linalg.inv(linear), moved, axes=1)
    return replace(
        variation, warp=warp, parameters={**variation.parameters, "ventricle_size": [float(v) for v in size]}
    )
