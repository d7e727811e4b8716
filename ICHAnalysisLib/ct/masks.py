"""A reference mask from a file, brought onto a scan's grid and values (hazards 35 and 36)."""

from __future__ import annotations

import numpy as np

from ICHAnalysisLib.ct.geometry import sample_points, stack_bounds_ras
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.findings import Finding, Level

SAME_GRID_MM = 0.1


def match_mask(
    mask: CTVolume, volume: CTVolume, mapping: dict[int, int] | None = None
) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """A mask on the volume's grid, uint8 (K, J, I), and what had to be done to it.

    mask: as read by `read_image`, its values in `hu`. mapping: file value -> label, where known.
    A finding of level BLOCK says that the two do not belong together; the labels are empty then.
    """
    labels, findings = map_values(mask.hu, mapping)
    if _same_grid(mask, volume):
        return labels, findings
    low, high = stack_bounds_ras(mask)
    other_low, other_high = stack_bounds_ras(volume)
    if (np.minimum(high, other_high) <= np.maximum(low, other_low)).any():
        message = "Mask and scan do not lie at the same place, so the mask cannot belong to this scan."
        blocked = Finding("mask_grid", Level.BLOCK, message, "Give the mask drawn on this scan.", 35)
        return np.zeros(volume.shape, dtype=np.uint8), (*findings, blocked)
    message = "The mask has another grid than the scan and was resampled to it by nearest voxel."
    moved = _on_grid(mask, labels, volume)
    return moved, (*findings, Finding("mask_grid", Level.FIX, message, "None needed.", 35))


def map_values(values: np.ndarray, mapping: dict[int, int] | None = None) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """Mask values as labels: 0/1 as they are, 0/255 and probabilities turned to 0/1, other classes asked."""
    unique = np.unique(values[np.isfinite(values)])
    if len(unique) > 64 or not np.allclose(unique, np.round(unique), atol=1e-3):
        if unique.min() >= -1e-3 and unique.max() <= 255.0:
            half = 0.5 if unique.max() <= 1.0 + 1e-3 else 127.5
            message = f"The mask is soft (values to {unique.max():g}); it was cut at {half:g}."
            return (values > half).astype(np.uint8), (Finding("mask_values", Level.FIX, message, "None needed.", 36),)
        message = f"The mask holds {len(unique)} values from {unique.min():g} to {unique.max():g}: it is no mask."
        return np.zeros(values.shape, np.uint8), (Finding("mask_values", Level.BLOCK, message, "Give a mask.", 36),)
    whole = {round(float(value)) for value in unique}
    labels = np.nan_to_num(np.round(values)).astype(np.int64)
    if mapping is not None and whole <= set(mapping) | {0}:
        out = np.zeros(values.shape, dtype=np.uint8)
        for value, label in mapping.items():
            out[labels == value] = label
        return out, ()
    if whole <= {0, 1}:
        return labels.astype(np.uint8), ()
    foreground = whole - {0}
    if len(foreground) == 1:
        message = f"The mask's value {next(iter(foreground))} was read as hemorrhage."
        return (labels != 0).astype(np.uint8), (Finding("mask_values", Level.FIX, message, "None needed.", 36),)
    message = (
        f"The mask holds the classes {sorted(foreground)[:10]}; 1 is read as ICH, 2 as IVH, all others are left out."
    )
    kept = np.where((labels >= 1) & (labels <= 2), labels, 0).astype(np.uint8)
    return kept, (Finding("mask_values", Level.ASK, message, "Name the classes in the manifest.", 36),)


def _same_grid(mask: CTVolume, volume: CTVolume) -> bool:
    """True where every corner voxel of both lies at the same place."""
    if mask.shape != volume.shape:
        return False
    depth, rows, columns = volume.shape
    corners = np.array([[i, j, k] for i in (0, columns - 1) for j in (0, rows - 1) for k in range(depth)], dtype=float)
    apart = np.linalg.norm(mask.ijk_to_ras_points(corners) - volume.ijk_to_ras_points(corners), axis=1)
    return bool(apart.max() <= SAME_GRID_MM)


def _on_grid(mask: CTVolume, labels: np.ndarray, volume: CTVolume) -> np.ndarray:
    """Labels at the volume's voxel centers, by nearest voxel."""
    out = np.zeros(volume.shape, dtype=np.uint8)
    _, rows, columns = volume.shape
    jj, ii = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    plane = ii.reshape(-1, 1) * volume.column_step_ras + jj.reshape(-1, 1) * volume.row_step_ras
    for k, origin in enumerate(volume.slice_origins_ras):
        out[k] = sample_points(mask, labels, origin + plane, order=0).reshape(rows, columns)
    return out
