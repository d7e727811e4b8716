"""`ich-analysis`: finds the command, runs it, and turns expected errors into one sentence and an exit status."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from ICHAnalysisLib import __version__
from ICHAnalysisLib.errors import CancelledError, ICHAnalysisError, InputBlockedError

#: Exit statuses: done, wrong use, input blocked or a question unanswered, a batch in which some cases failed.
DONE, WRONG_USE, BLOCKED, SOME_FAILED = 0, 2, 3, 4

COMMANDS = {
    "analyze": "analyze one head CT: segmentation, location, volume, scores, report",
    "demo": "the same on a simulated scan that it makes",
    "batch": "analyze a folder tree or a list, one row a case, resumable",
    "compare": "agreement of volumes or label maps: tables and plots",
    "report": "write the report of an analysis again",
    "info": "what a scan is and what would happen to it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if not sys.warnoptions:
        # Of the libraries, for their own callers: no user can act on them, and some quote names of patients.
        for kind in (FutureWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
    try:
        args, run = _parse(arguments)
    except SystemExit as stop:  # argparse has already said why
        return int(stop.code or 0)
    try:
        return int(run(args))
    except InputBlockedError as error:
        print(f"Blocked: {error}", file=sys.stderr)
        return BLOCKED
    except CancelledError:
        print("Cancelled; nothing was written.", file=sys.stderr)
        return 130
    except ICHAnalysisError as error:
        print(f"ich-analysis: {error}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"ich-analysis: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
        return WRONG_USE


def _parse(arguments: list[str]):
    """(arguments, the command's run): only the chosen command's module is imported."""
    parser = argparse.ArgumentParser(
        prog="ich-analysis",
        description="Intracerebral hemorrhage on non-contrast head CT. Research use only, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"ich-analysis {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    module = None
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:
            module = import_module(f"ICHAnalysisLib.commands.{name}")
            module.add_arguments(sub)
    args = parser.parse_args(arguments)
    if module is None:
        raise SystemExit(WRONG_USE)
    return args, module.run
