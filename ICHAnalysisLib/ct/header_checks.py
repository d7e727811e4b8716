"""Checks of one DICOM series that need its headers alone (hazards 3, 9, 11, 17, 18, 20, 21, 26 to 29, 39)."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from ICHAnalysisLib.ct.dicom import ADULT_YEARS
from ICHAnalysisLib.ct.memory import huge_finding, reduction_factor
from ICHAnalysisLib.ct.series import Series, bone_kernel, contrast, dual_energy, slice_positions
from ICHAnalysisLib.ct.words import LOW_DOSE_MODELS
from ICHAnalysisLib.findings import Finding, Level

NO_PROGNOSIS = "No prognosis is given automatically."


def header_findings(series: Series) -> list[Finding]:
    """What the headers of a series say, whatever its pixels hold."""
    checks: tuple[Callable[[Series], Finding | None], ...] = (
        _decoder, _time_points, _kernel, _contrast, _dual_energy, _low_dose, _age, _numbers, _rescale, _lossy,
        _enhanced, _huge, _burned_in,
    )  # fmt: skip
    return [finding for check in checks if (finding := check(series)) is not None]


def _decoder(series: Series) -> Finding | None:
    missing = missing_decoder(series.first.syntax)
    if not missing:
        return None
    message = f"The images are compressed as {missing}, and no decoder for it is installed."
    remedy = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or export the images uncompressed."
    return Finding("decoder_missing", Level.BLOCK, message, remedy, 27)


def missing_decoder(syntax: str) -> str:
    """The name of a transfer syntax that nothing here can decode, "" where it can be read."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    uid = UID(syntax)
    if not syntax or not uid.is_transfer_syntax or not uid.is_compressed or uid.is_deflated:
        return ""
    try:
        decoder = get_decoder(uid)
    except NotImplementedError:
        return uid.name
    return "" if decoder.is_available else uid.name


def _time_points(series: Series) -> Finding | None:
    if series.siblings < 2:
        return None
    name = series.label.split(".")[0]
    if series.siblings > 2:
        message = f"Series {name} holds {series.siblings} volumes at the same places (perfusion or 4-D), not one scan."
        remedy = f"Name the one to analyze, without contrast: --series {name}.1 to --series {name}.{series.siblings}."
        return Finding("time_series", Level.BLOCK, message, remedy, 26)
    message = (
        f"Series {name} holds two scans at the same places, told apart by {series.split}; {series.label} was taken."
    )
    return Finding("several_phases", Level.ASK, message, f"Choose with --series {name}.1 or --series {name}.2.", 4)


def _kernel(series: Series) -> Finding | None:
    if not bone_kernel(series):
        return None
    kernel = series.first.kernel or series.description
    message = f"The series was made with a sharp kernel ({kernel}), which blurs the difference of blood and brain."
    return Finding("bone_kernel", Level.ASK, message, "Prefer the soft-tissue series; accepting smooths this one.", 9)


def _contrast(series: Series) -> Finding | None:
    if not contrast(series):
        return None
    message = (
        "The scan seems to be contrast-enhanced; the networks know non-contrast scans only, this is not validated."
    )
    return Finding("contrast", Level.ASK, message, f"Use the non-contrast series. {NO_PROGNOSIS}", 17)


def _dual_energy(series: Series) -> Finding | None:
    if not dual_energy(series):
        return None
    message = "The images are virtual, mono-energetic or dual-energy ones, whose densities differ from plain CT."
    return Finding("dual_energy", Level.ASK, message, "Use the plain (mixed) images.", 18)


def _low_dose(series: Series) -> Finding | None:
    first = series.first
    text = " ".join((first.manufacturer, first.model, first.series_description, first.protocol)).lower()
    if not re.search(LOW_DOSE_MODELS, text):
        return None
    message = f"The scan comes from a PET-CT, cone-beam or similar device ({first.model or first.manufacturer})."
    return Finding("low_dose_ct", Level.NOTE, message, "Noise is higher than in a diagnostic head CT.", 20)


def _age(series: Series) -> Finding | None:
    age = series.first.age_years
    if not age < ADULT_YEARS:
        return None
    message = "The patient is under 18; the networks and the scores (ICH Score, FUNC) are made for adults."
    return Finding("pediatric", Level.ASK, message, NO_PROGNOSIS, 21)


def _numbers(series: Series) -> Finding | None:
    """Hazard 3 by the image numbers: a number absent in the whole series, where the slices also lie further apart."""
    numbers = [header.instance_number for header in series.headers]
    if len(numbers) < 4 or any(number is None for number in numbers) or len(set(numbers)) < len(numbers):
        return None
    ordered = np.array(numbers)
    jumps = np.abs(np.diff(ordered))
    usual = int(np.median(jumps))
    steps = np.abs(np.diff(slice_positions(series.headers)))
    if usual < 1 or not len(steps):
        return None
    wide = steps > 1.25 * np.median(steps)
    holes = [
        k
        for k in np.flatnonzero((jumps > usual) & wide)
        if not series.all_instance_numbers & set(range(min(ordered[k : k + 2]) + 1, max(ordered[k : k + 2])))
    ]
    if not holes:
        return None
    places = ", ".join(f"{min(ordered[k : k + 2])} and {max(ordered[k : k + 2])}" for k in holes[:5])
    message = f"Images are missing: no image between numbers {places}."
    return Finding("missing_slices", Level.ASK, message, "Export the complete series.", 3)


def rescale_known(series: Series) -> bool:
    """True where a slice has rescale slope and intercept: where some have none, the others' are used and asked for."""
    return any(np.isfinite(header.slope) and np.isfinite(header.intercept) for header in series.headers)


def _rescale(series: Series) -> Finding | None:
    pairs = {(round(header.slope, 6), round(header.intercept, 3)) for header in series.headers}
    stated = [pair for pair in pairs if np.isfinite(pair).all()]  # none at all is judged by the values
    if len(stated) < 2:
        return None
    message = f"The slices are scaled differently ({len(stated)} rescale pairs); each was scaled by its own."
    return Finding("rescale_varies", Level.FIX, message, "None needed.", 11)


def _lossy(series: Series) -> Finding | None:
    if not any(header.lossy for header in series.headers):
        return None
    message = "The images were compressed with loss; fine density differences may be gone."
    return Finding("lossy_compression", Level.NOTE, message, "Prefer the original images.", 27)


def _enhanced(series: Series) -> Finding | None:
    if series.first.frame is None:
        return None
    message = f"Enhanced multi-frame CT: the position of each of the {len(series.headers)} frames was read."
    return Finding("enhanced_multiframe", Level.FIX, message, "None needed.", 28)


def voxels(series: Series) -> int:
    """Number of voxels of the series."""
    return len(series.headers) * series.first.rows * series.first.columns


def _huge(series: Series) -> Finding | None:
    count = voxels(series)
    return huge_finding(count, reduction_factor(count), "The series")


def _burned_in(series: Series) -> Finding | None:
    if not any(header.burned_in for header in series.headers):
        return None
    message = "The images carry burnt-in text, which may name the patient; pictures in the report would show it."
    return Finding("identifiers", Level.NOTE, message, "Use images without burnt-in text before sharing.", 39)
