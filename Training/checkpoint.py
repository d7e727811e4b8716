"""Checkpoints: everything a run needs to go on to the bit, in one file of tensors and plain types.

A file appears whole or not at all: it is written under a temporary name, flushed to the disk and renamed. The newest
ones and the best one are kept; on resume an unreadable file is passed over for the one before it.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ICHAnalysisLib.errors import UsageError

log = logging.getLogger(__name__)

FORMAT = 1
BEST = "best.pt"


@dataclass
class Progress:
    """How far a run has come. Counted in items too, so that another number of processes can take over."""

    epoch: int = 0  # the epoch under way, 0-based
    items: int = 0  # items of it that all processes together have used
    step: int = 0  # optimizer steps of the run
    items_seen: int = 0  # items of the run
    seconds: float = 0.0  # wall time in the loop, all sessions together
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0  # validations since the best one
    owes_validation: bool = False  # SIGTERM came where one was due: the resumed run makes it first

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Progress:
        return cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})


def rng_state() -> dict[str, Any]:
    """The state of every random generator of this process, as tensors and plain types."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), gauss],
        "python": [version, list(internal), gauss_next],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """The inverse of `rng_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy's and Python's global generators."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` whole or not at all. Raises OSError; what was at `path` is then still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except RuntimeError as error:  # torch's zip writer reports a full disk as RuntimeError
        raise OSError(f"{path}: the checkpoint could not be written ({error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike, peek: bool = False) -> dict[str, Any]:
    """Read on the CPU; only tensors and plain types are accepted.

    peek: tensors stay in the file until they are touched, for a look at the rest.
    Raises UsageError where the file is missing, damaged or of another kind.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=peek)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such checkpoint.") from error
    except Exception as error:
        raise UsageError(f"{path}: not readable as a checkpoint ({' '.join(str(error).split())[:200]}).") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path}: not a checkpoint of this software (format {FORMAT}).")
    return state


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of an optimizer step belongs."""
    return folder / f"step-{step:09d}.pt"


def list_checkpoints(folder: Path) -> list[Path]:
    """Numbered checkpoints, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest readable checkpoint; an unreadable newer one is passed over with a warning.

    Raises UsageError where there is none.
    """
    for path in reversed(list_checkpoints(folder)):
        try:
            return path, read_checkpoint(path)
        except UsageError as error:
            log.warning("%s Trying the one before it.", error)
    raise UsageError(f"{folder}: no readable checkpoint to resume from.")


def save_checkpoint(folder: Path, state: dict[str, Any], keep: int, is_best: bool) -> Path:
    """Write the checkpoint of `state["progress"]["step"]`, mark it as best, then drop all but the `keep` newest.

    Numbers above this step are no newer: with more processes a run counts fewer steps for the same items, and goes on
    below the numbers it had. They are dropped, or a later resume would take them for the newest.
    Raises OSError before anything older is removed.
    """
    path = checkpoint_path(folder, state["progress"]["step"])
    write_checkpoint(path, state)
    if is_best:
        _copy_whole(path, folder / BEST)
    numbered = list_checkpoints(folder)
    here = numbered.index(path) + 1
    for old in (*numbered[here:], *numbered[:here][:-keep]):
        old.unlink(missing_ok=True)
    return path


def _copy_whole(source: Path, target: Path) -> None:
    """A second name for the same bytes where the file system has hard links; else a copy, whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
