"""The volume net's losses and task: unknown outcomes, a few steps that learn the volume, statistics of the fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cached_heads import make_cache, write_head

from ICHAnalysisLib.interval import volume_of_size
from Training.config import config_from_dict
from Training.data.cache import open_cache
from Training.losses.volume_net import volume_net_losses
from Training.tasks.base import build_task, total_loss
from Training.tasks.volume_net import VolumeNetTask, density_fraction


def make_task(**options: object) -> VolumeNetTask:
    return build_task(
        config_from_dict(
            {
                "task": {"name": "volume_net", "preset": "tiny", "options": {"augment": None, **options}},
                "preprocess": {"spacing_mm": 7.2, "size": 32, "depth": 16, "slice_spacing_mm": 5.0},
            }
        )
    )


def test_losses_by_hand() -> None:
    output = {"size_mm": torch.tensor([30.0, 20.0]), "outcome_logits": torch.zeros(2, 2)}
    losses = volume_net_losses(
        output, torch.tensor([25.0, float("nan")]), torch.tensor([-1, 1]), torch.zeros(2, 1, 1, 1), size_sd=10.0
    )
    assert float(losses["size_loss"]) == pytest.approx(0.25)
    assert float(losses["outcome_loss"]) == pytest.approx(np.log(2))
    assert "density_loss" not in losses
    weighted = volume_net_losses(
        output,
        torch.tensor([25.0, 25.0]),
        torch.tensor([0, 1]),
        torch.zeros(2, 1, 1, 1),
        size_sd=10.0,
        outcome_class_weights=torch.tensor([1.0, 3.0]),
    )
    assert float(weighted["outcome_loss"]) == pytest.approx(2 * np.log(2))  # mean over cases of weight times loss


def test_losses_with_learned_variances_by_hand() -> None:
    """Decision R10: exp(-v) / 2 x 0.25 + v / 2 with v = ln 2 for the size, exp(-v) x ln 2 + v / 2 for the outcome."""
    v = torch.tensor([np.log(2), np.log(4)], requires_grad=True)
    output = {"size_mm": torch.tensor([30.0]), "outcome_logits": torch.zeros(1, 2), "log_variances": v}
    arguments = (output, torch.tensor([25.0]), torch.tensor([1]), torch.zeros(1, 1, 1, 1))
    losses = volume_net_losses(*arguments, size_sd=10.0)
    assert losses["size_loss"].item() == pytest.approx(0.5 * (0.25 / 2 + np.log(2)))
    assert losses["outcome_loss"].item() == pytest.approx(np.log(2) / 4 + 0.5 * np.log(4))
    volume_net_losses(*arguments, size_sd=10.0, outcome_weight=0.0)["outcome_loss"].backward()
    assert v.grad.tolist() == [0.0, 0.0]


def test_the_first_epochs_may_teach_the_size_alone(tmp_path: Path) -> None:
    """Decision R11."""
    task = make_task(regression_epochs=2)
    cases = make_cache(tmp_path, 2)
    dataset = task.build_dataset(cases, "train")
    batch, model = task.collate([dataset[n] for n in range(2)]), task.build_model()
    with torch.no_grad():
        early, late = task.losses(model, batch, 1), task.losses(model, batch, 2)
    assert float(early["outcome_loss"]) == 0 and float(late["outcome_loss"]) > 0.1
    assert float(early["size_loss"]) > 0 and set(early) == set(late)


def test_volumes_can_be_corrected_for_the_cube(tmp_path: Path) -> None:
    """Decision R5: sizes off by a spread of 4 mm give volumes that are right on average."""
    rng = np.random.default_rng(0)
    sizes = rng.uniform(20, 40, 4000)
    rows = [entry(f"c{n}", (s + rng.normal(0, 4)) ** 3 / 1000, s, -1, 0.0, "val") for n, s in enumerate(sizes)]
    task = make_task(bias_correction=True)
    task.metrics(rows)
    assert task.error_sd_mm == pytest.approx(4, abs=0.15)
    true = np.mean([row["volume_ml"] for row in rows])
    plain, corrected = volume_of_size(sizes).mean(), volume_of_size(sizes, task.error_sd_mm).mean()
    assert plain < true - 1 and corrected == pytest.approx(true, abs=0.5)
    assert task.export(task.build_model()).card["error_sd_mm"] == task.error_sd_mm
    restored = make_task(bias_correction=True)
    restored.load_state_dict(task.state_dict())
    dataset = restored.build_dataset(make_cache(tmp_path, 1), "test")
    with torch.no_grad():
        (row,) = restored.predict(restored.build_model().eval(), restored.collate([dataset[0]]))
    assert row["predicted_ml"] == pytest.approx(float(volume_of_size(row["size_mm"], task.error_sd_mm)))
    off = make_task()
    off.metrics(rows)
    assert off.error_sd_mm == 0 and "error_sd_mm" not in off.export(off.build_model()).card


def test_batch_norm_on_few_scans_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Decision R17."""
    for norm, expected in (("group", False), ("batch", True)):
        caplog.clear()
        build_task(
            config_from_dict(
                {
                    "task": {"name": "volume_net", "preset": "tiny", "network": {"norm": norm}},
                    "loop": {"micro_batch_size": 2},
                }
            )
        )
        assert ("norm=group" in caplog.text) == expected


