"""Stacks of slices by hand, where no scan needs to be read."""

from __future__ import annotations

import numpy as np

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.preprocess import SliceStack


def stack_of(hu: np.ndarray, spacing_mm: float, height_mm: float = 5.0) -> SliceStack:
    """(S, H, W) HU as the stack of a scan with the same square pixels and slices of one height."""
    slices = len(hu)
    return SliceStack(
        hu,
        height_mm * np.arange(slices),
        np.full(slices, height_mm),
        tuple(np.array([k]) for k in range(slices)),
        (spacing_mm, spacing_mm),
        np.zeros(2),
        np.eye(2),
        CTVolume.from_affine(hu, np.diag([-spacing_mm, -spacing_mm, height_mm, 1.0])),
        np.ones(hu.shape, bool),
    )
