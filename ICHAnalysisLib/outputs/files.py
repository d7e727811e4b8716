"""All files of one analysis, each written whole or not at all."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ICHAnalysisLib.analysis import Analysis, AnalysisArrays
from ICHAnalysisLib.beside import beside
from ICHAnalysisLib.config.outputs import OutputOptions
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.atomic import write_text
from ICHAnalysisLib.outputs.dicom_files import DICOM_NAMES
from ICHAnalysisLib.outputs.pictures import write_overview
from ICHAnalysisLib.outputs.surface import Views, head_views

#: Names of the files, by the key under which `write_outputs` returns them.
NAMES = {
    "analysis": "analysis.json",
    "segmentation": "segmentation.nii.gz",
    "segmentation_ras": "segmentation_ras.nii.gz",
    "heatmap": "heatmap.nii.gz",
    "overview": "overview.png",
    "report": "report.html",
    "pdf": "report.pdf",
    **DICOM_NAMES,
}


def described(analysis: Analysis, volume: CTVolume) -> Analysis:
    """The analysis with the true place of every slice, by which images of DICOM it was made, and the finding about the
    header of the label map.

    Doing it twice changes nothing.
    """
    from ICHAnalysisLib.outputs.labelmaps import header_finding

    places: dict[str, Any] = {
        "column_step_ras_mm": [float(value) for value in volume.column_step_ras],
        "row_step_ras_mm": [float(value) for value in volume.row_step_ras],
        "slice_origins_ras_mm": [[float(value) for value in origin] for origin in volume.slice_origins_ras],
        "slice_heights_mm": [float(value) for value in volume.slice_heights_mm],
    }
    if volume.instances:
        places["images_sha256"] = images_sha256(volume)
    finding = header_finding(volume)
    findings = analysis.findings
    if finding is not None and all(item.code != finding.code for item in findings):
        findings = (*findings, finding)
    return replace(analysis, input={**analysis.input, **places}, findings=findings)


def images_sha256(volume: CTVolume) -> str:
    """Hash of the UIDs of a scan's images, by which a later report knows the scan again without naming it."""
    uids = "\n".join(f"{image.sop_instance_uid} {image.frame}" for image in volume.instances)
    return hashlib.sha256(uids.encode()).hexdigest()


def write_outputs(
    analysis: Analysis,
    arrays: AnalysisArrays | None,
    volume: CTVolume | None,
    folder: str | Path,
    options: OutputOptions | None = None,
) -> dict[str, Path]:
    """Write every file of one analysis to `folder`; returns key -> path in the order of `NAMES`.

    A blocked scan has no arrays: then analysis.json and the report alone are written. Files of an earlier run that
    this one does not write are removed, so that nothing stale stands beside the new answer. Raises UsageError where
    DICOM objects are wanted of a scan that is no DICOM series, SendError where the server does not take them.
    """
    options = options or OutputOptions()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if arrays is None or volume is None or analysis.status != "ok":
        arrays = volume = None
    written: dict[str, Path] = {}
    if arrays is not None and volume is not None:
        analysis = described(analysis, volume)
        with beside(2) as submit:
            views = submit(head_views, arrays.labels, volume) if options.report or options.pdf else None
            maps = submit(_write_maps, arrays, volume, folder)
            written["overview"] = write_overview(analysis, arrays.labels, volume, folder / NAMES["overview"])
            if views is not None:
                written |= write_reports(analysis, arrays, volume, folder, options, views)
            written |= maps.result()
    elif options.report or options.pdf:
        written |= write_reports(analysis, None, None, folder, options)
    written["analysis"] = write_text(folder / NAMES["analysis"], analysis.to_json())
    for key, name in NAMES.items():
        if key not in written:
            (folder / name).unlink(missing_ok=True)
    if options.dicom and arrays is not None and volume is not None:
        from ICHAnalysisLib.outputs.dicom_files import write_dicom_files

        # Last, so that a scan without DICOM headers or a server that is away costs nothing but these.
        written |= write_dicom_files(analysis, arrays, volume, folder)
    if options.send is not None:
        send_dicom_files(written, options.send)
    return {key: written[key] for key in NAMES if key in written}


def send_dicom_files(written: dict[str, Path], destination: str) -> int:
    """Send the DICOM files among `written` to HOST:PORT:AET or a DICOMweb address; returns how many there were."""
    from ICHAnalysisLib.outputs.dicom_send import parse_destination, send

    return send([path for key, path in written.items() if key in DICOM_NAMES], parse_destination(destination))


def write_reports(
    analysis: Analysis,
    arrays: AnalysisArrays | None,
    volume: CTVolume | None,
    folder: Path,
    options: OutputOptions,
    views: Views | None = None,
) -> dict[str, Path]:
    """Write report.html and, where asked for, report.pdf; without arrays and volume they hold words alone.

    views: what `head_views` is drawing of them; None draws it here.
    """
    from ICHAnalysisLib.outputs.report import report_html

    identifiers = _identifiers(volume) if options.with_identifiers and volume is not None else None
    html = report_html(analysis, arrays, volume, identifiers, views)
    written = {}
    if options.report:
        written["report"] = write_text(folder / NAMES["report"], html, private=bool(identifiers))
    if options.pdf:
        from ICHAnalysisLib.outputs.pdf import find_browser, write_pdf

        written["pdf"] = write_pdf(
            analysis, arrays, volume, html, folder / NAMES["pdf"], find_browser(), private=bool(identifiers)
        )
    return written


def _identifiers(volume: CTVolume) -> dict[str, str]:
    """Label -> value of who and when, from the scan's own DICOM header; empty for other formats."""
    from ICHAnalysisLib.ct.readers import source_datasets

    if not volume.instances:
        return {}
    header = source_datasets(replace(volume, instances=volume.instances[:1]))[0]
    wanted = {
        "Patient": "PatientName",
        "Patient ID": "PatientID",
        "Born": "PatientBirthDate",
        "Study date": "StudyDate",
        "Accession number": "AccessionNumber",
    }
    known = {label: str(header.get(tag) or "") for label, tag in wanted.items()}
    return {label: _readable(text) for label, text in known.items() if text}


def _readable(text: str) -> str:
    """A DICOM date as 2026-01-31; other texts as they are."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


def _write_maps(arrays: AnalysisArrays, volume: CTVolume, folder: Path) -> dict[str, Path]:
    """The label maps, and the heatmap where there is one."""
    from ICHAnalysisLib.outputs.labelmaps import has_exact_header, write_heatmap, write_labels, write_labels_ras

    written = {"segmentation": write_labels(arrays.labels, volume, folder / NAMES["segmentation"])}
    if not has_exact_header(volume):
        written["segmentation_ras"] = write_labels_ras(arrays.labels, volume, folder / NAMES["segmentation_ras"])
    if arrays.heatmap is not None:
        written["heatmap"] = write_heatmap(arrays.heatmap, volume, folder / NAMES["heatmap"])
    return written
