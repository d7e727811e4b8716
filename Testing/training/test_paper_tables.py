"""The papers' tables and figures: their layout, what is not run, and numbers that come from evaluations alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from ICHAnalysisLib.errors import UsageError
from Testing.training.ranks import write_config
from Training import evaluate, figures, results, tables, train
from Training.config import load_config
from Training.papers import base
from Training.papers.base import Column, PaperFigure, PaperTable, TableRow, config_at, registered
from Training.papers.dtvit import confusion
from Training.papers.volume_net import roc, spread_slices
from Training.results import Metric, find_result, run_name
from Training.tables import format_metric
from Training.watch import read_rows, write_json

PAPERS = [paper for paper in base.PAPERS if (Path(base.__file__).parent / f"{paper}.py").exists()]


@pytest.mark.parametrize("paper", PAPERS)
def test_every_paper_table_has_its_configurations_and_metrics(paper: str) -> None:
    """Each row of the paper's size is packaged or says that it is not built; at least our own row is there."""
    for table in registered(paper, "TABLES").values():
        rows = table.at("paper").rows
        assert len(rows) == len(table.rows) and any(row.config == f"{paper}/paper" for row in rows)
        for before, row in zip(table.rows, rows, strict=True):
            assert len(row.labels) == len(table.label_headers)
            assert (row.config is None) == (before.config is None), f"{before.config} is not packaged"
            if row.config is not None:
                assert load_config(row.config).task.name == paper
    for figure in registered(paper, "FIGURES").values():
        assert all(config_at(config, "paper") for config in figure.configs)


def test_numbers_as_text() -> None:
    assert format_metric(Metric(0.91234, 0.85, 0.96)) == "0.912 (0.850 to 0.960)"
    assert format_metric(Metric(0.91234, sd=0.031), 100, 1) == "91.2 ± 3.1"
    assert format_metric(Metric(4.906), 1, 2) == "4.91"
    assert format_metric(Metric(1.0, None, None)) == "1.000"


def test_readers_rows_come_from_a_csv(tmp_path: Path) -> None:
    """Table 1 of paper 003: clinician 3 reads 2 mL too much, clinician 5 is not in the CSV."""
    lines = ["case_id,Clinician 3,3D Slicer", *(f"p{n},{10.0 * n + 2},{10.0 * n}" for n in range(1, 5))]
    (tmp_path / "readings.csv").write_text("\n".join(lines) + "\n")
    command = ["volume_net", "1", "--out", str(tmp_path), "--readings", str(tmp_path / "readings.csv")]
    assert tables.main(command) == 0
    rows = {row["Methods"]: row for row in read_rows(tmp_path / "volume_net-table1-paper.csv")[0]}
    assert (rows["Clinician 3"]["MAE"], rows["Clinician 3"]["MSE"]) == ("2.00", "4.00")
    assert rows["Clinician 3"]["MAPE(%)"] == f"{100 * np.mean([2 / 10, 2 / 20, 2 / 30, 2 / 40]):.2f}"
    assert rows["Clinician 3"]["cases"] == "4 (read)"
    assert rows["Clinician 5"]["MAE"] == "--readings CSV" and rows["Multi-task (ours)"]["MAE"] == "not run"
    assert tables.main([*command[:-1], str(tmp_path / "none.csv")]) == 2


def test_runs_are_named_by_what_decides_them() -> None:
    assert run_name("dtvit/paper") == "dtvit-paper" == run_name("dtvit/paper.yaml")
    assert (
        run_name("dtvit/paper", ["a=1", "b=2"])
        == run_name("dtvit/paper", ["b=2", "a=1"])
        != run_name("dtvit/paper", ["a=1"])
    )


@pytest.mark.parametrize(
    ("inside", "middle", "expected"),
    [
        (range(2, 31), 16, [6, 11, 16, 21, 26]),  # each fifth
        (range(2, 31), 3, [2, 7, 12, 17, 22]),  # near the lower end
        (range(4, 12), 11, [7, 8, 9, 10, 11]),  # few slices, all of them in the head
        (range(5, 8), 6, [5, 6, 7]),
        ((), 4, [4]),
    ],
)
def test_attention_is_shown_on_slices_of_the_head(inside: Sequence[int], middle: int, expected: list[int]) -> None:
    assert spread_slices(np.array(list(inside), dtype=int), middle) == expected


