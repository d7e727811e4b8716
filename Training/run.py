"""The parts of a run, built from its configuration, and their way into a checkpoint and back."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.weights.registry import FILE_NAMES, LoadedWeights, load_state, load_weights, weights_path
from Training.cases import describe, fingerprint
from Training.checkpoint import Progress, read_checkpoint, rng_state, seed_everything, set_rng_state
from Training.config import RunConfig, TaskConfig, config_from_dict, config_to_dict
from Training.distributed import World, gather, like, unwrap_model, whole, wrap_model
from Training.feed import memory_format
from Training.optim import WeightAverage, build_optimizer
from Training.sampler import TrainSampler, mix_seed
from Training.tasks.base import Task, build_task

log = logging.getLogger(__name__)


@dataclass
class Run:
    """What the loop works on. `model` is wrapped for several processes; `network` is the same without DDP's wrapper."""

    cfg: RunConfig
    world: World
    task: Task
    datasets: dict[str, Dataset]  # "train" and "val"
    data_key: str  # fingerprint of the cases and their splits
    data_facts: dict[str, Any]  # how many cases, patients and sources each split has
    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    scaler: torch.amp.GradScaler
    sampler: TrainSampler
    progress: Progress
    former_step: int | None = None  # the checkpoint's own count of steps, where another global batch changed it

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.cfg.loop.max_steps or self.cfg.loop.epochs * self.sampler.steps()

    def _learned(self) -> dict[str, torch.Tensor]:
        """The network's state without frozen parts that come from files of their own."""
        left_out = self.task.restored_elsewhere(self.network)
        return {name: whole(tensor) for name, tensor in self.network.state_dict().items() if name not in left_out}

    def contents(self) -> dict[str, Any]:
        """All of a checkpoint, as tensors and plain types. Every process must call it."""
        return {
            "progress": self.progress.as_dict(),
            "model": self._learned(),
            "optimizer": _whole_optimizer(self.optimizer),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
            "task": self.task.state_dict(),
            "rng": gather(self.world, rng_state()),
            "global_batch_size": self.sampler.global_batch_size,
            "config": config_to_dict(self.cfg),
            "data": self.data_key,
            "data_facts": self.data_facts,
        }


def build_run(cfg: RunConfig, world: World, state: dict[str, Any] | None, accept_changes: bool = False) -> Run:
    """All parts, as at the start or, with a checkpoint's `state`, as they were when it was written.

    Raises UsageError where the checkpoint belongs to another network, data or seed and `accept_changes` is not set.
    """
    settle_process(cfg)
    task = build_task(cfg)
    cases = task.cases()
    if not cases["train"]:
        raise UsageError("No case is left to train on; look at data.val_fraction, data.folds and data.limit.")
    data_key = fingerprint(cases)
    if state is not None:
        _check_same_run(cfg, state, data_key, accept_changes)
    seed_everything(mix_seed(cfg.loop.seed))  # the same in every process: one initialization
    if state is None:
        task.fit_to_training_fold(cases["train"])
    else:
        task.load_state_dict(state["task"])
    datasets = {split: task.build_dataset(cases[split], split) for split in ("train", "val") if cases[split]}
    model = place_model(task.build_model(), cfg, world)
    if state is not None:
        _load_model(model, state["model"], task)
    elif cfg.task.initial is not None:
        initial = _initial_weights(cfg.task)
        load_state(model, replace(initial, state_dict=task.initial_state(model, initial.state_dict)))
    model = wrap_model(world, model, cfg.loop.parallel, cfg.loop.find_unused_parameters)
    network = unwrap_model(model)
    run = Run(
        cfg=cfg,
        world=world,
        task=task,
        datasets=datasets,
        data_key=data_key,
        data_facts=describe(cases),
        model=model,
        network=network,
        optimizer=build_optimizer(network, cfg.optimizer),
        average=WeightAverage(network, cfg.loop.ema_decay) if cfg.loop.ema_decay else None,
        scaler=torch.amp.GradScaler(world.device.type, enabled=cfg.loop.precision == "fp16"),
        sampler=_build_sampler(cfg, world, datasets["train"]),
        progress=Progress(),
    )
    seed_everything(mix_seed(cfg.loop.seed, world.rank + 1))  # from here on each process draws its own
    if state is not None:
        _restore(run, state)
    return run


def _initial_weights(task: TaskConfig) -> LoadedWeights:
    """The weights that `task.initial` names; those of another network are refused, and `load_state` is strict."""
    return named_weights(str(task.initial), task.name if task.name in FILE_NAMES else None)


def named_weights(name: str, network: str | None) -> LoadedWeights:
    """Weights by a file's path, or by "default" the shipped ones of `network`; raises what `load_weights` raises."""
    return load_weights(weights_path(network) if name == "default" and network else name, network)


def load_trained(path: str | os.PathLike, weights: str, world: World) -> tuple[RunConfig, Task, nn.Module, dict]:
    """Configuration, task and network of a checkpoint, and the checkpoint itself.

    weights: "average" (the running average), "last" (the weights themselves) or "auto" (the average where there is
    one). Raises UsageError where the average is asked for and absent.
    """
    state = read_checkpoint(path)
    cfg = config_from_dict(state["config"])
    task = build_task(cfg)
    task.load_state_dict(state["task"])
    model = task.build_model()
    tensors = dict(state["model"])
    if weights not in ("auto", "average", "last"):
        raise UsageError(f"weights {weights!r} is none of auto, average, last.")
    if weights == "average" and state["average"] is None:
        raise UsageError(f"{path} has no averaged weights (loop.ema_decay was 0); use last.")
    if weights != "last" and state["average"] is not None:
        tensors.update(state["average"]["shadow"])
    _load_model(model, tensors, task)
    return cfg, task, place_model(model, cfg, world).eval(), state


