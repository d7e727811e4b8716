"""Feeding batches from loader processes that die."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest
import torch
from torch.utils.data import Dataset

from Training.feed import LoaderError, dead_loaders_named, feed
from Training.tasks.base import Batch


class DiesAtThree(Dataset):
    """Items 0, 1, 2, and a process that is gone."""

    def __getitem__(self, index: int) -> Batch:
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"value": torch.full((1000,), float(index))}

    def __len__(self) -> int:
        return 4


class Breaks(DiesAtThree):
    """Items 0, 1, 2, and a fault of the code."""

    def __getitem__(self, index: int) -> Batch:
        if index == 3:
            raise RuntimeError("min() of nothing")
        return super().__getitem__(index)


def _stack(items: Sequence[Batch]) -> Batch:
    return {"value": torch.stack([item["value"] for item in items])}


def test_a_loader_process_that_dies_is_named() -> None:
    batches = feed(DiesAtThree(), [[0], [1], [2], [3]], _stack, workers=1)
    first, troubles = next(batches)
    assert first is not None and float(first["value"].max()) == 0.0 and troubles == []
    with pytest.raises(LoaderError, match=r"loader process died .*lower data\.workers"):
        list(batches)


def test_so_is_one_whose_batch_was_on_its_way_and_an_error_of_the_code_stays_what_it_is() -> None:
    with pytest.raises(LoaderError, match="while it handed a batch over"), dead_loaders_named(workers=1):
        raise EOFError
    with pytest.raises(LoaderError, match="reset by peer"), dead_loaders_named(workers=1):
        raise ConnectionResetError(104, "Connection reset by peer")
    with pytest.raises(EOFError), dead_loaders_named(workers=0):
        raise EOFError
    with pytest.raises(RuntimeError, match="min\\(\\) of nothing"):  # raised in a loader that lives
        list(feed(Breaks(), [[0, 1], [2, 3]], _stack, workers=1))
    with pytest.raises(RuntimeError, match="shapes"), dead_loaders_named(workers=1):
        raise RuntimeError("shapes do not fit")
