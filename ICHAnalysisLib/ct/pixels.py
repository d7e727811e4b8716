"""Stored pixel values of DICOM slices, decoded by pydicom and its plugins (hazards 27, 28, 30)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ICHAnalysisLib.ct.headers import SliceHeader
from ICHAnalysisLib.ct.sources import FileRef


class FrameReader:
    """Stored values of slices, one after the other; a multi-frame file is opened once and decoded frame by frame."""

    def __init__(self) -> None:
        self._ref: FileRef | None = None
        self._dataset: Any = None

    def read(self, header: SliceHeader) -> np.ndarray:
        """(rows, columns) stored values of one slice.

        Raises: whatever a damaged file makes the decoders raise; ValueError where the size is not the header's.
        """
        if self._ref != header.ref:
            self._dataset, self._ref = _opened(header.ref), header.ref
        several = int(self._dataset.get("NumberOfFrames") or 1) > 1
        pixels = _decoded(self._dataset, (header.frame or 0) if several else None)
        if pixels.shape != (header.rows, header.columns):
            raise ValueError(f"{pixels.shape} pixels where the header says {header.rows} x {header.columns}")
        return pixels


def _decoded(dataset: Any, frame: int | None) -> np.ndarray:
    """Stored values of one frame, unscaled; None for the only one."""
    from pydicom.pixels import pixel_array

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd headers are judged by the checks, not printed
        return np.asarray(dataset.pixel_array if frame is None else pixel_array(dataset, index=frame))


def _opened(ref: FileRef) -> Any:
    """The data set of a file, ready to be decoded."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset: Any = ref.dataset()
        if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
            dataset.ensure_file_meta()
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        if "PixelData" not in dataset:
            raise ValueError("no pixel data in the file")
        _complete(dataset)
        return dataset


def _complete(dataset: Any) -> None:
    """What careless exports leave out of the image's description and a CT slice can only have one way."""
    if "BitsAllocated" in dataset:
        bits = int(dataset.BitsAllocated)
        for keyword, value in (
            ("SamplesPerPixel", 1),
            ("PhotometricInterpretation", "MONOCHROME2"),
            ("BitsStored", bits),
            ("HighBit", int(dataset.get("BitsStored") or bits) - 1),
        ):
            if keyword not in dataset:
                setattr(dataset, keyword, value)


def syntax_name(syntax: str) -> str:
    """A transfer syntax in words."""
    from pydicom.uid import UID

    return UID(syntax).name if syntax else "not stated"


def why_unreadable(error: Exception, header: SliceHeader) -> str:
    """Half a sentence on why a slice could not be decoded; a missing decoder is named with its syntax."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if "missing dependencies" in reason or "plugins" in reason:
        return f"no decoder for {syntax_name(header.syntax)}"
    if "less than expected" in reason or "is empty" in reason:
        return "the picture in it is cut short"
    return reason[:160]
