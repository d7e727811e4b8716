"""A CTVolume as a DICOM series, marked as simulated; each data set can be changed before it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.ct.volume import CTVolume

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
Change = Callable[[Any, int], None]


def uid(*parts: object) -> str:
    """A DICOM UID that is the same for the same parts."""
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=[str(part) for part in parts]))


def write_series(
    folder: Path, volume: CTVolume, number: int = 2, change: Change | None = None, **tags: Any
) -> list[str]:
    """One file a slice in `folder`; returns the SOP instance UIDs in slice order.

    change(data set, k): alters a slice before it is written. tags: attributes of every slice, by DICOM keyword.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uids = []
    for k in range(volume.shape[0]):
        dataset = slice_dataset(volume, k, number)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        if change is not None:
            change(dataset, k)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / f"{number:03d}_{k + 1:04d}.dcm", enforce_file_format=True)
        uids.append(str(dataset.SOPInstanceUID))
    return uids


def slice_dataset(volume: CTVolume, k: int, number: int = 2) -> Any:
    """The CT image of one slice: unsigned 16-bit, intercept -1024, position and directions in LPS."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    lps = np.array([-1.0, -1.0, 1.0])
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(CT_IMAGE)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CT_IMAGE
    dataset.SOPInstanceUID = uid("instance", number, k, volume.hu[k].tobytes()[:4096])
    dataset.StudyInstanceUID = uid("study")
    dataset.SeriesInstanceUID = uid("series", number)
    dataset.FrameOfReferenceUID = uid("frame")
    dataset.PatientID, dataset.PatientName = "SIM", "Simulated^Patient"
    dataset.Modality, dataset.Manufacturer = "CT", "ICHAnalysis"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "SYNTHETIC"]
    dataset.SeriesDescription, dataset.BodyPartExamined = "SIMULATED head", "HEAD"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = number, k + 1, 1
    dataset.ConvolutionKernel = "H30s"
    dataset.SliceThickness = round(float(volume.slice_thickness_mm[k]), 4)
    dataset.ImagePositionPatient = [round(float(v), 4) for v in volume.slice_origins_ras[k] * lps]
    spacing = volume.spacing_mm
    directions = [*(volume.column_step_ras / spacing[0] * lps), *(volume.row_step_ras / spacing[1] * lps)]
    dataset.ImageOrientationPatient = [round(float(v), 8) for v in directions]
    dataset.PixelSpacing = [round(spacing[1], 6), round(spacing[0], 6)]
    dataset.Rows, dataset.Columns = volume.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    set_pixels(dataset, np.clip(np.round(volume.hu[k] + 1024.0), 0, 65535).astype(np.uint16))
    return dataset


def set_pixels(dataset: Any, stored: np.ndarray) -> None:
    """Stored 16-bit values, uncompressed."""
    dataset.PixelData = stored.astype("<i2" if stored.dtype == np.int16 else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def get_pixels(dataset: Any) -> np.ndarray:
    """The stored values of an uncompressed data set, (rows, columns) uint16."""
    return np.frombuffer(dataset.PixelData, dtype="<u2").reshape(dataset.Rows, dataset.Columns).copy()
