"""Rows of a whole split, each item exactly once, by one process or many."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.utils.data import Dataset

from Training.config import RunConfig
from Training.distributed import World, gather, reshard
from Training.feed import feed, to_device
from Training.sampler import evaluation_batches
from Training.tasks.base import Batch, Row, Task, total_loss

log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(cfg: RunConfig, world: World) -> torch.autocast:
    """Mixed precision as the configuration says; a context that does nothing for fp32."""
    name = cfg.loop.precision
    return torch.autocast(world.device.type, dtype=_DTYPES[name], enabled=name != "fp32")


@torch.no_grad()
def predict_split(
    task: Task, model: nn.Module, dataset: Dataset, cfg: RunConfig, world: World
) -> tuple[list[Row], list[str]]:
    """Rows of every item that could be read, in the order of (case_id, slice_index), and sentences about the others.

    Known to every process. `model` is the network without DDP's wrapper; its mode is put back as it was.
    """
    rows: list[Row] = []
    troubles: list[str] = []
    was_training = model.training
    model.eval()
    try:
        for batch, unreadable in _own_batches(task, dataset, cfg, world):
            troubles += unreadable
            if batch is not None:
                with autocast(cfg, world):
                    rows += task.predict(model, to_device(batch, world.device, cfg.loop.channels_last))
    finally:
        model.train(was_training)
        reshard(model)
    together = [row for part in gather(world, rows) for row in part]
    unread = sorted({trouble for part in gather(world, troubles) for trouble in part})
    for trouble in unread:
        log.warning("Left out of the evaluation: %s", trouble)
    return unique_rows(together), unread


@torch.no_grad()
def mean_losses(
    task: Task, model: nn.Module, dataset: Dataset, cfg: RunConfig, world: World, epoch: int
) -> dict[str, float]:
    """Mean over the items of a split, each counted once, of every loss, and "total"; the network is in eval mode."""
    sums: dict[str, float] = {}
    count = 0
    own = len(evaluation_batches(len(dataset), cfg.loop.micro_batch_size, world.rank, world.size))  # type: ignore[arg-type]
    was_training = model.training
    model.eval()
    try:
        for n, (batch, _) in enumerate(_own_batches(task, dataset, cfg, world)):
            if batch is None:
                continue
            with autocast(cfg, world):
                losses = task.losses(model, to_device(batch, world.device, cfg.loop.channels_last), epoch)
            items = len(batch["case_id"]) if n < own else 0  # what fills up a share takes part, and does not count
            count += items
            for key, value in {**losses, "total": total_loss(losses)}.items():
                sums[key] = sums.get(key, 0.0) + items * float(value)
    finally:
        model.train(was_training)
        reshard(model)
    parts = gather(world, (count, sums))
    seen = max(1, sum(number for number, _ in parts))
    keys = dict.fromkeys(key for _, part in parts for key in part)
    return {key: sum(part.get(key, 0.0) for _, part in parts) / seen for key in keys}


def _own_batches(
    task: Task, dataset: Dataset, cfg: RunConfig, world: World
) -> Iterator[tuple[Batch | None, list[str]]]:
    """This process's batches of a split, and sentences about what could not be read.

    Sharded parameters are exchanged in each forward: all processes then take as many batches, none of them empty, and
    what fills them up falls out again by its name.
    """
    sharded = cfg.loop.parallel == "fsdp" and world.size > 1
    count, size = len(dataset), cfg.loop.micro_batch_size  # type: ignore[arg-type]
    batches = evaluation_batches(count, size, world.rank, world.size, sharded)
    return feed(dataset, batches, task.collate, workers=cfg.data.workers, replace_unreadable=sharded)


def unique_rows(rows: Sequence[Row]) -> list[Row]:
    """One row a (case_id, slice_index, mode), in that order; of doubled ones the first.

    A row has "slice_index" where it is a slice, and "mode" where an item is predicted in several ways.
    """
    found: dict[tuple[str, int, str], Row] = {}
    for row in rows:
        found.setdefault((str(row["case_id"]), int(row.get("slice_index", -1)), str(row.get("mode", ""))), row)
    return [found[key] for key in sorted(found)]