def test_curves_and_matrices_of_the_figures() -> None:
    truth, probability = np.array([1, 1, 0, 1, 0, 0]), np.array([0.9, 0.8, 0.8, 0.4, 0.3, 0.1])
    false, true = roc(truth, probability)
    assert (
        false.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
        and true[-1] == 1
        and true[1] == pytest.approx(1 / 3)
    )
    pairs = [(float(p > q) + 0.5 * float(p == q)) for p in probability[truth == 1] for q in probability[truth == 0]]
    assert np.trapezoid(true, false) == pytest.approx(np.mean(pairs))
    assert confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist() == [[1, 1], [0, 1]]


def test_a_cross_validation_is_read_as_mean_and_deviation(tmp_path: Path) -> None:
    assert find_result(tmp_path) is None
    write_json(
        tmp_path / "summary.json",
        {"folds": [0, 1], "cases": 9, "metrics": {"a": {"mean": 2.0, "sd": 0.5}, "b": {"mean": None, "sd": None}}},
    )
    result = find_result(tmp_path)
    assert result is not None and result.metrics == {"a": Metric(2.0, sd=0.5)} and result.split == "2 folds"


@pytest.fixture
def toy_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A paper with one table and one figure of toy runs; commands run in this process."""
    monkeypatch.setattr(base, "CONFIG_FOLDER", tmp_path)
    monkeypatch.setattr("Training.config.CONFIG_FOLDER", tmp_path)
    write_config(tmp_path).rename(tmp_path / "toy_paper.yaml")

    def draw(folders: Sequence[Path], overrides: Sequence[str]) -> Figure:
        figure = Figure()
        figure.add_subplot().plot([0, len(folders)])
        return figure

    rows = (
        TableRow(("Ours",), "toy_{size}"),
        TableRow(("Small loss",), "toy_{size}", only=("worst",)),
        TableRow(("Theirs",), not_built="no code"),
        TableRow(("Other",), "other_{size}"),
    )
    table = PaperTable(
        "A table", ("Method",), (Column("MAE", "mae", 100, 1), Column("Worst", "worst")), rows, "A note."
    )
    found = {"TABLES": {"1": table}, "FIGURES": {"1": PaperFigure("A figure", ("toy_{size}",), draw)}}
    monkeypatch.setattr(base, "registered", lambda paper, what: found[what])

    def call(arguments: Sequence[str], processes: int) -> bool:
        calls.append(arguments[0])
        return {"Training.train": train.main, "Training.evaluate": evaluate.main}[arguments[0]](
            list(arguments[1:])
        ) == 0

    calls: list[str] = []
    monkeypatch.setattr(results, "call", call)
    return tmp_path


def test_a_table_shows_what_ran_and_what_did_not(
    toy_paper: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    out = toy_paper / "out"
    assert tables.main(["dtvit", "1", "--out", str(out)]) == 0
    cells, columns = read_rows(out / "dtvit-table1-paper.csv")
    assert columns == ["Method", "MAE", "Worst", "cases"]
    assert [row["MAE"] for row in cells] == ["not run", "not run", "no code", "not built"]

    assert tables.main(["dtvit", "1", "--out", str(out), "--run", "loop.epochs=1"]) == 0
    cells, _ = read_rows(out / "dtvit-table1-paper.csv")
    summary = json.loads((out / "runs" / "toy_paper" / "test" / "summary.json").read_text())
    low, high = summary["intervals"]["mae"]
    assert cells[0]["MAE"] == f"{100 * summary['metrics']['mae']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    assert cells[0]["cases"] == "7 (test)" and cells[1]["MAE"] == "-" and cells[1]["Worst"] == cells[0]["Worst"]
    text = (out / "dtvit-table1-paper.md").read_text()
    assert "A note." in text and "| Ours |" in text and text in capsys.readouterr().out
    assert "was made with other" not in caplog.text
    assert tables.main(["dtvit", "1", "--out", str(out), "--run", "loop.epochs=2", "data.fold=1"]) == 0
    assert "was made with other data.fold, loop.epochs" in caplog.text


def test_a_figure_needs_its_runs(toy_paper: Path) -> None:
    out = toy_paper / "out"
    assert figures.main(["dtvit", "1", "--out", str(out)]) == 2
    assert figures.main(["dtvit", "1", "--out", str(out), "--size", "compact", "--run"]) == 2
    assert figures.main(["dtvit", "1", "--out", str(out), "--run", "loop.epochs=1"]) == 0
    assert (out / "dtvit-figure1-paper.png").stat().st_size > 1000


def test_unknown_papers_and_tables(capsys: pytest.CaptureFixture) -> None:
    assert tables.main(["nobody", "1"]) == 2
    assert tables.main(["dtvit", "17"]) == 2
    with pytest.raises(UsageError, match="there are 2, 3"):
        base.find("dtvit", "TABLES", "17")
