"""Runs in real processes: killed and resumed to the bit, alone and by two; the same metrics however many evaluate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from Testing.training.ranks import free_port, run_ranks, write_config
from Training.checkpoint import list_checkpoints, newest_checkpoint, read_checkpoint
from Training.evaluate import main as evaluate
from Training.train import main as train
from Training.watch import read_rows

ROOT = Path(__file__).parents[2]


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Paths of everything that is not identical to the bit; the wall time apart."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return [d for key in one if key != "seconds" for d in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        return [d for n, (a, b) in enumerate(zip(one, other)) for d in differences(a, b, f"{path}/{n}")]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    return [] if one == other else [path]


@pytest.mark.parametrize("size", [1, 2])
def test_killed_and_resumed_run_equals_an_unbroken_one(tmp_path: Path, size: int) -> None:
    config = str(write_config(tmp_path))
    assert run_ranks(train, [config, "--out", str(tmp_path / "whole")], size) == [0] * size

    codes = run_ranks(train, [config, "--out", str(tmp_path / "broken")], size, TOY_KILL_IN_EPOCH="2")
    assert -signal.SIGKILL in codes and 0 not in codes
    step = read_checkpoint(list_checkpoints(tmp_path / "broken" / "checkpoints")[-1])["progress"]["step"]
    unbroken = newest_checkpoint(tmp_path / "whole" / "checkpoints")[1]
    assert step == unbroken["progress"]["step"] // 2

    assert run_ranks(train, [config, "--out", str(tmp_path / "broken"), "--resume"], size) == [0] * size
    resumed = newest_checkpoint(tmp_path / "broken" / "checkpoints")[1]
    assert resumed["progress"]["epoch"] == 4
    assert differences(unbroken, resumed) == []
    for name in ("train.csv", "validation.csv"):
        whole, broken = (read_rows(tmp_path / run / name)[0] for run in ("whole", "broken"))
        assert [row["step"] for row in whole] == [row["step"] for row in broken]


def test_kill_in_the_middle_of_an_epoch_loses_only_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    config = [str(write_config(tmp_path)), "loop.checkpoint_minutes=0"]
    run_ranks(train, [*config, "--out", str(tmp_path / "whole")], 1)
    run_ranks(train, [*config, "--out", str(tmp_path / "broken")], 1, TOY_KILL_IN_EPOCH="1")
    progress = newest_checkpoint(tmp_path / "broken" / "checkpoints")[1]["progress"]
    assert progress["epoch"] == 1 and progress["items"] > 0
    run_ranks(train, [*config, "--out", str(tmp_path / "broken"), "--resume"], 1)
    ends = [newest_checkpoint(tmp_path / run / "checkpoints")[1] for run in ("whole", "broken")]
    assert differences(*ends) == []


def test_a_killed_loader_process_is_named_and_loses_nothing_before(tmp_path: Path) -> None:
    config = [str(write_config(tmp_path)), "loop.epochs=2", "data.workers=1", "loop.validation_loss=true"]
    assert run_ranks(train, [*config, "--out", str(tmp_path / "broken")], 1, TOY_KILL_IN_EPOCH="1") == [4]
    results = json.loads((tmp_path / "broken" / "results.json").read_text())
    assert results["status"] == "failed" and "loader process died" in results["error"]
    assert newest_checkpoint(tmp_path / "broken" / "checkpoints")[1]["progress"]["epoch"] == 1
    assert run_ranks(train, [*config, "--out", str(tmp_path / "broken"), "--resume"], 1) == [0]
    run_ranks(train, [*config, "--out", str(tmp_path / "whole")], 1)
    ends = [newest_checkpoint(tmp_path / run / "checkpoints")[1] for run in ("whole", "broken")]
    assert differences(*ends) == []


def test_validation_losses_count_an_item_once_however_it_is_shared(tmp_path: Path) -> None:
    """21 items, one a batch: two processes with sharded parameters repeat one to keep step with each other."""
    options = ["loop.micro_batch_size=1", "loop.max_steps=1", "loop.precision=fp32", "task.options.plain=true"]
    command = [str(write_config(tmp_path)), *options, "loop.validation_loss=true", "loop.ema_decay=0"]
    losses = []
    for parallel in ("ddp", "fsdp"):
        run_ranks(train, [*command, f"loop.parallel={parallel}", "--out", str(tmp_path / parallel)], 2)
        losses.append(float(read_rows(tmp_path / parallel / "validation.csv")[0][-1]["total"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_sigterm_saves_in_every_process_and_resumes(tmp_path: Path) -> None:
    config = [str(write_config(tmp_path)), "loop.epochs=2"]
    signals = {"TOY_KILL_IN_EPOCH": "1", "TOY_SIGNAL": "SIGTERM"}
    assert run_ranks(train, [*config, "--out", str(tmp_path / "run")], 2, **signals) == [143, 143]
    progress = newest_checkpoint(tmp_path / "run" / "checkpoints")[1]["progress"]
    assert progress["epoch"] == 1 and 0 < progress["items"] < 66
    run_ranks(train, [*config, "--out", str(tmp_path / "run"), "--resume"], 2)
    run_ranks(train, [*config, "--out", str(tmp_path / "whole")], 2)
    ends = [newest_checkpoint(tmp_path / run / "checkpoints")[1] for run in ("whole", "run")]
    assert differences(*ends) == []


def test_a_validation_that_sigterm_prevented_is_made_up_for(tmp_path: Path) -> None:
    """The signal comes in step 3, after which a validation is due: the best checkpoint is the unbroken run's."""
    config = [str(write_config(tmp_path)), "loop.epochs=1", "loop.validate_every=3"]
    run_ranks(train, [*config, "--out", str(tmp_path / "whole")], 1)
    signals = {"TOY_KILL_IN_EPOCH": "0", "TOY_SIGNAL": "SIGTERM"}
    assert run_ranks(train, [*config, "--out", str(tmp_path / "run")], 1, **signals) == [143]
    progress = newest_checkpoint(tmp_path / "run" / "checkpoints")[1]["progress"]
    assert progress["step"] == 3 and progress["owes_validation"] and progress["best_score"] is None
    run_ranks(train, [*config, "--out", str(tmp_path / "run"), "--resume"], 1)
    ends = [newest_checkpoint(tmp_path / run / "checkpoints")[1] for run in ("whole", "run")]
    assert differences(*ends) == []
    one, other = ((tmp_path / run / "validation.csv").read_text() for run in ("whole", "run"))
    assert one == other


