"""Every table and figure of the papers, filled by the real tasks: tiny networks, a few steps, their own commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cached_heads import write_head
from matplotlib.figure import Figure
from PIL import Image

from Testing.training.scan_files import write_head_nifti
from Training import crossval, evaluate, figures, results, tables, train
from Training.papers import base
from Training.papers.base import registered
from Training.results import run_name
from Training.tables import NOT_MEASURED, NOT_RUN
from Training.watch import RunFolder, read_rows

PAPERS = tuple(base.PAPERS)
#: Small enough for a second a row.
TINY = (
    "task.preset=tiny", "task.options.augment=null", "data.val_fraction=0.5", "loop.max_steps=2",
    "loop.micro_batch_size=8", "loop.log_every=1", "loop.precision=fp32", "loop.device=cpu", "loop.threads=1",
    "loop.tensorboard=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve heads; nine bleed, in three locations, with either outcome."""
    folder = tmp_path_factory.mktemp("cache")
    for number in range(12):
        outcome = {"dead_30d": number % 2, "poor_outcome": number % 2}
        write_head(folder, number, number % 4 != 3, **({"outcome": outcome} if number % 4 != 3 else {}))
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that tables and figures share."""
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and evaluation without a new interpreter each, with few resamples, and without the runs' own curves."""

    def call(arguments: Sequence[str], processes: int) -> bool:
        name, *rest = arguments
        if name == "Training.evaluate":
            return evaluate.main([*rest, "--resamples", "20", "--failures", "1"]) == 0
        return train.main(rest) == 0

    monkeypatch.setattr(results, "call", call)
    monkeypatch.setattr(RunFolder, "draw_curves", lambda folder, at_once=False: None)


def numbered(what: str) -> list[tuple[str, str]]:
    return [(paper, number) for paper in PAPERS for number in registered(paper, what)]


@pytest.mark.parametrize(("paper", "number"), numbered("TABLES"))
def test_every_table_is_filled(paper: str, number: str, cache: Path, out: Path) -> None:
    """Every row that has a configuration shows what its evaluation found, and some row measures each column."""
    command = [paper, number, "--out", str(out), "--size", "compact", "--run", f"data.cache={cache}", *TINY]
    assert tables.main(command) == 0
    table = registered(paper, "TABLES")[number].at("compact")
    cells, columns = read_rows(out / f"{paper}-table{number}-compact.csv")
    assert columns == [*table.label_headers, *(column.header for column in table.columns), "cases"]
    measured = set()
    for row, found in zip(table.rows, cells, strict=True):
        if row.config is None:
            assert found["cases"] == "" and found[table.columns[0].header] == row.not_built
            continue
        summary = json.loads((out / "runs" / run_name(row.config) / "val" / "summary.json").read_text())
        assert found["cases"] == f"{summary['cases']} (val)"
        for column in table.columns:
            value = summary["metrics"].get(row.prefix + column.metric)
            text = found[column.header]
            assert text != NOT_RUN and (text == NOT_MEASURED) == (
                value is None or (row.only is not None and column.metric not in row.only)
            )
            measured |= {column.header} if row.prefix + column.metric in summary["metrics"] else set()
            if text != NOT_MEASURED:
                assert float(text.split()[0]) == pytest.approx(value * column.scale, abs=0.51 * 10**-column.digits)
    assert measured == {column.header for column in table.columns}
    assert "chose the checkpoint" in (out / f"{paper}-table{number}-compact.md").read_text()


@pytest.mark.parametrize(("paper", "number"), numbered("FIGURES"))
def test_every_figure_is_drawn(
    paper: str, number: str, cache: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No panel is empty, and the file is a picture."""
    figure, drawn = registered(paper, "FIGURES")[number], []

    def draw(folders: Sequence[Path], overrides: Sequence[str]) -> Figure:
        drawn.append(figure.draw(folders, overrides))
        return drawn[-1]

    monkeypatch.setattr(figures, "find", lambda *_: replace(figure, draw=draw))
    command = [paper, number, "--out", str(out), "--size", "compact", "--run", f"data.cache={cache}", *TINY]
    if not figure.configs:  # drawn from a scan instead of a run
        write_head_nifti(out / "head.nii.gz")
        command.append(f"scan={out / 'head.nii.gz'}")
    assert figures.main(command) == 0
    picture = np.asarray(Image.open(out / f"{paper}-figure{number}-compact.png").convert("RGB"))
    assert min(picture.shape[:2]) > 200 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    for panel in drawn[0].axes:
        assert panel.lines or panel.images or panel.patches or panel.collections, panel.get_title()
        assert all(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in panel.lines)


def test_a_table_over_folds(cache: Path, tmp_path: Path) -> None:
    """Two folds by the command of its own, then the table from them: means and deviations, every case held out once."""
    folder = tmp_path / "runs" / run_name("dtvit/compact")
    options = [f"data.cache={cache}", *TINY]
    assert crossval.main(["dtvit/compact", "--out", str(folder), "--folds", "2", *options]) == 0
    assert len(read_rows(folder / "cases.csv")[0]) == 12
    assert tables.main(["dtvit", "2", "--out", str(tmp_path), "--size", "compact"]) == 0
    first, *rest = read_rows(tmp_path / "dtvit-table2-compact.csv")[0]
    accuracies = [
        json.loads((folder / f"fold{n}" / "test" / "summary.json").read_text())["metrics"]["slice_accuracy"]
        for n in range(2)
    ]
    assert first["Accuracy"] == f"{np.mean(accuracies):.3f} ± {np.std(accuracies, ddof=1):.3f}"
    assert first["cases"] == "12 (2 folds)" and rest[0]["Accuracy"] == NOT_RUN
