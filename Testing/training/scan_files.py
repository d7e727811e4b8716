"""Small head scans and masks as NIfTI and DICOM files, for tests that read data sets from disk."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from Testing.training.cached_heads import head

SIZE, SLICES, PIXEL_MM, STEP_MM = 96, 20, 2.3, 6.5
#: RAS affine of files in which x and y run to the left and the back, as converted DICOM does.
AFFINE = np.array([[-PIXEL_MM, 0, 0, 110], [0, -PIXEL_MM, 0, 110], [0, 0, STEP_MM, -60], [0, 0, 0, 1.0]])


def scan_arrays(seed: int = 0, clot: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """HU float32 and labels uint8 (K, J, I) of a head of natural size."""
    return head(seed, clot, size=SIZE, slices=SLICES)


def write_nifti(path: Path, array_kji: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """An array (K, J, I) as NIfTI, HU as int16 and masks as uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = np.uint8 if array_kji.dtype == np.uint8 else np.int16
    image = nib.Nifti1Image(np.rint(array_kji).transpose(2, 1, 0).astype(dtype), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def write_head_nifti(path: Path, seed: int = 0, clot: bool = True) -> np.ndarray:
    """A head as NIfTI; returns its labels (K, J, I)."""
    hu, labels = scan_arrays(seed, clot)
    write_nifti(path, hu)
    return labels


def write_dicom_slice(
    path: Path, hu: np.ndarray, z_mm: float, patient: str, study: str, series: str, name: str, **tags: object
) -> Path:
    """One axial CT slice (J, I) as DICOM; `name` becomes its SOPInstanceUID, `tags` replace or add attributes."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, name
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, name
    dataset.Modality, dataset.PatientID = "CT", patient
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.ImagePositionPatient = [-110.0, -110.0, z_mm]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [PIXEL_MM, PIXEL_MM], STEP_MM
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = np.rint(hu + 1024).astype(np.int16).tobytes()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path
