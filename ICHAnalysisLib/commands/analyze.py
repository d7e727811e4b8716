"""`ich-analysis analyze SCAN --out DIR`: one scan in, the answer and its files out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ICHAnalysisLib.commands.output_arguments import add_output_arguments, output_options
from ICHAnalysisLib.errors import UsageError

if TYPE_CHECKING:
    from ICHAnalysisLib.findings import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("scan", help="DICOM folder or zip, NIfTI, NRRD or MHA")
    parser.add_argument("--out", required=True, help="folder for the results (made where absent)")
    parser.add_argument("--series", help="series number or UID, where a folder holds several")
    parser.add_argument("--box", action="append", default=[], metavar="R0,A0,S0,R1,A1,S1", help="box prompt, mm RAS")
    parser.add_argument("--point", action="append", default=[], metavar="R,A,S[,+|-]", help="point prompt, mm RAS")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--clinical", metavar="FILE.json", help="clinical record")
    text.add_argument("--text", help="clinical free text (used for the prognosis only, copied into no output)")
    add_run_arguments(parser)
    add_output_arguments(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that every analyzing command shares."""
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--weights", metavar="DIR", help="folder with other weights")
    parser.add_argument("--yes", action="store_true", help="accept what would be asked about the scan")
    parser.add_argument("--no-heatmap", action="store_true", help="leave out the volume net's attention map")
    parser.add_argument(
        "--variations",
        action="store_true",
        help="ranges of volume and prognosis over mirrored and shifted copies; the outline is then answered six times",
    )
    parser.add_argument(
        "--simulated-prognosis",
        action="store_true",
        help="also show network probabilities that were learned from simulated outcomes",
    )


def options_from(args: argparse.Namespace):
    """The analysis options of the shared arguments."""
    from ICHAnalysisLib.config.analyze import AnalyzeOptions

    return AnalyzeOptions(
        accept=args.yes,
        device=args.device,
        weights=args.weights,
        heatmap=not args.no_heatmap,
        variations=args.variations,
        simulated_prognosis=args.simulated_prognosis,
    )


def run(args: argparse.Namespace) -> int:
    """Analyze, write the files, print the summary; 3 where the scan is blocked."""
    from ICHAnalysisLib.analyze import analyze_scan
    from ICHAnalysisLib.clinical import ClinicalRecord
    from ICHAnalysisLib.outputs.summary import summary_lines
    from ICHAnalysisLib.prompts import Prompts

    prompts = Prompts.parse(args.box, args.point)
    clinical = ClinicalRecord.from_dict(_read_json(args.clinical)) if args.clinical else None
    analysis, files = analyze_scan(
        args.scan,
        args.out,
        prompts=prompts,
        clinical=clinical,
        text=args.text,
        series=args.series,
        options=options_from(args),
        outputs=output_options(args),
        progress=print_progress,
        ask=ask_on_terminal,
    )
    print("\n".join(summary_lines(analysis, files)))
    if analysis.status == "blocked":
        print(f"Blocked: {analysis.message}", file=sys.stderr)
        return 3
    return 0


def ask_on_terminal(questions: Sequence[Finding]) -> bool:
    """Put questions about the scan to the person at the terminal; False where there is none, or the answer is no."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    for question in questions:
        print(f"ASK {question.code}: {question.message} {question.remedy}".rstrip(), file=sys.stderr)
    print("Analyze it all the same? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def print_progress(fraction: float, message: str) -> None:
    """One line a stage on standard error."""
    print(f"[{round(100 * fraction):3d} %] {message}", file=sys.stderr, flush=True)


def _read_json(path: str) -> dict:
    """A JSON object from a file; UsageError names the file and the place of the fault."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"--clinical: no file {path}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--clinical: {path} is not JSON ({error}).") from error
    if not isinstance(data, dict):
        raise UsageError(f"--clinical: {path} must hold one JSON object, e.g. {{'age': 67}}.")
    return data
