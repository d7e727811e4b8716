"""`ich-analysis info SCAN`: what a scan is and what would happen to it; `--pixels` adds the checks that need voxels."""

from __future__ import annotations

import argparse

import numpy as np

from ICHAnalysisLib.ct.checks import blocking, by_level, gap_question_waits, unanswered
from ICHAnalysisLib.ct.geometry_checks import runs
from ICHAnalysisLib.ct.readers import inspect_headers, inspect_scan
from ICHAnalysisLib.ct.series import Series
from ICHAnalysisLib.ct.study import Study, open_study
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import InputBlockedError
from ICHAnalysisLib.findings import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("scan", help="DICOM folder or zip, NIfTI, NRRD or MHA")
    parser.add_argument("--series", help="series number, label or UID, where a folder holds several")
    parser.add_argument("--pixels", action="store_true", help="also run the checks that need the voxels")


def run(args: argparse.Namespace) -> int:
    """Print the series table, the geometry, the findings and the verdict."""
    study = open_study(args.scan)
    print("\n".join(describe(study, args.series, args.pixels)))
    return 0


def describe(study: Study, series: str | None = None, pixels: bool = False) -> list[str]:
    """The lines that `info` prints."""
    lines = [headline(study)]
    volume: CTVolume | None = None
    try:
        volume = inspect_headers(study, series)
        findings = volume.findings
        if pixels and not blocking(findings):
            findings = inspect_scan(study.path, series).findings
    except InputBlockedError as error:
        findings = by_level(error.findings)
    chosen = str(volume.source.get("series", "")) if volume is not None else ""
    if study.series:
        lines += ["", *series_table(study.series, chosen)]
    if volume is not None:
        lines += ["", *geometry_lines(volume)]
    waits = volume is not None and gap_question_waits(volume)
    lines += ["", *finding_lines(findings), "", verdict(findings, waits)]
    if not pixels:
        lines.append("From headers alone; --pixels adds the checks that need the voxels.")
    return lines


def headline(study: Study) -> str:
    """What the path is."""
    if study.series:
        images = sum(len(one.headers) for one in study.series)
        count = len(study.series)
        return (
            f"{study.path.name}: {images} DICOM images in {count} series"
            if count != 1
            else (f"{study.path.name}: {images} DICOM images in one series")
        )
    return f"{study.path.name}: " + ", ".join(ref.name for ref in study.images)


def series_table(series: tuple[Series, ...], chosen: str) -> list[str]:
    """One line a series, best first, with the reason for its rank; * marks the chosen one."""
    rows = [("", "series", "slices", "step", "thick", "kernel", "description", "why")]
    for one in series:
        rows.append(
            (
                "*" if one.label == chosen else "",
                one.label,
                str(len(one.headers)),
                _mm(one.spacing_mm),
                _mm(one.thickness_mm),
                one.first.kernel[:12] or "-",
                one.description[:28] or "-",
                ("" if one.offered else "never offered: ") + ", ".join(one.reasons),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]


def _mm(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"


def geometry_lines(volume: CTVolume) -> list[str]:
    """Size, spacing, tilt and slice heights."""
    depth, rows, columns = volume.shape
    across, down, _ = volume.spacing_mm
    lines = [f"{depth} slices of {rows} x {columns} pixels, {down:.3f} x {across:.3f} mm"]
    if depth > 1:
        extent = float(np.abs(volume.steps_mm).sum())
        lines.append(
            f"steps along the normal: {runs(np.abs(volume.steps_mm))} mm; first to last center {extent:.1f} mm"
        )
        lines.append(f"slice heights: {runs(volume.slice_heights_mm)} mm; sum {volume.slice_heights_mm.sum():.1f} mm")
        lines.append(f"tilt: {volume.tilt_degrees:.1f} degrees")
        lines.append(f"slice positions: {' '.join(f'{value:.2f}' for value in volume.positions_mm)} mm")
    return lines


def finding_lines(findings: tuple[Finding, ...]) -> list[str]:
    """One line a finding, with its remedy."""
    if not findings:
        return ["Nothing to say about this scan."]
    lines = []
    for finding in findings:
        remedy = f" {finding.remedy}" if finding.remedy and finding.remedy != "None needed." else ""
        number = f" (no. {finding.hazard})" if finding.hazard else ""
        lines.append(f"{finding.level.value:5} {finding.code}{number}: {finding.message}{remedy}")
    return lines


def verdict(findings: tuple[Finding, ...], gaps_wait: bool = False) -> str:
    """What `analyze` would do. gaps_wait: the question about missing slices is put after the outline."""
    if blocking(findings):
        return f"This scan would be blocked: {blocking(findings)[0].message}"
    if {finding.code for finding in unanswered(findings)} == {"missing_slices"} and gaps_wait:
        return "This scan would be analyzed; you would be asked only if a bleed lies next to the gap, or none is found."
    if unanswered(findings):
        return "This scan would be analyzed after you confirm what is asked above (--yes accepts)."
    return "This scan would be analyzed."
