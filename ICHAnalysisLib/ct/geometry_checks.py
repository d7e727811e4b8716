"""Checks that need only where the slices lie (hazards 1, 3, 5, 6, 10, 24, 25)."""

from __future__ import annotations

import numpy as np

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.findings import Finding, Level

TILT_DEGREES, STEEP_TILT_DEGREES = 0.5, 30.0
UNEVEN_SHARE = 0.01
THIN_MM = 2.5
NON_AXIAL_DEGREES = 30.0


def geometry_findings(volume: CTVolume) -> list[Finding]:
    """What the slice positions, directions and thicknesses say."""
    checks = (_tilt, _non_axial, _side, _missing, _uneven, _overlap, _thin)
    return [finding for check in checks if (finding := check(volume)) is not None]


def _tilt(volume: CTVolume) -> Finding | None:
    tilt = volume.tilt_degrees
    if tilt <= TILT_DEGREES or volume.shape[0] < 2:
        return None
    error = 100.0 * (1.0 / np.cos(np.radians(tilt)) - 1.0)
    message = (
        f"The gantry was tilted by {tilt:.1f} degrees. Volumes use the true distance between slices "
        f"(reading the stack as upright would give {error:.1f} % too much)."
    )
    if tilt > STEEP_TILT_DEGREES:
        return Finding("gantry_tilt_steep", Level.ASK, message, "Check that the scan is complete and undamaged.", 1)
    return Finding("gantry_tilt", Level.FIX, message, "None needed.", 1)


def axis_angle_degrees(volume: CTVolume) -> float:
    """Angle between the slice normal and the patient's long axis, degrees.

    A tilted gantry tips the slices while the table still moves along the patient: the smaller of the angles of the
    normal and of the line of slices counts.
    """
    angles = [volume.normal_ras[2]]
    if volume.shape[0] > 1:
        line = volume.slice_origins_ras[-1] - volume.slice_origins_ras[0]
        angles.append(line[2] / max(1e-9, float(np.linalg.norm(line))))
    return float(np.degrees(np.arccos(np.clip(np.abs(angles).max(), 0.0, 1.0))))


def _non_axial(volume: CTVolume) -> Finding | None:
    angle = axis_angle_degrees(volume)
    if angle <= NON_AXIAL_DEGREES:
        return None
    main = ("sagittal", "coronal", "oblique axial")[int(np.argmax(np.abs(volume.normal_ras)))]
    message = (
        f"The slices are {main} ({angle:.0f} degrees off axial). They are turned to axial for the networks; "
        "ABC/2 is not given, because it is defined on axial slices."
    )
    return Finding("non_axial", Level.FIX, message, "Prefer the axial series.", 24)


def _side(volume: CTVolume) -> Finding | None:
    if volume.side_known or any(finding.code == "orientation_conflict" for finding in volume.findings):
        return None  # two directions that contradict each other have their own question
    message = "The file does not say which way the patient lies, so left and right are unknown and no side is stated."
    return Finding("side_unknown", Level.ASK, message, "Use the DICOM images or a converted file with orientation.", 25)


def _missing(volume: CTVolume) -> Finding | None:
    gaps = volume.missing_after
    if not len(gaps):
        return None
    steps = np.abs(volume.steps_mm)
    places = ", ".join(f"{steps[k]:.1f} mm after slice {k + 1}" for k in gaps[:5])
    message = (
        f"Slices are missing: {places} ({len(gaps)} gap{'s' if len(gaps) > 1 else ''} in {volume.shape[0]} slices)."
    )
    return Finding(
        "missing_slices",
        Level.ASK,
        message,
        "Export the complete series. A bleed inside or next to a gap is measured as a lower bound.",
        3,
    )


def _uneven(volume: CTVolume) -> Finding | None:
    if volume.is_even:
        return None
    steps = np.abs(volume.steps_mm)
    message = (
        f"The slices are unevenly spaced: steps of {runs(steps)} mm along their normal. Each slice counts with "
        f"its own height, {volume.slice_heights_mm.sum():.1f} mm in all."
    )
    return Finding("uneven_spacing", Level.FIX, message, "None needed.", 5)


def runs(values: np.ndarray, tolerance: float = 0.02) -> str:
    """Equal neighbors folded: 13 x 4.00, 1 x 1.08, 13 x 7.00."""
    parts: list[list[float]] = []
    for value in values:
        if parts and abs(parts[-1][0] - value) <= tolerance * max(abs(value), 0.1):
            parts[-1][1] += 1
        else:
            parts.append([float(value), 1])
    text = ", ".join(f"{int(count)} x {value:.2f}" for value, count in parts[:8])
    return text + (f" ... ({len(parts)} changes)" if len(parts) > 8 else "")


def _overlap(volume: CTVolume) -> Finding | None:
    if volume.shape[0] < 2:
        return None
    pairs = (volume.slice_thickness_mm[:-1] + volume.slice_thickness_mm[1:]) / 2
    middle = int(np.argsort(np.abs(volume.steps_mm) / pairs)[len(pairs) // 2])
    step, thickness = float(abs(volume.steps_mm[middle])), float(pairs[middle])
    if abs(step - thickness) <= 0.1 * thickness:
        return None
    what = ("overlap", "slice_overlap") if step < thickness else ("leave gaps", "slice_gaps")
    message = f"The {thickness:g} mm slices {what[0]}: they lie {step:.2f} mm apart. Volumes use the distance."
    return Finding(what[1], Level.NOTE, message, "None needed.", 6)


def _thin(volume: CTVolume) -> Finding | None:
    if volume.shape[0] < 2:
        return None
    step = float(np.median(np.abs(volume.steps_mm)))
    if step >= THIN_MM:
        return None
    message = (
        f"Thin slices ({step:.2f} mm, {volume.shape[0]} of them) are averaged to 5 mm slabs for the networks; "
        "the result is returned on the thin slices."
    )
    return Finding("thin_slices", Level.FIX, message, "None needed.", 10)
