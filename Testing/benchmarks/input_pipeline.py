"""Does the loader outrun the network? `python -m Testing.benchmarks.input_pipeline [CONFIG] [key=value ...]`.

Items per second of the loader alone and of the training step alone, on the same batches, and their ratio: by the clock,
and by processor time, which other work on the machine does not change. CONFIG is ich_scnet/compact by default; without
data.cache=DIR a few simulated cases are made first. A ratio below 1 means that the network waits; data.workers=N adds
loader processes (their processor time is not counted).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ICHAnalysisLib.errors import ICHAnalysisError
from Training.config import RunConfig, load_config
from Training.data.pool import PoolConfig, fill
from Training.distributed import World
from Training.feed import feed, to_device
from Training.inference import autocast
from Training.run import Run, build_run
from Training.tasks.base import Batch, total_loss

_CASES = 6


def speed(items: int, work: Callable[[], object]) -> tuple[float, float]:
    """Items per second by the clock and by this process's processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return items / (time.perf_counter() - wall), items / (time.process_time() - processor)


def measure(run: Run, count: int) -> dict[str, float]:
    """Both speeds of loader and training step over `count` batches, after one of each to warm up."""
    cfg, world = run.cfg, run.world
    order = run.sampler.micro_batches(0)[: count + 1]
    if len(order) <= count:
        raise ICHAnalysisError(
            f"The cases give {len(order)} batches an epoch; {count + 1} are needed, lower --batches."
        )
    source = feed(run.datasets["train"], order, run.task.collate, workers=cfg.data.workers, replace_unreadable=True)
    batches = [next(source)[0]]
    items = count * cfg.loop.micro_batch_size
    loader, loader_processor = speed(items, lambda: batches.extend(batch for batch, _ in source))

    def step(batch: Batch) -> None:
        with autocast(cfg, world):
            losses = run.task.losses(run.model, to_device(batch, world.device, cfg.loop.channels_last), 0)
        total_loss(losses).backward()
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)

    run.model.train()
    step(batches[0])
    network, network_processor = speed(items, lambda: [step(batch) for batch in batches[1:]])
    return {
        "loader_per_s": loader,
        "step_per_s": network,
        "ratio": loader / network,
        "loader_per_processor_s": loader_processor,
        "step_per_processor_s": network_processor,
        "processor_ratio": loader_processor / network_processor,
    }


def with_cases(cfg: RunConfig, folder: Path) -> RunConfig:
    """The configuration itself, or with a few simulated cases in `folder` where it names no cache."""
    if cfg.data.cache is not None:
        return cfg
    fill(PoolConfig(folder, _CASES, seed=99))
    return replace(cfg, data=replace(cfg.data, cache=str(folder), val_fraction=0.0))


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 done, 2 wrong use."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", default="ich_scnet/compact")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--batches", type=int, default=6)
    args = parser.parse_intermixed_args(argv)
    if "=" in args.config:
        args.config, args.overrides = "ich_scnet/compact", [args.config, *args.overrides]
    try:
        with tempfile.TemporaryDirectory() as folder:
            cfg = with_cases(load_config(args.config, args.overrides), Path(folder))
            found = measure(build_run(cfg, World(torch.device("cpu")), None), args.batches)
    except ICHAnalysisError as error:
        print(error, file=sys.stderr)
        return 2
    facts = {"config": args.config, "threads": torch.get_num_threads(), "workers": cfg.data.workers}
    print(
        "{config}, {threads} threads, {workers} loader processes: loader {loader_per_s:.1f} items/s, training step "
        "{step_per_s:.1f} items/s, ratio {ratio:.1f}; per second of processor time {loader_per_processor_s:.1f} and "
        "{step_per_processor_s:.1f}, ratio {processor_ratio:.1f}".format(**facts, **found)
    )
    print(json.dumps({**facts, **{key: round(value, 3) for key, value in found.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
