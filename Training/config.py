"""A training run as one frozen value: YAML files and `key=value` overrides in, checked dataclasses out.

A file may name a `base` file (relative to itself) that it refines; mappings merge, everything else replaces.
The dataclasses hold the only defaults; an unknown key anywhere is a UsageError that names its path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from ICHAnalysisLib.config.base import from_dict, to_dict
from ICHAnalysisLib.errors import UsageError

T = TypeVar("T")
CONFIG_FOLDER = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class TaskConfig:
    """Which network is trained, and how it differs from one of its presets."""

    name: str  # key of Training.tasks.base.REGISTRY
    preset: str = "compact"  # key of the network's PRESETS
    network: dict[str, Any] = field(default_factory=dict)  # fields of the network's config that differ from the preset
    options: dict[str, Any] = field(default_factory=dict)  # the task's own options (its `Options` dataclass)
    initial: str | None = None  # weights to start from: a file of `Training.export`, or "default" for the shipped ones


@dataclass(frozen=True)
class DataConfig:
    """Where the cases come from and how they are fed."""

    cache: str | tuple[str, ...] | None = None  # folder of preprocessed cases, or several
    manifest: str | None = None  # CSV of cases; None: every case of the cache
    folds: str | None = None  # splits file; None: the cases' own splits, else by a hash of the patient
    fold: int = 0  # fold of the splits file that is held out as "test"
    val_fraction: float = 0.15  # of the patients (with a splits file: of those not held out) choose the checkpoint
    test_fraction: float = 0.0  # of the patients, without a splits file
    workers: int = 0  # loader processes
    balance: bool = False  # draw by the data set's `sample_weights`, with replacement
    limit: int | None = None  # at most this many cases a split, for trying things out
    val_limit: int | None = None  # at most this many cases in validation during training

    def __post_init__(self) -> None:
        if self.workers < 0 or self.fold < 0 or (self.limit is not None and self.limit < 1):
            raise UsageError(f"data: workers {self.workers}, fold {self.fold} or limit {self.limit} is out of range.")
        if min(self.val_fraction, self.test_fraction) < 0 or self.val_fraction + self.test_fraction >= 1:
            raise UsageError(
                f"data: val_fraction {self.val_fraction} and test_fraction {self.test_fraction} must be at least 0 "
                "and leave something to train on."
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer; vectors (biases, norms) and position embeddings never decay."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)  # AdamW
    momentum: float = 0.9  # SGD
    nesterov: bool = False  # SGD
    lr_scale: dict[str, float] = field(default_factory=dict)  # parameter-name prefix -> factor on lr

    def __post_init__(self) -> None:
        if not self.lr > 0 or self.weight_decay < 0:
            raise UsageError(
                f"optimizer: lr {self.lr} must be above 0 and weight_decay {self.weight_decay} at least 0."
            )


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over optimizer steps: linear warm-up, then cosine (or constant)."""

    kind: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int | None = None  # None: warmup_fraction of all steps
    warmup_fraction: float = 0.05
    min_lr_ratio: float = 0.0  # of the peak, at the last step

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_fraction < 1 or not 0 <= self.min_lr_ratio <= 1:
            raise UsageError(
                f"schedule: warmup_fraction {self.warmup_fraction} must be in [0, 1) and "
                f"min_lr_ratio {self.min_lr_ratio} in [0, 1]."
            )


