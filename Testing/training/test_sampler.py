"""The order of items: deterministic, resumable, dealt without loss, weighted as asked."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from Training.sampler import TrainSampler, evaluation_batches, grouped, mix_seed


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(0, 3))
def test_steps_do_not_depend_on_the_processes(n: int, micro: int, accumulation: int, world: int, e: int) -> None:
    """World size w with micro-batch m sees in each step what one process with micro-batch w * m sees."""
    parts = [TrainSampler(n, micro, accumulation, rank, world, seed=3) for rank in range(world)]
    one = TrainSampler(n, micro * world, accumulation, seed=3)
    batches = [list(grouped(iter(part.micro_batches(e)), accumulation)) for part in parts]
    alone = list(grouped(iter(one.micro_batches(e)), accumulation))
    assert len(alone) == one.steps() == parts[0].steps()
    for step, expected in enumerate(alone):
        seen = [item for rank in range(world) for micro_batch in batches[rank][step] for item in micro_batch]
        assert Counter(seen) == Counter(item for micro_batch in expected for item in micro_batch)
        assert len(seen) == one.global_batch_size


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 50))
def test_resuming_goes_on_with_the_rest(n: int, batch: int, done: int) -> None:
    sampler = TrainSampler(n, batch, 1, seed=1)
    whole = sampler.micro_batches(2)
    done = min(done, len(whole) - 1)
    assert sampler.micro_batches(2, done * batch) == whole[done:]
    items = [item for micro_batch in whole for item in micro_batch]
    assert set(items) == set(range(n)) and sorted(items[:n]) == list(range(n))


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(TrainSampler(50, 1, 1, seed=seed).order(epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_weights_decide_how_often_an_item_is_drawn() -> None:
    weights = torch.tensor([0.0, 1.0, 3.0] * 1000)
    drawn = TrainSampler(3000, 1, 1, weights=weights).order(0)
    visits, items = drawn // 3000, drawn % 3000
    counts = torch.bincount(items % 3, minlength=3)
    assert counts[0] == 0 and 2.6 < counts[2] / counts[1] < 3.4
    pairs = set(zip(items.tolist(), visits.tolist(), strict=True))
    assert len(pairs) == 3000 and int(visits.max()) > 2  # each visit of an item is its own
    assert all(visit == 0 or (item, visit - 1) in pairs for item, visit in pairs)


@pytest.mark.parametrize("weights", [[1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0]])
def test_impossible_weights(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="sample weights"):
        TrainSampler(3, 1, 1, weights=torch.tensor(weights))


@given(st.integers(0, 40), st.integers(1, 7), st.integers(1, 5))
def test_evaluation_takes_each_item_once(n: int, batch: int, world: int) -> None:
    parts = [evaluation_batches(n, batch, rank, world) for rank in range(world)]
    assert sorted(item for part in parts for micro_batch in part for item in micro_batch) == list(range(n))
    even = [evaluation_batches(n, batch, rank, world, equal_counts=True) for rank in range(world)]
    assert len({len(part) for part in even}) == 1
    assert {item for part in even for micro_batch in part for item in micro_batch} == set(range(n))


def test_mixed_seeds_are_unrelated() -> None:
    seeds = {mix_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900 and all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed(1, 2) != mix_seed(2, 1)
