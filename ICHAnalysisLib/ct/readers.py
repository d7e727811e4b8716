"""From a path to a checked `CTVolume`: the series chosen, pixels in Hounsfield units, hazards found and mended."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.ct.checks import blocking, by_level, check_pixels, require_clear
from ICHAnalysisLib.ct.dicom import read_series, series_geometry, single_places
from ICHAnalysisLib.ct.geometry_checks import geometry_findings
from ICHAnalysisLib.ct.header_checks import header_findings, rescale_known, voxels
from ICHAnalysisLib.ct.images import read_image
from ICHAnalysisLib.ct.memory import reduction_factor
from ICHAnalysisLib.ct.series import Series
from ICHAnalysisLib.ct.sources import FileRef, blocked, unpack_image
from ICHAnalysisLib.ct.study import Study, choose_series, open_study
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.findings import Finding


@dataclass(frozen=True, eq=False)
class _Raw:
    """A volume before its values are judged."""

    volume: CTVolume
    padding: np.ndarray | None = None
    rescale_known: bool = True


def read_scan(path: str | os.PathLike, series: str | int | None = None, accept: bool = False) -> CTVolume:
    """Read, choose, check and mend a scan.

    path: DICOM folder, zip, DICOMDIR or file; NIfTI, NRRD or MetaImage file.
    series: series number, label of the table or SeriesInstanceUID; the time point of a 4-D image file.
    accept: True answers every question (level ASK) with yes.
    Raises: UsageError for a path or a series that does not exist; InputBlockedError, with all findings, where the
    scan cannot be analyzed or a question is left open.
    """
    volume = inspect_scan(path, series)
    require_clear(volume.findings, accept)
    return volume


def inspect_scan(path: str | os.PathLike, series: str | int | None = None) -> CTVolume:
    """As `read_scan`, but blocks and questions about headers and voxels are findings of the volume, not errors."""
    study = open_study(path)
    raw = _read_dicom(study, series) if study.series else _Raw(_read_image(study, series))
    volume = replace(raw.volume, findings=(*study.findings, *raw.volume.findings))
    if not blocking(volume.findings):
        volume = check_pixels(volume, raw.padding, raw.rescale_known)
    return replace(volume, findings=by_level(volume.findings))


def inspect_headers(study: Study, series: str | int | None = None) -> CTVolume:
    """What the headers alone tell about the scan that would be analyzed: its geometry (no pixels) and its findings.

    Raises: InputBlockedError where nothing could be analyzed.
    """
    if study.series:
        chosen, findings = choose_series(study, series)
        volume = single_places(series_geometry(chosen), chosen)
        volume = volume.with_findings(*findings, *_said_by_headers(chosen, series))
    else:
        volume = _read_image(study, series, pixels=False)
    found = (*study.findings, *volume.findings, *geometry_findings(volume))
    return replace(volume, findings=by_level(found))


def _read_dicom(study: Study, wanted: str | int | None) -> _Raw:
    chosen, findings = choose_series(study, wanted)
    said = _said_by_headers(chosen, wanted)
    if blocking(said):
        require_clear((*study.findings, *findings, *said))
    volume, padding = read_series(chosen, reduction_factor(voxels(chosen)))
    kept = [f for f in said if not (f.code == "several_phases" and any(g.hazard == 4 for g in volume.findings))]
    return _Raw(volume.with_findings(*findings, *kept), padding, rescale_known(chosen))


def _said_by_headers(chosen: Series, wanted: str | int | None) -> list[Finding]:
    """The findings of the headers; the question which time point or phase is answered where one was named (2.3)."""
    picked = chosen.siblings > 1 and str(wanted) == chosen.label
    return [finding for finding in header_findings(chosen) if not (picked and finding.hazard in (4, 26))]


def _read_image(study: Study, wanted: str | int | None, pixels: bool = True) -> CTVolume:
    """The only image file of the study, or the one named; a member of a zip is unpacked to a temporary folder."""
    named = [ref for ref in study.images if ref.name == str(wanted)]
    if len(study.images) > 1 and not named:
        names = ", ".join(ref.name for ref in study.images[:8])
        message = f"{study.path.name} holds {len(study.images)} image files: {names}."
        raise blocked("several_images", 8, message, "Name one of them with --series.")
    frame = None if named else _frame_number(wanted)
    ref = named[0] if named else study.images[0]
    if ref.member is None:
        return read_image(ref.path, frame, pixels)
    with tempfile.TemporaryDirectory(prefix="ich-") as folder:
        return read_image(unpack_image(ref, Path(folder)), frame, pixels)


def _frame_number(wanted: str | int | None) -> int | None:
    if wanted is None:
        return None
    if not str(wanted).isdigit():
        raise UsageError(f"An image file has no series {wanted!r}: name a time point as a number, or nothing.")
    return int(wanted)


def provenance(volume: CTVolume) -> list[str]:
    """The file behind each slice of a DICOM series, in slice order; empty for other files."""
    return [ref.path if ref.member is None else f"{ref.path}!{ref.member}" for ref in volume.instances]


def source_datasets(volume: CTVolume, stop_before_pixels: bool = True) -> list[Any]:
    """The pydicom data set behind each slice, in slice order, for writers that refer to them."""
    loaded: dict[tuple, Any] = {}
    for ref in volume.instances:
        key = (ref.path, ref.member)
        if key not in loaded:
            loaded[key] = FileRef(Path(ref.path), ref.member).dataset(stop_before_pixels)
    return [loaded[(ref.path, ref.member)] for ref in volume.instances]
