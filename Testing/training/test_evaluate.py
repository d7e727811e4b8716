"""Evaluation, export and cross-validation of a toy run: numbers, intervals, cards, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.weights.registry import load_weights
from Testing.training.ranks import write_config
from Testing.training.toy import ToyTask
from Training import crossval, evaluate, export, results, train
from Training.checkpoint import read_checkpoint
from Training.config import load_config
from Training.data.splits import Folds, write_folds
from Training.evaluate import bootstrap
from Training.inference import unique_rows
from Training.pictures import montage
from Training.reliability import calibration_measures, write_calibration
from Training.run import build_run, load_trained
from Training.watch import read_rows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished toy run."""
    folder = tmp_path_factory.mktemp("run")
    assert train.main([str(write_config(folder)), "loop.epochs=2", "--out", str(folder)]) == 0
    return folder


def test_summary_rows_and_failures_agree(run: Path, tmp_path: Path) -> None:
    best = run / "checkpoints" / "best.pt"
    summary = evaluate.evaluate(best, tmp_path, resamples=100, failures=2)
    rows, _ = read_rows(tmp_path / "rows.csv")
    errors = [abs(float(row["truth"]) - float(row["prediction"])) for row in rows]
    assert summary["metrics"]["mae"] == pytest.approx(np.mean(errors)) and summary["rows"] == len(rows) == 21
    low, high = summary["intervals"]["mae"]
    assert low < summary["metrics"]["mae"] < high
    assert summary["metrics"]["mae"] == pytest.approx(read_checkpoint(best)["progress"]["best_score"])
    failures, columns = read_rows(tmp_path / "failures.csv")
    scores = [float(row["failure_score"]) for row in failures]
    assert columns[:2] == ["failure_score", "case_id"] and scores == sorted(scores, reverse=True) and min(scores) > 0
    assert [path.name for path in sorted((tmp_path / "failures").iterdir())] == ["001.png", "002.png"]
    assert Image.open(tmp_path / "calibration.png").size[0] > 100
    assert json.loads((tmp_path / "summary.json").read_text())["metrics"] == summary["metrics"]


def test_average_and_last_weights_are_different_networks(run: Path, tmp_path: Path) -> None:
    best = run / "checkpoints" / "best.pt"
    average, last = (evaluate.evaluate(best, tmp_path / w, weights=w, resamples=0) for w in ("average", "last"))
    assert average["metrics"]["mae"] != last["metrics"]["mae"]
    assert all(math.isnan(bound) for bound in last["intervals"]["mae"])


def test_what_an_evaluation_refuses(run: Path, tmp_path: Path) -> None:
    best = str(run / "checkpoints" / "best.pt")
    assert evaluate.main([best, "--out", str(tmp_path), "optimizer.lr=1"]) == 2
    assert evaluate.main([str(run / "config.yaml"), "--out", str(tmp_path)]) == 2
    assert evaluate.main([str(run / "none.pt"), "--out", str(tmp_path)]) == 2
    assert not list(tmp_path.iterdir())


def test_bootstrap_covers_and_counts_patients_not_rows(tmp_path: Path) -> None:
    task = ToyTask(load_config(write_config(tmp_path)))
    rng = np.random.default_rng(0)
    rows = [{"case_id": f"c{n}", "truth": 0.0, "prediction": e} for n, e in enumerate(rng.uniform(0, 1, 200))]
    own = {row["case_id"]: row["case_id"] for row in rows}
    low, high = bootstrap(task, rows, own, 400)["mae"]
    half = 1.96 * np.std([row["prediction"] for row in rows]) / np.sqrt(200)
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    repeated = [{**row, "case_id": f"{row['case_id']}/{k}"} for row in rows for k in range(4)]
    grouped = bootstrap(task, repeated, {r["case_id"]: r["case_id"].split("/")[0] for r in repeated}, 400)["mae"]
    assert grouped == pytest.approx((low, high), abs=0.25 * half)  # four copies of a patient tell nothing new


def test_rows_come_once_in_order() -> None:
    rows = [
        {"case_id": "b", "slice_index": 0, "v": 1},
        {"case_id": "a", "slice_index": 10},
        {"case_id": "a", "slice_index": 9},
        {"case_id": "b", "slice_index": 0, "v": 2},
        {"case_id": "b", "slice_index": 0, "mode": "oracle"},
    ]
    kept = unique_rows(rows)
    assert [(r["case_id"], r["slice_index"], r.get("mode", "")) for r in kept] == [
        ("a", 9, ""),
        ("a", 10, ""),
        ("b", 0, ""),
        ("b", 0, "oracle"),
    ]
    assert kept[2]["v"] == 1


def test_calibration_numbers(tmp_path: Path) -> None:
    probability = np.array([0.05, 0.05, 0.95, 1.0, 0.0])
    outcome = np.array([0, 1, 1, 1, 0])
    measures = calibration_measures(probability, outcome)
    assert measures["brier"] == pytest.approx(np.mean((probability - outcome) ** 2))
    assert measures["calibration_error"] == pytest.approx((3 * abs(0.1 / 3 - 1 / 3) + 2 * 0.025) / 5)
    found = write_calibration(tmp_path, {"event": (probability, outcome), "unknown": (np.zeros(0), np.zeros(0, int))})
    assert found == {"event": measures}
    rows, _ = read_rows(tmp_path / "calibration.csv")
    assert [row["count"] for row in rows] == ["3", "2"]
    assert float(rows[0]["observed"]) == pytest.approx(1 / 3)
    assert float(rows[1]["mean_probability"]) == pytest.approx(0.975)


