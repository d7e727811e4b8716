"""Data sets to batches on a device, in a stated order. An item that cannot be read never ends a run by itself."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ICHAnalysisLib.errors import ICHAnalysisError
from Training.sampler import mix_seed
from Training.tasks.base import Batch

log = logging.getLogger(__name__)

_GONE = "DataLoader worker (pid"  # torch's words for a process that exited or was killed, not for one that raised

#: What a broken file raises. Anything else is a fault of the code and ends the run.
UNREADABLE = (OSError, EOFError, ValueError, ICHAnalysisError)


class UnreadableError(ICHAnalysisError):
    """Too many items in a row could not be read."""


class LoaderError(ICHAnalysisError):
    """A loader process was killed. The last checkpoint is the last good state."""


class ReadableItems(Dataset):
    """A data set in which an unreadable item is replaced by the next readable one (training) or left out (evaluation).

    An item is (batch item or None, sentences about what was unreadable).
    """

    def __init__(self, dataset: Dataset, replace: bool, most: int = 8) -> None:
        self.dataset = dataset
        self.replace = replace
        self.most = most

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Batch | None, list[str]]:
        troubles: list[str] = []
        visit, index = divmod(index, len(self))
        # A data set that varies its items is told how often this one was drawn in the epoch before.
        visits = visit * len(self) if getattr(self.dataset, "varies_visits", False) else 0
        for n in range(self.most):
            at = (index + n) % len(self)
            try:
                return self.dataset[at + visits], troubles
            except UNREADABLE as error:
                troubles.append(f"item {at}: {type(error).__name__}: {' '.join(str(error).split())}")
            if not self.replace:
                return None, troubles
        raise UnreadableError(f"{self.most} items in a row could not be read; the last: {troubles[-1]}")


class _Collate:
    """The task's collate over what could be read; picklable for loader processes."""

    def __init__(self, collate: Callable[[Sequence[Batch]], Batch]) -> None:
        self.collate = collate

    def __call__(self, pairs: Sequence[tuple[Batch | None, list[str]]]) -> tuple[Batch | None, list[str]]:
        items = [item for item, _ in pairs if item is not None]
        troubles = [trouble for _, troubles in pairs for trouble in troubles]
        return (self.collate(items) if items else None), troubles


def feed(
    dataset: Dataset,
    batches: list[list[int]],
    collate: Callable[[Sequence[Batch]], Batch],
    *,
    workers: int = 0,
    seed: int = 0,
    replace_unreadable: bool = False,
    pin: bool = False,
) -> Iterator[tuple[Batch | None, list[str]]]:
    """The batches of item indices, loaded in order: (batch, sentences about unreadable items)."""
    loader = DataLoader(
        ReadableItems(dataset, replace_unreadable),
        batch_sampler=batches,
        collate_fn=_Collate(collate),
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_outlive_sigterm,
        # A generator of its own: without one, each start of a loader would draw from the run's generator.
        generator=torch.Generator().manual_seed(mix_seed(seed)),
    )
    with dead_loaders_named(workers):
        yield from loader


@contextmanager
def dead_loaders_named(workers: int) -> Iterator[None]:
    """Raise LoaderError for what torch raises when a loader process is gone.

    That is a RuntimeError wherever the main process happens to be, since a signal brings the news, or, while a batch
    is on its way, the error of the socket that its tensors come through.
    """
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
        in_transit = workers > 0 and not isinstance(error, RuntimeError)
        if not in_transit and _GONE not in str(error):  # an error inside a loader names one too, and is its own
            raise
        reason = " ".join(str(error).split()) or "while it handed a batch over"
        raise LoaderError(f"A loader process died ({reason}). Often memory ran out: lower data.workers.") from error


def _outlive_sigterm(_worker: int) -> None:
    """A scheduler sends SIGTERM to every process of a job; a loader that died of it would take the save with it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def to_device(batch: Batch, device: torch.device, channels_last: bool) -> Batch:
    """Tensors on the device, images and volumes with their channels last where asked; other values as they are."""
    return {key: _move(value, device, channels_last) for key, value in batch.items()}


def _move(value: Any, device: torch.device, channels_last: bool) -> Any:
    if isinstance(value, dict):
        return to_device(value, device, channels_last)
    if not isinstance(value, Tensor):
        return value
    value = value.to(device, non_blocking=True)
    return value.contiguous(memory_format=memory_format(value)) if channels_last else value


def memory_format(tensor: Tensor) -> torch.memory_format:
    """Channels last for floating (N, C, H, W) and (N, C, D, H, W); else the usual order."""
    if tensor.is_floating_point() and tensor.ndim == 4:
        return torch.channels_last
    if tensor.is_floating_point() and tensor.ndim == 5:
        return torch.channels_last_3d
    return torch.contiguous_format


def names_of(batch: Batch) -> list[str]:
    """ "case" or "case slice n" of each item, for messages."""
    slices = batch.get("slice_index")
    if slices is None:
        return [str(case) for case in batch["case_id"]]
    return [f"{case} slice {int(k)}" for case, k in zip(batch["case_id"], slices, strict=True)]
