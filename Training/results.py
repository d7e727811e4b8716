"""Runs by their configuration: train and judge what is missing, find what is there. For folds, tables and figures."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ICHAnalysisLib.errors import UsageError
from Training.checkpoint import BEST, list_checkpoints, read_checkpoint
from Training.config import config_to_dict, load_config

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    """One number of a result: with an interval, or a mean with the standard deviation over folds."""

    value: float
    low: float | None = None
    high: float | None = None
    sd: float | None = None


@dataclass(frozen=True)
class Result:
    """What came out of one configuration. folder: the run, or the cross-validation."""

    folder: Path
    metrics: dict[str, Metric]
    cases: int
    split: str  # "val", "test", or "5 folds"

    @property
    def runs(self) -> list[Path]:
        """Folders of the run or of each fold."""
        return sorted(self.folder.glob("fold*")) or [self.folder]


def run_name(config: str, overrides: Sequence[str] = ()) -> str:
    """Folder name of a configuration: its own name, and a hash of the overrides where there are some."""
    name = config.removesuffix(".yaml").replace("/", "-")
    return name if not overrides else f"{name}-{hashlib.sha256(repr(sorted(overrides)).encode()).hexdigest()[:8]}"


def complete_run(config: str, overrides: Sequence[str], folder: Path, split: str, processes: int = 1) -> bool:
    """Train and evaluate, as far as that is not done; False where it failed.

    split: "test", "val", or "auto": the test split where the run has one, else the validation split.
    """
    if find_evaluation(folder, split) is not None:
        log.info("%s is done.", folder)
        _warn_of_other_settings(config, overrides, folder)
        return True
    started = bool(list_checkpoints(folder / "checkpoints"))
    training = ["Training.train", config, *overrides, "--out", str(folder), *(["--resume"] if started else [])]
    if not is_finished(folder) and not call(training, processes):
        return False
    checkpoint = chosen_checkpoint(folder)
    if split == "auto":
        split = "test" if read_checkpoint(checkpoint, peek=True)["data_facts"]["test"]["cases"] else "val"
    return call(["Training.evaluate", str(checkpoint), "--split", split, "--out", str(folder / split)], processes)


def _warn_of_other_settings(config: str, overrides: Sequence[str], folder: Path) -> None:
    """Say where a run that is there already was made with other settings than those asked for."""
    try:
        asked, there = (
            config_to_dict(c) for c in (load_config(config, overrides), load_config(folder / "config.yaml"))
        )
    except UsageError:
        return
    other = [f"{s}.{k}" for s in asked for k in {**asked[s], **there[s]} if asked[s].get(k) != there[s].get(k)]
    if other:
        log.warning("%s was made with other %s; remove it to run it anew.", folder, ", ".join(other))


def find_evaluation(folder: Path, split: str = "auto") -> Path | None:
    """Folder of a run's evaluation on `split`; "auto": on the test split, else on the validation split."""
    for candidate in ("test", "val") if split == "auto" else (split,):
        if (folder / candidate / "summary.json").exists():
            return folder / candidate
    return None


def is_finished(folder: Path) -> bool:
    """Whether the training of a run came to its end."""
    try:
        status = json.loads((folder / "results.json").read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError):
        return False
    return status in ("finished", "early stop", "time up")


def chosen_checkpoint(folder: Path) -> Path:
    """The best checkpoint of a run, or its newest where nothing was validated."""
    best = folder / "checkpoints" / BEST
    if best.exists():
        return best
    numbered = list_checkpoints(folder / "checkpoints")
    if not numbered:
        raise UsageError(f"{folder}: no checkpoint.")
    return numbered[-1]


def call(arguments: Sequence[str], processes: int) -> bool:
    """`python -m arguments`, or the same under torchrun for several processes; False where it failed."""
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    log.info("%s", " ".join(arguments))
    code = subprocess.run([*launcher, *arguments], check=False).returncode
    if code:
        log.error("%s ended with status %d.", arguments[0], code)
    return code == 0


def find_result(folder: Path) -> Result | None:
    """The result in a run's or a cross-validation's folder; None where there is none yet."""
    if (folder / "summary.json").exists():
        summary = _read(folder / "summary.json")
        metrics = {key: Metric(m["mean"], sd=m["sd"]) for key, m in summary["metrics"].items() if m["mean"] is not None}
        return Result(folder, metrics, int(summary["cases"]), f"{len(summary['folds'])} folds")
    evaluation = find_evaluation(folder)
    if evaluation is None:
        return None
    summary = _read(evaluation / "summary.json")
    known = {key: value for key, value in summary["metrics"].items() if value is not None}
    metrics = {key: Metric(value, *summary["intervals"][key]) for key, value in known.items()}
    return Result(folder, metrics, int(summary["cases"]), evaluation.name)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
