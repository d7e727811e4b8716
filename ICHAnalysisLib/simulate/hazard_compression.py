"""Makers of DICOM folders in the compressed transfer syntaxes that scanners and archives write (hazard 27)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ICHAnalysisLib.simulate.dicom_series import get_pixels
from ICHAnalysisLib.simulate.hazard_scans import Bench, MadeScan


def jpeg_2000(bench: Bench, folder: Path) -> MadeScan:
    """JPEG 2000 without loss."""
    from pydicom.uid import JPEG2000Lossless

    return _compressed(bench, folder, JPEG2000Lossless)


def jpeg_ls(bench: Bench, folder: Path) -> MadeScan:
    """JPEG-LS without loss; its encoder comes with the extra 'dicom'."""
    from pydicom.uid import JPEGLSLossless

    return _compressed(bench, folder, JPEGLSLossless)


def run_length(bench: Bench, folder: Path) -> MadeScan:
    """RLE, and a note of an earlier compression with loss."""
    from pydicom.uid import RLELossless

    return _compressed(bench, folder, RLELossless, LossyImageCompression="01")


def _compressed(bench: Bench, folder: Path, syntax: str, **tags: Any) -> MadeScan:
    import pydicom

    made = bench.write(folder, **tags)
    for path in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    return made


def lossless_jpeg(bench: Bench, folder: Path) -> MadeScan:
    """Lossless JPEG (process 14), the usual compression of older archives, encoded by GDCM."""
    made = bench.write(folder, change=lambda dataset, _k: _to_jpeg(dataset))
    return made


def _to_jpeg(dataset: Any) -> None:
    """The stored values of one slice as GDCM writes them, moved into its data set."""
    import pydicom
    import SimpleITK as sitk  # noqa: N813

    with tempfile.TemporaryDirectory(prefix="ich-jpeg-") as folder:
        path = str(Path(folder) / "slice.dcm")
        writer = sitk.ImageFileWriter()
        writer.SetFileName(path)
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(get_pixels(dataset)[None]))
        coded = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = coded.file_meta.TransferSyntaxUID
    dataset.PixelData = coded.PixelData
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"


def no_decoder(bench: Bench, folder: Path) -> MadeScan:
    """Images that claim a video syntax, for which there is no decoder of slices."""
    from pydicom.encaps import encapsulate
    from pydicom.uid import MPEG2MPML

    def change(dataset: Any, _k: int) -> None:
        dataset.file_meta.TransferSyntaxUID = MPEG2MPML
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"

    return bench.write(folder, change=change)
