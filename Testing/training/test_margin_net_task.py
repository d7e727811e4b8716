"""The margin net's task: which slices are drawn, what a box means, pictures that repeat, metrics, a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cached_heads import make_cache, write_head

from ICHAnalysisLib.config.margin_net import PREPROCESS, PRESETS
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.weights.registry import LoadedWeights, load_weights, save_weights
from Training import export, train
from Training.config import config_from_dict
from Training.data.augment import AugmentConfig
from Training.data.cache import open_cache
from Training.data.margin_dataset import BOXES, MarginDataset, part_of
from Training.tasks.base import build_task, collate
from Training.tasks.margin_net import MarginNetTask

TINY, SEEN = PRESETS["tiny"], PREPROCESS["tiny"]


def make_task(**options: float) -> MarginNetTask:
    return build_task(config_from_dict({"task": {"name": "margin_net", "preset": "tiny", "options": options}}))


def test_a_run_learns_to_outline_what_a_box_holds_and_is_exported(tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", 12)
    config = tmp_path / "run.yaml"
    config.write_text(
        "task: {name: margin_net, preset: tiny, options: {augment: null}}\noptimizer: {lr: 2.0e-2}\n"
        "loop: {epochs: 25, micro_batch_size: 4, precision: fp32, tensorboard: false, device: cpu}\n"
        f"data: {{cache: {tmp_path / 'cache'}, val_fraction: 0.3}}\n"
    )
    assert train.main([str(config), "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["best_score"] > 0.9
    out = tmp_path / "margin_net.safetensors"
    assert export.main([str(tmp_path / "run" / "checkpoints" / "best.pt"), "--out", str(out)]) == 0
    loaded = load_weights(out, "margin_net")
    assert loaded.preprocess == SEEN and loaded.config["widths"] == [4, 8]
    check_mean(tmp_path / "run" / "checkpoints" / "best.pt", loaded, tmp_path)


def check_mean(checkpoint: Path, alone: LoadedWeights, folder: Path) -> None:
    """A further export is averaged with another file of the same network, and with no other."""
    other, mean = folder / "other.safetensors", folder / "mean.safetensors"
    shifted = {k: v + 1 if v.is_floating_point() else v + 5 for k, v in alone.state_dict.items()}
    save_weights(other, "margin_net", alone.config, SEEN, shifted, {})
    assert export.main([str(checkpoint), "--out", str(mean), "--mean-with", str(other)]) == 0
    found = load_weights(mean, "margin_net")
    for key, value in alone.state_dict.items():
        expected = value + 0.5 if value.is_floating_point() else value  # counters are no weights
        torch.testing.assert_close(found.state_dict[key], expected, rtol=1e-3, atol=1e-3)
    assert found.card["training"]["mean_with"] == "other.safetensors"
    assert "their mean with those of other.safetensors" in mean.with_suffix(".md").read_text()
    mean.unlink()
    assert export.main([str(checkpoint), "--out", str(mean), "--mean-with", "default"]) == 2  # of the compact preset
    save_weights(other, "candidate_net", {}, SEEN, shifted, {})
    assert export.main([str(checkpoint), "--out", str(mean), "--mean-with", str(other)]) == 2
    assert not mean.exists()


def test_slices_just_beyond_a_clot_are_drawn_in_training_alone(tmp_path: Path) -> None:
    cases = make_cache(tmp_path, 4)  # three heads bleed, on slices 2 and 3 of 6
    data = MarginDataset(cases, SEEN, TINY, training=True)
    assert len(data) == 3 * 4 and len(MarginDataset(cases, SEEN, TINY)) == 3 * 2
    assert data.sample_weights.tolist() == [0.4, 2.0, 2.0, 0.4] * 3  # clots of few pixels
    items = [data[n] for n in range(4)]
    assert [item["slice_index"] for item in items] == [1, 2, 3, 4]
    assert [bool(item["target"].any()) for item in items] == [False, True, True, False]
    held = data.slices[2]["labels"] == 1
    for item in (items[0], items[3]):  # a box around what lies next to it
        assert 0.5 * held.sum() < item["box"].sum() < 4 * held.sum()
    assert items[1]["pixel_ml"] == pytest.approx(3.6 * 3.6 * 5 / 1000)
    with pytest.raises(UsageError, match="No slice"):
        MarginDataset([case for case in cases if not case.meta["has_ich"]], SEEN, TINY)


def test_half_of_the_crops_without_a_box_lie_away_from_any_clot(tmp_path: Path) -> None:
    cases = make_cache(tmp_path, 4)
    data = MarginDataset(cases, SEEN, TINY, training=True, unboxed=0.5)
    away = ~data.near[data.places]
    weights = data.sample_weights.numpy()
    assert away.sum() == len(data) - 3 * 4 and weights.sum() == pytest.approx(1.0)
    assert weights[away].sum() == pytest.approx(0.25) and data.unboxed == pytest.approx(1 / 3)
    for index in np.flatnonzero(away)[:4]:
        item = data[int(index)]
        assert (item["box"] == 1).all() and not item["target"].any()
    at_clot = np.flatnonzero(~away & (weights > weights[~away].min()))
    items = [data[int(at_clot[n % len(at_clot)]) + len(data) * n] for n in range(60)]
    unboxed = [item for item in items if (item["box"] == 1).all()]
    assert 8 <= len(unboxed) <= 33 and any(item["target"].any() for item in unboxed)
    assert MarginDataset(cases, SEEN, TINY, unboxed=0.5).unboxed == 0.0
    assert make_task().network.unboxed and not make_task(unboxed=0.0).network.unboxed
    with pytest.raises(UsageError, match=r"unboxed 1\.5"):
        make_task(unboxed=1.5)
    with pytest.raises(UsageError, match=r"task\.network\.unboxed follows from"):
        build_task(config_from_dict({"task": {"name": "margin_net", "preset": "tiny", "network": {"unboxed": True}}}))


def test_a_crop_holds_its_box_and_the_clot_in_it(tmp_path: Path) -> None:
    write_head(tmp_path, 0, clot=True)
    data = MarginDataset(open_cache(tmp_path), SEEN, TINY, training=True, prompts=replace(BOXES, loose=0.0))
    plain = data.slices[2]
    for visit in range(8):
        item = data[1 + visit * len(data)]
        assert item["image"].shape == (4, 32, 32) and item["box"].shape == item["target"].shape == (1, 32, 32)
        assert item["target"].sum() == (plain["labels"] == 1).sum()
        overlap = (item["box"] * item["target"]).sum() / item["target"].sum()
        assert overlap > 0.1  # some boxes hold a part alone
        inside = item["image"][0][item["target"][0] > 0]
        assert inside.mean() == pytest.approx(62 / 80, abs=0.02)


def test_a_box_in_part_lies_inside_the_clot_s_own() -> None:
    rng = np.random.default_rng(0)
    whole = np.array([10, 20, 30, 60], np.float32)
    parts = np.array([part_of(whole, rng) for _ in range(200)])
    assert (parts[:, :2] >= whole[:2] - 1e-4).all() and (parts[:, 2:] <= whole[2:] + 1e-4).all()
    shares = (parts[:, 2:] - parts[:, :2]) / (20, 40)
    assert shares.min() == pytest.approx(0.35, abs=0.02) and shares.max() == pytest.approx(1.0, abs=0.02)


def test_unknown_pixels_teach_nothing(tmp_path: Path) -> None:
    folder = write_head(tmp_path, 0, clot=True)
    labels = np.load(folder / "labels.npy")
    y, x = np.argwhere(labels[2] == 1)[0]
    labels[2, y, x] = 255
    np.save(folder / "labels.npy", labels)
    task = make_task()
    data = MarginDataset(open_cache(tmp_path), SEEN, TINY)
    batch = collate([data[0]])
    assert float((batch["known"] == 0).sum()) == 1

    def model(value: float):
        unknown = batch["known"] == 0
        return lambda *_: (batch["target"] * 8 - 4).masked_fill(unknown, value)

    low, high = (task.losses(model(value), batch, 0) for value in (-9.0, 9.0))
    for name in ("overlap_loss", "cross_entropy_loss"):
        assert float(low[name]) == pytest.approx(float(high[name]), rel=1e-6)
    (row,) = task.predict(model(9.0), batch)
    assert row["truth_ml"] == row["found_ml"] == row["both_ml"] > 0


def test_pictures_depend_on_seed_epoch_and_visit_alone(tmp_path: Path) -> None:
    cases = make_cache(tmp_path, 2)

    def images(seed: int, epoch: int, index: int) -> np.ndarray:
        data = MarginDataset(cases, SEEN, TINY, training=True, augment=AugmentConfig(), seed=seed)
        data.set_epoch(epoch)
        return data[index]["image"]

    np.testing.assert_array_equal(images(0, 1, 2), images(0, 1, 2))
    for other in ((1, 1, 2), (0, 2, 2), (0, 1, 2 + 8)):  # the last is the same item, visited again
        assert np.abs(images(*other) - images(0, 1, 2)).max() > 0.05


def test_a_scan_s_slices_are_joined_by_volume() -> None:
    rows = [
        {"case_id": "a", "slice_index": s, "truth_ml": t, "found_ml": f, "both_ml": b}
        for s, (t, f, b) in enumerate([(4.0, 4.0, 3.0), (1.0, 3.0, 1.0)])
    ]
    rows.append({"case_id": "b", "slice_index": 0, "truth_ml": 2.0, "found_ml": 2.0, "both_ml": 2.0})
    found = make_task().metrics(rows)
    assert found["dice"] == pytest.approx((2 * 4 / 12 + 1) / 2)
    assert found["dice_p10"] == pytest.approx(2 / 3 + 0.1 / 3)
    assert found["volume_error_ml"] == pytest.approx(1.0)
    assert [row["dice"] for row in make_task().case_rows(rows)] == pytest.approx([2 / 3, 1.0])
