"""What the papers' tables and figures are made of, and where each paper's own stand.

A network's module holds TABLES and FIGURES, by number as printed, in Arabic figures. Configurations are written with
{size}, "paper" or "compact": the same table in the paper's dimensions or in those that finish on a CPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ICHAnalysisLib.errors import UsageError
from Training.config import CONFIG_FOLDER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Paper, named by its network -> module with TABLES and FIGURES.
PAPERS: dict[str, str] = {
    "ich_scnet": "Training.papers.ich_scnet",
    "dtvit": "Training.papers.dtvit",
    "volume_net": "Training.papers.volume_net",
}


@dataclass(frozen=True)
class Column:
    """One measured column. metric: key of the task's metrics, after the row's prefix; scale: 100 for percent."""

    header: str
    metric: str
    scale: float = 1.0
    digits: int = 3


@dataclass(frozen=True)
class TableRow:
    """One row: its label cells and its configuration, or why there is none."""

    labels: tuple[str, ...]
    config: str | None = None
    prefix: str = ""  # of every column's metric
    only: tuple[str, ...] | None = None  # metrics that this row has; None: all
    not_built: str = "not built"  # shown where there is no configuration


@dataclass(frozen=True)
class PaperTable:
    """A table in its paper's layout."""

    title: str
    label_headers: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    note: str = ""

    def at(self, size: str) -> PaperTable:
        """The table with configurations of one size; a row that has none of that size is not built."""
        return replace(self, rows=tuple(replace(row, config=config_at(row.config, size)) for row in self.rows))


@dataclass(frozen=True)
class PaperFigure:
    """A figure of a paper. draw gets the run folder of each configuration, in order, and the overrides."""

    title: str
    configs: tuple[str, ...]
    draw: Callable[[Sequence[Path], Sequence[str]], Figure]


def config_at(config: str | None, size: str) -> str | None:
    """The configuration's name with its size filled in; None where no such file is packaged."""
    name = None if config is None else config.format(size=size)
    return name if name is not None and (CONFIG_FOLDER / f"{name}.yaml").is_file() else None


def registered(paper: str, what: str) -> dict[str, Any]:
    """TABLES or FIGURES of a paper. Raises UsageError for an unknown paper."""
    if paper not in PAPERS:
        raise UsageError(f"paper {paper!r} is unknown; known are {', '.join(PAPERS)}.")
    return getattr(importlib.import_module(PAPERS[paper]), what)


def find(paper: str, what: str, number: str) -> Any:
    """One registered table or figure. Raises UsageError with what there is."""
    known = registered(paper, what)
    if number not in known:
        raise UsageError(f"{paper} has no {number!r} among {what.lower()}; there are {', '.join(known) or 'none'}.")
    return known[number]


def catalog(what: str) -> str:
    """What there is, one line each."""
    return "\n".join(
        f"{paper} {number}: {it.title}" for paper in PAPERS for number, it in registered(paper, what).items()
    )
