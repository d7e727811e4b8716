"""Makers of hazardous DICOM folders from a known scan, each with its truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.simulate.dicom_series import get_pixels, set_pixels, slice_dataset, uid, write_series
from ICHAnalysisLib.simulate.rescan import KnownScan, rescan


@dataclass(frozen=True, eq=False)
class MadeScan:
    """A hazardous scan on disk and what is true about it.

    masks: SOP instance UID (or the image file's name) -> bool mask of that slice (or whole stack).
    truth_ml, centroid_ras: of the bleed that was there when the head was scanned. series: what `--series` gets.
    """

    path: Path
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    truth_ml: float = 0.0
    centroid_ras: np.ndarray = field(default_factory=lambda: np.full(3, np.nan))
    series: str | None = None
    mask_path: Path | None = None


@dataclass(frozen=True, eq=False)
class Bench:
    """A known head and its usual scan (5 mm, upright), from which every hazard is made."""

    known: KnownScan
    usual: KnownScan
    pixel_mm: float = 1.8

    @classmethod
    def of(cls, known: KnownScan, pixel_mm: float = 1.8) -> Bench:
        """The bench of a finely sampled known head."""
        return cls(known, rescan(known, 5.0, pixel_mm=pixel_mm), pixel_mm)

    def again(self, **options: Any) -> KnownScan:
        """The head scanned another way."""
        return rescan(self.known, **{"pixel_mm": self.pixel_mm, **options})

    def with_hu(self, hu: np.ndarray) -> KnownScan:
        """The usual scan with other values."""
        return KnownScan(replace(self.usual.volume, hu=hu.astype(np.float32)), self.usual.labels)

    def write(
        self, folder: Path, scan: KnownScan | None = None, change: Callable[[Any, int], None] | None = None, **tags: Any
    ) -> MadeScan:
        """A DICOM series of a scan, with its truth."""
        scan = scan or self.usual
        uids = write_series(folder, scan.volume, change=change, **tags)
        masks = {one: scan.labels[k] == 1 for k, one in enumerate(uids)}
        return MadeScan(folder, masks, self.known.truth_ml, self.known.centroid_ras)

    def bleed_slice(self) -> int:
        """The usual scan's slice with the most blood."""
        return int(np.argmax(np.count_nonzero(self.usual.labels == 1, axis=(1, 2))))

    def brain(self) -> np.ndarray:
        """bool (K, J, I), inside the skull of the usual scan."""
        from ICHAnalysisLib.ct.head import brain_mask

        return brain_mask(self.usual.volume)


def tilt(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, bench.again(tilt_degrees=20.0))


def steep_tilt(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, bench.again(tilt_degrees=33.0))


def missing_slice(bench: Bench, folder: Path) -> MadeScan:
    made = bench.write(folder)
    sorted(folder.iterdir())[bench.bleed_slice()].unlink()
    return made


def missing_elsewhere(bench: Bench, folder: Path) -> MadeScan:
    """Two slices missing at different places, none of them next to the bleed."""
    made = bench.write(folder)
    clean = np.flatnonzero(~(bench.usual.labels == 1).any(axis=(1, 2)))
    files = sorted(folder.iterdir())
    for k in (clean[4], clean[-5]):
        files[k].unlink()
    return made


def copied_slices(bench: Bench, folder: Path) -> MadeScan:
    made = bench.write(folder)
    for k in (3, bench.bleed_slice()):
        again = slice_dataset(bench.usual.volume, k)
        again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = uid("copy", k)
        again.save_as(folder / f"copy{k}.dcm", enforce_file_format=True)
        made.masks[str(again.SOPInstanceUID)] = bench.usual.labels[k] == 1
    return made


def two_phases(bench: Bench, folder: Path) -> MadeScan:
    made = bench.write(folder)
    later = replace(bench.usual.volume, hu=bench.usual.volume.hu + 2.0)
    again = write_series(folder, later, 3, SeriesInstanceUID=uid("series", 2), SeriesNumber=2, AcquisitionNumber=2)
    made.masks.update({one: bench.usual.labels[k] == 1 for k, one in enumerate(again)})
    return made


def five_and_ten(bench: Bench, folder: Path) -> MadeScan:
    count = bench.usual.volume.shape[0]
    half = int(count * 0.55)
    return bench.write(folder, bench.again(heights_mm=np.r_[np.full(half, 5.0), np.full(count, 10.0)]))


def overlapping(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, bench.again(heights_mm=3.0, thickness_mm=6.0))


def gaps(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, bench.again(heights_mm=7.0, thickness_mm=5.0))


def with_localizer(bench: Bench, folder: Path) -> MadeScan:
    made = bench.write(folder)
    scout = rescan(bench.known, 60.0, pixel_mm=bench.pixel_mm, plane="sagittal").volume
    write_series(folder, scout, 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesDescription="Scout")
    return made


def whole_study(bench: Bench, folder: Path) -> MadeScan:
    """Localizer, soft 5 mm, bone 5 mm, thin soft and a contrast run, as a hospital exports them."""
    made = with_localizer(bench, folder)
    usual, thin = bench.usual.volume, bench.again(heights_mm=2.0, pixel_mm=2 * bench.pixel_mm).volume
    write_series(folder, usual, 4, ConvolutionKernel="H60s", SeriesDescription="Head bone")
    write_series(folder, thin, 5, ConvolutionKernel="H30s", SeriesDescription="Head thin")
    write_series(folder, usual, 6, ContrastBolusAgent="Iohexol", SeriesDescription="Head C+")
    return made


def bone_kernel(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, ConvolutionKernel="H70h", SeriesDescription="Bone")


def thin(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, bench.again(heights_mm=1.0, pixel_mm=1.5 * bench.pixel_mm))


def no_rescale(bench: Bench, folder: Path) -> MadeScan:
    def change(dataset: Any, _k: int) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept

    return bench.write(folder, change=change)


def mixed_rescale(bench: Bench, folder: Path) -> MadeScan:
    def change(dataset: Any, k: int) -> None:
        if k % 2:
            dataset.RescaleIntercept = -2048
            set_pixels(dataset, get_pixels(dataset) + np.uint16(1024))

    return bench.write(folder, change=change)


def rescale_on_most(bench: Bench, folder: Path) -> MadeScan:
    """Slope and intercept on all slices but one, which has the most blood."""

    def change(dataset: Any, k: int) -> None:
        if k == bench.bleed_slice():
            del dataset.RescaleSlope, dataset.RescaleIntercept

    return bench.write(folder, change=change)


def padding(bench: Bench, folder: Path) -> MadeScan:
    _, rows, columns = bench.usual.volume.shape
    y, x = np.ogrid[:rows, :columns]
    ring = np.hypot(y - rows / 2, x - columns / 2) > 0.49 * min(rows, columns) + 6

    def change(dataset: Any, _k: int) -> None:
        signed = get_pixels(dataset).astype(np.int16) - np.int16(1024)
        signed[ring] = -3024
        dataset.PixelRepresentation, dataset.RescaleIntercept = 1, 0
        dataset.add_new(0x00280120, "SS", -3024)
        set_pixels(dataset, signed)

    return bench.write(folder, change=change)


def wrapped(bench: Bench, folder: Path) -> MadeScan:
    def change(dataset: Any, _k: int) -> None:
        true = get_pixels(dataset).astype(np.int32) - 1024
        dataset.BitsStored, dataset.HighBit, dataset.RescaleIntercept = 12, 11, 0
        set_pixels(dataset, (true % 4096).astype(np.uint16))

    return bench.write(folder, change=change)


def unsigned(bench: Bench, folder: Path) -> MadeScan:
    def change(dataset: Any, _k: int) -> None:
        true = get_pixels(dataset).astype(np.int32) - 1024
        dataset.RescaleIntercept = 0
        set_pixels(dataset, (true % 65536).astype(np.uint16))

    return bench.write(folder, change=change)


def shifted(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, RescaleIntercept=0)


def contrast_tag(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, ContrastBolusAgent="Iohexol", SeriesDescription="Head post contrast")


def dual_energy(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, SeriesDescription="Head VNC", ImageType=["DERIVED", "PRIMARY", "AXIAL", "VNC"])


def mr_series(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")


def pet_ct(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, ManufacturerModelName="Biograph 64")


def child(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, PatientAge="006Y")


def coronal(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, bench.again(plane="coronal", heights_mm=3.0))


def perfusion(bench: Bench, folder: Path) -> MadeScan:
    made = bench.write(folder, TemporalPositionIdentifier=1)
    for point in (2, 3, 4):
        write_series(
            folder, bench.usual.volume, 10 + point, SeriesInstanceUID=uid("series", 2), SeriesNumber=2,
            TemporalPositionIdentifier=point, AcquisitionNumber=point,
        )  # fmt: skip
    return made


def enhanced(bench: Bench, folder: Path) -> MadeScan:
    """One enhanced multi-frame object with 5 mm frames below and 10 mm frames above, in reverse order."""
    from pydicom.dataset import Dataset

    count = bench.usual.volume.shape[0]
    scan = bench.again(heights_mm=np.r_[np.full(int(count * 0.55), 5.0), np.full(count, 10.0)])
    order = range(scan.volume.shape[0] - 1, -1, -1)
    frames = [slice_dataset(scan.volume, k) for k in order]
    whole = frames[0]
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    whole.file_meta.MediaStorageSOPInstanceUID = whole.SOPInstanceUID
    items = []
    for frame in frames:
        item = Dataset()
        item.PlanePositionSequence = [_item(ImagePositionPatient=frame.ImagePositionPatient)]
        item.PixelMeasuresSequence = [_item(PixelSpacing=frame.PixelSpacing, SliceThickness=frame.SliceThickness)]
        items.append(item)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=whole.ImageOrientationPatient)]
    shared.PixelValueTransformationSequence = [_item(RescaleSlope=1, RescaleIntercept=-1024)]
    whole.PixelData = b"".join(frame.PixelData for frame in frames)
    whole.NumberOfFrames = len(frames)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(whole, keyword)
    del whole.RescaleSlope, whole.RescaleIntercept
    whole.PerFrameFunctionalGroupsSequence, whole.SharedFunctionalGroupsSequence = items, [shared]
    folder.mkdir(parents=True, exist_ok=True)
    whole.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    masks = {f"{whole.SOPInstanceUID}/{n}": scan.labels[k] == 1 for n, k in enumerate(order)}
    return MadeScan(folder, masks, bench.known.truth_ml, bench.known.centroid_ras)


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def gigantic(bench: Bench, folder: Path) -> MadeScan:
    """Headers that claim 400 slices of 4096 x 4096 pixels."""
    volume = bench.usual.volume
    origins = np.arange(400)[:, None] * np.array([0.0, 0.0, 0.5]) + volume.slice_origins_ras[0]
    tall = CTVolume(
        np.zeros((400, 8, 8), np.float32), volume.column_step_ras, volume.row_step_ras, origins, np.full(400, 0.5)
    )
    write_series(folder, tall, Rows=4096, Columns=4096)
    return MadeScan(folder)


