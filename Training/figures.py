"""The papers' figures from your own runs: `python -m Training.figures PAPER FIGURE --out DIR [--run] [key=value ...]`.

    python -m Training.figures dtvit 4 --out tables --run --size compact data.cache=CACHE
    python -m Training.figures                                  lists what there is

DIR is the folder of `Training.tables`: both share DIR/runs. --run trains and judges the runs that a figure needs and
that are missing. Writes DIR/PAPER-figureN-SIZE.png. Exit status: 0, 2 wrong use or a run is missing, 4 a run failed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from ICHAnalysisLib.outputs.comparison import save_figure
from Training.papers.base import PAPERS, PaperFigure, catalog, config_at, find
from Training.results import complete_run, run_name
from Training.train import start_logging

log = logging.getLogger(__name__)


def make_figure(figure: PaperFigure, configs: Sequence[str], runs: Path, path: Path, overrides: Sequence[str]) -> None:
    """Draw from the runs of `configs` below `runs`. Raises UsageError where one is missing."""
    folders = [runs / run_name(config) for config in configs]
    missing = [config for config, folder in zip(configs, folders, strict=True) if not folder.is_dir()]
    if missing:
        raise UsageError(f"No run of {', '.join(missing)} in {runs}; add --run and data.cache=DIR to make it.")
    drawn = figure.draw(folders, overrides)
    save_figure(drawn, path)


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's text for the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Training.figures", description="The papers' figures.")
    parser.add_argument("paper", nargs="?", help=", ".join(PAPERS))
    parser.add_argument("figure", nargs="?", help="number as printed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every run")
    parser.add_argument("--out", type=Path, default=Path("tables"))
    parser.add_argument("--size", default="paper", choices=("paper", "compact"), help="of the networks")
    parser.add_argument("--run", action="store_true", help="train and judge the runs that are missing")
    parser.add_argument("--processes", type=int, default=1, help="processes a run, one a GPU")
    args = parser.parse_intermixed_args(argv)
    start_logging()
    try:
        if args.paper is None or args.figure is None:
            print(catalog("FIGURES"))
            return 0 if args.paper is None else 2
        figure, runs = find(args.paper, "FIGURES", args.figure), args.out / "runs"
        configs = [name for config in figure.configs if (name := config_at(config, args.size)) is not None]
        if len(configs) < len(figure.configs):
            raise UsageError(f"{args.paper} figure {args.figure} has no configuration of size {args.size}.")
        for config in configs if args.run else ():
            if not complete_run(config, args.overrides, runs / run_name(config), "auto", args.processes):
                return 4
        path = args.out / f"{args.paper}-figure{args.figure}-{args.size}.png"
        make_figure(figure, configs, runs, path, args.overrides)
    except ICHAnalysisError as error:
        log.error("%s", error)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
