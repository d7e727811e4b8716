"""Which items a step sees: a pure function of (seed, epoch, position), so that a run can be resumed anywhere.

The order of an epoch is drawn once for all processes. Optimizer step s takes the next global batch of it, whose items
are dealt to the processes in turn: what a step sees does not depend on the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor


class TrainSampler:
    """Order of training items: a permutation, or a draw with replacement by `weights` for class balancing.

    num_items: length of the data set; weights: float (num_items,) or None.
    The last global batch of an epoch is filled up from the epoch's beginning, so every step weighs the same.
    """

    def __init__(
        self,
        num_items: int,
        micro_batch_size: int,
        accumulation: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        weights: Tensor | None = None,
    ) -> None:
        if num_items < 1:
            raise ValueError("The training data set is empty.")
        if weights is not None and (len(weights) != num_items or not bool((weights >= 0).all()) or weights.sum() <= 0):
            raise ValueError(f"{len(weights)} sample weights for {num_items} items; all at least 0, not all 0.")
        self.num_items = num_items
        self.micro_batch_size = micro_batch_size
        self.accumulation = accumulation
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.weights = None if weights is None else weights.to(torch.float64)

    @property
    def global_batch_size(self) -> int:
        return self.micro_batch_size * self.accumulation * self.world_size

    def steps(self, start: int = 0) -> int:
        """Optimizer steps of an epoch from item `start` on."""
        return math.ceil((self.num_items - start) / self.global_batch_size)

    def order(self, epoch: int) -> Tensor:
        """Item indices of an epoch, int64 (num_items,).

        What is drawn for the n-th time stands as index + n * num_items, so that a data set can vary it anew.
        """
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
        if self.weights is None:
            return torch.randperm(self.num_items, generator=generator)
        drawn = torch.multinomial(self.weights, self.num_items, replacement=True, generator=generator)
        return drawn + self.num_items * _visits(drawn)

    def micro_batches(self, epoch: int, start: int = 0) -> list[list[int]]:
        """This process's micro-batches from item `start` of the epoch on, `accumulation` of them a step."""
        order = self.order(epoch)
        rest = order[start:]
        missing = self.steps(start) * self.global_batch_size - len(rest)
        filled = torch.cat([rest, order.repeat(math.ceil(missing / len(order)))[:missing]]) if missing else rest
        mine = filled.reshape(-1, self.micro_batch_size, self.world_size)[:, :, self.rank]
        return mine.tolist()


def _visits(drawn: Tensor) -> Tensor:
    """How often each entry's value stood before it, int64 of the same shape (N,)."""
    by_value = torch.argsort(drawn, stable=True)
    _, counts = torch.unique_consecutive(drawn[by_value], return_counts=True)
    first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    visits = torch.empty_like(drawn)
    visits[by_value] = torch.arange(len(drawn)) - first
    return visits


def evaluation_batches(
    num_items: int, batch_size: int, rank: int = 0, world_size: int = 1, equal_counts: bool = False
) -> list[list[int]]:
    """This process's share of a split: every item in exactly one process, none dropped, none doubled.

    equal_counts repeats a process's last batch until all processes have as many, for models that exchange parameters
    in each forward; the doubled rows fall out where results are gathered by case.
    """
    mine = list(range(rank, num_items, world_size))
    batches = [mine[n : n + batch_size] for n in range(0, len(mine), batch_size)]
    if equal_counts and num_items:
        most = math.ceil(math.ceil(num_items / world_size) / batch_size)
        batches += [batches[-1] if batches else [0]] * (most - len(batches))
    return batches


def grouped(batches: Iterator, size: int) -> Iterator[list]:
    """Consecutive lists of `size`."""
    while group := [item for _, item in zip(range(size), batches)]:
        yield group


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers; neighbors give unrelated seeds (splitmix64 finalizer)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state ^ (part & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