def truncated(bench: Bench, folder: Path) -> MadeScan:
    made = bench.write(folder)
    files = sorted(folder.iterdir())
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[: len(whole) // 2])
    files[2].write_bytes(b"")
    return made


def cut_short(bench: Bench, folder: Path) -> MadeScan:
    """The top of the scan is missing, through the bleed."""
    volume, labels = bench.usual.volume, bench.usual.labels
    end = bench.bleed_slice() + 1
    part = replace(
        volume,
        hu=volume.hu[:end],
        slice_origins_ras=volume.slice_origins_ras[:end],
        slice_thickness_mm=volume.slice_thickness_mm[:end],
    )
    return bench.write(folder, KnownScan(part, labels[:end]))


def two_patients(bench: Bench, folder: Path) -> MadeScan:
    made = bench.write(folder)
    write_series(folder, bench.usual.volume, 3, PatientID="OTHER", StudyInstanceUID=uid("other study"))
    return made


def no_pixel_spacing(bench: Bench, folder: Path) -> MadeScan:
    def change(dataset: Any, _k: int) -> None:
        del dataset.PixelSpacing

    return bench.write(folder, change=change)


def burnt_in(bench: Bench, folder: Path) -> MadeScan:
    return bench.write(folder, BurnedInAnnotation="YES", PatientName="Doe^Jane", PatientID="4711")
