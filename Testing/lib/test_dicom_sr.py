"""DICOM SR: every measurement with value, unit and code, tied to the SEG; a negative says what it leaves open."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_cases import write_series
from output_cases import bleed_labels, negative_analysis, positive_analysis, tilted_volume

from ICHAnalysisLib.analysis import AnalysisArrays, Presence
from ICHAnalysisLib.outputs.dicom_files import dicom_objects

highdicom = pytest.importorskip("highdicom", reason="the extra 'dicom' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    volume = write_series(tilted_volume(), tmp_path_factory.mktemp("sr"))
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]))
    labels[4, 30:33, 20:24] = 2
    analysis = positive_analysis(volume, labels, message=HOSTILE, case_id=HOSTILE)
    return analysis, labels, volume, dicom_objects(analysis, AnalysisArrays(labels), volume)


def numbers(dataset) -> dict[str, tuple[float, str]]:
    """Meaning of the concept -> (value, unit) of every numeric item, at any depth, but for the list of images."""
    found = {}
    for item in getattr(dataset, "ContentSequence", []):
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Image Library":
            continue
        if item.ValueType == "NUM":
            measured = item.MeasuredValueSequence[0]
            unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
            found.setdefault(item.ConceptNameCodeSequence[0].CodeMeaning, (float(measured.NumericValue), unit))
        found = {**numbers(item), **found}
    return found


def texts(dataset) -> list[str]:
    """Meanings of every code and text, at any depth."""
    found = []
    for item in getattr(dataset, "ContentSequence", []):
        if item.ValueType == "CODE":
            found.append(item.ConceptCodeSequence[0].CodeMeaning)
        if item.ValueType == "TEXT":
            found.append(str(item.TextValue))
        found += texts(item)
    return found


def test_measurements_have_value_and_unit(case):
    analysis, _, _, objects = case
    found = numbers(objects["dicom_sr"])
    line = analysis.abc2_lines[0]
    expected = {
        "Volume": (analysis.volumes_ml["segmentation"], "ml"),
        "Long axis": (line["a_cm"], "cm"),
        "Short axis": (line["b_cm"], "cm"),
        "Height along the slice normal": (line["c_cm"], "cm"),
        "Volume by ABC/2": (analysis.volumes_ml["abc2"], "ml"),
        "Volume by the volume network": (12.5, "ml"),
        "Probability of hemorrhage": (0.97, "1"),
    }
    assert set(found) == set(expected)
    for name, (value, unit) in expected.items():
        assert found[name][0] == pytest.approx(value, rel=1e-5) and found[name][1] == unit, name


def test_each_group_refers_to_its_segment(case):
    analysis, _, _, objects = case
    content = highdicom.sr.Comprehensive3DSR.from_dataset(objects["dicom_sr"]).content
    groups = content.get_volumetric_roi_measurement_groups()
    references = [group.referenced_segment[0].ReferencedSOPSequence[0] for group in groups]
    assert [reference.ReferencedSegmentNumber for reference in references] == [1, 2]
    seg = objects["dicom_seg"]
    assert {reference.ReferencedSOPInstanceUID for reference in references} == {seg.SOPInstanceUID}
    assert [group.tracking_uid for group in groups] == [item.TrackingUID for item in seg.SegmentSequence]
    volumes = [
        group.get_measurements(name=highdicom.sr.CodedConcept("118565006", "SCT", "Volume"))[0] for group in groups
    ]
    assert [round(item.value, 3) for item in volumes] == [
        round(analysis.volumes_ml[key], 3) for key in ("segmentation", "ivh")
    ]
    assert volumes[0].method.value == "126030"


def test_location_side_and_use_are_said(case):
    said = texts(case[3]["dicom_sr"])
    for part in ("Present", "deep", "Left", "Brain", "Brain ventricle", "Research use only, not a medical device"):
        assert part in said, part


def test_no_free_text_enters(case):
    for dataset in case[3].values():
        assert HOSTILE not in str(dataset)


def test_report_is_preliminary_and_by_a_device(case):
    report = case[3]["dicom_sr"]
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert report.Modality == "SR" and "research use only" in report.ManufacturerModelName
    scheme = {item.CodingSchemeDesignator for item in report.CodingSchemeIdentificationSequence}
    assert "99ICHANALYSIS" in scheme


def test_a_negative_says_absent_and_what_is_not_assessed(case):
    _, labels, volume, _ = case
    report = dicom_objects(negative_analysis(), AnalysisArrays(labels * 0), volume)["dicom_sr"]
    said = texts(report)
    assert "Absent" in said and "Extra-axial blood, infarct, fracture" in said and "Present" not in said
    assert set(numbers(report)) == {"Probability of hemorrhage"}


def test_a_suspicion_without_an_outline_is_indeterminate(case):
    _, labels, volume, _ = case
    doubtful = negative_analysis(presence=Presence(0.5, False, (), 0.45))
    said = texts(dicom_objects(doubtful, AnalysisArrays(labels * 0), volume)["dicom_sr"])
    assert "Indeterminate" in said and "Absent" not in said and "Present" not in said


def test_capture_is_the_overview_in_the_study(case):
    *_, objects = case
    capture = objects["dicom_capture"]
    assert capture.pixel_array.shape == (1000, 1600, 3) and capture.PhotometricInterpretation == "RGB"
    assert capture.BurnedInAnnotation == "NO" and capture.StudyInstanceUID == objects["dicom_sr"].StudyInstanceUID
    outline = np.all(np.abs(capture.pixel_array.astype(int) - [255, 93, 58]) < 12, axis=-1)
    assert outline.sum() > 100
