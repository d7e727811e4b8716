"""A run's folder: what was run, on what, how it went. CSV is the record; TensorBoard and pictures are made from it."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from Training.config import RunConfig, config_to_dict, dump_yaml
from Training.distributed import World

log = logging.getLogger(__name__)

TRAIN_CSV, VALIDATION_CSV = "train.csv", "validation.csv"


class RunFolder:
    """Writes the record of a run; in every process but the main one it does nothing.

        config.yaml  environment.json  results.json  train.csv  validation.csv  curves.png  tensorboard/  checkpoints/

    What cannot be written, on a full disk, is reported and never ends a run.
    """

    def __init__(self, path: str | os.PathLike, world: World, tensorboard: bool = True) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self._is_main = world.is_main
        self._tensorboard = tensorboard
        self._board: Any = None
        self._drawn = time.monotonic()
        if self._is_main:
            self.checkpoints.mkdir(parents=True, exist_ok=True)

    def start(self, cfg: RunConfig, world: World, step: int, former_step: int | None = None) -> None:
        """Write configuration and environment; drop what was recorded after `step`: a resumed run does it again.

        former_step: what `step` was under another global batch; the rows before are then counted anew, and kept as
        they were in files of their own.
        """
        with self._reported():
            if not self._is_main:
                return
            write_text(self.path / "config.yaml", dump_yaml(config_to_dict(cfg)))
            write_json(self.path / "environment.json", environment(world))
            for name in (TRAIN_CSV, VALIDATION_CSV):
                if former_step:
                    _count_anew(self.path / name, former_step, step)
                _drop_after(self.path / name, step)
            if self._tensorboard:
                self._board = _open_board(self.path / "tensorboard", 0 if former_step else step, bool(former_step))
                for name in (TRAIN_CSV, VALIDATION_CSV) if former_step else ():
                    self._show_all(name)

    def record(self, name: str, values: dict[str, float | int]) -> None:
        """One CSV row; `values` holds "step". The numbers go to TensorBoard too, under the file's stem."""
        with self._reported():
            if self._is_main:
                append_row(self.path / name, values)
            self._show(name, values)

    def _show(self, name: str, values: dict[str, Any]) -> None:
        for key, value in values.items() if self._board is not None else ():
            if key not in ("step", "epoch"):
                self._board.add_scalar(f"{Path(name).stem}/{key}", value, int(values["step"]))

    def _show_all(self, name: str) -> None:
        """Every row of a CSV on TensorBoard."""
        for row in read_rows(self.path / name)[0] if (self.path / name).exists() else ():
            self._show(name, {key: float(value) for key, value in row.items() if value})

    def results(self, values: dict[str, Any]) -> None:
        """What came out, replaced whole each time."""
        with self._reported():
            if self._is_main:
                write_json(self.path / "results.json", values)

    def draw_curves(self, at_once: bool = False) -> None:
        """curves.png from the CSV files; while the run goes on, at most once a minute."""
        now = time.monotonic()
        with self._reported():
            if self._is_main and (at_once or now - self._drawn > 60):
                from Training.curves import draw_curves

                draw_curves(self.path)
                self._drawn = now

    def close(self) -> None:
        """End the TensorBoard file."""
        with self._reported():
            if self._board is not None:
                self._board.close()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.error("%s: the run's record could not be written (%s); the run goes on.", self.path, error)


def _open_board(path: Path, step: int, purge: bool = False) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("TensorBoard is not installed (pip install tensorboard): CSV and curves only.")
        return None
    return SummaryWriter(str(path), purge_step=step + 1 if step or purge else None)


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """JSON, whole or not at all; numbers that are not finite become null."""
    write_text(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The value with None for every number that is not finite."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def append_row(path: Path, values: dict[str, Any]) -> None:
    """Append to a CSV; a column that is new rewrites the file with it, empty in the rows before."""
    columns: list[str] = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file), [])
    new = [key for key in values if key not in columns]
    if new:
        rows = read_rows(path)[0] if columns else []
        write_rows(path, [*rows, values], columns + new)
        return
    with open(path, "a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, columns).writerow(values)


def read_rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Rows and column names of a CSV."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        return list(reader), list(reader.fieldnames or [])


def write_rows(path: Path, rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    """A whole CSV, whole or not at all; columns default to all keys in order of appearance."""
    names = columns or list(dict.fromkeys(key for row in rows for key in row))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _drop_after(path: Path, step: int) -> None:
    if path.exists():
        rows, columns = read_rows(path)
        write_rows(path, [row for row in rows if row["step"].isdigit() and int(row["step"]) <= step], columns)


def _count_anew(path: Path, former: int, step: int) -> None:
    """The steps of a CSV up to `former` as they count now, where `former` is `step`; of equal ones the last.

    What was there stays in a second file, from which a later start counts anew: doing it twice changes nothing.
    """
    kept = path.with_name(f"{path.stem}-until-step-{former}{path.suffix}")
    if not kept.exists():
        if not path.exists():
            return
        _drop_after(path, former)
        write_rows(kept, *read_rows(path))
    rows, columns = read_rows(kept)
    counted = {row["step"]: row for row in ({**row, "step": str(int(row["step"]) * step // former)} for row in rows)}
    write_rows(path, list(counted.values()), columns)


def environment(world: World) -> dict[str, Any]:
    """Versions, hardware and code state; neither host nor user names."""
    import numpy

    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "platform": platform.system() + " " + platform.machine(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "git": git_state(),
    }


def git_state() -> dict[str, Any]:
    """Commit of the code and whether tracked files differ from it; None where there is no git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if changes is None else bool(changes)}