def test_montage_draws_outlines_on_every_slice() -> None:
    hu, labels = np.full((3, 32, 32), 40.0), np.zeros((3, 32, 32), dtype=np.uint8)
    labels[1, 8:20, 8:20] = 1
    picture = montage([{"hu": hu, "labels": labels}])
    assert picture is not None and picture.shape == (16, 48, 3)
    red = (picture == (255, 64, 64)).all(axis=2)
    assert red[:, 16:32].any() and not red[:, :16].any() and not red[:, 32:].any()
    assert not red[7, 23] and picture[7, 23].tolist() == [127, 127, 127]
    found = np.zeros((3, 32, 32), dtype=bool)
    found[2, 4:12, 4:12] = True
    both = montage([{"hu": hu, "labels": labels, "found": found}])
    blue = (both == (64, 160, 255)).all(axis=2)
    assert np.array_equal((both == (255, 64, 64)).all(axis=2), red)
    assert blue[2:6, 34:38].sum() == 12 and blue.sum() == 12
    image = np.stack([np.full((32, 32), 0.5), np.zeros((32, 32))])
    shown = montage([{"image": image, "labels": labels[1]}])
    assert shown is not None and shown.shape == (16, 16, 3) and shown[7, 7].tolist() == [127, 127, 127]
    assert montage([{"x": 1}]) is None


def test_exported_weights_are_the_networks_and_the_card_says_what_was_measured(run: Path, tmp_path: Path) -> None:
    best = run / "checkpoints" / "best.pt"
    evaluate.evaluate(best, tmp_path / "evaluation", resamples=50)
    out = tmp_path / "toy.safetensors"
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "summary.json").write_text(
        json.dumps({"cases": 9, "threshold": 0.5, "dice": [0.9, 0.8, 1.0, 5]})
    )
    told = ["--evaluation", str(tmp_path / "evaluation"), "--cohort", str(tmp_path / "cohort"), "--note", "A note."]
    assert export.main([str(best), "--out", str(out), *told]) == 0
    loaded = load_weights(out)
    _, task, model, state = load_trained(best, "average", evaluate.start_world("cpu"))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict[name].float(), tensor.float(), rtol=1e-3, atol=1e-4)
    shadow = state["average"]["shadow"]["last.weight"]
    torch.testing.assert_close(loaded.state_dict["last.weight"], shadow, rtol=1e-3, atol=1e-4)
    assert loaded.card["mean"] == task.state_dict()["mean"] and loaded.card["training"]["weights"] == "running average"
    assert loaded.card["data"]["train"]["cases"] == 22 and loaded.card["evaluation"]["cases"] == 7
    text = out.with_suffix(".md").read_text()
    assert loaded.sha256 in text and "| mae |" in text and "A note." in text and "Research use only" in text
    assert "9 scans" in text and "| dice | 0.900 | 0.800 to 1.000 | 5 |" in text
    follower = load_config(write_config(tmp_path), [f"task.initial={out}"])
    started = build_run(follower, evaluate.start_world("cpu"), None)
    for name, tensor in started.network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict[name], tensor, rtol=0, atol=0)
    last = run / "checkpoints" / "step-000000009.pt"
    assert export.main([str(last), "--out", str(out), "--evaluation", str(tmp_path / "evaluation")]) == 2


def test_what_a_card_says_of_its_cases() -> None:
    train_facts = {"cases": 5, "patients": 5, "simulated": 5, "sources": {"simulated": 5}}
    assert export.trained_on({"train": train_facts}) == "5 simulated scans"
    mixed = {**train_facts, "simulated": 2, "sources": {"bhsd": 3, "simulated": 2}}
    assert export.trained_on({"train": mixed}) == "3 real scans (bhsd) and 2 simulated ones"


def test_cross_validation_holds_every_case_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def call(arguments: Sequence[str], processes: int) -> bool:
        """In this process: a new one would import everything again."""
        calls.append(arguments[0])
        if broken and arguments[0] == "Training.evaluate" and "fold1" in arguments[1]:
            return False
        return {"Training.train": train.main, "Training.evaluate": evaluate.main}[arguments[0]](
            list(arguments[1:])
        ) == 0

    monkeypatch.setattr(results, "call", call)
    folds = write_folds(tmp_path / "folds.json", Folds(3, 0, "", {f"case{n:03d}": n % 3 for n in range(29)}))
    command = [str(write_config(tmp_path)), "loop.epochs=1", f"data.folds={folds}", "--out", str(tmp_path / "cv")]
    broken = True
    assert crossval.main(command) == 4 and calls.count("Training.train") == 3
    broken = False
    assert crossval.main(command) == 0
    assert calls.count("Training.train") == 3 and calls.count("Training.evaluate") == 4  # only what was missing
    cases, _ = read_rows(tmp_path / "cv" / "cases.csv")
    assert sorted(row["case_id"] for row in cases) == [f"case{n:03d}" for n in range(29)]
    assert all(int(row["case_id"][-3:]) % 3 == int(row["fold"]) for row in cases)
    row = next(row for row in read_rows(tmp_path / "cv" / "summary.csv")[0] if row["metric"] == "mae")
    values = [float(row[f"fold{fold}"]) for fold in range(3)]
    assert float(row["mean"]) == pytest.approx(np.mean(values)) and float(row["sd"]) == pytest.approx(
        np.std(values, ddof=1)
    )


def test_a_fold_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint"):
        results.chosen_checkpoint(tmp_path)
