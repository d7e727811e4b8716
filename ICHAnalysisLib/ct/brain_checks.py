"""Is this a head with a brain in it, and is all of it there? (hazards 19, 21, 33, 34)"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.head import CoarseHead, disk
from ICHAnalysisLib.ct.morphology import dilate
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.findings import Finding, Level

SMALL_BRAIN_ML, LARGE_BRAIN_ML = 360.0, 2500.0  # 600 to 2200 mL, with room for what the coarse copy mistakes
PARTIAL_BRAIN_ML = 150.0  # the least that a scan covering part of the head must show
LONGEST_BRAIN_MM = 225.0
MIN_SHELL_SHARE = 0.5  # a wide craniectomy leaves 0.7
CUT_SHARE = 0.10


def brain_findings(volume: CTVolume, coarse: CoarseHead) -> list[Finding]:
    """Not a head (34) as the only finding, or what is cut off (33)."""
    cut = cut_ends(volume, coarse)
    block = _not_a_head(volume, coarse, bool(cut))
    if block is not None:
        return [block]
    if not cut:
        return []
    message = (
        f"The scan does not cover the whole brain: it is cut at the {' and '.join(cut)}. "
        "A bleed that touches the cut is measured as a lower bound."
    )
    return [Finding("incomplete_cover", Level.NOTE, message, "Scan or export the whole head.", 33)]


def cut_ends(volume: CTVolume, coarse: CoarseHead) -> list[str]:
    """Which ends cut the brain: its area there is above a tenth of its largest (hazard 33)."""
    area = np.count_nonzero(coarse.brain, axis=(1, 2))
    if not area.any():
        return []
    first, last = ("base", "top") if volume.normal_ras[2] >= 0 else ("top", "base")
    limit = CUT_SHARE * area.max()
    return [name for name, value in ((first, area[0]), (last, area[-1])) if value > limit]


def _not_a_head(volume: CTVolume, coarse: CoarseHead, cut: bool) -> Finding | None:
    """Hazard 34: a bone shell must enclose 600 to 2200 mL of brain; less where the scan is cut."""
    why = ""
    if not coarse.bone.any():
        why = "there is no bone in it"
    elif coarse.brain_ml < (PARTIAL_BRAIN_ML if cut else SMALL_BRAIN_ML):
        why = _seen(coarse)
    elif coarse.brain_ml > LARGE_BRAIN_ML:
        why = f"bone encloses {coarse.brain_ml:.0f} mL, too much for a brain"
    else:
        length = _longest_mm(volume, coarse)
        shell = shell_share(volume, coarse)
        if length > LONGEST_BRAIN_MM:
            why = f"what bone encloses is {length:.0f} mm long, too long for a brain"
        elif shell < MIN_SHELL_SHARE:
            why = f"only {100 * shell:.0f} % of what should be the brain's surface lies against bone"
    if not why:
        return None
    message = (
        f"This is not a head CT that can be analyzed: {why}. An adult brain fills 600 to 2200 mL inside the skull."
    )
    remedy = "Choose the head series (--series). A mask drawn by hand can still be measured in the Slicer module."
    return Finding("not_a_head", Level.BLOCK, message, remedy, 34)


def _longest_mm(volume: CTVolume, coarse: CoarseHead) -> float:
    """Largest in-plane extent of the brain, mm."""
    pixels = [volume.spacing_mm[1] * coarse.factors[1], volume.spacing_mm[0] * coarse.factors[2]]
    extents = []
    for axis, pixel in zip((1, 2), pixels):
        shadow = coarse.brain.any(axis=(0, 3 - axis))
        found = np.flatnonzero(shadow)
        extents.append((found[-1] - found[0] + 1) * pixel if len(found) else 0.0)
    return float(max(extents))


def shell_share(volume: CTVolume, coarse: CoarseHead) -> float:
    """Share of the brain's outline, in its wider slices, with bone within 12 mm; 1 for a whole skull."""
    pixel = float(np.mean(volume.spacing_mm[:2])) * coarse.factors[1]
    area = np.count_nonzero(coarse.brain, axis=(1, 2))
    wide = area >= 0.5 * area.max()
    filled = ndimage.binary_fill_holes(coarse.brain[wide], structure=ndimage.generate_binary_structure(2, 1)[None])
    outline = filled & ~ndimage.binary_erosion(filled, ndimage.generate_binary_structure(2, 1)[None])
    near = dilate(coarse.bone[wide], disk(12.0, pixel))
    return float(np.count_nonzero(outline & near) / max(1, int(np.count_nonzero(outline))))


def _seen(coarse: CoarseHead) -> str:
    """What a scan without a brain shows, in a clinician's words."""
    enclosed = coarse.brain_ml
    if enclosed < 50.0:
        return "there is bone, but no brain tissue inside it"
    return f"bone encloses only {enclosed:.0f} mL of brain tissue"
