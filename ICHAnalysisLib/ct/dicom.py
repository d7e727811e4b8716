"""One DICOM series as a CTVolume: true positions, rescaled slice by slice (hazards 3, 4, 11, 12, 29, 30, 38)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from ICHAnalysisLib.ct.headers import SliceHeader
from ICHAnalysisLib.ct.memory import block_means
from ICHAnalysisLib.ct.pixels import FrameReader, syntax_name, why_unreadable
from ICHAnalysisLib.ct.series import Series, slice_positions
from ICHAnalysisLib.ct.sources import blocked
from ICHAnalysisLib.ct.volume import CTVolume, InstanceRef
from ICHAnalysisLib.errors import InputBlockedError
from ICHAnalysisLib.findings import Finding, Level

SAME_PLACE_MM = 0.01
ADULT_YEARS = 18.0
MIN_READABLE = 3
ONE_EACH = "Export one series without repeats; accepting keeps the first of each."
THICKEST_MM = 100.0  # a larger slice thickness is a mistake of the header, and counts as unknown


def series_geometry(series: Series) -> CTVolume:
    """The stack's geometry with no pixels behind it (`hu` is one zero, broadcast): all that headers can tell.

    Raises: InputBlockedError where pixel spacing or positions are missing (hazard 38).
    """
    headers, first = series.headers, series.first
    if first.pixel_spacing is None:
        message = f"Series {series.label} does not say how large its pixels are, so nothing can be measured on it."
        raise blocked("pixel_spacing_missing", 38, message, "Export the original CT images, not screen captures.")
    positions = slice_positions(headers)
    if not len(positions):
        message = f"Series {series.label} does not say where its slices lie, so nothing can be measured on it."
        raise blocked("positions_missing", 38, message, "Export the original CT images.")
    column, row, origins = _directions(headers, positions)
    rows_mm, columns_mm = first.pixel_spacing
    thickness = np.array([header.thickness for header in headers], dtype=float)
    volume = CTVolume(
        np.broadcast_to(np.float32(0.0), (len(headers), first.rows, first.columns)),
        column * columns_mm,
        row * rows_mm,
        origins,
        np.where((thickness > 0) & (thickness <= THICKEST_MM), thickness, np.nan),
        source=_source(series),
        side_known=first.orientation is not None and all(header.position is not None for header in headers),
        instances=tuple(
            InstanceRef(str(h.ref.path), h.ref.member, h.sop_class, h.sop_uid, h.frame or 0) for h in headers
        ),
    )
    return _known_thickness(volume)


def single_places(volume: CTVolume, series: Series) -> CTVolume:
    """Geometry with one slice at every place, and what the headers alone say of the others (hazard 4)."""
    unique: list[int] = []
    repeats: list[bool] = []  # of each repeat: the same object again
    for index, place in enumerate(volume.positions_mm):
        if unique and abs(place - volume.positions_mm[unique[-1]]) <= SAME_PLACE_MM:
            first, again = series.headers[unique[-1]], series.headers[index]
            repeats.append(bool(again.sop_uid) and (first.sop_uid, first.frame) == (again.sop_uid, again.frame))
        else:
            unique.append(index)
    if not repeats:
        return volume
    findings = [_copies(sum(repeats))] if any(repeats) else []
    if not all(repeats):
        message = f"{repeats.count(False)} of the slices lie where another slice lies; their pixels must be compared."
        findings.append(Finding("repeated_positions", Level.ASK, message, ONE_EACH, 4))
    return _keep(volume, unique).with_findings(*findings)


def _copies(count: int) -> Finding:
    are = "s are" if count > 1 else " is"
    message = f"{count} slice{are} there twice with the same pixels; copies were dropped."
    return Finding("duplicate_slices", Level.FIX, message, "None needed.", 4)


def _known_thickness(volume: CTVolume) -> CTVolume:
    """Unknown slice thicknesses filled with the known ones', or the median step."""
    thickness = volume.slice_thickness_mm
    known = thickness[np.isfinite(thickness)]
    if len(known) == len(thickness):
        return volume
    steps = np.abs(volume.steps_mm)
    steps = steps[steps > SAME_PLACE_MM]
    fill = float(np.median(known)) if len(known) else float(np.median(steps)) if len(steps) else 5.0
    return replace(volume, slice_thickness_mm=np.where(np.isfinite(thickness), thickness, fill))


