"""Slices and scans as networks get them: deterministic, balanced, on the network's grid, unknown marked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ICHAnalysisLib.config.preprocess import BRAIN, HUWindow, PreprocessConfig
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.preprocess import apply_window
from Testing.training.cached_heads import PREPROCESS, SIZE, SLICES, make_cache, write_head
from Training.data.augment import AugmentConfig
from Training.data.cache import CacheCase, open_cache
from Training.data.datasets import ScanDataset, SliceDataset
from Training.data.sampling import SLICE_SHARES, scan_weights, slice_kinds
from Training.tasks.base import collate

SCAN = PreprocessConfig(spacing_mm=7.2, size=32, depth=8, slice_spacing_mm=5.0, windows=(BRAIN,))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[CacheCase]:
    return make_cache(tmp_path_factory.mktemp("cache"), 8)


def test_plain_slice_is_the_cached_one(cases: list[CacheCase]) -> None:
    data = SliceDataset(cases, PREPROCESS)
    assert len(data) == 8 * SLICES
    item = data[SLICES + 2]
    np.testing.assert_array_equal(item["hu"], cases[1].hu[2].astype(np.float32))
    np.testing.assert_array_equal(item["labels"], cases[1].labels[2])
    np.testing.assert_array_equal(item["image"][0], apply_window(item["hu"], PREPROCESS.windows[0]))
    assert (item["case_id"], item["slice_index"], item["has_ich"], item["location"]) == ("case01", 2, 1, 1)
    assert data[SLICES]["has_ich"] == 0


def test_neighbors_are_seen_and_varied_with_their_slice(cases: list[CacheCase]) -> None:
    beside = replace(PREPROCESS, neighbor_windows=(BRAIN,))
    data = SliceDataset(cases, beside)
    for s, (below, above) in {0: (0, 1), 2: (1, 3), SLICES - 1: (SLICES - 2, SLICES - 1)}.items():
        item = data[SLICES + s]
        assert item["image"].shape == (5, SIZE, SIZE)
        np.testing.assert_array_equal(item["hu"], cases[1].hu[s].astype(np.float32))
        for channel, n in ((3, below), (4, above)):
            np.testing.assert_array_equal(
                item["image"][channel], apply_window(cases[1].hu[n].astype(np.float32), BRAIN)
            )
    geometry = AugmentConfig(tissue=0.0, scanner=0.0, new_clot=0.0)  # turned and warped alike
    varied = SliceDataset(cases, beside, augment=geometry, seed=1)
    alone = 0
    for visit in range(40):
        own, below, above = varied[SLICES + 2 + visit * len(varied)]["image"][[0, 3, 4]]
        alone += bool(np.array_equal(own, below) and np.array_equal(own, above))
        skulls = [(plane >= 1).sum() for plane in (own, below, above)]
        assert max(skulls) < 1.6 * min(skulls)
    assert 0 < alone < 8  # now and then it is seen as the only slice of a scan


def test_augmentation_follows_seed_epoch_index_and_visit_alone(cases: list[CacheCase]) -> None:
    def item(seed: int, epoch: int, index: int) -> np.ndarray:
        data = SliceDataset(cases, PREPROCESS, augment=AugmentConfig(), seed=seed)
        data.set_epoch(epoch)
        return data[index]["hu"]

    base = item(1, 2, 3)
    np.testing.assert_array_equal(base, item(1, 2, 3))
    for other in (item(2, 2, 3), item(1, 3, 3), item(1, 2, 3 + 8 * SLICES)):
        assert np.abs(base - other).max() > 1


def test_loader_processes_see_the_epoch_and_change_nothing(cases: list[CacheCase]) -> None:
    data = SliceDataset(cases, PREPROCESS, augment=AugmentConfig(), seed=4)
    loader = DataLoader(data, batch_size=4, collate_fn=collate, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        data.set_epoch(epoch)
        batch = next(iter(loader))
        assert batch["image"].shape == (4, 3, SIZE, SIZE) and batch["image"].dtype == torch.float32
        np.testing.assert_array_equal(batch["hu"][3].numpy(), data[3]["hu"])


def test_weights_give_blood_half_of_the_draws(cases: list[CacheCase]) -> None:
    data = SliceDataset(cases, PREPROCESS)
    weights = data.sample_weights.numpy()
    kinds = np.concatenate([slice_kinds(case) for case in cases])
    assert weights.sum() == pytest.approx(1) and (weights > 0).all()
    present = {kind: share for kind, share in SLICE_SHARES.items() if (kinds == kind).any()}
    for kind, share in present.items():
        assert weights[kinds == kind].sum() == pytest.approx(share / sum(present.values()))
    blood = np.array([(case.labels[s] == 1).any() for case in cases for s in range(SLICES)])
    np.testing.assert_array_equal(kinds == "ich", blood)


def test_scans_of_rare_volumes_and_places_are_drawn_more_often() -> None:
    volumes = [None, 0.0, *[8.0] * 16, *[90.0] * 4]
    metas = [{"has_ich": bool(ml), "location": "lobar" if ml else None, "volume_ml": ml} for ml in volumes]
    weights = scan_weights([SimpleNamespace(meta=meta) for meta in metas])  # type: ignore[misc]
    assert weights[:2].sum() == pytest.approx(0.25) and weights.sum() == pytest.approx(1)
    # Inverse square roots: a fifth of the hemorrhages are large and get a third of their draws.
    assert weights[-4:].sum() == pytest.approx(0.75 / 3)


def test_hard_slices_are_those_with_dense_unlabeled_pixels(tmp_path: Path) -> None:
    write_head(tmp_path, 1, clot=False)
    (case,) = open_cache(tmp_path)
    case.meta["slices"]["dense"][4] = 40
    assert slice_kinds(case)[4] == "hard" and "ich" not in slice_kinds(case)


def test_scan_is_on_the_network_grid(cases: list[CacheCase]) -> None:
    data = ScanDataset(cases, SCAN)
    item = data[0]
    assert item["image"].shape == (1, 8, 32, 32) and item["labels"].shape == (8, 32, 32)
    pixels = item["labels"].sum() * 7.2**2 * 5 / 1000
    stored = (cases[0].labels == 1).sum() * 3.6**2 * 5 / 1000
    assert pixels == pytest.approx(stored, rel=0.25)
    assert item["volume_ml"] == 12.0


def test_scan_volume_grows_with_the_picture(cases: list[CacheCase]) -> None:
    larger = AugmentConfig(scale=(1.19, 1.2), elastic_px=0.0, tissue=0.0, scanner=0.0, geometry=1.0, shift=0.0)
    data = ScanDataset(cases, SCAN, augment=larger, seed=3)
    assert data[0]["volume_ml"] == pytest.approx(12.0 * 1.195**2, rel=0.08)


def test_repeated_draws_reach_every_training_set(cases: list[CacheCase]) -> None:
    from Training.data.features import FeatureDataset
    from Training.data.prompted_slices import PromptedSlices
    from Training.feed import ReadableItems
    from Training.tasks.dtvit import SplitSlices
    from Training.tasks.volume_net import SplitScans

    for kind in (SliceDataset, ScanDataset, FeatureDataset, PromptedSlices, SplitSlices, SplitScans):
        assert kind.varies_visits, kind
    data = SplitSlices(SliceDataset(cases, PREPROCESS, augment=AugmentConfig()), "train")
    items = ReadableItems(data, replace=True)
    first, again = items[3][0], items[3 + len(data)][0]
    assert first["slice_index"] == again["slice_index"] and np.abs(first["hu"] - again["hu"]).max() > 1


def test_unknown_is_marked(tmp_path: Path) -> None:
    write_head(tmp_path, 1, has_ich=None, location=None, volume_ml=None, outcome={})
    item = SliceDataset(open_cache(tmp_path), PREPROCESS)[0]
    assert (item["location"], item["case_has_ich"], item["dead_30d"], item["mrs"]) == (-1, -1, -1, -1)
    assert np.isnan(item["volume_ml"])


def test_slice_labels_stand_in_for_a_missing_mask(tmp_path: Path) -> None:
    folder = write_head(tmp_path, 1, slice_has_ich=[1, 0, None, 0, 0, 0])
    np.save(folder / "labels.npy", np.full((SLICES, SIZE, SIZE), 255, dtype=np.uint8))
    data = SliceDataset(open_cache(tmp_path), PREPROCESS)
    assert [data[s]["has_ich"] for s in range(3)] == [1, 0, -1]


def test_other_geometry_than_cached_is_refused(cases: list[CacheCase]) -> None:
    with pytest.raises(UsageError, match=r"spacing_mm 3\.6 instead of 0\.9"):
        SliceDataset(cases, replace(PREPROCESS, spacing_mm=0.9))
    SliceDataset(cases, replace(PREPROCESS, windows=(HUWindow(40, 120),)))
    with pytest.raises(UsageError, match="whole multiple"):
        ScanDataset(cases, replace(SCAN, spacing_mm=5.0))
    with pytest.raises(UsageError, match="depth"):
        ScanDataset(cases, PREPROCESS)
