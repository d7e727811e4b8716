"""What a DICOM header says about each slice: one `SliceHeader` a frame, read without pixels.

Positions and directions are RAS (Right, Anterior, Superior) here; DICOM's own are LPS.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ICHAnalysisLib.ct.sources import FileRef

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
DIRECTORY = "1.2.840.10008.1.3.10"

TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName",
    "PatientAge", "PatientBirthDate", "StudyDate", "Modality", "ImageType", "SeriesNumber", "SeriesDescription",
    "StudyDescription", "ProtocolName", "BodyPartExamined", "ConvolutionKernel", "Manufacturer",
    "ManufacturerModelName", "InstanceNumber", "AcquisitionNumber", "AcquisitionTime", "ContentTime",
    "TemporalPositionIdentifier", "TriggerTime", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation",
    "PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelRepresentation",
    "BitsAllocated", "BitsStored", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "ContrastBolusAgent", "ContrastBolusVolume", "LossyImageCompression",
"GantryDetectorTilt", "BurnedInAnnotation", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True)
class SliceHeader:
    """One slice of one file. Absent values are None, "" or NaN; `patient` is a one-way key, never the identifier."""

    ref: FileRef
    frame: int | None = None
    sop_class: str = ""
    sop_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""
    patient: str = ""
    age_years: float = math.nan
    modality: str = ""
    image_type: tuple[str, ...] = ()
    series_number: int | None = None
    series_description: str = ""
    study_description: str = ""
    protocol: str = ""
    body_part: str = ""
    kernel: str = ""
    manufacturer: str = ""
    model: str = ""
    instance_number: int | None = None
    acquisition: str = ""
    temporal: str = ""
    content_time: str = ""
    position: tuple[float, float, float] | None = None
    orientation: tuple[float, ...] | None = None
    slice_location: float = math.nan
    pixel_spacing: tuple[float, float] | None = None
    thickness: float = math.nan
    slope: float = math.nan
    intercept: float = math.nan
    padding: float = math.nan
    signed: bool = False
    bits_stored: int = 16
    rows: int = 0
    columns: int = 0
    frames: int = 1
    samples: int = 1
    photometric: str = ""
    syntax: str = ""
    contrast_agent: str = ""
    lossy: bool = False
    burned_in: bool = False

    @property
    def is_localizer(self) -> bool:
        """A scout view (hazard 7)."""
        words = {word.upper() for word in self.image_type}
        return bool(words & {"LOCALIZER", "SCOUT", "REF_SURVIEW", "TOPOGRAM", "SURVIEW"})

    @property
    def texts(self) -> str:
        """Descriptions in lower case, for key words."""
        return " ".join((self.series_description, self.protocol, self.study_description, self.contrast_agent)).lower()


def read_headers(ref: FileRef) -> list[SliceHeader]:
    """The slices of one DICOM file, without its pixels.

    Raises: pydicom's InvalidDicomError and what a damaged file makes it raise; the caller lists the file.
    """
    dataset = ref.header(TAGS)
    meta = getattr(dataset, "file_meta", None)
    if text(getattr(meta, "MediaStorageSOPClassUID", "")) == DIRECTORY:
        return []
    return list(_slices(dataset, ref, meta))


def _slices(dataset: Any, ref: FileRef, meta: Any) -> Iterator[SliceHeader]:
    shared = first_item(dataset.get("SharedFunctionalGroupsSequence"))
    frames = dataset.get("PerFrameFunctionalGroupsSequence")
    syntax = text(getattr(meta, "TransferSyntaxUID", ""))
    if not frames:
        count = integer(dataset.get("NumberOfFrames")) or 1
        yield _header(dataset, None, None, ref, syntax, None, count)
        return
    for number, frame in enumerate(frames):
        yield _header(dataset, shared, frame, ref, syntax, number, len(frames))


def _header(
    dataset: Any, shared: Any, frame: Any, ref: FileRef, syntax: str, number: int | None, count: int
) -> SliceHeader:
    def value(keyword: str, group: str = "") -> Any:
        for functional in (frame, shared):
            item = first_item(functional.get(group)) if functional is not None and group else None
            if item is not None and item.get(keyword) is not None:
                return item.get(keyword)
        return dataset.get(keyword)

    content = first_item(frame.get("FrameContentSequence")) if frame is not None else None
    frame_type = value("FrameType", "CTImageFrameTypeSequence")
    return SliceHeader(
        ref=ref,
        frame=number,
        sop_class=text(dataset.get("SOPClassUID")),
        sop_uid=text(dataset.get("SOPInstanceUID")),
        study_uid=text(dataset.get("StudyInstanceUID")),
        series_uid=text(dataset.get("SeriesInstanceUID")),
        patient=_patient_key(dataset),
        age_years=_age(dataset),
        modality=text(dataset.get("Modality")).upper(),
        image_type=texts(frame_type if frame_type is not None else dataset.get("ImageType")),
        series_number=integer(dataset.get("SeriesNumber")),
        series_description=text(dataset.get("SeriesDescription")),
        study_description=text(dataset.get("StudyDescription")),
        protocol=text(dataset.get("ProtocolName")),
        body_part=text(value("AnatomicRegion") or dataset.get("BodyPartExamined")).upper(),
        kernel=" ".join(texts(value("ConvolutionKernel", "CTReconstructionSequence"))),
        manufacturer=text(dataset.get("Manufacturer")),
        model=text(dataset.get("ManufacturerModelName")),
        instance_number=number + 1 if number is not None else integer(dataset.get("InstanceNumber")),
        acquisition=text((content or dataset).get("FrameAcquisitionNumber") or dataset.get("AcquisitionNumber")),
        temporal=text((content or dataset).get("TemporalPositionIndex") or dataset.get("TemporalPositionIdentifier")),
        content_time=text(dataset.get("ContentTime")),
        position=ras_point(value("ImagePositionPatient", "PlanePositionSequence")),
        orientation=_orientation(value("ImageOrientationPatient", "PlaneOrientationSequence")),
        slice_location=number_or_nan(dataset.get("SliceLocation")),
        pixel_spacing=_pixel_spacing(value("PixelSpacing", "PixelMeasuresSequence")),
        thickness=number_or_nan(value("SliceThickness", "PixelMeasuresSequence")),
        slope=number_or_nan(value("RescaleSlope", "PixelValueTransformationSequence")),
        intercept=number_or_nan(value("RescaleIntercept", "PixelValueTransformationSequence")),
        padding=_padding(dataset),
        signed=integer(dataset.get("PixelRepresentation")) == 1,
        bits_stored=integer(dataset.get("BitsStored")) or 16,
        rows=integer(dataset.get("Rows")) or 0,
        columns=integer(dataset.get("Columns")) or 0,
        frames=count,
        samples=integer(dataset.get("SamplesPerPixel")) or 1,
        photometric=text(dataset.get("PhotometricInterpretation")),
        syntax=syntax,
        contrast_agent=text(dataset.get("ContrastBolusAgent")),
        lossy=text(dataset.get("LossyImageCompression")) == "01",
        burned_in=text(dataset.get("BurnedInAnnotation")).upper() == "YES",
    )


def first_item(sequence: Any) -> Any:
    """The first item of a DICOM sequence, or None."""
    try:
        return sequence[0] if sequence else None
    except (TypeError, IndexError, KeyError):
        return None


def text(value: Any) -> str:
    """A value as one line of text that can be printed anywhere, "" where absent."""
    return "" if value is None else "".join(c for c in " ".join(str(value).split()) if c.isprintable())


def texts(value: Any) -> tuple[str, ...]:
    """A multi-value as texts."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (text(value),)
    try:
        return tuple(text(item) for item in value)
    except TypeError:
        return (text(value),)


