"""Memory needed by a scan, estimated from its size before anything is read (hazard 29)."""

from __future__ import annotations

import math
import os

import numpy as np

from ICHAnalysisLib.ct.sources import blocked
from ICHAnalysisLib.errors import InputBlockedError
from ICHAnalysisLib.findings import Finding, Level

MAX_VOXELS = 600_000_000
FREE_SHARE = 0.7
LARGEST_FACTOR = 8
BYTES_PER_VOXEL = 12  # the scan, one working copy and the results


def free_memory_bytes() -> float:
    """Memory that can be had without swapping; infinite where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("MemAvailable"):
                    return float(line.split()[1]) * 1024.0
    except (OSError, ValueError, IndexError):
        pass
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def reduction_factor(voxels: int) -> int:
    """By how much rows and columns must each be reduced for the scan to fit; 1 where it fits as it is."""
    factor = 1
    while (
        voxels / factor**2 > min(MAX_VOXELS, FREE_SHARE * free_memory_bytes() / BYTES_PER_VOXEL)
        and factor < LARGEST_FACTOR
    ):
        factor += 1
    return factor


def huge_finding(voxels: int, factor: int, name: str) -> Finding | None:
    """What is said about a scan that must be reduced by `factor`, None where it fits as it is (hazard 29)."""
    if factor == 1:
        return None
    if factor >= LARGEST_FACTOR:
        message = f"{name} has {voxels / 1e9:.0f} billion voxels, more than this computer can hold in any form."
        return Finding("huge", Level.BLOCK, message, "Give a thicker or smaller series.", 29)
    message = (
        f"{name} has {voxels / 1e6:.0f} million voxels and would need {voxels * BYTES_PER_VOXEL / 2**30:.1f} GiB of "
        f"memory; its pixels are averaged in blocks of {factor} x {factor}."
    )
    return Finding("huge", Level.ASK, message, "Accept, or give a thicker or smaller series.", 29)


def reduction(voxels: int, name: str) -> tuple[int, tuple[Finding, ...]]:
    """(the factor by which rows and columns are reduced while reading, what is said about it).

    Raises: InputBlockedError where no factor would do.
    """
    factor = reduction_factor(voxels)
    finding = huge_finding(voxels, factor, name)
    if finding is not None and finding.level is Level.BLOCK:
        raise InputBlockedError(finding.message, (finding,))
    return factor, () if finding is None else (finding,)


def block_means(planes: np.ndarray, factor: int) -> np.ndarray:
    """Averages of blocks of factor x factor pixels of slices (..., H, W); what is left over at their end is dropped."""
    if factor == 1:
        return planes
    if not np.issubdtype(planes.dtype, np.floating):
        planes = planes.astype(np.float64)  # sums of stored integers would overflow
    height, width = (length // factor * factor for length in planes.shape[-2:])
    # Whole planes are added: a mean over axes of length `factor` takes ten times as long.
    rows = sum((planes[..., k:height:factor, :] for k in range(1, factor)), planes[..., :height:factor, :])
    total = sum((rows[..., k:width:factor] for k in range(1, factor)), rows[..., :width:factor])
    return total / total.dtype.type(factor**2)


def reducing_matrix(factor: int) -> np.ndarray:
    """(4, 4) index of a block average to the index of its center among the pixels."""
    matrix = np.diag([factor, factor, 1.0, 1.0])
    matrix[:2, 3] = (factor - 1) / 2
    return matrix


def check_memory(voxels: int, name: str) -> None:
    """Refuse a file that cannot be read within the memory that is free: ITK reads its formats whole or not at all.

    Raises: InputBlockedError.
    """
    if reduction_factor(voxels) > 1:
        raise blocked(
            "huge",
            29,
            f"{name} has {voxels / 1e6:.0f} million voxels and needs about "
            f"{voxels * BYTES_PER_VOXEL / 2**30:.1f} GiB of memory.",
            "Crop it to the head, or use thicker slices.",
        )
