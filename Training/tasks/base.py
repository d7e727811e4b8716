"""What the loop asks of a task. The task knows the network, its data and its medicine; the loop knows none of them."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from ICHAnalysisLib.config.base import from_dict
from ICHAnalysisLib.errors import UsageError
from Training.config import RunConfig, TaskConfig, refine
from Training.data.cache import CacheCase

Batch = dict[str, Any]
Row = dict[str, Any]
T = TypeVar("T")

#: Task name -> "module:class"; imported on demand so that one network's extras never burden another's run.
REGISTRY: dict[str, str] = {
    "ich_scnet": "Training.tasks.ich_scnet:ICHSCNetTask",
    "dtvit": "Training.tasks.dtvit:DTViTTask",
    "volume_net": "Training.tasks.volume_net:VolumeNetTask",
    "candidate_net": "Training.tasks.candidate_net:CandidateNetTask",
    "margin_net": "Training.tasks.margin_net:MarginNetTask",
}


@dataclass(frozen=True)
class NoOptions:
    """For tasks without options of their own."""


@dataclass(frozen=True)
class Export:
    """What `save_weights` needs besides the state dict: the network's config and preprocessing, and card entries."""

    network: str  # key of the library's weights registry
    config: Any  # the network's frozen config dataclass
    preprocess: Any  # ICHAnalysisLib.config.preprocess.PreprocessConfig
    card: dict[str, Any]  # class names, thresholds, target mean and sd ...: whatever inference needs


class Task(ABC):
    """One network's training task, built from the run's configuration.

    Items of its data sets are dicts with "case_id" (str), for slice networks also "slice_index" (int), tensors, and
    anything else (kept as lists by the collate). A data set may expose
      sample_weights   float tensor (len,), for class balancing, and
      set_epoch(epoch) called before each epoch. Augmentation must derive from (seed, epoch, index) alone, by an
                       explicit generator: then a resumed run sees the same pictures, with any number of workers.
    """

    name: ClassVar[str]
    Options: ClassVar[type] = NoOptions  # frozen dataclass of task.options
    monitor: ClassVar[str]  # key of `metrics` that decides the best checkpoint
    higher_is_better: ClassVar[bool] = True

    def __init__(self, cfg: RunConfig) -> None:
        self.cfg = cfg
        self.options: Any = from_dict(self.Options, cfg.task.options, "config.task.options")

    def cases(self) -> dict[str, list[CacheCase]]:
        """The cases of "train", "val" and "test"; no patient in two of them."""
        from Training.cases import load_cases

        return load_cases(self.cfg.data)

    # --- building ----------------------------------------------------------------------------------------------

    def fit_to_training_fold(self, cases: Sequence[CacheCase]) -> None:  # noqa: B027  (a hook: nothing to do for most tasks)
        """Learn what the training fold alone may tell: class weights, target mean and sd. Called before build_model."""

    def state_dict(self) -> dict[str, Any]:
        """What `fit_to_training_fold` learned, as plain types and tensors; kept in the checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restore what `state_dict` returned (resume, evaluation, export: no training rows there)."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The network on the CPU in float32, in training shape; frozen parts have requires_grad False."""

    def restored_elsewhere(self, model: nn.Module) -> set[str]:
        """Names in the model's state dict that no checkpoint needs to hold, because `build_model` reads them from a
        file whose hash `state_dict` records, and nothing trains them. `build_model` must refuse another file."""
        return set()

    def initial_state(self, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """`state` of `task.initial` as `model` can load it; a network may read weights of a smaller one."""
        return state

    @abstractmethod
    def build_dataset(self, cases: Sequence[CacheCase], split: str) -> Dataset:
        """The items of `cases`; `split` is "train" (augmented, shuffled by the loop), "val" or "test" (neither)."""

    def collate(self, items: Sequence[Batch]) -> Batch:
        """Items to a batch: tensors and numbers are stacked, everything else becomes a list."""
        return collate(items)

    # --- training ----------------------------------------------------------------------------------------------

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Scalars. The total is the sum of the keys ending in "_loss" (already weighted); others are only logged.

        Call `model(...)` itself, exactly once: it may be wrapped, and its forward carries the exchange of gradients
        between processes. The keys are the same in every step.
        """

    # --- evaluation --------------------------------------------------------------------------------------------

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> list[Row]:
        """One plain row (floats, ints, strings, small numpy arrays) an item: "case_id", "slice_index" where it is a
        slice, "mode" where an item is predicted in several ways, the truth and the prediction. `model` is in eval
        mode, without gradients, and is the network itself."""

    @abstractmethod
    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """From all rows of a split, in the order of (case_id, slice_index), each item exactly once."""

    def case_rows(self, rows: Sequence[Row]) -> list[Row]:
        """Rows of `predict` joined to one row a case, for the per-case CSV; as they are unless the task has slices."""
        return list(rows)

    def failure_score(self, case_row: Row) -> float:
        """How badly a case went, higher is worse; 0 or less is no failure. Orders the failure list."""
        return 0.0

    def picture(self, items: Sequence[Batch], rows: Sequence[Row]) -> np.ndarray | None:
        """An RGB uint8 (H, W, 3) picture of one failed case from its items and rows, or None."""
        from Training.pictures import montage

        return montage(items)

    def calibration(self, case_rows: Sequence[Row]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Name -> (probabilities, 0/1 outcomes) of each binary output, for reliability curves."""
        return {}

    # --- export ------------------------------------------------------------------------------------------------

    @abstractmethod
    def export(self, model: nn.Module) -> Export:
        """What the library's weights file holds besides `export_state`."""

    def export_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The model's state dict as the library's network wants it (drops training-only heads, for one)."""
        return state


def build_task(cfg: RunConfig) -> Task:
    """The task that the configuration names: a key of REGISTRY, or "module:class" of one that lives elsewhere.

    Raises UsageError for an unknown name or unknown options.
    """
    target = REGISTRY.get(cfg.task.name, cfg.task.name)
    if ":" not in target:
        raise UsageError(f"task {cfg.task.name!r} is unknown; known are {', '.join(sorted(REGISTRY))}.")
    module_name, _, class_name = target.partition(":")
    return getattr(importlib.import_module(module_name), class_name)(cfg)


def network_config(presets: Mapping[str, T], task: TaskConfig) -> T:
    """The preset that `task` names, refined by `task.network`; raises UsageError for an unknown preset or field."""
    if task.preset not in presets:
        raise UsageError(f"task.preset {task.preset!r} is unknown for {task.name}; known are {', '.join(presets)}.")
    return refine(presets[task.preset], task.network, "config.task.network")


def collate(items: Sequence[Batch]) -> Batch:
    """Stack what is a tensor, array or number; keep strings and everything else as lists."""
    batch: Batch = {}
    for key in items[0]:
        values = [item[key] for item in items]
        stackable = isinstance(values[0], (Tensor, np.ndarray, np.number, int, float, bool))
        batch[key] = default_collate(values) if stackable else values
    return batch


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logistic function without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """Sum of the entries whose key ends in "_loss"; raises UsageError where there is none."""
    terms = [value for key, value in losses.items() if key.endswith("_loss")]
    if not terms:
        raise UsageError(f"the task gave no loss: none of {', '.join(losses) or '(nothing)'} ends in '_loss'.")
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
