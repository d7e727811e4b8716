"""The loop and the optimizer: numbers of the schedule, accumulation, averages, and stopping before harm is done."""

from __future__ import annotations

import errno
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ICHAnalysisLib.errors import UsageError
from Testing.training.ranks import write_config
from Testing.training.toy import ToyModel
from Training import checkpoint as checkpoints
from Training import train as train_module
from Training.checkpoint import list_checkpoints, newest_checkpoint
from Training.config import OptimizerConfig, RunConfig, ScheduleConfig, load_config
from Training.distributed import World, start_world
from Training.feed import UnreadableError, to_device
from Training.loop import NonFiniteError, UnsavedError, duration
from Training.optim import WeightAverage, build_optimizer, lr_factor, set_lr
from Training.run import build_run
from Training.tasks.base import build_task, collate, total_loss
from Training.train import main, train
from Training.watch import RunFolder, append_row, read_rows


def toy(folder: Path, *overrides: str) -> RunConfig:
    return load_config(write_config(folder), ["loop.epochs=1", *overrides])


def test_schedule() -> None:
    cfg = ScheduleConfig(warmup_fraction=0.1, min_lr_ratio=0.2)
    factors = [lr_factor(step, 100, cfg) for step in range(101)]
    assert factors[0] == 0.1 and factors[9] == 1.0 and factors[10] == 1.0
    assert factors[55] == pytest.approx(0.6) and factors[100] == pytest.approx(0.2)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert lr_factor(99, 100, ScheduleConfig(kind="constant", warmup_steps=0)) == 1.0
    assert lr_factor(0, 100, ScheduleConfig(warmup_steps=4)) == 0.25


def test_optimizer_groups() -> None:
    model = ToyModel()
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.5, lr_scale={"last": 0.1}))
    set_lr(optimizer, 0.1)
    found = {id(p): (g["weight_decay"], g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    assert found[id(model.first.weight)] == (0.5, 0.1)
    assert found[id(model.first.bias)] == found[id(model.norm.weight)] == (0.0, 0.1)
    assert found[id(model.last.weight)] == pytest.approx((0.5, 0.01))
    assert len(found) == len(list(model.parameters()))
    model.first.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(name="sgd", momentum=0.8))
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 4 and optimizer.param_groups[0]["momentum"] == 0.8
    with pytest.raises(UsageError, match="lsat"):
        build_optimizer(model, OptimizerConfig(lr_scale={"lsat": 1.0}))


def test_average_follows_its_formula_and_leaves_the_model_alone() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.5)
    expected = float(model.weight.detach())
    for n, value in enumerate((1.0, 2.0, -1.0), start=1):
        model.weight.data.fill_(value)
        average.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    with average.applied(model):
        assert float(model.weight.detach()) == pytest.approx(expected)
    assert float(model.weight.detach()) == -1.0 and float(average.shadow["weight"]) == pytest.approx(expected)


def test_accumulated_micro_batches_step_as_one_batch(tmp_path: Path) -> None:
    ends = []
    for micro, accumulation in ((8, 1), (4, 2), (1, 8)):
        cfg = toy(tmp_path, f"loop.micro_batch_size={micro}", f"loop.gradient_accumulation_steps={accumulation}",
                  "loop.precision=fp32", "task.options.plain=true", "loop.max_steps=5")  # fmt: skip
        train(cfg, tmp_path / str(micro))
        ends.append(newest_checkpoint(tmp_path / str(micro) / "checkpoints")[1]["model"])
    for end in ends[1:]:
        for name, tensor in ends[0].items():
            torch.testing.assert_close(end[name], tensor, rtol=1e-4, atol=1e-6)


def test_total_is_the_sum_of_losses_alone() -> None:
    values = {"a_loss": torch.tensor(2.0), "b_loss": torch.tensor(0.5), "dice": torch.tensor(9.0)}
    assert float(total_loss(values)) == 2.5
    with pytest.raises(UsageError, match="dice"):
        total_loss({"dice": torch.tensor(1.0)})


def test_collate_keeps_what_cannot_be_stacked() -> None:
    batch = collate([{"case_id": c, "x": torch.ones(2), "n": 1, "record": {"age": 3}} for c in "ab"])
    assert batch["x"].shape == (2, 2) and batch["n"].tolist() == [1, 1]
    assert batch["case_id"] == ["a", "b"] and batch["record"] == [{"age": 3}, {"age": 3}]
    moved = to_device({"v": torch.ones(1, 2, 3, 4, 5), "i": torch.ones(1, 2, 3, 4)}, torch.device("cpu"), True)
    assert moved["v"].is_contiguous(memory_format=torch.channels_last_3d)
    assert moved["i"].is_contiguous(memory_format=torch.channels_last)