def _directions(headers: tuple[SliceHeader, ...], positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column direction, row direction and origins (K, 3), RAS; upright where the header gives no direction."""
    first = headers[0]
    if first.orientation is not None and all(header.position is not None for header in headers):
        column, row = np.array(first.orientation[:3]), np.array(first.orientation[3:])
        return column, row, np.array([header.position for header in headers], dtype=float)
    column, row = np.array([-1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0])
    return column, row, np.stack([np.zeros_like(positions), np.zeros_like(positions), positions], axis=1)


def _source(series: Series) -> dict[str, Any]:
    """Facts for analysis.json, without identifiers."""
    first = series.first
    child = {"age_years": int(first.age_years)} if first.age_years < ADULT_YEARS else {}
    return {
        **child,
        "kind": "dicom",
        "modality": first.modality or "CT",
        "series": series.label,
        "series_number": first.series_number,
        "kernel": first.kernel,
        "manufacturer": first.manufacturer,
        "model": first.model,
        "slices": len(series.headers),
        "enhanced": first.frame is not None,
        "transfer_syntax": syntax_name(first.syntax),
        "simulated": "SYNTHETIC" in {word.upper() for word in first.image_type},
    }


def read_series(series: Series, factor: int = 1) -> tuple[CTVolume, np.ndarray]:
    """The series with Hounsfield units, and where padding lies (bool (K, J, I)).

    factor: rows and columns are averaged in blocks of this many pixels while reading (hazard 29).
    Slices that cannot be decoded are left out and listed in a finding; the checks then see them missing.
    Raises: InputBlockedError where geometry or nearly every slice is missing.
    """
    volume = _reduced(series_geometry(series), factor)
    hu = np.empty(volume.shape, dtype=np.float32)
    padding = np.zeros(volume.shape, dtype=bool)
    failures: list[tuple[str, str]] = []
    kept: list[int] = []
    frames, usual = FrameReader(), common_rescale(series.headers)
    for index, header in enumerate(series.headers):
        try:
            stored = frames.read(header)
        except Exception as error:  # one bad file must not end the reading of the others
            failures.append((header.ref.name, why_unreadable(error, header)))
            continue
        padded = stored == header.padding if np.isfinite(header.padding) else None
        hu[index] = block_means(_rescale(stored, header, usual), factor)
        if padded is not None:
            padding[index] = padded[::factor, ::factor][: volume.shape[1], : volume.shape[2]]
        kept.append(index)
    findings = [*_unreadable(failures, len(series.headers)), *_borrowed(series)]
    kept, repeated = _without_repeats(volume, hu, kept)
    if len(kept) < MIN_READABLE:
        message = findings[0].message if findings else f"Only {len(kept)} slice(s) at different places could be read."
        few = Finding("damaged_files", Level.BLOCK, message, "Export the scan again.", 30)
        raise InputBlockedError(message, (few, *(finding for finding in findings if finding.code != few.code)))
    findings += repeated + _same_as_twin(series, volume, hu, factor)
    volume = _keep(volume, kept)
    if len(kept) < len(hu):
        hu, padding = hu[kept], padding[kept]
    return replace(volume, hu=hu, findings=(*volume.findings, *findings)), padding


def common_rescale(headers: tuple[SliceHeader, ...]) -> tuple[float, float]:
    """The slope and intercept that most slices state, (1, 0) where none states both."""
    stated = Counter(pair for header in headers if all(np.isfinite(pair := (header.slope, header.intercept))))
    return stated.most_common(1)[0][0] if stated else (1.0, 0.0)


def _rescale(stored: np.ndarray, header: SliceHeader, usual: tuple[float, float]) -> np.ndarray:
    """Stored values times slope plus intercept; a slice that lacks either has what the series usually has."""
    slope = header.slope if np.isfinite(header.slope) and header.slope != 0 else usual[0] or 1.0
    intercept = header.intercept if np.isfinite(header.intercept) else usual[1]
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _borrowed(series: Series) -> tuple[Finding, ...]:
    """Hazard 11: some slices say how to get Hounsfield units, others do not."""
    lacking = sum(not (np.isfinite(header.slope) and np.isfinite(header.intercept)) for header in series.headers)
    if lacking in (0, len(series.headers)):
        return ()
    does = "does" if lacking == 1 else "do"
    message = (
        f"{lacking} of {len(series.headers)} slices {does} not say how to turn their numbers into Hounsfield units; "
        "what the others say was used."
    )
    return (Finding("rescale_missing", Level.ASK, message, "Confirm, or export the images again.", 11),)


def _reduced(volume: CTVolume, factor: int) -> CTVolume:
    """The geometry of block averages: larger pixels whose centers are the blocks' centers."""
    if factor == 1:
        return volume
    depth, rows, columns = volume.shape
    return replace(
        volume,
        hu=np.broadcast_to(np.float32(0.0), (depth, rows // factor, columns // factor)),
        column_step_ras=volume.column_step_ras * factor,
        row_step_ras=volume.row_step_ras * factor,
        slice_origins_ras=volume.slice_origins_ras
        + 0.5 * (factor - 1) * (volume.column_step_ras + volume.row_step_ras),
        source={**volume.source, "reduced_by": factor},
    )


def _keep(volume: CTVolume, kept: list[int]) -> CTVolume:
    """The geometry with only the slices named."""
    if len(kept) == volume.shape[0]:
        return volume
    return replace(
        volume,
        hu=np.broadcast_to(np.float32(0.0), (len(kept), *volume.shape[1:])),
        slice_origins_ras=volume.slice_origins_ras[kept],
        slice_thickness_mm=volume.slice_thickness_mm[kept],
        instances=tuple(volume.instances[k] for k in kept),
        source={**volume.source, "slices": len(kept)},
    )


def _without_repeats(volume: CTVolume, hu: np.ndarray, kept: list[int]) -> tuple[list[int], list[Finding]]:
    """Slices at one place: copies are dropped (FIX), different ones ask (hazard 4). The first stays."""
    unique: list[int] = []
    copies = differing = 0
    for index in kept:
        same = bool(unique) and abs(volume.positions_mm[index] - volume.positions_mm[unique[-1]]) <= SAME_PLACE_MM
        if not same:
            unique.append(index)
        elif np.array_equal(hu[index], hu[unique[-1]]):
            copies += 1
        else:
            differing += 1
    findings = []
    if copies:
        findings.append(_copies(copies))
    if differing:
        message = f"{differing} of the slices lie where another slice with other pixels lies."
        findings.append(Finding("repeated_positions", Level.ASK, message, ONE_EACH, 4))
    return unique, findings


def _same_as_twin(series: Series, volume: CTVolume, hu: np.ndarray, factor: int) -> list[Finding]:
    """A second stack at the same places with the same pixels is a copy, not another phase (hazard 4)."""
    if series.siblings != 2 or series.twin is None:
        return []
    try:
        usual = common_rescale(series.headers)
        other = block_means(_rescale(FrameReader().read(series.twin), series.twin, usual), factor)
    except Exception:  # the twin cannot be read: it stays another phase, which asks
        return []
    if not np.array_equal(other, hu[len(series.headers) // 2]):
        return []
    message = "Every slice is there twice with the same pixels; the copies were dropped."
    return [Finding("duplicate_slices", Level.FIX, message, "None needed.", 4)]


def _unreadable(failures: list[tuple[str, str]], total: int) -> tuple[Finding, ...]:
    if not failures:
        return ()
    decoder = next((why for _, why in failures if why.startswith("no decoder")), "")
    if decoder:
        message = f"{len(failures)} of {total} images cannot be decoded: {decoder}."
        remedy = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or export the images uncompressed."
        return (Finding("decoder_missing", Level.BLOCK, message, remedy, 27),)
    names = ", ".join(name for name, _ in failures[:5]) + (" ..." if len(failures) > 5 else "")
    was = "is damaged and was" if len(failures) == 1 else "are damaged and were"
    message = f"{len(failures)} of {total} images {was} left out: {names} ({failures[0][1]})."
    level = Level.BLOCK if total - len(failures) < MIN_READABLE else Level.ASK
    return (Finding("damaged_files", level, message, "Export the scan again.", 30),)
