"""The small print: lesions, location, scan, run, as rows of label, value and how it was made."""

from __future__ import annotations

from ICHAnalysisLib.analysis import Analysis, Interval, Lesion
from ICHAnalysisLib.outputs.words import LOCATION_NAMES, Row, interval_text, number, percent, sentence

#: Names of the measurements and how they are made.
MEASURES = {
    "lesions": ("Lesions", "Pieces of the outline that do not touch."),
    "mean_hu": ("Density, mean, HU", "Over the outlined voxels, by their true volume."),
    "median_hu": ("Density, median, HU", "Half of the outlined voxels are denser."),
    "sd_hu": ("Density, standard deviation, HU", "Over the outlined voxels; noise counts in."),
    "hu_variation": ("Density, variation", "Standard deviation over mean."),
    "black_hole_ml": ("Dark spots inside, mL", "Enclosed by the outline, 28 HU or more below its median."),
    "surface_cm2": ("Surface, cm²", "Of the outline, through the true places of the slices."),
    "surface_regularity": ("Surface regularity", "1 for a ball, smaller the more irregular."),
    "irregularity": ("Irregularity", "1 minus the surface regularity."),
    "midline_shift_mm": (
        "Midline shift, mm",
        "Middle of the frontal horns against the line of the falx's attachments.",
    ),
    "midline_shift_toward": ("Midline shift toward", "The patient's side."),
    "flatness": ("Flatness", "Shortest over longest principal axis; 1 for a ball."),
}

FORMATS = {"dicom": "DICOM", "nifti": "NIfTI", "nrrd": "NRRD", "metaimage": "MHA"}


def detail_rows(analysis: Analysis) -> list[Row]:
    """Everything after the volumes, in the order of the report."""
    return [
        *_presence_rows(analysis),
        *_location_rows(analysis),
        *[_lesion_row(n, lesion) for n, lesion in enumerate(analysis.lesions, 1)],
        *_measurement_rows(analysis),
        *_input_rows(analysis),
        *_run_rows(analysis),
    ]


def _presence_rows(analysis: Analysis) -> list[Row]:
    presence = analysis.presence
    if presence is None:
        return []
    how = f"Positive from {percent(presence.threshold)} on. {sentence(presence.origin)}".strip()
    return [Row("Probability of hemorrhage", percent(presence.probability), how)]


def _location_rows(analysis: Analysis) -> list[Row]:
    location = analysis.location
    if location is None or not location.probabilities:
        return []
    shares = ", ".join(
        f"{LOCATION_NAMES.get(name, name)} {percent(value)}" for name, value in location.probabilities.items()
    )
    return [Row("Location, probabilities", shares, sentence(location.source))]


def _lesion_row(count: int, lesion: Lesion) -> Row:
    center = ", ".join(f"{letter} {value:+.0f}" for letter, value in zip("RAS", lesion.centroid_ras_mm, strict=True))
    first, last = lesion.slices[0] + 1, lesion.slices[1] + 1
    density = f", mean {lesion.mean_hu:.0f} HU" if lesion.mean_hu is not None else ""
    return Row(
        f"Lesion {count}", number(lesion.volume_ml, "mL"), f"Center {center} mm, slices {first} to {last}{density}."
    )


def _measurement_rows(analysis: Analysis) -> list[Row]:
    rows = []
    for key, value in analysis.measurements.items():
        name, how = MEASURES.get(key, (_name(key), ""))
        rows.append(Row(name, _text(value), how))
    return rows


def _input_rows(analysis: Analysis) -> list[Row]:
    known = analysis.input
    rows = []
    shape, spacing = known.get("shape"), known.get("spacing_mm")
    if shape is not None:
        how = ""
        if spacing is not None:
            how = "Column, row and mean slice spacing " + " x ".join(f"{step:.2f}" for step in spacing) + " mm."
        rows.append(Row("Scan", " x ".join(str(size) for size in shape) + " (slices, rows, columns)", how))
    if known.get("kind"):
        kind = str(known["kind"])
        rows.append(Row("Format", FORMATS.get(kind, kind)))
    return rows


def _run_rows(analysis: Analysis) -> list[Row]:
    total = sum(analysis.timings_s.values())
    how = ", ".join(f"{name.replace('_', ' ')} {seconds:.1f} s" for name, seconds in analysis.timings_s.items())
    return [Row("Run", f"{total:.0f} s on {analysis.device}", how)] if analysis.timings_s else []


def _name(key: str) -> str:
    """A key of the measurements as words, its unit last: "median_hu" is "median, HU"."""
    name, _, unit = key.rpartition("_")
    units = {"hu": "HU", "ml": "mL", "mm": "mm", "cm": "cm", "cm2": "cm2"}
    return f"{name.replace('_', ' ')}, {units[unit]}" if name and unit in units else key.replace("_", " ")


def _text(value: object) -> str:
    """A measurement of any shape as text."""
    if isinstance(value, Interval):
        return f"{number(value.value, value.unit)} {interval_text(value)}".strip()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return ", ".join(f"{str(key).replace('_', ' ')} {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    return "not given" if value is None else str(value)
