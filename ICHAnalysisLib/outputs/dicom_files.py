"""All DICOM objects of one analysis as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ICHAnalysisLib.analysis import Analysis, AnalysisArrays
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.dicom_source import require_highdicom, source_headers
from ICHAnalysisLib.outputs.quiet import no_quoting_warnings

if TYPE_CHECKING:
    from pydicom import Dataset

#: Names of the files, by the key under which `write_outputs` returns them.
DICOM_NAMES = {
    "dicom_seg": "segmentation.dcm",
    "dicom_seg_upright": "segmentation_upright.dcm",
    "dicom_sr": "measurements.dcm",
    "dicom_capture": "overview.dcm",
}


def dicom_objects(analysis: Analysis, arrays: AnalysisArrays, volume: CTVolume) -> dict[str, Dataset]:
    """The objects by key: SEG on the original slices and upright (where there is a mask), SR, secondary capture.

    Raises UsageError where the scan is no DICOM series or highdicom is not installed.
    """
    require_highdicom()
    with no_quoting_warnings():
        return _objects(analysis, arrays, volume)


def _objects(analysis: Analysis, arrays: AnalysisArrays, volume: CTVolume) -> dict[str, Dataset]:
    from ICHAnalysisLib.outputs.dicom_capture import overview_capture
    from ICHAnalysisLib.outputs.dicom_seg import original_segmentation, present_labels, upright_segmentation
    from ICHAnalysisLib.outputs.dicom_sr import measurement_report

    headers = source_headers(volume)
    labels = arrays.labels
    segmentation = original_segmentation(analysis, labels, volume, headers)
    upright = upright_segmentation(analysis, labels, volume, headers)
    objects = {
        "dicom_seg": segmentation,
        "dicom_seg_upright": upright,
        "dicom_sr": measurement_report(analysis, headers, segmentation, present_labels(labels)),
        "dicom_capture": overview_capture(analysis, labels, volume, headers),
    }
    return {key: dataset for key, dataset in objects.items() if dataset is not None}


def write_dicom_files(analysis: Analysis, arrays: AnalysisArrays, volume: CTVolume, folder: Path) -> dict[str, Path]:
    """Write the objects of `dicom_objects` to `folder`, each with mode 0600: they carry the patient's name."""
    from ICHAnalysisLib.outputs.dicom_seg import write_dicom

    objects = dicom_objects(analysis, arrays, volume)
    with no_quoting_warnings():
        return {key: write_dicom(dataset, Path(folder) / DICOM_NAMES[key]) for key, dataset in objects.items()}
