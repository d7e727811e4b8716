"""What every DICOM object of an analysis shares: the source's patient and study, the device, the codes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ICHAnalysisLib import __version__
from ICHAnalysisLib.analysis import LABEL_ICH, LABEL_IVH, Analysis
from ICHAnalysisLib.ct.memory import FREE_SHARE, free_memory_bytes
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.outputs.words import is_simulated

if TYPE_CHECKING:
    from pydicom import Dataset

MANUFACTURER = "ICHAnalysis contributors"
MODEL = "ICHAnalysis (research use only, not a medical device)"
SERIAL = "research"
#: Coding scheme of the few concepts that SNOMED and DICOM have no code for.
PRIVATE_SCHEME = "99ICHANALYSIS"

SEGMENT_NAMES = {LABEL_ICH: "Intracerebral hemorrhage", LABEL_IVH: "Intraventricular hemorrhage"}

#: Memory that building a segmentation takes: the enlarged labels, the numbered copy, one segment at a time.
_BYTES_PER_SEG_VOXEL = 4

#: Present in every image by the standard, possibly empty; sources that lack them get them empty.
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "ReferringPhysicianName", "AccessionNumber", "PositionReferenceIndicator", "SeriesDate", "SeriesTime",
)  # fmt: skip


def require_highdicom() -> None:
    """Raise UsageError where the extra is missing."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UsageError("DICOM objects need highdicom: pip install 'ich-analysis[dicom]'.") from error


def source_headers(volume: CTVolume) -> list[Dataset]:
    """The header behind each slice, completed with empty type 2 attributes; the same data set for frames of one file.

    Raises UsageError where the scan is no DICOM series, or its headers lack what a reference needs.
    """
    from ICHAnalysisLib.ct.readers import source_datasets

    if not volume.instances:
        raise UsageError("DICOM objects refer to the original slices: analyze the DICOM series, not a converted file.")
    read = source_datasets(volume)
    if not all(header.get("StudyInstanceUID") and header.get("SeriesInstanceUID") for header in read):
        raise UsageError("The DICOM files name no study or series, so nothing can be filed beside them.")
    completed: dict[int, Dataset] = {}
    frame_of_reference = _frame_of_reference(read)
    for header in read:
        if id(header) not in completed:
            completed[id(header)] = _completed(header, frame_of_reference)
    return [completed[id(header)] for header in read]


def _frame_of_reference(headers: list[Dataset]) -> str:
    """The frame of reference of the stack; a new one where the source names none."""
    from pydicom.uid import generate_uid

    known = {str(header.get("FrameOfReferenceUID") or "") for header in headers} - {""}
    if len(known) > 1:
        raise UsageError("The slices name several frames of reference; no DICOM object can refer to them together.")
    return known.pop() if known else str(generate_uid())


def _completed(header: Dataset, frame_of_reference: str) -> Dataset:
    """A copy with every attribute that references need."""
    completed = copy.deepcopy(header)
    for name in _TYPE_2:
        if name not in completed or completed.get(name) is None:
            setattr(completed, name, "")
    completed.FrameOfReferenceUID = frame_of_reference
    if completed.get("PatientIdentityRemoved") == "YES" and not (
        completed.get("DeidentificationMethod") or completed.get("DeidentificationMethodCodeSequence")
    ):
        completed.DeidentificationMethod = "Not stated by the source"  # must not be empty beside a YES
    if not completed.get("SOPInstanceUID") or not completed.get("SOPClassUID"):
        raise UsageError("A slice has no SOP instance UID, so nothing can refer to it.")
    return completed


def is_multiframe(headers: list[Dataset]) -> bool:
    """True for an enhanced source: one data set with all slices as frames."""
    return int(headers[0].get("NumberOfFrames") or 1) > 1


def labels_at_source_size(labels: np.ndarray, header: Dataset, factor: int = 1) -> np.ndarray:
    """Labels (K, rows, columns) of the source; factor: in blocks of how many pixels the scan was averaged to fit the
    memory. The rows and columns at the end that filled no block hold nothing.

    Raises: UsageError where the labels are not of this source, or the enlarged ones would not fit the memory.
    """
    rows, columns = int(header.Rows), int(header.Columns)
    if labels.shape[1:] != (rows // factor, columns // factor):
        raise UsageError(f"The mask of {labels.shape[1:]} does not fit slices of {rows} x {columns} pixels.")
    if factor == 1:
        return labels
    needed = len(labels) * rows * columns * _BYTES_PER_SEG_VOXEL
    if needed > FREE_SHARE * free_memory_bytes():
        raise UsageError(
            f"A DICOM segmentation on the {len(labels)} original slices of {rows} x {columns} pixels needs "
            f"{needed / 2**30:.1f} GiB of memory. Give a thicker or smaller series, or use segmentation.nii.gz."
        )
    grown = labels.repeat(factor, axis=1).repeat(factor, axis=2)
    return np.pad(grown, ((0, 0), (0, rows - grown.shape[1]), (0, columns - grown.shape[2])))


def description(analysis: Analysis, what: str) -> str:
    """The series description: what it is, and what it is not. At most 64 characters, as the standard wants."""
    simulated = ", SIMULATED" if is_simulated(analysis) else ""
    return f"{what}{simulated}, research use only"


def device() -> dict[str, Any]:
    """The equipment attributes of every object."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL,
        "software_versions": __version__,
        "device_serial_number": SERIAL,
    }


def new_series(header: Dataset, offset: int) -> dict[str, Any]:
    """UIDs of a new series with one object; its number stands far from the source's."""
    from pydicom.uid import generate_uid

    return {
        "series_instance_uid": generate_uid(),
        "series_number": 9000 + offset,
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
    }


def algorithm() -> Any:
    """Algorithm identification of the segments."""
    import highdicom
    from pydicom.sr.codedict import codes

    return highdicom.AlgorithmIdentificationSequence(
        name="ICHAnalysis", family=codes.DCM.ArtificialIntelligence, version=__version__, source=MANUFACTURER
    )


def code(value: str, scheme: str, meaning: str) -> Any:
    """A coded concept."""
    from pydicom.sr.coding import Code

    return Code(value, scheme, meaning)


def private_code(value: str, meaning: str) -> Any:
    """A concept of this project's own coding scheme."""
    return code(value, PRIVATE_SCHEME, meaning)


def hemorrhage() -> Any:
    """SNOMED: hemorrhage."""
    return code("50960005", "SCT", "Hemorrhage")


def site(label: int) -> Any:
    """SNOMED: where a segment lies."""
    if label == LABEL_IVH:
        return code("35764002", "SCT", "Brain ventricle")
    return code("12738006", "SCT", "Brain")


def declare_private_scheme(dataset: Dataset) -> None:
    """Say whose coding scheme `PRIVATE_SCHEME` is, as the standard wants it."""
    from pydicom.dataset import Dataset as Item

    item = Item()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = "ICHAnalysis concepts"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    dataset.CodingSchemeIdentificationSequence = [item]