def number_or_nan(value: Any) -> float:
    """A finite number, or NaN for what is absent or cannot be read."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def integer(value: Any) -> int | None:
    """A whole number or None."""
    number = number_or_nan(value)
    return None if math.isnan(number) else int(number)


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers, or None."""
    if value is None or isinstance(value, str):
        return None
    try:
        numbers = tuple(number_or_nan(item) for item in value)
    except TypeError:
        return None
    return None if len(numbers) != count or any(math.isnan(item) for item in numbers) else numbers


def ras_point(value: Any) -> tuple[float, float, float] | None:
    """A DICOM position (LPS) as RAS."""
    numbers = _numbers(value, 3)
    if numbers is None or max(abs(item) for item in numbers) > 1e5:
        return None
    return (-numbers[0], -numbers[1], numbers[2])


def _orientation(value: Any) -> tuple[float, ...] | None:
    """Row and column direction cosines in RAS, unit length; None where they are no two directions."""
    numbers = _numbers(value, 6)
    if numbers is None:
        return None
    along, down = np.array(numbers[:3]) * LPS_TO_RAS, np.array(numbers[3:]) * LPS_TO_RAS
    lengths = np.linalg.norm(along), np.linalg.norm(down)
    if min(lengths) < 0.5 or np.linalg.norm(np.cross(along / lengths[0], down / lengths[1])) < 0.5:
        return None
    return (*(along / lengths[0]).tolist(), *(down / lengths[1]).tolist())


def _pixel_spacing(value: Any) -> tuple[float, float] | None:
    """(row, column) distance in mm; None where absent or absurd."""
    numbers = _numbers(value, 2)
    if numbers is None or min(numbers) < 0.01 or max(numbers) > 50.0:
        return None
    return (numbers[0], numbers[1])


def _padding(dataset: Any) -> float:
    """PixelPaddingValue as it stands in the pixels; some writers give a negative one as unsigned."""
    value = number_or_nan(dataset.get("PixelPaddingValue"))
    signed = integer(dataset.get("PixelRepresentation")) == 1
    return value - 65536.0 if signed and value > 32767.0 else value


def _patient_key(dataset: Any) -> str:
    """A short one-way key that tells patients apart without naming them."""
    identity = text(dataset.get("PatientID")) or text(dataset.get("PatientName"))
    return hashlib.sha256(identity.encode()).hexdigest()[:12] if identity else ""


def _age(dataset: Any) -> float:
    """Age in years from PatientAge (012Y, 006M, 010W, 003D) or the dates; NaN where unknown."""
    age = text(dataset.get("PatientAge")).upper()
    factor = {"Y": 1.0, "M": 1 / 12, "W": 1 / 52.18, "D": 1 / 365.25}.get(age[-1:], 1.0)
    years = number_or_nan(age.rstrip("YMWD") or None)
    if not math.isnan(years):
        return years * factor
    birth, study = text(dataset.get("PatientBirthDate")), text(dataset.get("StudyDate"))
    if len(birth) == 8 and len(study) == 8 and birth.isdigit() and study.isdigit():
        return (int(study) - int(birth)) / 10000.0
    return math.nan
