"""DICOM headers of many files, grouped to series and sorted: what RSNA and CQ500 need."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

_TAGS = (
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "ImagePositionPatient",
    "ImageOrientationPatient", "ContrastBolusAgent", "BodyPartExamined", "Modality",
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What is needed of one slice. height_mm: position along the slice normal, growing toward superior."""

    path: Path
    patient: str
    study: str
    series: str
    instance: str
    height_mm: float
    contrast: bool
    body_part: str


def read_headers(paths: Iterable[Path], threads: int = 8) -> list[Header]:
    """Headers of all readable CT slices; what cannot be read is counted in one warning."""
    files = list(paths)
    with ThreadPoolExecutor(threads) as pool:
        headers = list(pool.map(read_header, files, chunksize=64))
    bad = [path.name for path, header in zip(files, headers, strict=True) if header is None]
    if bad:
        logger.warning("%d of %d files are no readable CT slices: %s", len(bad), len(files), ", ".join(bad[:5]))
    return [header for header in headers if header is not None]


def read_header(path: Path) -> Header | None:
    """One slice's header, None where it is damaged, not CT, or has no position."""
    import pydicom

    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        axes = np.array(dataset.ImageOrientationPatient, dtype=float)
        normal = np.cross(axes[:3], axes[3:])
        normal = -normal if normal[2] < 0 else normal
        height = float(np.array(dataset.ImagePositionPatient, dtype=float) @ normal)
        if str(dataset.get("Modality", "CT")) != "CT":
            return None
        return Header(
            path,
            str(dataset.PatientID),
            str(dataset.StudyInstanceUID),
            str(dataset.SeriesInstanceUID),
            str(dataset.SOPInstanceUID),
            height,
            bool(str(dataset.get("ContrastBolusAgent", "") or "").strip()),
            str(dataset.get("BodyPartExamined", "") or "").upper(),
        )
    except Exception:  # pydicom raises many kinds on damaged files; the caller counts them
        return None


def by_series(headers: Sequence[Header]) -> dict[str, list[Header]]:
    """The slices of each series, ascending toward superior."""
    series: dict[str, list[Header]] = {}
    for header in headers:
        series.setdefault(header.series, []).append(header)
    return {uid: sorted(slices, key=lambda h: (h.height_mm, h.instance)) for uid, slices in sorted(series.items())}
