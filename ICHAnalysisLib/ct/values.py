"""Are these Hounsfield units? What is not is mended where that is certain, asked where likely, blocked elsewhere.

Hazards 11 to 13, 15, 16, 19, 31 and 32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.findings import Finding, Level

AIR_HU = -1024.0
AIR_RANGE = (-1150.0, -850.0)
AIR_TO_TISSUE = (900.0, 1180.0)  # distance from air to soft tissue on a scale whose slope is right
NARROW_HU = 30.0  # no head has so few Hounsfield units between air and bone
TISSUE_RANGE = (5.0, 70.0)
EXPORT = "Export or convert the original CT images again."


@dataclass(frozen=True)
class Levels:
    """Where the values of a scan lie: extremes, and the most frequent value of air and of soft tissue (NaN: none)."""

    lowest: float
    highest: float
    air: float
    tissue: float


def mend_values(volume: CTVolume, padding: np.ndarray | None = None, rescale_known: bool = True) -> CTVolume:
    """The volume in Hounsfield units as far as that can be had, with a finding for every repair.

    padding: bool (K, J, I), where the file's padding value stood. rescale_known: False for DICOM images without
    rescale slope or intercept.
    """
    hu, findings = volume.hu, []
    for step in (_finite, _unsigned, _wrapped):
        hu, finding = step(hu)
        findings += [finding] if finding else []
    hu, finding = _padding(hu, padding)
    findings += [finding] if finding else []
    hu, finding = _scale(hu, rescale_known)
    findings += [finding] if finding else []
    return replace(volume, hu=hu, findings=(*volume.findings, *findings))


def sample(hu: np.ndarray) -> np.ndarray:
    """Every few voxels, enough for a histogram."""
    _, rows, columns = hu.shape
    return hu[:, :: max(1, rows // 128), :: max(1, columns // 128)]


def levels(hu: np.ndarray) -> Levels:
    """The levels of the values that are no padding."""
    values = sample(hu)
    lowest, highest = float(values.min()), float(np.percentile(values, 99.9))
    background = values == lowest
    if 0.05 < background.mean() < 0.95:  # padding or clipped air: the rest tells where real air lies
        rest = values[~background]
        background = rest < lowest + 0.35 * (highest - lowest)
        values = rest if background.mean() > 0.05 else values
    values = values.astype(np.float64).ravel()
    split = lowest + 0.35 * (highest - lowest)
    air = _mode(values[values < split])
    tissue = _mode(values[(values > air + 500.0) & (values < air + 1400.0)]) if np.isfinite(air) else np.nan
    return Levels(lowest, highest, air, tissue)


def _mode(values: np.ndarray) -> float:
    """The most frequent value, in bins of 8, NaN for none."""
    if len(values) < 50:
        return float("nan")
    low, high = float(values.min()), float(values.max())
    counts, edges = np.histogram(values, bins=int(np.clip((high - low) / 8, 1, 4000)))
    top = int(counts.argmax())
    return float(np.median(values[(values >= edges[top]) & (values <= edges[top + 1])]))


def _finite(hu: np.ndarray) -> tuple[np.ndarray, Finding | None]:
    broken = ~np.isfinite(hu)
    count = int(np.count_nonzero(broken))
    if not count:
        return hu, None
    share = 100.0 * count / hu.size
    message = f"{count} voxels ({share:.2g} %) hold no number and were set to air."
    level = Level.BLOCK if share > 1.0 else Level.FIX
    return np.where(broken, np.float32(AIR_HU), hu), Finding("not_finite", level, message, EXPORT, 31)


def _unsigned(hu: np.ndarray) -> tuple[np.ndarray, Finding | None]:
    """Hazard 14: negative 16-bit numbers read as unsigned ones lie near 65535."""
    high = hu > 40000.0
    if not high.any() or float(hu.min()) < -1100.0 or float(hu.max()) > 65535.5:
        return hu, None
    message = "Negative CT numbers were stored as unsigned ones (values near 65,000); they were turned back."
    remedy = "Confirm that air is black and brain is gray."
    return np.where(high, hu - np.float32(65536.0), hu), Finding("signed_unsigned", Level.ASK, message, remedy, 14)


def _wrapped(hu: np.ndarray) -> tuple[np.ndarray, Finding | None]:
    """Hazard 13: 12-bit numbers that ran over, so that air lies at 3000 to 4095."""
    values = sample(hu)
    wrapped = (values > 2950.0) & (values < 4096.0)
    if float(values.min()) < -100.0 or wrapped.mean() < 0.05:
        return hu, None
    turned = hu + np.float32(-AIR_HU)
    turned = np.where(turned >= 4096.0, turned - np.float32(4096.0), turned) + np.float32(AIR_HU)
    found = levels(turned)
    certain = AIR_RANGE[0] < found.air < AIR_RANGE[1] and TISSUE_RANGE[0] < found.tissue < TISSUE_RANGE[1]
    message = "Air was stored as very bright (a 12-bit number that ran over)"
    if not certain:
        return hu, Finding("wrapped_12_bit", Level.BLOCK, f"{message}, and it cannot be turned back.", EXPORT, 13)
    return turned, Finding("wrapped_12_bit", Level.FIX, f"{message}; it was turned back.", "None needed.", 13)


def _padding(hu: np.ndarray, padding: np.ndarray | None) -> tuple[np.ndarray, Finding | None]:
    """Hazard 12: padding and what lies below -1024 become air."""
    lowest = float(hu.min())
    padded = hu < AIR_HU
    if padding is not None and padding.any():
        lowest = min(lowest, float(hu[padding].min()))
        padded |= _outside(padding) if float(hu[padding].max()) > AIR_RANGE[1] else padding
    count = int(np.count_nonzero(padded))
    if not count:
        return hu, None
    mended = np.where(padded, np.float32(AIR_HU), hu)
    if lowest >= AIR_RANGE[0] and (padding is None or not padding.any()):
        return mended, None  # the noise of air
    message = (
        f"Padding around the field of view ({lowest:.0f} HU, {100.0 * count / hu.size:.1f} % of the voxels) "
        "was set to air."
    )
    return mended, Finding("padding", Level.FIX, message, "None needed.", 12)


def _outside(padding: np.ndarray) -> np.ndarray:
    """Padding that reaches the border of its slice: a padding value that tissue can have stays tissue inside."""
    border = np.zeros_like(padding)
    border[:, [0, -1], :] = True
    border[:, :, [0, -1]] = True
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = ndimage.generate_binary_structure(2, 1)
    return ndimage.binary_propagation(padding & border, structure=structure, mask=padding)


def _scale(hu: np.ndarray, rescale_known: bool) -> tuple[np.ndarray, Finding | None]:
    """Hazards 11, 15 and 16: where air and soft tissue lie, and how to bring them to -1000 and 35."""
    found = levels(hu)
    if found.highest - found.lowest < 1e-6:
        return hu, None  # constant: hazard 32
    if AIR_RANGE[0] < found.air < AIR_RANGE[1]:
        if rescale_known:
            return hu, None
        message = "The images do not say how to turn their numbers into Hounsfield units; they already are."
        return hu, Finding("rescale_missing", Level.NOTE, message, "None needed.", 11)
    if found.highest - found.lowest <= NARROW_HU:
        return hu, _not_hu(f"{found.lowest:.2g} to {found.highest:.2g}")
    if found.lowest == 0.0 and float(hu.max()) == 255.0:
        return hu, _not_hu("0 to 255")  # gray levels of a picture; brain may lie at 15 to 45 among them by chance
    distance = found.tissue - found.air
    scaled = abs(found.air) < 150.0 and AIR_TO_TISSUE[0] < distance < AIR_TO_TISSUE[1]
    if scaled and _surrounds(hu, found.air, found.tissue):
        shift = 1000.0 if abs(found.tissue - 1032.0) + 12.0 < abs(found.tissue - 1056.0) else 1024.0
        if found.tissue - shift > TISSUE_RANGE[1] or found.tissue - shift < -20.0:
            return hu, None
        moved = np.maximum(hu - np.float32(shift), np.float32(AIR_HU))
        if rescale_known:
            message = f"All CT numbers were {shift:.0f} too high (air at {found.air:.0f} HU) and were lowered."
            return moved, Finding("shifted_hu", Level.FIX, message, "None needed.", 16)
        message = (
            "The images do not say how to turn their numbers into Hounsfield units; "
            f"{shift:.0f} was subtracted, which puts air at {found.air - shift:.0f} HU."
        )
        return moved, Finding("rescale_missing", Level.ASK, message, "Confirm, or export the images again.", 11)
    return hu, None


def _surrounds(hu: np.ndarray, outer: float, inner: float) -> bool:
    """True where values near `outer` lie further out than values near `inner`: air around tissue.

    It is the other way round where the values were cut at 0, so that brain (35) and bone (1000) look like both.
    """
    values = sample(hu)
    j, i = np.meshgrid(np.arange(values.shape[1]), np.arange(values.shape[2]), indexing="ij")
    near, far = (np.abs(values - level) < 60.0 for level in (outer, inner))
    above = near & (values > values.min())  # without what was cut off, unless that is nearly all there is
    counts = [np.count_nonzero(above if above.mean() > 0.02 else near, axis=0), np.count_nonzero(far, axis=0)]
    if not counts[0].any() or not counts[1].any():
        return False
    center = [np.average(axis, weights=counts[1]) for axis in (j, i)]
    radius = np.hypot(j - center[0], i - center[1])
    return bool(np.average(radius, weights=counts[0]) > np.average(radius, weights=counts[1]))


def _not_hu(values: str) -> Finding:
    message = f"The values ({values}) are no Hounsfield units, so density and volume cannot be judged."
    remedy = "Convert the original DICOM images without rescaling. A mask can still be measured in the Slicer module."
    return Finding("not_hu", Level.BLOCK, message, remedy, 15)


def constant_finding(hu: np.ndarray) -> Finding | None:
    """Hazard 32: one value everywhere, or nothing but air."""
    values = np.nan_to_num(sample(hu), nan=AIR_HU, posinf=AIR_HU, neginf=AIR_HU)
    spread, highest = float(values.std()), float(values.max())
    lowest = float(values.min())
    two_sided = spread > 0.2 * (highest - lowest)  # -1 to 1, standard scores; the noise of one value is not so wide
    scaled = spread > 0.01 and highest - lowest <= NARROW_HU and (two_sided or (lowest >= -0.01 and highest <= 1.5))
    if scaled or (spread >= 1.0 and highest > -500.0):
        return None
    message = "The image is empty: it shows one value everywhere, or nothing but air."
    return Finding("constant_image", Level.BLOCK, message, EXPORT, 32)


def window_finding(hu: np.ndarray, brain: np.ndarray, has_bone: bool) -> Finding | None:
    """Hazard 15, once the brain is known: values cut to a window, or no Hounsfield units at all.

    hu, brain: the values and the brain's mask on one grid. has_bone: something encloses the brain.
    """
    found = levels(hu)
    values = hu[brain] if brain.any() else sample(hu).ravel()
    tissue = values[(values > 5.0) & (values < 70.0)]
    density = float(np.median(tissue)) if len(tissue) > 0.4 * len(values) else float("nan")
    usable = has_bone and 15.0 <= density <= 45.0
    if not brain.any() and _skull_removed(hu, found.lowest):
        message = "This is not a head CT that can be analyzed: it shows brain tissue without the skull around it."
        remedy = "Give the scan as it was acquired. A mask can still be measured in the Slicer module."
        return Finding("not_a_head", Level.BLOCK, message, remedy, 34)
    bone = found.highest >= 300.0
    if bone and (AIR_RANGE[0] < found.air < AIR_RANGE[1] or AIR_RANGE[0] < found.lowest < AIR_RANGE[1]):
        return None if _has_air(hu, found) else _wrong_slope(found.air)
    top = float(hu.max())
    if bone and found.lowest <= -300.0 and not _cut_off(hu, found.lowest):
        return _wrong_slope(found.air) if found.air <= -300.0 else None
    if usable and found.lowest <= 2.0 and top >= 78.0:
        message = (
            f"The CT numbers are cut to a window of {found.lowest:.0f} to {top:.0f} HU; brain and blood are intact."
        )
        return Finding("hu_window_clipped", Level.NOTE, message, "None needed.", 15)
    if top > 300.0:
        message = (
            "The values are no CT numbers: there is no air at -1000 HU, or no bone above 500 HU, and the brain is not "
            "at 15 to 45 HU. It may be an MR image."
        )
        return Finding("not_ct", Level.BLOCK, message, "Give the non-contrast head CT.", 19)
    return _not_hu(f"{found.lowest:.4g} to {top:.4g}")


def _skull_removed(hu: np.ndarray, background: float) -> bool:
    """True where all that is no background has the density of brain, CSF and blood, and no bone ends the scale."""
    values = sample(hu)
    rest = values[values > background]
    if len(rest) < 100 or np.count_nonzero(rest >= rest.max() - 1.0) > 0.01 * len(rest):
        return False
    soft = (rest > -20.0) & (rest < 100.0)
    return bool(soft.mean() > 0.9 and 15.0 <= np.median(rest) <= 45.0)


def _cut_off(hu: np.ndarray, lowest: float) -> bool:
    """True where most of what is as dark as air has exactly the lowest value, as a window's lower edge makes it."""
    values = sample(hu)
    dark = values < lowest + 100.0
    return bool(np.count_nonzero(values == lowest) > 0.8 * np.count_nonzero(dark))


def _has_air(hu: np.ndarray, found: Levels) -> bool:
    """False where the lowest value is padding alone, and much of the picture lies between air and fat."""
    if AIR_RANGE[0] < found.air < AIR_RANGE[1] or not found.air <= -300.0:
        return True
    values = sample(hu)
    air = (values > found.lowest) & (values < AIR_RANGE[1])
    between = (values >= AIR_RANGE[1]) & (values < -300.0)
    return bool(air.mean() > 0.01 or between.mean() < 0.1)


def _wrong_slope(air: float) -> Finding:
    message = (
        f"Air has {air:.0f} HU where -1000 is usual: the scale of the values seems wrong, as after a conversion that "
        "lost it."
    )
    return Finding("hu_scale", Level.ASK, message, EXPORT, 15)