@dataclass(frozen=True)
class LoopConfig:
    """The loop. global_batch_size = micro_batch_size x gradient_accumulation_steps x world_size."""

    epochs: int = 10
    micro_batch_size: int = 8  # items a process takes at once
    gradient_accumulation_steps: int = 1
    max_steps: int | None = None  # optimizer steps of the whole run; None: what the epochs give
    max_minutes: float | None = None  # stop cleanly, saved, after this wall time; the schedule still follows the steps
    max_norm: float = 1.0  # gradient norm is clipped to this; 0 = off
    ema_decay: float = 0.0  # of the running average of the weights; 0 = off
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    channels_last: bool = True
    device: str = "auto"  # auto | cpu | cuda
    parallel: Literal["ddp", "fsdp"] = "ddp"  # fsdp: shard parameters, for what one GPU cannot hold
    find_unused_parameters: bool = False  # ddp: some trainable parameters get no gradient in some steps
    seed: int = 0
    deterministic: bool = True
    threads: int | None = None  # CPU threads a process; None: as the environment says
    validate_every: int = 0  # optimizer steps; 0: after each epoch
    validation_loss: bool = False  # also the losses of the validation split, for curves; costs a second pass
    checkpoint_minutes: float = 10.0  # between checkpoints inside an epoch
    keep_checkpoints: int = 2  # newest ones, the best one besides
    early_stop: int = 0  # validations without improvement; 0 = off
    log_every: int = 10  # optimizer steps
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "micro_batch_size", "gradient_accumulation_steps", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UsageError(f"loop: {name} {getattr(self, name)} must be at least 1.")
        for name in ("max_norm", "validate_every", "early_stop", "checkpoint_minutes"):
            if getattr(self, name) < 0:
                raise UsageError(f"loop: {name} {getattr(self, name)} must be at least 0.")
        if not 0 <= self.ema_decay < 1:
            raise UsageError(f"loop: ema_decay {self.ema_decay} must be in [0, 1).")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run besides the data itself and the code."""

    task: TaskConfig
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loop: LoopConfig = LoopConfig()
    preprocess: dict[str, Any] = field(default_factory=dict)  # fields that differ from the network's own preprocessing


def load_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run configuration. `path` is a file, or a name below Training/configs such as "dtvit/compact".

    Raises UsageError on a missing or malformed file, an unknown key, a wrong type or an override that is not key=value.
    """
    data = merge_overrides(_read_with_bases(_find(path), ()), overrides)
    return from_dict(RunConfig, data, "config")


def config_from_dict(data: dict[str, Any]) -> RunConfig:
    """The inverse of `config_to_dict`."""
    return from_dict(RunConfig, data, "config")


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain types only: for YAML, checkpoints and run folders."""
    return to_dict(config)


def merge_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`data` with `a.b=value` items applied; values are YAML ("1e-4", "[1, 2]", "null")."""
    for item in overrides:
        key, separator, text = item.partition("=")
        if not separator or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
            raise UsageError(f"{item!r} is not of the form key=value, such as optimizer.lr=1e-4.")
        value: Any = _parse(text, f"override {item!r}")
        for part in reversed(key.split(".")):
            value = {part: value}
        data = deep_merge(data, value)
    return data


def deep_merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A new mapping: mappings merge, everything else in `over` replaces."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = deep_merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def refine(default: T, overrides: dict[str, Any], where: str) -> T:
    """The frozen dataclass `default` with the (nested) fields in `overrides` replaced, as strictly as a file."""
    return from_dict(type(default), deep_merge(to_dict(default), overrides), where)


def dump_yaml(data: Any) -> str:
    """Plain values as YAML in their own order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.1 asks for 1.0e-4)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not readable as YAML: {' '.join(str(error).split())}") from error


def _find(path: str | os.PathLike) -> Path:
    """The file itself, or its place below the packaged configurations."""
    for candidate in (Path(path), CONFIG_FOLDER / path, CONFIG_FOLDER / f"{path}.yaml"):
        if candidate.is_file():
            return candidate.resolve()
    known = sorted(str(file.relative_to(CONFIG_FOLDER).with_suffix("")) for file in CONFIG_FOLDER.rglob("*.yaml"))
    raise UsageError(f"{path}: no such configuration; packaged ones are {', '.join(known) or '(none)'}.")


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise UsageError(f"{path}: its `base` files form a circle.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
    data = _parse(text, str(path))
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected a mapping of sections, got {type(data).__name__}.")
    base = data.pop("base", None)
    if base is None:
        return data
    base_path = (path.parent / str(base)).resolve()
    if not base_path.is_file():
        raise UsageError(f"{path}: its base {base!r} does not exist at {base_path}.")
    return deep_merge(_read_with_bases(base_path, (*seen, path)), data)
