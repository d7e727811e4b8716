"""A simulated case on disk: NIfTI or a DICOM series, labels, and every parameter as JSON, marked as simulated.

A regular upright stack keeps its exact affine. No NIfTI header can hold uneven steps, and readers refuse shear, so a
tilted or uneven stack gets a rigid header with the mean step along the normal; parameters.json says so and holds the
true origin of every slice. The DICOM series holds the true positions itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate.cohort import SimulatedCase
from ICHAnalysisLib.simulate.dicom_series import uid, write_series

Format = Literal["nifti", "dicom"]
NOTE_EXACT = "The header's affine is exact."
NOTE_RIGID = (
    "The slices are tilted or unevenly spaced, which no NIfTI header can say: the header is rigid with the mean step "
    "along the slice normal. slice_origins_ras holds the true position of every slice."
)


def write_case(case: SimulatedCase, folder: str | Path, format: Format = "nifti") -> dict[str, Path]:
    """Write the scan (ct.nii.gz, or the folder dicom), labels.nii.gz and parameters.json into `folder`; the paths.

    Raises UsageError on another format.
    """
    if format not in ("nifti", "dicom"):
        raise UsageError(f"Format {format!r} is not known; use nifti or dicom.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"labels": folder / "labels.nii.gz", "parameters": folder / "parameters.json"}
    if format == "nifti":
        paths["scan"] = folder / "ct.nii.gz"
        _write_nifti(case.volume.hu.astype(np.int16), case.volume, paths["scan"])
    else:
        paths["scan"] = folder / "dicom"
        write_dicom(case, paths["scan"])
    _write_nifti(case.labels, case.volume, paths["labels"])
    _write_text(paths["parameters"], json.dumps(description(case), indent=1, default=_plain))
    return paths


def description(case: SimulatedCase) -> dict[str, Any]:
    """What parameters.json holds: truth, record, outcome, every drawn parameter, geometry."""
    volume = case.volume
    return {
        "simulated": True,
        "case_id": case.case_id,
        "truth": case.truth,
        "record": case.record,
        "outcome": case.outcome,
        "parameters": case.parameters,
        "labels": {"1": "ICH", "2": "IVH", "3": "edema"},
        "geometry": {
            "header": NOTE_EXACT if volume.is_regular else NOTE_RIGID,
            "tilt_degrees": volume.tilt_degrees,
            "column_step_ras": volume.column_step_ras,
            "row_step_ras": volume.row_step_ras,
            "slice_origins_ras": volume.slice_origins_ras,
            "slice_thickness_mm": volume.slice_thickness_mm,
        },
    }


def rigid_affine(volume: CTVolume) -> np.ndarray:
    """(4, 4) RAS affine of the NIfTI header: exact for a regular stack, else with the mean step along the normal."""
    if volume.is_regular:
        return volume.ijk_to_ras
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = volume.column_step_ras, volume.row_step_ras
    affine[:3, 2] = volume.normal_ras * float(np.mean(np.abs(volume.steps_mm)))
    affine[:3, 3] = volume.slice_origins_ras[0]
    return affine


def _write_nifti(values: np.ndarray, volume: CTVolume, path: Path) -> None:
    """One NIfTI file with I, J, K axes."""
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)), rigid_affine(volume))
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"SIMULATED head CT"
    temporary = path.with_name("." + path.name)
    nibabel.save(image, temporary)
    os.replace(temporary, path)


def write_dicom(case: SimulatedCase, folder: Path) -> None:
    """A CT series, one file a slice, with the true position of each."""

    def describe(dataset: Any, k: int) -> None:
        dataset.SOPInstanceUID = uid(case.case_id, k)
        dataset.GantryDetectorTilt = round(case.volume.tilt_degrees, 6)
        _patient_and_study(dataset, case)

    one_a_case = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    tags: dict[str, Any] = {name: uid(case.case_id, name) for name in one_a_case}
    write_series(folder, case.volume, change=describe, **tags)


def _patient_and_study(dataset: Any, case: SimulatedCase) -> None:
    """The header's patient, study and series: invented, and said to be."""
    age, sex = case.record.get("age"), case.record.get("sex")
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = f"SIMULATED^{case.case_id}"
    dataset.PatientID = case.case_id
    dataset.PatientBirthDate = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.PatientSex = {"male": "M", "female": "F"}.get(str(sex), "O")
    if age is not None:
        dataset.PatientAge = f"{int(age):03d}Y"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20000101"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = "000000"
    dataset.StudyID, dataset.Manufacturer = "1", "SIMULATED"
    dataset.ManufacturerModelName = "ICHAnalysis simulator"
    dataset.StudyDescription = "SIMULATED head CT"
    dataset.SeriesDescription = "SIMULATED head without contrast"
    dataset.PatientPosition, dataset.PositionReferenceIndicator = "HFS", "OM"
    dataset.KVP, dataset.ConvolutionKernel = "120", "SIMULATED"
    dataset.RescaleType, dataset.WindowCenter, dataset.WindowWidth = "HU", "40", "80"


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name("." + path.name)
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    """NumPy values for JSON."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value.")
