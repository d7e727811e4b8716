"""Findings that need the mask: lower bounds, old blood, metal and calcium near it (nos. 3, 22, 33, 40, 41)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.checks import gap_question_waits
from ICHAnalysisLib.ct.geometry import axial_copy
from ICHAnalysisLib.ct.head import coarse_head
from ICHAnalysisLib.ct.tissue_checks import METAL_HU, Inside, calcium_mask, metal_mask
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.findings import Finding, Level

METAL_REACH_MM = 10.0
OLD_BLOOD_HU = 45.0
CALCIUM_SHARE = 0.25


def lesion_findings(volume: CTVolume, mask: np.ndarray) -> list[Finding]:
    """Findings about a hemorrhage mask, bool (K, J, I); none for an empty mask."""
    if not mask.any():
        return []
    ks = np.flatnonzero(mask.any(axis=(1, 2)))
    found = [_at_gap(volume, ks), _at_end(volume, ks), _old_blood(volume, mask)]
    if bool((volume.hu > METAL_HU).any()):
        found.append(_near_metal(volume, mask))
    found.append(_calcium(volume, mask))
    return [finding for finding in found if finding is not None]


def settle_gaps(findings: Iterable[Finding], volume: CTVolume, mask: np.ndarray) -> tuple[Finding, ...]:
    """The findings once the bleed is outlined: one or two gaps away from it are a note, no question (hazard 3).

    mask: bool (K, J, I), all blood. Without blood the question stays, since a bleed may lie in the gap.
    """
    ks = np.flatnonzero(mask.any(axis=(1, 2)))
    if not gap_question_waits(volume) or not len(ks) or _touched_gaps(volume, ks):
        return tuple(findings)
    said = " The bleed lies elsewhere; its volume is not affected."
    return tuple(
        replace(finding, level=Level.NOTE, message=finding.message + said)
        if finding.code == "missing_slices" and finding.level is Level.ASK
        else finding
        for finding in findings
    )


def is_lower_bound(findings: list[Finding]) -> bool:
    """True where the measured volume can only be too small."""
    return any(finding.code in ("lower_bound_gap", "lower_bound_end") for finding in findings)


def _at_gap(volume: CTVolume, ks: np.ndarray) -> Finding | None:
    if not _touched_gaps(volume, ks):
        return None
    message = "Slices are missing inside or next to the bleed: its volume is a lower bound."
    return Finding("lower_bound_gap", Level.NOTE, message, "Export the complete series.", 3)


def _touched_gaps(volume: CTVolume, ks: np.ndarray) -> list[int]:
    """The gaps with blood (on slices `ks`) next to them; a bleed across a gap has it on both sides."""
    return [k for k in volume.missing_after.tolist() if {k, k + 1} & set(ks.tolist())]


def _at_end(volume: CTVolume, ks: np.ndarray) -> Finding | None:
    if ks[0] > 0 and ks[-1] < volume.shape[0] - 1:
        return None
    message = "The bleed reaches the first or last slice of the scan: its volume is a lower bound."
    return Finding("lower_bound_end", Level.NOTE, message, "Scan or export the whole head.", 33)


def _old_blood(volume: CTVolume, mask: np.ndarray) -> Finding | None:
    middle = float(np.median(volume.hu[mask]))
    if middle >= OLD_BLOOD_HU:
        return None
    message = f"The bleed has only {middle:.0f} HU, as older or thinned blood: its border is unreliable."
    return Finding("low_density_lesion", Level.NOTE, message, "Check the outline.", 40)


def _near_metal(volume: CTVolume, mask: np.ndarray) -> Finding | None:
    if axial_copy(volume) is not volume:
        return None
    metal = metal_mask(Inside(volume, coarse_head(volume)))
    if not metal.any():
        return None
    spacing = (float(np.mean(volume.slice_heights_mm)), volume.spacing_mm[1], volume.spacing_mm[0])
    distance = float(ndimage.distance_transform_edt(~metal, sampling=spacing)[mask].min())
    if distance > METAL_REACH_MM:
        return None
    message = f"The bleed lies {distance:.0f} mm from metal: part of it may be streaks."
    return Finding("lesion_near_metal", Level.NOTE, message, "Check the outline.", 22)


def _calcium(volume: CTVolume, mask: np.ndarray) -> Finding | None:
    share = float(np.mean(volume.hu[mask] > 110.0))
    if share < CALCIUM_SHARE:
        return None
    message = f"{100 * share:.0f} % of the bleed are denser than 110 HU: part of it may be calcium."
    return Finding("lesion_calcified", Level.NOTE, message, "Check the outline.", 41)


def calcifications(volume: CTVolume) -> np.ndarray:
    """Calcium inside the brain (pineal, choroid plexus, basal ganglia), no candidate for blood: bool (K, J, I)."""
    if axial_copy(volume) is not volume:
        return np.zeros(volume.shape, dtype=bool)
    return calcium_mask(Inside(volume, coarse_head(volume)))