def test_two_processes_resume_what_one_began(tmp_path: Path) -> None:
    config = str(write_config(tmp_path))
    run_ranks(train, [config, "--out", str(tmp_path)], 1, TOY_KILL_IN_EPOCH="2")
    assert run_ranks(train, [config, "--out", str(tmp_path), "--resume"], 2) == [0, 0]
    state = newest_checkpoint(tmp_path / "checkpoints")[1]
    assert len(state["rng"]) == 2 and state["global_batch_size"] == 16
    # 2 epochs of 9 steps at 8 items count as step 9 at 16 items; 5 steps an epoch follow, up to the 20 of the schedule.
    assert state["progress"]["step"] == 20 and state["progress"]["items_seen"] == 144 + 11 * 16


def test_what_two_processes_added_survives_another_kill(tmp_path: Path) -> None:
    """Step 18 of one process is step 9 of two: the next checkpoint is step 14, and it is the newest."""
    config = [str(write_config(tmp_path)), "loop.tensorboard=true"]
    run_ranks(train, [*config, "--out", str(tmp_path)], 1, TOY_KILL_IN_EPOCH="2")
    before = read_rows(tmp_path / "train.csv")[0]
    assert [row["step"] for row in before] == ["3", "6", "9", "12", "15", "18"]
    run_ranks(train, [*config, "--out", str(tmp_path), "--resume"], 2, TOY_KILL_IN_EPOCH="3")
    progress = newest_checkpoint(tmp_path / "checkpoints")[1]["progress"]
    assert (progress["step"], progress["epoch"], progress["items_seen"]) == (14, 3, 144 + 5 * 16)
    assert run_ranks(train, [*config, "--out", str(tmp_path), "--resume"], 2) == [0, 0]
    rows = read_rows(tmp_path / "train.csv")[0]  # counted anew, none lost
    assert [row["step"] for row in rows] == ["1", "3", "4", "6", "7", "9", "12", "15", "18", "20"]
    assert [row["total"] for row in rows[:6]] == [row["total"] for row in before]
    assert read_rows(tmp_path / "train-until-step-18.csv")[0] == before
    assert [row["step"] for row in read_rows(tmp_path / "validation.csv")[0]] == ["4", "9", "14", "19", "20"]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("train/total")] == [int(row["step"]) for row in rows]


