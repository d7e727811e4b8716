"""Small DICOM series of made-up heads, as scanners write them, and their `CTVolume`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from ICHAnalysisLib.ct.volume import CTVolume, InstanceRef

LPS = np.array([-1.0, -1.0, 1.0])


def write_series(volume: CTVolume, folder: Path, **tags: str) -> CTVolume:
    """Write one file a slice, in an order that has nothing to do with place; returns the volume that refers to them."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    refs = []
    for k in range(volume.shape[0]):
        header = _common(volume, study, series, frame)
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, generate_uid()
        header.InstanceNumber = volume.shape[0] - k
        header.ImagePositionPatient = [f"{value:.6f}" for value in volume.slice_origins_ras[k] * LPS]
        header.ImageOrientationPatient = _orientation(volume)
        header.PixelSpacing = [f"{volume.spacing_mm[1]:.6f}", f"{volume.spacing_mm[0]:.6f}"]
        header.SliceThickness = f"{volume.slice_thickness_mm[k]:.3f}"
        header.PixelData = volume.hu[k].astype(np.int16).tobytes()
        for name, value in tags.items():
            setattr(header, name, value)
        path = folder / f"{(7 * k) % 101:03d}.dcm"
        _save(header, path)
        refs.append(InstanceRef(str(path), None, CTImageStorage, str(header.SOPInstanceUID)))
    return replace(volume, instances=tuple(refs), source={"kind": "dicom"})


def write_enhanced(volume: CTVolume, path: Path, order: list[int]) -> CTVolume:
    """One enhanced multi-frame file; frame n shows slice order[n]."""
    header = _common(volume, generate_uid(), generate_uid(), generate_uid())
    header.SOPClassUID, header.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    header.NumberOfFrames = volume.shape[0]
    shared = Dataset()
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing = [volume.spacing_mm[1], volume.spacing_mm[0]]
    measures.SliceThickness = float(volume.slice_thickness_mm[0])
    orientation.ImageOrientationPatient = _orientation(volume)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = []
    for k in order:
        frame, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [float(value) for value in volume.slice_origins_ras[k] * LPS]
        content.InStackPositionNumber = k + 1
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        header.PerFrameFunctionalGroupsSequence.append(frame)
    header.PixelData = volume.hu[order].astype(np.int16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(header, path)
    refs = tuple(
        InstanceRef(str(path), None, EnhancedCTImageStorage, str(header.SOPInstanceUID), order.index(k))
        for k in range(volume.shape[0])
    )
    return replace(volume, instances=refs, source={"kind": "dicom"})


def _orientation(volume: CTVolume) -> list[str]:
    steps = (volume.column_step_ras * LPS, volume.row_step_ras * LPS)
    return [f"{value:.8f}" for step in steps for value in step / np.linalg.norm(step)]


def _common(volume: CTVolume, study: str, series: str, frame: str) -> Dataset:
    """What every file has; most type 2 attributes are left out, as careless exports do."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = study, series, frame
    header.Modality, header.PatientName, header.PatientID = "CT", "Test^Head", "head-1"
    header.Rows, header.Columns = volume.shape[1:]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 1
    header.RescaleIntercept, header.RescaleSlope = "0", "1"
    return header


def _save(header: Dataset, path: Path) -> None:
    header.save_as(path, enforce_file_format=True)
