"""`ich-analysis report DIR SCAN`: write the report of an analysis again: HTML, PDF, DICOM."""

from __future__ import annotations

import argparse
from pathlib import Path

from ICHAnalysisLib.commands.output_arguments import add_output_arguments, output_options
from ICHAnalysisLib.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("folder", help="folder with analysis.json and segmentation.nii.gz")
    parser.add_argument("scan", nargs="?", help="the scan of that analysis; without it the report has no pictures")
    parser.add_argument("--series", help="series number or UID, where the scan's folder holds several")
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Read the analysis and, where given, the scan; write the report."""
    from ICHAnalysisLib.analysis import Analysis
    from ICHAnalysisLib.outputs.dicom_files import write_dicom_files
    from ICHAnalysisLib.outputs.files import NAMES, images_sha256, send_dicom_files, write_reports

    options = output_options(args)
    folder = Path(args.folder)
    path = folder / NAMES["analysis"]
    if not path.is_file():
        raise UsageError(f"{folder}: no {path.name} in it; name the folder that `analyze` wrote.")
    analysis = Analysis.from_json(path.read_text(encoding="utf-8"))
    arrays = volume = None
    if args.scan is not None and analysis.status == "ok":
        arrays, volume = _read_pictures(folder, args.scan, args.series)
        known = analysis.input.get("images_sha256")
        if known is not None and volume.instances and known != images_sha256(volume):
            raise UsageError("This is another scan than the one that was analyzed; nothing was written.")
    elif args.with_identifiers or options.dicom:
        raise UsageError("--with-identifiers, --dicom and --send need the scan: patient and study stand in it alone.")
    files = write_reports(analysis, arrays, volume, folder, options)
    if options.dicom and arrays is not None and volume is not None:
        files |= write_dicom_files(analysis, arrays, volume, folder)
    for name, file in files.items():
        print(f"{name}: {file}")
    if options.send is not None:
        print(f"sent: {send_dicom_files(files, options.send)} objects")
    return 0


def _read_pictures(folder: Path, scan: str, series: str | None):
    """(arrays, volume) of the scan with the label map and heatmap that lie in the folder."""
    from ICHAnalysisLib.analysis import AnalysisArrays
    from ICHAnalysisLib.ct.readers import read_scan
    from ICHAnalysisLib.outputs.files import NAMES
    from ICHAnalysisLib.outputs.labelmaps import read_array

    volume = read_scan(scan, series=series, accept=True)
    labels = read_array(folder / NAMES["segmentation"], volume)
    heat = folder / NAMES["heatmap"]
    heatmap = read_array(heat, volume) if heat.is_file() else None
    return AnalysisArrays(labels.round().astype("uint8"), heatmap), volume
