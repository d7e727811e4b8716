"""Reference masks: from a file on any grid to labels on the acquired slices of a scan. Nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ICHAnalysisLib.ct.images import read_image
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.preprocess import SliceStack, native_to_stack
from Training.data.cache import EDEMA, ICH, IVH, UNKNOWN
from Training.data.manifest import Manifest, ManifestRow

_OTHER_BLEEDS = ("ivh", "sdh", "edh", "sah")
_TOLERANCE = 0.1  # of a voxel, within which two grids are the same
_LEAST_OVERLAP = 0.9  # of the mask must lie inside the scan


def native_labels(rows: Sequence[ManifestRow], manifest: Manifest, volume: CTVolume) -> np.ndarray:
    """uint8 (K, J, I) labels of one scan from its rows (one, or one a slice); 255 where nothing is known.

    Raises UsageError where a mask does not lie on the scan or contradicts its row, or a row names a slice that is not
    there.
    """
    labels = np.full(volume.shape, UNKNOWN, dtype=np.uint8)
    masks: dict[str, np.ndarray] = {}
    for row in rows:
        if row.slice_index is not None and row.slice_index >= volume.shape[0]:
            raise UsageError(f"Case {row.case_id}: the scan has {volume.shape[0]} slices, no slice {row.slice_index}.")
        where = slice(None) if row.slice_index is None else slice(row.slice_index, row.slice_index + 1)
        if row.mask is not None:
            if row.mask not in masks:
                masks[row.mask] = read_mask(manifest.path(row.mask), row.mask_kind, volume)
                _check_values(masks[row.mask], row)
            labels[where] = labels_of_mask(masks[row.mask][where], row)
            if row.has_ich == 0 and (labels[where] == ICH).any():
                raise UsageError(f"Case {row.case_id}: has_ich is 0, yet the mask marks ICH; one of them is wrong.")
        elif row.has_any_bleed == 0 or (row.has_ich == 0 and row.ivh == 0):
            labels[where] = 0
    return labels


def _check_values(values: np.ndarray, row: ManifestRow) -> None:
    """Raise UsageError where a mask marks something, the rule names none of it, and the scan is not said to be free.

    A mask of 0 and 255 under {"ich":[1]} would otherwise teach that the clot is background.
    """
    named = {number for numbers in (row.mask_values or {}).values() for number in numbers}
    present = set(np.unique(values).tolist()) - {0}
    if present and not present & named and row.has_ich != 0 and row.slice_index is None:
        raise UsageError(
            f"Case {row.case_id}: the mask holds {sorted(present)[:8]} and mask_values names {sorted(named)}; correct "
            "mask_values or mask_kind, or say has_ich 0."
        )


def labels_of_mask(values: np.ndarray, row: ManifestRow) -> np.ndarray:
    """uint8 labels of whole-number mask values by the row's rule.

    Where the mask marks edema alone, the rest stays unknown, for the clot is not in it. Blood of unknown kind is ICH
    only where the row says that it is intraparenchymal and nothing else, else unknown.
    """
    rule = row.mask_values or {}
    marks_blood = "ich" in rule or "bleed" in rule
    labels = np.full(values.shape, 0 if marks_blood else UNKNOWN, dtype=np.uint8)
    pure = row.has_ich == 1 and all(getattr(row, name) == 0 for name in _OTHER_BLEEDS)
    for name, label in (("oedema", EDEMA), ("bleed", ICH if pure else UNKNOWN), ("ivh", IVH), ("ich", ICH)):
        if rule.get(name):
            labels[np.isin(values, rule[name])] = label
    return labels


def read_mask(path: Path, kind: str | None, volume: CTVolume) -> np.ndarray:
    """int32 (K, J, I) mask values on the scan's grid. kind: prob and 0-255 masks become 0 and 1 at half their range.

    A mask on another grid is sampled at the true place of every voxel, nearest neighbor.
    Raises UsageError where less than nine tenths of it lie inside the scan.
    """
    mask = read_image(path)
    threshold = {"prob": 0.5, "0-255": 127.0}.get(kind or "hard")
    values = np.rint(mask.hu).astype(np.int32) if threshold is None else (mask.hu > threshold).astype(np.int32)
    if same_grid(mask, volume):
        return values
    sampled = _sample(values, mask, volume)
    marked = np.count_nonzero(values) * mask.voxel_area_mm2 * np.mean(mask.slice_heights_mm)
    found = np.count_nonzero(sampled) * volume.voxel_area_mm2 * np.mean(volume.slice_heights_mm)
    if marked > 0 and found < _LEAST_OVERLAP * marked:
        raise UsageError(
            f"{path.name}: only {100 * found / marked:.0f} % of the mask lie inside the scan; "
            "it belongs to another scan, or one of the two lost its position."
        )
    return sampled


def same_grid(mask: CTVolume, volume: CTVolume) -> bool:
    """True where voxel (k, j, i) of both is the same place, within a tenth of a voxel."""
    if mask.shape != volume.shape:
        return False
    k, j, i = (size - 1 for size in volume.shape)
    corners = np.array([[0, 0, 0], [i, 0, 0], [0, j, 0], [0, 0, k], [i, j, k]], dtype=float)
    distance = np.abs(mask.ijk_to_ras_points(corners) - volume.ijk_to_ras_points(corners)).max()
    return bool(distance < _TOLERANCE * min(volume.spacing_mm))


def _sample(values: np.ndarray, mask: CTVolume, volume: CTVolume) -> np.ndarray:
    """Mask values at the centers of the scan's voxels, 0 outside the mask."""
    depth, height, width = volume.shape
    out = np.zeros(volume.shape, dtype=np.int32)
    j, i = np.mgrid[:height, :width]
    for k in range(depth):
        # Slices are planes and the mask's grid is affine within them: three points fix the whole slice.
        corner, along_i, along_j = mask.ras_to_ijk_points(
            volume.ijk_to_ras_points(np.array([[0.0, 0, k], [width - 1.0, 0, k], [0, height - 1.0, k]]))
        )
        step_i, step_j = (along_i - corner) / max(width - 1, 1), (along_j - corner) / max(height - 1, 1)
        at = np.rint(corner + i[..., None] * step_i + j[..., None] * step_j).astype(int)  # (J, I, 3) i, j, k
        inside = ((at >= 0) & (at < np.array(values.shape[::-1]))).all(axis=-1)
        out[k][inside] = values[at[inside, 2], at[inside, 1], at[inside, 0]]
    return out


def stack_labels(labels: np.ndarray, stack: SliceStack) -> np.ndarray:
    """uint8 (K, J, I) labels of the acquired slices on the stack, by the class that covers at least half a pixel.

    Pixels outside the acquired slices are background.
    """
    out = np.zeros(stack.hu.shape, dtype=np.uint8)
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[1:]) + 1
    for value in present:
        out[native_to_stack((labels == value).astype(np.float32), stack) >= 0.5] = value
    return out
