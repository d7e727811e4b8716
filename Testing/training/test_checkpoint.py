"""Checkpoints: whole or not at all, plain inside, and the newest readable one is found."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ICHAnalysisLib.errors import UsageError
from Training.checkpoint import (
    BEST,
    Progress,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    rng_state,
    save_checkpoint,
    seed_everything,
    set_rng_state,
    write_checkpoint,
)


def state(step: int) -> dict[str, Any]:
    return {"progress": Progress(step=step).as_dict(), "model": {"w": torch.full((3,), float(step))}}


def test_newest_are_kept_and_the_best_apart(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, state(step), keep=2, is_best=step == 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000000003.pt", "step-000000004.pt"]
    assert read_checkpoint(tmp_path / BEST)["progress"]["step"] == 2
    assert newest_checkpoint(tmp_path)[1]["model"]["w"].tolist() == [4.0, 4.0, 4.0]
    assert not list(tmp_path.glob(".*"))


def test_numbers_of_an_earlier_count_are_no_newer(tmp_path: Path) -> None:
    """More processes count fewer steps: what they save stands below the numbers that are there."""
    for step in (90, 100):
        save_checkpoint(tmp_path, state(step), keep=2, is_best=False)
    save_checkpoint(tmp_path, state(30), keep=2, is_best=False)
    assert newest_checkpoint(tmp_path)[1]["progress"]["step"] == 30
    save_checkpoint(tmp_path, state(40), keep=2, is_best=False)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000000030.pt", "step-000000040.pt"]


def test_a_damaged_file_is_passed_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=9, is_best=False)
    path = save_checkpoint(tmp_path, state(2), keep=9, is_best=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert newest_checkpoint(tmp_path)[1]["progress"]["step"] == 1
    list_checkpoints(tmp_path)[0].write_bytes(b"")
    with pytest.raises(UsageError, match="no readable checkpoint"):
        newest_checkpoint(tmp_path)


def test_a_full_disk_leaves_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    write_checkpoint(path, state(1))

    def fill(value: Any, file: Any) -> None:
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(path, state(2))
    assert read_checkpoint(path)["progress"]["step"] == 1
    assert [item.name for item in tmp_path.iterdir()] == ["a.pt"]


def test_code_in_a_file_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 1, "model": Path("x")}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match="not readable"):
        read_checkpoint(tmp_path / "a.pt")
    torch.save({"model": 1}, tmp_path / "b.pt")
    with pytest.raises(UsageError, match="not a checkpoint of this software"):
        read_checkpoint(tmp_path / "b.pt")
    with pytest.raises(UsageError, match="no such"):
        read_checkpoint(tmp_path / "c.pt")


def test_every_generator_goes_on_where_it_stood(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [float(torch.rand(())), float(np.random.normal()), random.gauss(0, 1), float(torch.randn(()))]

    seed_everything(5)
    draw()  # leaves a spare normal number in numpy's and Python's generators
    write_checkpoint(tmp_path / "a.pt", {"rng": rng_state()})
    expected = [draw() for _ in range(3)]
    seed_everything(6)
    assert draw() != expected[0]
    set_rng_state(read_checkpoint(tmp_path / "a.pt")["rng"])
    assert [draw() for _ in range(3)] == expected


def test_progress_comes_back_whole() -> None:
    progress = Progress(3, 16, 40, 320, 12.5, 0.75, 30, 1)
    assert Progress.from_dict(progress.as_dict()) == progress
