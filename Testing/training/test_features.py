"""Cached tower features: those of the very picture that is shown, keyed by weights and draws, made once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ICHAnalysisLib.errors import UsageError
from Testing.training.cached_heads import PREPROCESS, SLICES, make_cache
from Training.data.augment import AugmentConfig
from Training.data.datasets import SliceDataset
from Training.data.features import FeatureDataset, build_features, open_store, towers_digest


@pytest.fixture
def dataset(tmp_path: Path) -> SliceDataset:
    return SliceDataset(make_cache(tmp_path / "cache", 2), PREPROCESS, augment=AugmentConfig(), seed=5)


def encode(images: Tensor) -> dict[str, Tensor]:
    """A tower that is easy to recompute."""
    return {"clip": images.mean(dim=(2, 3)), "sam": images[:, :1, ::16, ::16]}


def test_features_belong_to_the_picture(dataset: SliceDataset, tmp_path: Path) -> None:
    store = open_store(tmp_path / "features", "towers", dataset, draws=3)
    assert build_features(dataset, store, encode, batch_size=5) == 2
    assert build_features(dataset, store, encode) == 0
    data = FeatureDataset(dataset, store)
    shown = set()
    for epoch in range(4):
        data.set_epoch(epoch)
        for index in (2, SLICES + 3, SLICES + 3 + len(data)):
            item = data[index]
            expected = encode(torch.from_numpy(item["image"])[None])
            np.testing.assert_allclose(item["features"]["clip"], expected["clip"][0], atol=1e-3)
            np.testing.assert_allclose(item["features"]["sam"], expected["sam"][0], atol=1e-3)
            shown.add(float(item["image"].sum()))
    assert 3 < len(shown) <= 6  # two slices, three draws each


def test_draws_are_the_same_in_another_fold(dataset: SliceDataset, tmp_path: Path) -> None:
    store = open_store(tmp_path / "features", "towers", dataset, draws=2)
    build_features(dataset, store, encode)
    alone = SliceDataset(dataset.cases[1:], PREPROCESS, augment=AugmentConfig(), seed=5)
    assert open_store(tmp_path / "features", "towers", alone, draws=2) == store
    item = FeatureDataset(alone, store)[0]
    np.testing.assert_allclose(item["features"]["clip"], item["image"].mean(axis=(1, 2)), atol=1e-3)


def test_key_follows_weights_augmentation_and_draws(dataset: SliceDataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    first = towers_digest([layer.state_dict()])
    assert first == towers_digest([layer.state_dict()])
    with torch.no_grad():
        layer.weight[0, 0] += 1e-6
    assert towers_digest([layer.state_dict()]) != first
    store = open_store(tmp_path, first, dataset, 2)
    assert open_store(tmp_path, first, dataset, 3) != store
    plain = SliceDataset(dataset.cases, PREPROCESS)
    assert open_store(tmp_path, first, plain, 7).draws == 1
    milder = SliceDataset(dataset.cases, PREPROCESS, augment=replace(AugmentConfig(), strength=0.5), seed=5)
    assert open_store(tmp_path, first, milder, 2) != store
    with pytest.raises(UsageError, match="0 draws"):
        open_store(tmp_path, first, dataset, 0)


def test_an_interrupted_case_leaves_nothing(dataset: SliceDataset, tmp_path: Path) -> None:
    store = open_store(tmp_path / "features", "towers", dataset, draws=1)
    calls = 0

    def stops(images: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        return encode(images)

    with pytest.raises(KeyboardInterrupt):
        build_features(dataset, store, stops, batch_size=2)
    assert [store.has(case) for case in dataset.cases] == [True, False]
    with pytest.raises(UsageError, match="build them first"):
        store.read(dataset.cases[1], 0, 0)
    assert build_features(dataset, store, encode) == 1


def test_ich_scnet_trains_on_cached_features(dataset: SliceDataset, tmp_path: Path) -> None:
    from Training.config import RunConfig, TaskConfig
    from Training.tasks.base import build_task
    from Training.tasks.slice_inputs import features_of, prompts_of

    def task_with(**options: object) -> tuple:
        torch.manual_seed(3)
        small = {"sam": {"depth": 1, "global_attention": [0], "image_size": 64}, "clip": {"image_size": 64}}
        cfg = TaskConfig("ich_scnet", "compact", network={"towers": "frozen", **small}, options=options)
        task = build_task(RunConfig(cfg, preprocess={"spacing_mm": 3.6, "size": 64}))
        data = task.build_dataset(dataset.cases, "train")
        return task, data, task.build_model().eval()

    task, data, model = task_with(features=str(tmp_path / "features"), feature_draws=2)
    batch = task.collate([data[n] for n in (2, 3)])
    seen, cached = model.encode(batch["image"]), features_of(batch)
    torch.testing.assert_close(cached.sam, seen.sam, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(cached.clip, seen.clip, atol=5e-3, rtol=5e-3)
    with_cache = model(batch["image"], prompts_of(batch), batch["text"], features=cached)
    without = model(batch["image"], prompts_of(batch), batch["text"])
    torch.testing.assert_close(with_cache.segmentation, without.segmentation, atol=2e-2, rtol=2e-2)
    plain, data, _ = task_with()
    assert features_of(plain.collate([data[0]])) is None


def test_trained_towers_cannot_be_cached(dataset: SliceDataset, tmp_path: Path) -> None:
    from Training.config import RunConfig, TaskConfig
    from Training.tasks.base import build_task

    cfg = TaskConfig("ich_scnet", "compact", options={"features": str(tmp_path / "features")})
    task = build_task(RunConfig(cfg, preprocess={"spacing_mm": 3.6, "size": 64}))
    with pytest.raises(UsageError, match="only towers that are frozen"):
        task.build_dataset(dataset.cases, "train")


def test_infinite_features_are_refused(dataset: SliceDataset, tmp_path: Path) -> None:
    store = open_store(tmp_path / "features", "towers", dataset, draws=1)
    with pytest.raises(UsageError, match="not finite in float16"):
        build_features(dataset, store, lambda images: {"clip": images.sum(dim=(1, 2, 3)) * 1e9})
