"""DICOM SR (TID 1500): what was found in the whole scan, and the measurements of each segment."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ICHAnalysisLib import __version__
from ICHAnalysisLib.analysis import LABEL_ICH, RESEARCH_USE, Analysis
from ICHAnalysisLib.outputs.dicom_source import (
    MANUFACTURER,
    MODEL,
    SEGMENT_NAMES,
    SERIAL,
    code,
    declare_private_scheme,
    description,
    device,
    hemorrhage,
    is_multiframe,
    new_series,
    private_code,
    site,
)
from ICHAnalysisLib.outputs.words import LOCATION_NAMES, is_positive, is_suspected

if TYPE_CHECKING:
    from pydicom import Dataset

_MILLILITER = ("ml", "UCUM", "ml")
_CENTIMETER = ("cm", "UCUM", "cm")
_ONE = ("1", "UCUM", "no units")
_VOXEL_SUM = ("126030", "DCM", "Sum of segmented voxel volumes")


def measurement_report(
    analysis: Analysis, headers: list[Dataset], segmentation: Dataset | None, present: list[int]
) -> Dataset:
    """The report as a Comprehensive 3D SR; `segmentation` is the SEG it refers to, `present` its labels in order."""
    import highdicom

    groups: list[Any] = [_scan_group(analysis)]
    if segmentation is not None:
        for number, label in enumerate(present, 1):
            groups.append(_segment_group(analysis, segmentation, number, label, str(headers[0].SeriesInstanceUID)))
    unique = list({id(header): header for header in headers}.values())
    report = highdicom.sr.MeasurementReport(
        observation_context=_observer(),
        procedure_reported=code("24725-4", "LN", "CT Head"),
        imaging_measurements=groups,
        title=code("126000", "DCM", "Imaging Measurement Report"),
        # The image library describes single-frame images alone.
        referenced_images=None if is_multiframe(headers) else unique,
    )
    evidence = unique + ([segmentation] if segmentation is not None else [])
    equipment = {key: value for key, value in device().items() if key == "manufacturer"}
    dataset = highdicom.sr.Comprehensive3DSR(
        evidence=evidence,
        content=report[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        **new_series(headers[0], 3),
        **equipment,
    )
    dataset.SeriesDescription = description(analysis, "ICH measurements")
    dataset.ManufacturerModelName = MODEL
    dataset.SoftwareVersions = __version__
    dataset.DeviceSerialNumber = SERIAL
    dataset.CompletionFlagDescription = RESEARCH_USE
    declare_private_scheme(dataset)
    return dataset


def _observer() -> Any:
    """The device that observed; no person did."""
    import highdicom
    from pydicom.sr.codedict import codes

    attributes = highdicom.sr.DeviceObserverIdentifyingAttributes(
        uid=highdicom.UID(), name="ICHAnalysis", manufacturer_name=MANUFACTURER, model_name=MODEL, serial_number=SERIAL
    )
    context = highdicom.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=attributes)
    return highdicom.sr.ObservationContext(observer_device_context=context)


def _scan_group(analysis: Analysis) -> Any:
    """Presence, probability, location, mode, and what the report is not."""
    import highdicom
    from pydicom.sr.codedict import codes

    presence = codes.SCT.Present if is_positive(analysis) else codes.SCT.Absent
    if is_suspected(analysis):
        presence = codes.SCT.Indeterminate
    evaluations = [
        _evaluation(("intraparenchymal", "Intraparenchymal hemorrhage"), presence),
        _evaluation(("use", "Intended use"), private_code("research", "Research use only, not a medical device")),
        _evaluation(("mode", "Mode of segmentation"), private_code(analysis.mode, f"{analysis.mode.capitalize()}")),
    ]
    if not is_positive(analysis):
        meaning = "Extra-axial blood, infarct, fracture"
        evaluations.append(_evaluation(("not_assessed", "Not assessed"), private_code("other_findings", meaning)))
    location = analysis.location
    if location is not None and location.label is not None and is_positive(analysis):
        name = LOCATION_NAMES.get(location.label, location.label)
        evaluations.append(_evaluation(("location", "Location of hemorrhage"), private_code(location.label, name)))
    measurements = []
    if analysis.presence is not None:
        value = analysis.presence.probability
        measurements.append(_measurement(private_code("probability", "Probability of hemorrhage"), value, _ONE))
    network = analysis.volumes_ml.get("network")
    if network is not None and is_positive(analysis):
        concept = private_code("network_volume", "Volume by the volume network")
        measurements.append(_measurement(concept, network, _MILLILITER))
    return highdicom.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=highdicom.sr.TrackingIdentifier(uid=highdicom.UID(), identifier="Whole scan"),
        finding_type=hemorrhage(),
        algorithm_id=_algorithm(),
        finding_sites=[_site(analysis, LABEL_ICH)],
        measurements=[item for item in measurements if item is not None] or None,
        qualitative_evaluations=evaluations,
    )


def _segment_group(analysis: Analysis, segmentation: Dataset, number: int, label: int, source_series: str) -> Any:
    """The measurements of one segment, tied to it by its tracking identifiers."""
    import highdicom

    described = segmentation.SegmentSequence[number - 1]
    return highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=highdicom.sr.TrackingIdentifier(
            uid=highdicom.UID(described.TrackingUID), identifier=SEGMENT_NAMES[label]
        ),
        referenced_segment=highdicom.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=highdicom.sr.SourceSeriesForSegmentation(source_series),
        ),
        finding_type=hemorrhage(),
        finding_category=code("49755003", "SCT", "Morphologically Altered Structure"),
        algorithm_id=_algorithm(),
        finding_sites=[_site(analysis, label)],
        measurements=_ich_measurements(analysis) if label == LABEL_ICH else _ivh_measurements(analysis),
    )


def _ich_measurements(analysis: Analysis) -> list[Any]:
    """Volume, the lines of the largest lesion, and ABC/2."""
    volumes = analysis.volumes_ml
    items = [_volume(volumes.get("segmentation"))]
    lines = [line for line in analysis.abc2_lines if all(f"{name}_cm" in line for name in "abc")]
    if lines:
        largest = max(lines, key=lambda line: line["a_cm"] * line["b_cm"] * line["c_cm"])
        items += [
            _measurement(code("103339001", "SCT", "Long axis"), largest["a_cm"], _CENTIMETER),
            _measurement(code("103340004", "SCT", "Short axis"), largest["b_cm"], _CENTIMETER),
            _measurement(private_code("height", "Height along the slice normal"), largest["c_cm"], _CENTIMETER),
        ]
    items.append(_measurement(private_code("abc2", "Volume by ABC/2"), volumes.get("abc2"), _MILLILITER))
    return [item for item in items if item is not None]


def _ivh_measurements(analysis: Analysis) -> list[Any]:
    return [item for item in (_volume(analysis.volumes_ml.get("ivh")),) if item is not None]


def _volume(value: float | None) -> Any:
    return _measurement(code("118565006", "SCT", "Volume"), value, _MILLILITER, method=_VOXEL_SUM)


def _measurement(
    concept: Any, value: float | None, unit: tuple[str, str, str], method: tuple[str, str, str] | None = None
) -> Any:
    """A numeric measurement with at most six digits; None where there is no value."""
    import highdicom

    if value is None or not math.isfinite(value):
        return None
    return highdicom.sr.Measurement(
        name=concept, value=float(f"{value:.6g}"), unit=code(*unit), method=code(*method) if method else None
    )


def _evaluation(name: tuple[str, str], value: Any) -> Any:
    """A qualitative evaluation under a concept of this project."""
    import highdicom

    return highdicom.sr.QualitativeEvaluation(name=private_code(*name), value=value)


def _site(analysis: Analysis, label: int) -> Any:
    """Where the finding lies, with the side where it is known."""
    import highdicom
    from pydicom.sr.codedict import codes

    side = analysis.location.side if analysis.location is not None and label == LABEL_ICH else None
    sides = {"left": codes.SCT.Left, "right": codes.SCT.Right, "midline": codes.SCT.Midline}
    return highdicom.sr.FindingSite(anatomic_location=site(label), laterality=sides.get(side or ""))


def _algorithm() -> Any:
    import highdicom

    return highdicom.sr.AlgorithmIdentification(name="ICHAnalysis", version=__version__)
