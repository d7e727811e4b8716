"""DICOM secondary capture of the overview, for any viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ICHAnalysisLib import __version__
from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.dicom_source import MANUFACTURER, MODEL, SERIAL, description, new_series
from ICHAnalysisLib.outputs.pictures import overview_figure

if TYPE_CHECKING:
    from pydicom import Dataset


def overview_capture(analysis: Analysis, labels: np.ndarray, volume: CTVolume, headers: list[Dataset]) -> Dataset:
    """The overview as an RGB secondary capture in the source's study. The picture names no patient."""
    import highdicom

    dataset = highdicom.sc.SCImage.from_ref_dataset(
        ref_dataset=headers[0],
        pixel_array=overview_pixels(analysis, labels, volume),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        manufacturer=MANUFACTURER,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **new_series(headers[0], 4),
    )
    dataset["PatientOrientation"].value = None  # a montage has none, but the constructor wants one
    dataset.Laterality = ""
    dataset.SeriesDescription = description(analysis, "ICH overview")
    dataset.ManufacturerModelName = MODEL
    dataset.SoftwareVersions = __version__
    dataset.DeviceSerialNumber = SERIAL
    dataset.BurnedInAnnotation = "NO"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    return dataset


def overview_pixels(analysis: Analysis, labels: np.ndarray, volume: CTVolume) -> np.ndarray:
    """The overview as uint8 (rows, columns, 3)."""
    figure = overview_figure(analysis, labels, volume)
    figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])  # type: ignore[attr-defined]