def _load_model(model: nn.Module, tensors: dict[str, torch.Tensor], task: Task) -> None:
    """A checkpoint's tensors, strictly, but for what `build_model` has read from files of their own."""
    missing, extra = model.load_state_dict(tensors, strict=False)
    faults = sorted(set(missing) - task.restored_elsewhere(model)) + sorted(extra)
    if faults:
        raise UsageError(f"The checkpoint does not fit the network: {', '.join(faults[:3])} and {len(faults)} in all.")


def settle_process(cfg: RunConfig) -> None:
    """Settings of the whole process: threads and determinism."""
    if cfg.loop.threads is not None:
        torch.set_num_threads(cfg.loop.threads)
    if cfg.loop.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not cfg.loop.deterministic
    torch.set_deterministic_debug_mode("warn" if cfg.loop.deterministic else "default")


def place_model(model: nn.Module, cfg: RunConfig, world: World) -> nn.Module:
    """On its device, with convolution weights in the order that the configuration asks for.

    FSDP2 takes contiguous parameters alone; what passes through the network still has its channels last then.
    """
    model = model.to(world.device)
    if cfg.loop.channels_last and not (cfg.loop.parallel == "fsdp" and world.size > 1):
        for parameter in model.parameters():
            parameter.data = parameter.data.contiguous(memory_format=memory_format(parameter.data))
    return model


def _build_sampler(cfg: RunConfig, world: World, dataset: Any) -> TrainSampler:
    weights = None
    if cfg.data.balance:
        weights = getattr(dataset, "sample_weights", None)
        if weights is None:
            raise UsageError("data.balance: the task's training data set has no sample_weights.")
        weights = torch.as_tensor(weights)
    loop = cfg.loop
    accumulation = loop.gradient_accumulation_steps
    return TrainSampler(len(dataset), loop.micro_batch_size, accumulation, world.rank, world.size, loop.seed, weights)


def _check_same_run(cfg: RunConfig, state: dict[str, Any], data_key: str, accept_changes: bool) -> None:
    """What decides the network and the data must be the checkpoint's; the rest may change, and is stated."""
    then = config_from_dict(state["config"])
    fixed = [name for name in ("task", "preprocess") if getattr(cfg, name) != getattr(then, name)]
    if replace(cfg.data, workers=0) != replace(then.data, workers=0):
        fixed.append("data")
    if cfg.loop.seed != then.loop.seed:
        fixed.append("loop.seed")
    if data_key != state["data"]:
        fixed.append("the cases themselves")
    if fixed and not accept_changes:
        raise UsageError(
            f"The checkpoint was made with other values of: {', '.join(fixed)}. Resume with the same ones, start a new "
            "run in another --out, or go on regardless with --accept-changes."
        )
    for name in fixed:
        log.warning("Changed since the checkpoint, as accepted: %s", name)
    old, new = config_to_dict(then), config_to_dict(cfg)
    for section in ("optimizer", "schedule", "loop"):
        for key, value in new[section].items():
            if value != old[section][key]:
                log.warning("Changed since the checkpoint: %s.%s %s -> %s", section, key, old[section][key], value)


def _restore(run: Run, state: dict[str, Any]) -> None:
    """Everything besides the model as the checkpoint has it. Another number of processes goes on by items."""
    _load_optimizer(run.optimizer, state["optimizer"])
    if run.average is not None and state["average"] is not None:
        run.average.load_state_dict(state["average"])
    if run.scaler.is_enabled() and state["scaler"]:
        run.scaler.load_state_dict(state["scaler"])
    progress, world = Progress.from_dict(state["progress"]), run.world
    run.progress = progress
    if len(state["rng"]) == world.size:
        set_rng_state(state["rng"][world.rank])
    else:
        log.warning(
            "The run had %d processes and now has %d: their random generators start anew.",
            len(state["rng"]),
            world.size,
        )
        seed_everything(mix_seed(run.cfg.loop.seed, world.rank + 1, progress.items_seen))
    before, now = state["global_batch_size"], run.sampler.global_batch_size
    if before != now:
        step, progress.step = progress.step, progress.items_seen // now
        run.former_step = step
        log.warning(
            "The global batch had %d items and now has %d: after %d items, step %d of before is step %d of now.",
            *(before, now, progress.items_seen, step, progress.step),
        )


def _whole_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state with whole tensors; with shards, every process must call it."""
    state = optimizer.state_dict()
    entries = {
        n: {key: whole(value) if isinstance(value, torch.Tensor) else value for key, value in entry.items()}
        for n, entry in state["state"].items()
    }
    return {"state": entries, "param_groups": state["param_groups"]}


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The inverse of `_whole_optimizer`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def fit(n: int, value: Any) -> Any:
        shaped = isinstance(value, torch.Tensor) and value.shape == parameters[n].shape
        return like(value, parameters[n]) if shaped else value

    entries = {n: {key: fit(n, value) for key, value in entry.items()} for n, entry in state["state"].items()}
    optimizer.load_state_dict({"state": entries, "param_groups": state["param_groups"]})
