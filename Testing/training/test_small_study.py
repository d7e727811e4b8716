"""The small study's arithmetic: t intervals over folds, differences within folds, and the sentence they allow."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ICHAnalysisLib.errors import UsageError
from Training.papers import small_study
from Training.papers.ich_scnet import TABLES
from Training.papers.small_study import StudyConfig, compare, fold_values, mean_over_folds, write_study
from Training.results import Metric, run_name
from Training.watch import write_rows


def test_interval_of_a_mean_over_folds() -> None:
    """1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027."""
    found = mean_over_folds([1.0, 2.0, 3.0])
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == 2.0 and found.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3)) == 2.0 - found.low
    assert mean_over_folds([math.nan, 0.5]) == Metric(0.5)
    assert mean_over_folds([math.nan]) is None


@pytest.mark.parametrize(
    ("multi", "word"),
    [([0.8, 0.81, 0.8], "better"), ([0.4, 0.41, 0.4], "worse"), ([0.4, 0.9, 0.6], "did not differ")],
)
def test_the_sentence_follows_the_interval(multi: list[float], word: str) -> None:
    row, sentence = compare("Dice", multi, [0.6, 0.6, 0.6])
    assert word in row["verdict"] and word in sentence
    assert row["each fold"] == ", ".join(f"{value - 0.6:+.3f}" for value in multi)


def test_one_fold_compares_nothing() -> None:
    with pytest.raises(UsageError, match="fewer than two folds"):
        compare("Dice", [0.5, math.nan], [0.4, 0.4])


def summary(folder: Path, dice: tuple[float, float], area: tuple[float, float]) -> None:
    folder.mkdir(parents=True)
    rows = [("automatic_ich_dice", *dice), ("outcome_auc", *area)]
    write_rows(folder / "summary.csv", [{"metric": m, "fold0": a, "fold1": b, "folds": 2} for m, a, b in rows])


def test_tables_are_written_from_what_the_folds_found(tmp_path: Path) -> None:
    summary(tmp_path / run_name("ich_scnet/compact"), (0.6, 0.62), (0.7, 0.7))
    summary(tmp_path / run_name("ich_scnet/compact_seg"), (0.5, 0.52), (math.nan, math.nan))
    summary(tmp_path / run_name("ich_scnet/compact_cla"), (math.nan, math.nan), (0.65, 0.75))
    assert fold_values(tmp_path / run_name("ich_scnet/compact"))["automatic_ich_dice"] == [0.6, 0.62]
    text = write_study(StudyConfig(tmp_path, folds=2))
    assert text == (tmp_path / "small_study.md").read_text(encoding="utf-8")
    assert "61.00 (48.29 to 73.71)" in text  # t(0.975, 1) = 12.706 times 0.01
    assert "Dice without prompts: multi-task was better than single-task; difference 0.100 (0.100 to 0.100)." in text
    assert "outcome AUC: multi-task did not differ measurably" in text
    assert text.count("not run") == 5 * len(TABLES["2"].columns)
    assert (tmp_path / "small_table1.csv").exists() and (tmp_path / "small_table2.csv").exists()


def test_every_run_of_the_study_has_the_same_settings(tmp_path: Path) -> None:
    settings = StudyConfig(tmp_path, steps=7, seed=3, overrides=("loop.threads=2",)).run_settings
    assert settings[: len(small_study.SETTINGS)] == list(small_study.SETTINGS)
    assert {"loop.max_steps=7", "loop.seed=3", f"data.cache={tmp_path / 'pool'}"} <= set(settings)
    assert settings[-1] == "loop.threads=2"