def test_one_and_two_processes_find_the_same_metrics_on_odd_sizes(tmp_path: Path) -> None:
    run_ranks(train, [str(write_config(tmp_path)), "loop.epochs=1", "--out", str(tmp_path)], 1)
    best = str(tmp_path / "checkpoints" / "best.pt")
    for size in (1, 2, 3):
        run_ranks(evaluate, [best, "--out", str(tmp_path / str(size)), "--resamples", "30"], size)
    rows, _ = read_rows(tmp_path / "1" / "rows.csv")
    assert len(rows) == 7 * 3 and len({(row["case_id"], row["slice_index"]) for row in rows}) == 21
    for size in (2, 3):
        for name in ("rows.csv", "cases.csv", "summary.csv"):
            assert (tmp_path / str(size) / name).read_text() == (tmp_path / "1" / name).read_text()


def test_sharded_parameters_learn_the_same_and_resume(tmp_path: Path) -> None:
    """FSDP2, killed and resumed, ends with DDP's weights to rounding."""
    config = [str(write_config(tmp_path)), "loop.precision=fp32", "loop.epochs=2"]
    sharded = [*config, "loop.parallel=fsdp", "--out", str(tmp_path / "fsdp")]
    run_ranks(train, [*config, "--out", str(tmp_path / "ddp")], 2)
    run_ranks(train, sharded, 2, TOY_KILL_IN_EPOCH="1")
    run_ranks(train, [*sharded, "--resume"], 2)
    one, other = (newest_checkpoint(tmp_path / name / "checkpoints")[1]["model"] for name in ("ddp", "fsdp"))
    for name in ("first.weight", "last.weight", "last.bias"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_an_unreadable_case_does_not_hold_up_sharded_processes(tmp_path: Path) -> None:
    """With one item a batch, a case that cannot be read would leave one process without a forward to take part in."""
    config = [str(write_config(tmp_path)), "loop.parallel=fsdp", "loop.precision=fp32", "loop.max_steps=1"]
    options = ["loop.micro_batch_size=1", "task.options.plain=true", "task.options.unreadable_case=case023"]
    command = [*config, *options, "loop.validation_loss=true", "--out", str(tmp_path)]
    assert run_ranks(train, command, 2) == [0, 0]
    row = read_rows(tmp_path / "validation.csv")[0][-1]
    assert (row["rows"], row["unread"], row["count"]) == ("18", "3", "18.0")


def test_not_finite_in_one_process_stops_all_before_the_step(tmp_path: Path) -> None:
    config = [str(write_config(tmp_path)), "task.options.bad_case=case007"]
    assert run_ranks(train, [*config, "--out", str(tmp_path)], 2) == [4, 4]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["status"] == "failed" and "case007" in results["error"]
    assert results["step"] < 5  # of the first epoch, in which every case comes once


def test_torchrun(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    arguments = ["-m", "Training.train", str(write_config(tmp_path)), "loop.epochs=1", "--out", str(tmp_path)]
    command = [sys.executable, *launcher, *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert newest_checkpoint(tmp_path / "checkpoints")[1]["progress"]["step"] == 5


def test_one_of_several_processes_ends_without_tearing_down_the_interpreter() -> None:
    code = (
        "import atexit; from Training.distributed import end_process; atexit.register(print, 'torn down');"
        "print('done'); end_process(3)"
    )
    for size, said in (("1", ["done", "torn down"]), ("2", ["done"])):
        environment = {**os.environ, "WORLD_SIZE": size}
        ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout.splitlines()) == (3, said), ended.stderr