def test_stops_before_a_step_that_is_not_finite(tmp_path: Path) -> None:
    cfg = toy(tmp_path, "task.options.bad_case=case003", "loop.checkpoint_minutes=0")
    with pytest.raises(NonFiniteError, match=r"case003 slice \d \(square_loss, small_loss\)"):
        train(cfg, tmp_path)
    for path in list_checkpoints(tmp_path / "checkpoints"):
        model = checkpoints.read_checkpoint(path)["model"]
        assert all(bool(torch.isfinite(tensor).all()) for tensor in model.values())
    assert json.loads((tmp_path / "results.json").read_text())["status"] == "failed"


def test_an_unreadable_case_is_replaced_and_left_out_of_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(toy(tmp_path, "task.options.unreadable_case=case003"), tmp_path / "train") == "finished"
    assert "case003: cannot be read" in caplog.text
    assert train(toy(tmp_path, "task.options.unreadable_case=case023"), tmp_path / "val") == "finished"
    row = read_rows(tmp_path / "val" / "validation.csv")[0][-1]
    assert (row["rows"], row["unread"], row["count"]) == ("18", "3", "18.0")


def test_many_unreadable_items_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="8 items in a row"):
        train(toy(tmp_path, "task.options.unreadable_case=all"), tmp_path)


def test_time_limit_saves_and_resumes(tmp_path: Path) -> None:
    assert train(toy(tmp_path, "loop.max_minutes=0"), tmp_path) == "time up"
    progress = newest_checkpoint(tmp_path / "checkpoints")[1]["progress"]
    assert progress["step"] == 1 and progress["best_step"] == 1
    assert train(toy(tmp_path), tmp_path, resume=True) == "finished"


def test_early_stop(tmp_path: Path) -> None:
    cfg = toy(tmp_path, "loop.epochs=50", "loop.early_stop=2", "loop.validate_every=1", "optimizer.lr=1e-12")
    assert train(cfg, tmp_path) == "early stop"
    end = newest_checkpoint(tmp_path / "checkpoints")[1]
    assert end["progress"]["step"] < 20
    assert train(cfg, tmp_path, resume=True) == "early stop"  # killed after its last save: nothing is left to do
    again = newest_checkpoint(tmp_path / "checkpoints")[1]
    assert again["progress"]["step"] == end["progress"]["step"]
    assert all(torch.equal(end["model"][name], again["model"][name]) for name in end["model"])


def test_a_full_disk_does_not_end_a_run_but_its_end_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = checkpoints.save_checkpoint, []

    def sometimes(folder: Path, state: dict[str, Any], keep: int, is_best: bool) -> Path:
        calls.append(state["progress"]["step"])
        if len(calls) in failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(folder, state, keep, is_best)

    monkeypatch.setattr(train_module, "save_checkpoint", sometimes)
    failing: set[int] = {2}
    assert train(toy(tmp_path, "loop.validate_every=4"), tmp_path / "a") == "finished"
    assert [path.stem for path in list_checkpoints(tmp_path / "a" / "checkpoints")] == [
        "step-000000004",
        "step-000000009",
    ]
    calls.clear()
    failing = {2, 3}
    with pytest.raises(UnsavedError, match="No space left"):
        train(toy(tmp_path, "loop.validate_every=4"), tmp_path / "b")
    assert [path.stem for path in list_checkpoints(tmp_path / "b" / "checkpoints")] == ["step-000000004"]


def test_a_record_that_cannot_be_written_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, values: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("Training.watch.append_row", full)
    assert train(toy(tmp_path), tmp_path) == "finished"
    assert "could not be written" in caplog.text and not (tmp_path / "train.csv").exists()
    assert json.loads((tmp_path / "results.json").read_text())["step"] == 9
    assert newest_checkpoint(tmp_path / "checkpoints")[1]["progress"]["step"] == 9


def test_a_run_is_never_overwritten_nor_continued_as_another(tmp_path: Path) -> None:
    config = [str(write_config(tmp_path)), "loop.epochs=1", "loop.max_steps=2", "--out", str(tmp_path)]
    assert main(config) == 0
    assert main(config) == 2  # without --resume
    assert main([*config, "--resume", "loop.seed=1"]) == 2
    assert main([*config, "--resume", "task.options.train_cases=21"]) == 2
    assert main([*config, "--resume", "task.options.train_cases=21", "--accept-changes"]) == 0
    assert main([*config, "--resume", "loop.no_such=1"]) == 2


