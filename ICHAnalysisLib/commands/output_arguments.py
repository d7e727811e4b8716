"""Arguments about what is written and sent, shared by the commands."""

from __future__ import annotations

import argparse

from ICHAnalysisLib.config.outputs import OutputOptions


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """PDF, DICOM, sending, identifiers."""
    parser.add_argument("--pdf", action="store_true", help="also write report.pdf")
    parser.add_argument(
        "--dicom", action="store_true", help="also write DICOM SEG, SR and capture (DICOM scans; extra 'dicom')"
    )
    parser.add_argument(
        "--send",
        metavar="HOST:PORT:AET|URL",
        help="send the DICOM objects to a server, by C-STORE or to a DICOMweb address; implies --dicom",
    )
    parser.add_argument(
        "--with-identifiers", action="store_true", help="name the patient in the report (its files get mode 0600)"
    )


def output_options(args: argparse.Namespace) -> OutputOptions:
    """The options of these arguments; a wrong destination is refused before any work is done."""
    if args.send is not None:
        from ICHAnalysisLib.outputs.dicom_send import parse_destination

        parse_destination(args.send)
    return OutputOptions(
        pdf=args.pdf,
        dicom=args.dicom or args.send is not None,
        send=args.send,
        with_identifiers=args.with_identifiers,
    )
