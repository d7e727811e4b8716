"""Optimizer, learning rate and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ICHAnalysisLib.errors import UsageError
from Training.config import OptimizerConfig, ScheduleConfig
from Training.distributed import like, whole


def build_optimizer(model: nn.Module, cfg: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer over what is trainable, in groups by decay and by the prefixes of `cfg.lr_scale`.

    No decay: vectors and scalars, and what the model names in `no_weight_decay()` (timm's convention).
    Each group carries "scale", its factor on the learning rate.
    """
    never = set(getattr(model, "no_weight_decay", set)())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    used: set[str] = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        prefix = max((p for p in cfg.lr_scale if name.startswith(p)), key=len, default=None)
        used |= {prefix} if prefix is not None else set()
        decay = 0.0 if parameter.ndim < 2 or name in never else cfg.weight_decay
        groups.setdefault((decay, cfg.lr_scale[prefix] if prefix is not None else 1.0), []).append(parameter)
    if unknown := sorted(set(cfg.lr_scale) - used):
        raise UsageError(f"optimizer.lr_scale: no trainable parameter starts with {', '.join(unknown)}.")
    if not groups:
        raise UsageError("The model has no trainable parameter.")
    parameters = [
        {"params": group, "weight_decay": decay, "scale": scale, "lr": cfg.lr * scale}
        for (decay, scale), group in groups.items()
    ]
    if cfg.name == "adamw":
        return torch.optim.AdamW(parameters, lr=cfg.lr, betas=cfg.betas)
    return torch.optim.SGD(parameters, lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.nesterov)


def lr_factor(step: int, total_steps: int, cfg: ScheduleConfig) -> float:
    """Factor on the peak rate for optimizer step `step` (0-based) of `total_steps`."""
    warmup = round(cfg.warmup_fraction * total_steps) if cfg.warmup_steps is None else cfg.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    if cfg.kind == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return cfg.min_lr_ratio + (1 - cfg.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The rate of every group, times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


class WeightAverage:
    """Exponential running average of a model's trainable parameters; frozen ones and buffers stay the model's.

    The decay rises with the updates, (1 + n) / (10 + n) up to `decay`, so that short runs keep no trace of the
    random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.shadow: dict[str, Tensor] = {n: p.detach().clone() for n, p in _trainable(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step toward the model's weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = [parameter.detach() for _, parameter in _trainable(model)]
        torch._foreach_lerp_(list(self.shadow.values()), current, 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights inside the block, and with its own again after it."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, parameter in _trainable(model):
            held = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(held)

    def state_dict(self) -> dict[str, Any]:
        """Whole tensors; with shards, every process must call it."""
        return {"updates": self.updates, "shadow": {name: whole(tensor) for name, tensor in self.shadow.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = int(state["updates"])
        for name, tensor in self.shadow.items():
            tensor.copy_(like(state["shadow"][name], tensor))


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
