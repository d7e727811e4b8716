"""What a path holds, and which series of it is analyzed (hazards 7, 8, 19, 30, 37)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ICHAnalysisLib.ct.headers import SliceHeader, read_headers
from ICHAnalysisLib.ct.series import CT_CLASSES, Series, group_series
from ICHAnalysisLib.ct.sources import FileRef, Listing, blocked, list_files
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.findings import Finding, Level

LARGEST_SLICE = 8192 * 8192


@dataclass(frozen=True)
class Study:
    """DICOM series, best first, or image files; and what could not be read."""

    path: Path
    series: tuple[Series, ...]
    images: tuple[FileRef, ...]
    findings: tuple[Finding, ...]


def open_study(path: str | os.PathLike) -> Study:
    """List the files and group their headers; reads no pixels.

    Raises: UsageError where the path does not exist, InputBlockedError where it holds no image.
    """
    path = Path(path)
    listing = list_files(path)
    headers: list[SliceHeader] = []
    for ref in listing.dicom:
        try:
            found = read_headers(ref)
        except Exception as error:  # a damaged header: the file is listed, the others are read
            listing.damaged.append((ref.name, (str(error) or type(error).__name__).splitlines()[0][:120]))
            continue
        for header in found:
            if header.rows * header.columns > LARGEST_SLICE:
                listing.damaged.append((ref.name, f"claims {header.rows} x {header.columns} pixels"))
            elif header.rows > 0 and header.columns > 0:
                headers.append(header)
            elif header.sop_class in CT_CLASSES:  # a report or a plan has no picture; a CT image cut short lost it
                listing.damaged.append((ref.name, "it ends before the picture"))
    if not headers and listing.images and not path.is_file():
        listing.damaged.clear()
    findings = [*listing.findings, *_damaged(listing, bool(headers))]
    if not headers and not listing.images:
        message = f"{path.name} holds no CT images that can be read."
        message += f" {findings[0].message}" if findings else ""
        if listing.archives:
            message += f" There is an archive in it, {listing.archives[0]}: give that file itself."
        raise blocked("no_images", 30, message, "Give a DICOM folder or zip, a NIfTI, an NRRD or an MHA file.")
    return Study(path, tuple(group_series(headers)), tuple(listing.images), tuple(findings))


def _damaged(listing: Listing, others: bool) -> list[Finding]:
    """Hazard 30: files that are no images; the scan goes on with the others."""
    if not listing.damaged:
        return []
    names = ", ".join(name for name, _ in listing.damaged[:5]) + (" ..." if len(listing.damaged) > 5 else "")
    count = len(listing.damaged)
    message = f"{count} file{'s' if count > 1 else ''} could not be read: {names} ({listing.damaged[0][1]})."
    level = Level.ASK if others else Level.BLOCK
    return [Finding("damaged_files", level, message, "Export the scan again.", 30)]


def choose_series(study: Study, wanted: str | int | None = None) -> tuple[Series, tuple[Finding, ...]]:
    """The series asked for, or the best, and what there is to say about the choice.

    wanted: number or label of the series table, or SeriesInstanceUID.
    Raises: UsageError where `wanted` fits no series; InputBlockedError where none can be analyzed or where the
    folder holds several patients and no series is named.
    """
    if wanted is not None:
        return _named(study, str(wanted)), ()
    offered = [one for one in study.series if one.offered]
    if not offered:
        _none_offered(study)
    if len({one.first.patient for one in offered}) > 1:
        message = "The folder holds scans of several patients; they are never merged."
        raise blocked("several_patients", 37, message, "Name one series with --series, or separate the folders.")
    best = offered[0]
    return best, (*_said_of_others(study, best), *_strangers(study, best), *_exams(offered, best))


def _none_offered(study: Study) -> None:
    kinds = "; ".join(f"series {one.label}: {', '.join(one.reasons)}" for one in study.series[:6])
    message = f"No series here is a CT of the head that can be analyzed ({kinds})."
    no_ct = all("not a CT" in " ".join(one.reasons) for one in study.series)
    no_spacing = all("how large" in " ".join(one.reasons) or "capture" in " ".join(one.reasons) for one in study.series)
    code, hazard = ("not_ct", 19) if no_ct else ("pixel_spacing_missing", 38) if no_spacing else ("no_series", 7)
    raise blocked(code, hazard, message, "Give the folder of the axial CT series.")


def _said_of_others(study: Study, best: Series) -> list[Finding]:
    findings = []
    scouts = [one.label for one in study.series if one.first.is_localizer]
    if scouts:
        message = f"Localizers were left out (series {', '.join(scouts[:5])})."
        findings.append(Finding("localizer", Level.FIX, message, "None needed.", 7))
    if len(study.series) > 1:
        others = ", ".join(one.label for one in study.series if one is not best)
        message = f"Series {best.label} was chosen ({', '.join(best.reasons)}) out of {len(study.series)}; others: "
        findings.append(
            Finding("several_series", Level.NOTE, f"{message}{others[:120]}.", "Choose another with --series.", 8)
        )
    return findings


def _strangers(study: Study, best: Series) -> list[Finding]:
    """Hazard 37 where the other patient's images cannot be analyzed anyway: said, so that the folder is looked at."""
    others = [one.label for one in study.series if one.first.patient != best.first.patient]
    if not others:
        return []
    message = f"The folder also holds images of another patient (series {', '.join(others[:5])}); they were left out."
    return [Finding("several_patients", Level.NOTE, message, "Check whose scan this is.", 37)]


def _exams(offered: list[Series], best: Series) -> list[Finding]:
    exams = len({one.first.study_uid for one in offered})
    if exams < 2:
        return []
    message = f"The folder holds {exams} examinations under one patient's number; series {best.label} was taken."
    return [Finding("several_studies", Level.ASK, message, "Choose with --series.", 37)]


def _named(study: Study, wanted: str) -> Series:
    matches = [one for one in study.series if wanted in (one.label, one.uid)]
    matches = matches or [one for one in study.series if one.label.split(".")[0] == wanted]
    if not matches:
        known = ", ".join(one.label for one in study.series) or "none"
        raise UsageError(f"There is no series {wanted} in {study.path.name}. Series found: {known}.")
    if not matches[0].offered:
        message = f"Series {wanted} cannot be analyzed: {', '.join(matches[0].reasons)}."
        raise blocked("no_series", 7, message, "Choose another series.")
    return matches[0]
