"""What cached tower features save: `python -m Testing.benchmarks.tower_features [--draws 2] [--threads N]`.

A training step of ICH-SCNet's base preset that encodes one slice with its frozen towers, against one that reads their
features from disk, on the CPU. Random weights: time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ICHAnalysisLib.config.ich_scnet import PREPROCESS, PRESETS
from ICHAnalysisLib.networks.encoders import TowerFeatures
from ICHAnalysisLib.networks.ich_scnet import ICHSCNet, build_ich_scnet
from ICHAnalysisLib.prompts import PromptBatch
from Training.data.augment import AugmentConfig
from Training.data.cache import open_cache
from Training.data.datasets import SliceDataset
from Training.data.features import FeatureDataset, build_features, open_store
from Training.data.pool import PoolConfig, fill


def seconds_each(action: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Medians of an action's time by the clock and of its processor time over all threads, seconds.

    Other work on the machine changes the first alone.
    """
    times = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        action()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    wall, processor = np.median(times, axis=0)
    return float(wall), float(processor)


def training_step(model: ICHSCNet, image: Tensor, features: TowerFeatures | None) -> None:
    """Forward and backward over every output that has a loss."""
    prompts = PromptBatch.empty(len(image), model.cfg.max_boxes, model.cfg.max_points)
    text = torch.zeros(len(image), 77, dtype=torch.long)
    output = model(image, prompts, text, features=features)
    parts = [part for part in (*output.stage_logits, output.feature_logits, output.outcome) if part is not None]
    model.zero_grad(set_to_none=True)
    torch.stack([part.square().mean() for part in parts]).sum().backward()


def measure(draws: int) -> dict[str, float]:
    """Seconds of a step that encodes and of one with cached features, their ratios, MiB a slice and draw."""
    model = build_ich_scnet(PRESETS["base"]).train()
    with tempfile.TemporaryDirectory() as folder:
        fill(PoolConfig(Path(folder) / "cache", 1, seed=99))
        (case,) = open_cache(Path(folder) / "cache")
        case.meta["positions_mm"] = case.meta["positions_mm"][:1]  # one slice: encoding takes long
        case.meta["slices"] = {name: counts[:1] for name, counts in case.meta["slices"].items()}
        dataset = SliceDataset([case], PREPROCESS["base"], augment=AugmentConfig())

        def encode(images: Tensor) -> dict[str, Tensor]:
            features = model.encode(images)
            return {"sam": features.sam, "clip": features.clip}  # type: ignore[dict-item]

        store = open_store(Path(folder) / "features", "benchmark", dataset, draws)
        build_features(dataset, store, encode, batch_size=1)
        data = FeatureDataset(dataset, store)

        def cached() -> None:
            item = data[0]
            known = {name: torch.from_numpy(value[None]).float() for name, value in item["features"].items()}
            training_step(model, torch.from_numpy(item["image"][None]), TowerFeatures(known["sam"], known["clip"]))

        def encoded() -> None:
            training_step(model, torch.from_numpy(dataset[0]["image"][None]), None)

        size = sum(file.stat().st_size for file in store.folder.rglob("*.npy")) / draws / 2**20
        slow, slow_processor = seconds_each(encoded, 1)
        fast, fast_processor = seconds_each(cached, 3)
    return {
        "encoding_s": slow,
        "cached_s": fast,
        "ratio": slow / fast,
        "encoding_processor_s": slow_processor,
        "cached_processor_s": fast_processor,
        "processor_ratio": slow_processor / fast_processor,
        "mib_a_slice_and_draw": size,
    }


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    found = measure(args.draws)
    print(f"base preset, training step of one slice, {args.threads} threads, fp32, reading and augmenting included")
    print("encoding {encoding_s:.2f} s, cached features {cached_s:.2f} s: {ratio:.1f} times faster".format(**found))
    print("processor time {encoding_processor_s:.2f} s and {cached_processor_s:.2f} s: {processor_ratio:.1f} times "
          "less; {mib_a_slice_and_draw:.2f} MiB on disk a slice and draw".format(**found))  # fmt: skip
    print(json.dumps({"threads": args.threads, **{key: round(value, 3) for key, value in found.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