def test_the_record_of_a_run(tmp_path: Path) -> None:
    train(toy(tmp_path, "loop.tensorboard=true", "data.balance=true"), tmp_path)
    rows, columns = read_rows(tmp_path / "train.csv")
    assert [row["step"] for row in rows] == ["3", "6", "9"]
    assert {
        "square_loss",
        "small_loss",
        "largest",
        "total",
        "lr",
        "grad_norm",
        "items_per_second",
        "wait_share",
    } <= set(columns)
    for row in rows:
        assert float(row["total"]) == pytest.approx(float(row["square_loss"]) + float(row["small_loss"]), rel=1e-5)
        assert 0 <= float(row["wait_share"]) <= 1
    results = json.loads((tmp_path / "results.json").read_text())
    validation = read_rows(tmp_path / "validation.csv")[0]
    assert results["status"] == "finished" and results["best_score"] == float(validation[-1]["mae"])
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert (
        environment["torch"] == torch.__version__ and environment["processes"] == 1 and "commit" in environment["git"]
    )
    assert load_config(tmp_path / "config.yaml") == toy(tmp_path, "loop.tensorboard=true", "data.balance=true")
    assert (tmp_path / "curves.png").stat().st_size > 1000 and list((tmp_path / "tensorboard").iterdir())


def test_a_resumed_run_shows_each_step_once_on_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    world, cfg = World(torch.device("cpu")), toy(tmp_path)
    for first, begins_after in ((1, 0), (3, 2)):  # killed after step 4, its last checkpoint of step 2
        folder = RunFolder(tmp_path, world)
        folder.start(cfg, world, begins_after)
        for step in range(first, 5):
            folder.record("train.csv", {"step": step, "total": float(step + first)})
        folder.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = [(event.step, event.value) for event in board.Scalars("train/total")]
    assert shown == [(int(row["step"]), float(row["total"])) for row in read_rows(tmp_path / "train.csv")[0]]
    assert shown == [(1, 2.0), (2, 3.0), (3, 6.0), (4, 7.0)]


def test_training_learns(tmp_path: Path) -> None:
    cfg = toy(tmp_path, "loop.epochs=12", "loop.precision=fp32", "task.options.plain=true")
    train(cfg, tmp_path)
    rows = read_rows(tmp_path / "validation.csv")[0]
    assert float(rows[-1]["mae"]) < 0.3 * float(rows[0]["mae"])


def test_validation_uses_the_average_and_leaves_no_trace(tmp_path: Path) -> None:
    """How often is validated, and with what, changes no weight."""
    for every in (1, 5):
        losses = "loop.validation_loss=" + str(every == 1).lower()
        train(toy(tmp_path, f"loop.validate_every={every}", losses), tmp_path / str(every))
    row = read_rows(tmp_path / "1" / "validation.csv")[0][-1]
    assert float(row["total"]) == pytest.approx(float(row["square_loss"]) + float(row["small_loss"]), rel=1e-4)
    assert float(row["small_loss"]) == pytest.approx(0.1 * float(row["mae"]), rel=0.02)  # bf16
    assert "total" not in read_rows(tmp_path / "5" / "validation.csv")[1]
    one, other = (newest_checkpoint(tmp_path / str(every) / "checkpoints")[1] for every in (1, 5))
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])


def test_a_new_column_keeps_the_rows_before(tmp_path: Path) -> None:
    append_row(tmp_path / "a.csv", {"step": 1, "a": 2})
    append_row(tmp_path / "a.csv", {"step": 2, "a": 3, "b": 4})
    append_row(tmp_path / "a.csv", {"step": 3, "a": 5, "b": 6})
    rows, columns = read_rows(tmp_path / "a.csv")
    assert columns == ["step", "a", "b"] and [row["b"] for row in rows] == ["", "4", "6"]


def test_world_and_tasks_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="warp"):
        start_world("warp")
    with pytest.raises(UsageError, match="nothing"):
        build_task(toy(tmp_path, "task.name=nothing"))
    with pytest.raises(UsageError, match="left to train"):
        build_run(toy(tmp_path, "task.options.train_cases=0"), World(torch.device("cpu")), None)


def test_time_left_in_words() -> None:
    assert [duration(s) for s in (0.4, 8, 750, 3900)] == ["0 s", "8 s", "12 min 30 s", "1 h 05 min"]
