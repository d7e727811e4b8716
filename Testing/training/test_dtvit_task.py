"""DTViT's losses and task: masks of what is unknown, a few steps that learn, calibration on validation alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cached_heads import PREPROCESS, make_cache

from ICHAnalysisLib.config.dtvit import DTViTConfig
from ICHAnalysisLib.config.preprocess import LOCATIONS
from ICHAnalysisLib.errors import WeightsError
from Training.config import config_from_dict, load_config
from Training.data.augment import AugmentConfig
from Training.data.datasets import SliceDataset
from Training.losses.dtvit import dtvit_losses, fraction_loss
from Training.tasks.base import build_task, total_loss
from Training.tasks.dtvit import DTViTTask, patch_fraction


def make_task(**options: object) -> DTViTTask:
    return build_task(
        config_from_dict({"task": {"name": "dtvit", "preset": "tiny", "options": {"augment": None, **options}}})
    )


def test_locations_of_bloodless_slices_teach_nothing() -> None:
    output = {
        "presence_logits": torch.zeros(3, requires_grad=True),
        "location_logits": torch.zeros(3, 3, requires_grad=True),
    }
    losses = dtvit_losses(output, torch.tensor([1, 0, -1]), torch.tensor([2, -1, -1]), torch.zeros(3, 1, 1))
    total_loss(losses).backward()
    location, presence = output["location_logits"].grad, output["presence_logits"].grad
    assert location[0].tolist() == pytest.approx([1 / 3, 1 / 3, -2 / 3])
    assert location[1:].abs().sum() == 0
    assert presence.tolist() == pytest.approx([-0.25, 0.25, 0.0])
    assert float(losses["presence_loss"]) == pytest.approx(np.log(2))
    assert float(losses["location_loss"]) == pytest.approx(np.log(3))


def test_a_batch_without_any_label_gives_zero_and_finite_gradients() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    losses = dtvit_losses(
        {"presence_logits": torch.zeros(2, requires_grad=True), "location_logits": logits},
        torch.tensor([-1, -1]),
        torch.tensor([-1, -1]),
        torch.zeros(2, 1, 1),
    )
    total = total_loss(losses)
    total.backward()
    assert float(total) == 0.0
    assert torch.isfinite(logits.grad).all()


def test_fraction_loss_is_least_at_the_true_fraction() -> None:
    target = torch.full((1, 4, 4), 0.3)
    logits = torch.linspace(-3, 2, 501)
    losses = torch.stack([fraction_loss(torch.full((1, 4, 4), float(z)), target) for z in logits])
    assert float(torch.sigmoid(logits[losses.argmin()])) == pytest.approx(0.3, abs=0.01)
    unknown = target.clone()
    unknown[0, 0] = -1
    z = torch.zeros(1, 4, 4, requires_grad=True)
    fraction_loss(z, unknown).backward()
    assert z.grad[0, 0].abs().sum() == 0 and (z.grad[0, 1:] != 0).all()


def test_patch_fraction_counts_ich_alone() -> None:
    labels = torch.zeros(1, 32, 32, dtype=torch.uint8)
    labels[0, :16, :8] = 1
    labels[0, :16, 16:] = 2
    labels[0, 20, 20] = 255
    assert patch_fraction(labels, (2, 2)).tolist() == [[[0.5, 0.0], [0.0, -1.0]]]


def test_the_task_learns_its_cache(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = make_task()
    cases = make_cache(tmp_path, 6)
    dataset = task.build_dataset(cases, "train")
    batch = task.collate([dataset[n] for n in range(len(dataset))])
    model = task.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    history = []
    for _ in range(60):
        losses = task.losses(model, batch, 0)
        optimizer.zero_grad()
        total_loss(losses).backward()
        optimizer.step()
        history.append({key: float(value) for key, value in losses.items()})
    assert set(history[0]) == {"presence_loss", "location_loss", "patch_loss", "presence_accuracy"}
    assert history[-1]["presence_accuracy"] > 0.85
    assert history[-1]["presence_loss"] < 0.5 * history[0]["presence_loss"]
    assert history[-1]["patch_loss"] < 0.7 * history[0]["patch_loss"]
    model.eval()
    with torch.no_grad():
        rows = task.predict(model, batch)
    metrics = task.metrics([{**row, "split": "val"} for row in rows])
    assert metrics["slice_auc"] > 0.95
    assert metrics[task.monitor] > 0.5


def row(case: str, s: int, logit: float, has: int, place: int, case_has: int, split: str = "test") -> dict:
    logits = {f"logit_{name}": 3.0 * (n == place) for n, name in enumerate(LOCATIONS)}
    return {
        "case_id": case, "slice_index": s, "split": split, "has_ich": has, "case_has_ich": case_has,
        "location": place if has == 1 else -1, "case_location": place if case_has else -1, "ich_mm2": 50.0 * has,
        "presence_logit": logit, **logits,
    }  # fmt: skip


def test_scans_are_decided_by_their_highest_slices() -> None:
    task = make_task()
    rows = [row("a", s, z, int(z > 0), 1, 1) for s, z in enumerate([4.0, 4.0, 4.0, -4.0, -4.0])]
    rows += [row("b", s, -3.0, 0, 0, 0) for s in range(4)]
    scans = {item["case_id"]: item for item in task.case_rows(rows)}
    assert scans["a"]["probability"] == pytest.approx(1 / (1 + np.exp(-4.0)))
    assert scans["a"]["location_label"] == "lobar"
    assert scans["b"]["probability"] < 0.1
    metrics = task.metrics(rows)
    assert metrics["scan_auc"] == 1.0 and metrics["scan_location_accuracy"] == 1.0
    assert task.failure_score(scans["a"]) == 0.0
    assert task.failure_score({**scans["b"], "case_has_ich": 1, "case_location": 0}) > 0.9


def test_only_validation_decides_temperature_and_threshold() -> None:
    task = make_task()
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.5
    logits = 4 * (truth + rng.normal(0, 1, 400) - 0.5)
    rows = [row(f"c{n}", 0, z, int(t), 0, int(t)) for n, (t, z) in enumerate(zip(truth, logits, strict=True))]
    task.metrics(rows)
    assert (task.temperature, task.threshold) == (1.0, 0.5)
    task.metrics([{**item, "split": "val"} for item in rows])
    assert task.temperature > 1.5
    restored = make_task()
    restored.load_state_dict(task.state_dict())
    assert restored.metrics(rows) == pytest.approx(task.metrics(rows), nan_ok=True)
    card = task.export(task.build_model()).card
    assert card["temperature"] == task.temperature
    assert card["locations"] == list(LOCATIONS)


def test_a_run_starts_from_a_published_encoder_and_only_starts(tmp_path: Path) -> None:
    """The file is read once; what was trained needs it no more, and its hash stays with the weights."""
    torch.manual_seed(0)
    source, path = make_task().build_model(), tmp_path / "vit.pth"
    state = source.encoder.state_dict()
    torch.save(state, path)
    task = make_task(encoder_checkpoint=str(path))
    task.fit_to_training_fold([])
    model = task.build_model()
    assert all(torch.equal(value, state[key]) for key, value in model.encoder.state_dict().items())
    assert task.export(model).card["encoder_file"]["file"] == "vit.pth"
    path.unlink()
    later = make_task(encoder_checkpoint=str(path))
    later.load_state_dict(task.state_dict())
    assert not torch.equal(later.build_model().encoder.cls_token, state["cls_token"])
    assert len(later.encoder_file["sha256"]) == 64
    later.fit_to_training_fold([])
    with pytest.raises(WeightsError, match="no such file"):
        later.build_model()
    torch.save({**state, "extra.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"not expected: extra\.weight"):
        later.build_model()


def test_the_paper_s_augmentation_turns_scales_and_sharpens(tmp_path: Path) -> None:
    """Decision V18, on the windowed slice: torchvision's factor of 2, its draw after all others."""
    options = load_config("dtvit/paper").task.options["augment"]
    assert options["rotation_max"] == 15 and options["sharpness"] == 0.5
    cases = make_cache(tmp_path, 2)
    plain, sharp = (
        SliceDataset(cases, PREPROCESS, augment=AugmentConfig(sharpness=share), seed=3)[2] for share in (0.0, 1.0)
    )
    assert np.array_equal(plain["hu"], sharp["hu"])
    image = np.pad(plain["image"][0], 1, mode="edge")
    shifted = [image[1 + y : 65 + y, 1 + x : 65 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    smooth = (sum(shifted) + 4 * shifted[4]) / 13
    expected = np.clip(2 * shifted[4] - smooth, 0, 1)
    np.testing.assert_allclose(sharp["image"][0, 1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-5)


def test_exported_config_rebuilds_the_network() -> None:
    from ICHAnalysisLib.config.base import from_dict, to_dict
    from ICHAnalysisLib.networks.dtvit import build_dtvit

    task = make_task()
    model = task.build_model()
    export = task.export(model)
    rebuilt = build_dtvit(from_dict(DTViTConfig, to_dict(export.config)))
    rebuilt.load_state_dict(task.export_state(model.state_dict()), strict=True)
