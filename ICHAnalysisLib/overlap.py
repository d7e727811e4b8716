"""How well a mask covers a reference mask: Dice, Jaccard, HD95 in both conventions, PRO (definitions 3.6 to 3.8).

Masks are bool (K, J, I) or (J, I) on one grid; spacing in mm is given in the order of the array's axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.errors import UsageError


@dataclass(frozen=True)
class Overlap:
    """One case. Both masks empty: dice and jaccard 1 with `empty_ok`, distances NaN; one empty: 0 and infinite.

    pro: mean share of each reference lesion that is covered (NaN without one); all-ones scores 1, so read it with
    false_positive_voxels and false_positive_lesions (prediction components that touch no reference).
    """

    dice: float
    jaccard: float
    hd95_max: float
    hd95_pooled: float
    pro: float
    false_positive_voxels: int
    false_positive_lesions: int
    missed_lesions: int
    empty_ok: bool
    true_positive_voxels: int = 0
    false_negative_voxels: int = 0


def overlap(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> Overlap:
    """Every measure of one case. Raises UsageError where the masks are not on one grid."""
    p, r = _checked(prediction, reference, spacing_mm)
    if not p.any() and not r.any():
        return Overlap(1.0, 1.0, np.nan, np.nan, np.nan, 0, 0, 0, True)
    hd_max, hd_pooled = hd95(p, r, spacing_mm)
    connectivity = np.ones((3,) * p.ndim, dtype=bool)
    predicted, predictions = ndimage.label(p, connectivity)
    lesions, count = ndimage.label(r, connectivity)
    shares = np.bincount(lesions[p], minlength=count + 1)[1:] / np.maximum(np.bincount(lesions.ravel())[1:], 1)
    touched = np.unique(predicted[r & p])
    return Overlap(
        dice(p, r),
        jaccard(p, r),
        hd_max,
        hd_pooled,
        float(shares.mean()) if count else float("nan"),
        int((p & ~r).sum()),
        predictions - len(touched),
        int((shares == 0).sum()),
        False,
        int((p & r).sum()),
        int((r & ~p).sum()),
    )


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN); 1 where both are empty."""
    p, r = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
    total = int(p.sum()) + int(r.sum())
    return 2 * int((p & r).sum()) / total if total else 1.0


def jaccard(prediction: np.ndarray, reference: np.ndarray) -> float:
    """TP / (TP + FP + FN); 1 where both are empty."""
    p, r = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
    union = int((p | r).sum())
    return int((p & r).sum()) / union if union else 1.0


def hd95(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    one_empty: Literal["infinite", "diagonal"] = "infinite",
) -> tuple[float, float]:
    """95th percentile surface distance in mm: (larger of the two directions, both directions pooled).

    Surfaces are voxels that a face-connected erosion removes. The first is MONAI's, the second MedPy's convention;
    pooled <= max. NaN where both masks are empty; where one is, infinite, or with `one_empty` "diagonal" the length of
    the image's diagonal, as challenges rank a missed lesion.
    """
    p, r = _checked(prediction, reference, spacing_mm)
    if not p.any() or not r.any():
        worst = float("inf") if one_empty == "infinite" else float(np.linalg.norm(np.multiply(p.shape, spacing_mm)))
        value = float("nan") if p.any() == r.any() else worst
        return value, value
    box = _box(p | r)
    p, r = p[box], r[box]
    surface_p, surface_r = p & ~ndimage.binary_erosion(p), r & ~ndimage.binary_erosion(r)
    to_r = ndimage.distance_transform_edt(~surface_r, sampling=spacing_mm)[surface_p]
    to_p = ndimage.distance_transform_edt(~surface_p, sampling=spacing_mm)[surface_r]
    directed = max(float(np.percentile(to_r, 95)), float(np.percentile(to_p, 95)))
    return directed, float(np.percentile(np.concatenate([to_r, to_p]), 95))


def pro(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Per-region overlap at the working threshold: mean over reference components of the share covered; NaN if none."""
    p, r = _checked(prediction, reference, ())
    lesions, count = ndimage.label(r, np.ones((3,) * r.ndim, dtype=bool))
    if count == 0:
        return float("nan")
    return float((np.bincount(lesions[p], minlength=count + 1)[1:] / np.bincount(lesions.ravel())[1:]).mean())


def summarize(cases: Sequence[Overlap]) -> dict[str, float]:
    """Mean, median and quartiles over cases, and Dice and Jaccard of all voxels of all cases together ("pooled").

    Cases empty in both are left out of every mean and counted; infinite distances (a missed or invented lesion) are
    left out of their means and counted as failures.
    """
    if not cases:
        raise UsageError("There is no case to summarize.")
    scored = [case for case in cases if not case.empty_ok]
    found: dict[str, float] = {"cases": len(cases), "both_empty": len(cases) - len(scored)}
    for name in ("dice", "jaccard", "hd95_max", "hd95_pooled", "pro"):
        values = np.array([getattr(case, name) for case in scored], dtype=float)
        finite = values[np.isfinite(values)]
        found[f"{name}_mean"] = float(finite.mean()) if finite.size else float("nan")
        quartiles = np.percentile(finite, (25, 50, 75)) if finite.size else (np.nan,) * 3
        found.update(dict(zip((f"{name}_q1", f"{name}_median", f"{name}_q3"), map(float, quartiles), strict=True)))
    hits = sum(case.true_positive_voxels for case in scored)
    wrong = sum(case.false_positive_voxels + case.false_negative_voxels for case in scored)
    found["dice_pooled"] = 2 * hits / (2 * hits + wrong) if scored else float("nan")
    found["jaccard_pooled"] = hits / (hits + wrong) if scored else float("nan")
    found["hd95_failures"] = sum(np.isinf(case.hd95_max) for case in scored)
    return found


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The bounding box with a margin of one voxel, so that erosion sees the outside where there is one."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)


def _checked(p: np.ndarray, r: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Bool masks of one shape; raises UsageError else."""
    p, r = np.asarray(p, dtype=bool), np.asarray(r, dtype=bool)
    if p.shape != r.shape or p.ndim not in (2, 3) or (len(spacing_mm) and len(spacing_mm) != p.ndim):
        raise UsageError(
            f"Masks {p.shape} and {r.shape} must be on one grid of 2 or 3 axes with as many spacings, "
            f"got {tuple(spacing_mm)}."
        )
    return p, r