def test_density_counts_ich_alone() -> None:
    labels = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    labels[0, :2, :4, :4] = 1
    labels[0, :2, 4:, 4:] = 2
    labels[0, 3, 7, 7] = 255
    fraction = density_fraction(labels, (2, 2, 2))
    assert fraction[0, 0].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert fraction[0, 1].tolist() == [[0.0, 0.0], [0.0, -1.0]]


def test_the_task_learns_the_volumes_of_its_cache(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = make_task()
    cases = make_cache(tmp_path, 4)
    task.fit_to_training_fold(cases)
    dataset = task.build_dataset(cases, "train")
    batch = task.collate([dataset[n] for n in range(len(dataset))])
    model = task.build_model()
    assert float(model.target_sd) == pytest.approx(task.target_sd)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)  # 1e-2 learns on some processors only
    first = last = {}
    for _ in range(120):
        losses = task.losses(model, batch, 0)
        optimizer.zero_grad()
        total_loss(losses).backward()
        optimizer.step()
        last = {key: float(value.detach()) for key, value in losses.items()}
        first = first or last
    assert set(last) == {"size_loss", "outcome_loss", "density_loss", "scan_mae_ml", "scan_mse_ml2"}
    assert last["scan_mae_ml"] < 0.5 * first["scan_mae_ml"]
    assert last["density_loss"] < 0.5 * first["density_loss"]
    assert last["size_loss"] < 0.3 * first["size_loss"]
    model.eval()
    with torch.no_grad():
        rows = task.predict(model, batch)
    assert [entry["volume_ml"] for entry in rows] == [12.0, 12.0, 12.0, 0.0]
    assert task.metrics(rows)["mae_ml"] < 8


def test_statistics_come_from_the_training_fold(tmp_path: Path) -> None:
    for number, (volume, poor) in enumerate([(8.0, 0), (27.0, 0), (64.0, 0), (1.0, 1), (30.0, None)]):
        write_head(tmp_path, number, volume_ml=volume, outcome={"poor_outcome": poor})
    task = make_task()
    task.fit_to_training_fold(open_cache(tmp_path))
    sizes = np.cbrt(1000 * np.array([8, 27, 64, 1, 30]))
    assert task.target_mean == pytest.approx(sizes.mean())
    assert task.target_sd == pytest.approx(sizes.std())
    assert task.class_weights == pytest.approx([4 / 6, 4 / 2])
    restored = make_task()
    restored.load_state_dict(task.state_dict())
    assert restored.state_dict() == task.state_dict()


def entry(case: str, true_ml: float, size_mm: float, outcome: int, logit: float, split: str = "test") -> dict:
    return {
        "case_id": case, "split": split, "case_has_ich": int(true_ml > 0), "volume_ml": true_ml, "size_mm": size_mm,
        "predicted_ml": size_mm**3 / 1000, "outcome": outcome, "outcome_logit": logit,
    }  # fmt: skip


def test_metrics_by_hand() -> None:
    task = make_task()
    rows = [entry("a", 27.0, 20.0, 0, -1.0), entry("b", 0.5, 10.0, 1, 2.0), entry("c", 0.0, 10.0, -1, 0.0)]
    found = task.metrics(rows)
    assert found["mae_ml"] == pytest.approx((19 + 0.5) / 2)
    assert found["mse_ml2"] == pytest.approx((19**2 + 0.25) / 2)
    assert found["mape_percent"] == pytest.approx(100 * 19 / 27)  # 0.5 mL is left out
    assert found["no_blood_ml"] == pytest.approx(1.0)
    assert found["outcome_auc"] == 1.0 and found["outcome_accuracy"] == 1.0
    assert found["outcome_commoner"] == 0.5
    three_good = [entry(f"g{n}", 5.0, 15.0, 0, -1.0) for n in range(3)]
    assert task.metrics([*rows, *three_good])["outcome_commoner"] == pytest.approx(4 / 5)
    assert task.bands is None
    apart = [*rows[:2], entry("c", 0.0, 9.0, -1, 0.0)]  # 9 mm off and not 10 as "a", whose root is not exact
    worst = max(task.case_rows(apart), key=task.failure_score)
    assert worst["case_id"] == "a"


def test_validation_fits_bands_and_temperature() -> None:
    task = make_task()
    rng = np.random.default_rng(0)
    sizes = rng.uniform(10, 45, 60)
    rows = [
        entry(f"c{n}", (s + rng.normal(0, 1)) ** 3 / 1000, s, int(rng.random() < 0.5), float(rng.normal()), "val")
        for n, s in enumerate(sizes)
    ]
    task.metrics(rows)
    assert task.bands is not None and task.bands.cases == 60
    assert -4 < task.bands.lower[0] < -0.5 and 0.5 < task.bands.upper[0] < 4
    restored = make_task()
    restored.load_state_dict(task.state_dict())
    assert restored.bands == task.bands
    assert task.export(task.build_model()).card["bands"]["cases"] == 60
