"""The candidate net's task: crops of cached scans, pictures that depend on their number alone, metrics, a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cached_heads import write_head

from ICHAnalysisLib.candidate_crops import CandidateCrop
from ICHAnalysisLib.config.candidate_net import PREPROCESS, PRESETS
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.weights.registry import load_weights
from Training import export, train
from Training.config import config_from_dict
from Training.data import candidate_pool
from Training.data.cache import open_cache
from Training.data.candidate_dataset import CandidateDataset
from Training.tasks.base import build_task
from Training.tasks.candidate_net import CandidateNetTask

TINY = PRESETS["tiny"]


def make_task(**options: object) -> CandidateNetTask:
    return build_task(
        config_from_dict({"task": {"name": "candidate_net", "preset": "tiny", "options": {"augment": None, **options}}})
    )


def write_crops(folder: Path, scans: int, seed: int = 0) -> None:
    """Scans with two candidates each: blood of 65 HU where the scan bleeds, and calcification of 200 HU."""
    rng = np.random.default_rng(seed)
    for number in range(scans):
        bleeds = number % 2 == 0
        head = open_cache(write_head(folder.parent / "scans", number, clot=bleeds).parent)[-1]
        found = []
        for is_ich in (bleeds, False):
            outline = np.zeros((TINY.slices, TINY.size, TINY.size), bool)
            half = int(rng.integers(2, 4))
            outline[1:4, 16 - half : 16 + half, 16 - half : 16 + half] = True
            tissue = np.where(outline, 65.0 if is_ich else 200.0, 35.0) + rng.normal(0, 3, outline.shape)
            crop = CandidateCrop(tissue.astype(np.float32), outline, 0.0)
            found.append((crop, {"is_ich": is_ich, "missed": False, "volume_ml": 0.5 * half}))
        candidate_pool.write_crops(folder, head, found, TINY)


def test_a_run_learns_to_tell_blood_from_calcium_and_is_exported(tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    write_crops(crops, 14)
    config = tmp_path / "run.yaml"
    config.write_text(
        "task: {name: candidate_net, preset: tiny}\noptimizer: {lr: 1.0e-2}\n"
        "loop: {epochs: 8, micro_batch_size: 8, precision: fp32, tensorboard: false, device: cpu}\n"
        f"data: {{cache: {crops}, val_fraction: 0.3}}\n"
    )
    assert train.main([str(config), "--out", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["best_score"] == pytest.approx(1.0)
    out = tmp_path / "candidate_net.safetensors"
    assert export.main([str(tmp_path / "run" / "checkpoints" / "best.pt"), "--out", str(out)]) == 0
    loaded = load_weights(out, "candidate_net")
    assert loaded.preprocess == PREPROCESS["tiny"] and loaded.config["size"] == 32


def test_pictures_depend_on_seed_epoch_and_visit_alone(tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    write_crops(crops, 2)
    augment = make_task().Options().augment
    cases = candidate_pool.open_crops(open_cache(crops))

    def images(seed: int, epoch: int, index: int) -> np.ndarray:
        data = CandidateDataset(cases, PREPROCESS["tiny"], augment=augment, seed=seed)
        data.set_epoch(epoch)
        return data[index]["image"]

    np.testing.assert_array_equal(images(0, 1, 2), images(0, 1, 2))
    for other in ((1, 1, 2), (0, 2, 2), (0, 1, 2 + 4)):  # the last is the same item, visited again
        assert np.abs(images(*other) - images(0, 1, 2)).max() > 0.05
    plain = CandidateDataset(cases, PREPROCESS["tiny"])
    assert len(plain) == 4 and plain[0]["outline"].sum() in (3 * 16, 3 * 36)


def test_the_density_that_tells_stays(tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    write_crops(crops, 2)
    augment = replace(make_task().Options().augment, scanner=0.0)  # a scanner may store no density above 100 HU
    data = CandidateDataset(candidate_pool.open_crops(open_cache(crops)), PREPROCESS["tiny"], augment=augment)
    for index in range(len(data)):
        for visit in range(6):
            item = data[index + visit * len(data)]
            inside = item["image"][1][item["outline"] > 0]  # [-100, 300] HU to [0, 1]
            if len(inside) >= 12:
                assert (np.median(inside) < 0.6) == bool(item["is_ich"]), (index, visit)


def test_missed_hemorrhages_count_half_and_targets_are_smoothed() -> None:
    task = make_task(smoothing=0.02)
    batch = {
        "image": torch.zeros(2, 2, 5, 32, 32),
        "outline": torch.zeros(2, 5, 32, 32),
        "log_height": torch.zeros(2),
        "is_ich": torch.tensor([1.0, 0.0]),
        "missed": torch.tensor([True, False]),
    }
    logit = 1.0

    def model(*_: torch.Tensor) -> torch.Tensor:
        return torch.full((2,), logit)

    found = task.losses(model, batch, 0)
    rises, falls = np.log1p(np.exp(-logit)), np.log1p(np.exp(logit))
    first, second = 0.99 * rises + 0.01 * falls, 0.01 * rises + 0.99 * falls
    assert float(found["candidate_loss"]) == pytest.approx((0.5 * first + second) / 2, rel=1e-6)
    assert float(found["accuracy"]) == 0.5


def test_metrics_leave_out_what_nobody_outlined() -> None:
    task = make_task()

    def row(case: str, is_ich: int, logit: float, volume: float, missed: int = 0) -> dict:
        return {
            "case_id": case, "is_ich": is_ich, "logit": logit, "volume_ml": volume, "missed": missed,
            "case_has_ich": int(case.startswith("ich")),
        }  # fmt: skip

    rows = [
        row("ich1", 1, 2.0, 5.0), row("ich1", 0, 0.0, 0.2), row("ich2", 1, -1.0, 0.5), row("no1", 0, -2.0, 0.3),
        row("no2", 0, 1.0, 0.4), row("ich3", 1, -9.0, 0.5, missed=1),
    ]  # fmt: skip
    found = task.metrics(rows)
    assert found["auc"] == pytest.approx(4 / 6)  # 2 above all three, -1 above one
    assert found["auc_below_1_ml"] == pytest.approx(1 / 3)
    assert found["scan_auc"] == pytest.approx(3 / 4)  # 2 and -1 against -2 and 1
    assert [r["logit"] for r in task.case_rows(rows)] == [2.0, -1.0, -2.0, 1.0, -9.0]


def test_scans_are_looked_at_once_and_are_no_crops_themselves(tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "crops"
    write_head(scans, 0, clot=True, volume_ml=2.0)
    write_head(scans, 3, clot=False)
    assert candidate_pool.main([str(scans), "--out", str(out)]) == 0
    cases = open_cache(out)
    assert [case.meta["has_ich"] for case in cases] == [True, False]
    (bleeding, *_) = candidate_pool.open_crops(cases)
    told = bleeding.candidates
    assert sum(facts["is_ich"] for facts in told) == 1
    assert bleeding.hu.shape == bleeding.outlines.shape == (len(told), 5, 128, 128)
    place = [facts["is_ich"] for facts in told].index(True)
    crop = bleeding.crop(place)
    assert np.median(crop.hu[crop.outline]) == pytest.approx(62, abs=3)
    written = (out / cases[0].folder.name / "hu.npy").stat().st_mtime_ns
    assert candidate_pool.fill([scans], out) == 0
    assert (out / cases[0].folder.name / "hu.npy").stat().st_mtime_ns == written
    with pytest.raises(UsageError, match="candidate_pool"):
        candidate_pool.open_crops(open_cache(scans))
    assert candidate_pool.main([str(tmp_path / "nothing"), "--out", str(out)]) == 2
