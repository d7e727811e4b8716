"""The outcome head trained alone: other patients for simulated hemorrhages, and nothing else that changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cached_heads import PREPROCESS, make_cache, write_head

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate.outcome import death_probability, draw_outcome, draw_record
from Training.config import config_from_dict, load_config
from Training.data.augment import AugmentConfig
from Training.data.cache import CacheCase, open_cache
from Training.data.datasets import ScanDataset, SliceDataset, case_facts
from Training.data.patients import another_patient
from Training.losses.outcome import outcome_cross_entropy
from Training.tasks.base import build_task, total_loss
from Training.tasks.ich_scnet import ICHSCNetTask

STILL = {"strength": 0.0, "new_patient": 1.0}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[CacheCase]:
    return make_cache(tmp_path_factory.mktemp("cache"), 4)


def outcome_task(**options: object) -> ICHSCNetTask:
    options = {"learns": "outcome", "augment": STILL, **options}
    return build_task(config_from_dict({"task": {"name": "ich_scnet", "preset": "tiny", "options": options}}))


def test_another_patient_has_the_hemorrhage_and_the_odds_that_go_with_it(cases: list[CacheCase]) -> None:
    case = next(case for case in cases if case.meta["location"] == "subtentorial")
    facts, rng = case_facts(case), np.random.default_rng(3)
    drawn = [another_patient(facts, case.meta, rng) for _ in range(3000)]
    kept = ("case_id", "patient_id", "location", "volume_ml", "ivh_ml", "case_has_ich")
    assert all(patient[name] == facts[name] for patient in drawn for name in kept)
    assert facts["record"] == {"age": 62}  # the case itself stays as it is
    ages = np.array([patient["record"]["age"] for patient in drawn])
    assert ages.mean() == pytest.approx(66, abs=1) and ages.std() == pytest.approx(13, abs=1)
    # Below the tentorium, 12 mL, no IVH: 1 point, 2 from 80 years on, and GCS 1 or 2 more.
    alert = [patient for patient in drawn if patient["record"]["gcs"] > 12 and patient["record"]["age"] < 80]
    assert np.mean([patient["dead_30d"] for patient in alert]) == pytest.approx(death_probability(1), abs=0.04)
    assert all(patient["gos"] == 1 and patient["mrs"] == 6 for patient in drawn if patient["dead_30d"])
    assert all(patient["poor_outcome"] == int(patient["gos"] < 4) for patient in drawn)
    for event in ("dead_30d", "poor_outcome"):
        chance = np.mean([patient[f"chance_{event}"] for patient in drawn])
        assert np.mean([patient[event] for patient in drawn]) == pytest.approx(chance, abs=0.03)


def test_a_second_hospital_keeps_its_mortality(cases: list[CacheCase]) -> None:
    facts = {**case_facts(cases[0]), "volume_ml": 40.0}
    shares = [
        np.mean(
            [
                another_patient(facts, {"simulation": {"plan": {"center": center}}}, np.random.default_rng(n))[
                    "dead_30d"
                ]
                for n in range(800)
            ]
        )
        for center in ("first", "second")
    ]
    assert shares[1] > shares[0] + 0.05


def test_real_patients_and_scans_without_blood_stay_who_they_are(tmp_path: Path) -> None:
    write_head(tmp_path, 0, synthetic=False)
    write_head(tmp_path, 1, clot=False)
    write_head(tmp_path, 2, location=None)
    rng = np.random.default_rng(0)
    for case in open_cache(tmp_path):
        facts = case_facts(case)
        assert another_patient(facts, case.meta, rng) is facts


def test_visits_meet_other_patients_on_the_same_pictures(cases: list[CacheCase]) -> None:
    known, varied = AugmentConfig(), AugmentConfig(new_patient=1.0)
    plain, data = (SliceDataset(cases, PREPROCESS, augment=cfg, seed=4) for cfg in (known, varied))
    first, second = data[2], data[2 + len(data)]
    assert first["record"] != second["record"] and first["volume_ml"] == second["volume_ml"]
    np.testing.assert_array_equal(first["hu"], plain[2]["hu"])
    assert plain[2]["record"] == cases[0].meta["record"]


def test_scans_meet_patients_of_the_volume_that_they_grew_to(tmp_path: Path) -> None:
    """Death follows the volume of the picture that is seen, not of the one it was made from."""
    write_head(tmp_path, 0, volume_ml=25.0)
    shape = PREPROCESS.__class__(spacing_mm=3.6, size=64, depth=8, slice_spacing_mm=5.0)
    grown = AugmentConfig(scale=(1.3, 1.301), geometry=1.0, elastic_px=0.0, tissue=0.0, scanner=0.0, new_patient=1.0)
    data = ScanDataset(open_cache(tmp_path), shape, augment=grown, seed=1)
    items = [data[n] for n in range(40)]
    assert min(item["volume_ml"] for item in items) > 30
    deaths = np.mean([item["dead_30d"] for item in items])
    rng = np.random.default_rng(0)
    records = [draw_record(rng, "deep", 25.0, False) for _ in range(4000)]
    small = np.mean([draw_outcome(rng, record, "deep", 25.0)["dead_30d"] for record in records])
    assert deaths > small + 0.1


def test_nothing_but_the_outcome_head_learns(cases: list[CacheCase]) -> None:
    torch.manual_seed(0)
    task = outcome_task()
    model = task.build_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = task.build_dataset(cases, "train")
    batch = task.collate([data[n] for n in range(12)])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    model.train()
    for _ in range(2):
        total_loss(task.losses(model, batch, 0)).backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    head = {name for name in before if name.startswith("classifier.")}
    assert changed and changed <= head  # running statistics of the rest included
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, _ in model.named_parameters() if name.startswith("classifier.")}
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.classifier.parameters())


def test_only_slices_with_a_hemorrhage_are_drawn(cases: list[CacheCase]) -> None:
    data = outcome_task().build_dataset(cases, "train")
    bled = np.concatenate([[(labels == 1).any() for labels in case.labels] for case in cases])
    assert bled.any() and not bled.all()
    np.testing.assert_array_equal(data.sample_weights.numpy() > 0, bled)
    everything = build_task(config_from_dict({"task": {"name": "ich_scnet", "preset": "tiny"}}))
    assert (everything.build_dataset(cases, "train").sample_weights > 0).all()
    with pytest.raises(UsageError, match="No slice of the training cases holds a hemorrhage"):
        outcome_task().build_dataset([case for case in cases if not case.meta["has_ich"]], "train")


def test_a_network_without_the_head_is_refused() -> None:
    with pytest.raises(UsageError, match="learns outcome"):
        outcome_task(comparator="unet")
    assert load_config("ich_scnet/compact_outcome").task.options["learns"] == "outcome"


def test_the_loss_of_a_chance_is_the_mean_of_its_throws() -> None:
    logits, weights = torch.randn(6, 2), torch.tensor([0.7, 1.9])
    poor, good = (outcome_cross_entropy(logits, torch.full((6,), value), weights) for value in (1.0, 0.0))
    hard = torch.nn.functional.cross_entropy(logits, torch.ones(6, dtype=torch.long), weight=weights, reduction="none")
    torch.testing.assert_close(poor, hard)
    between = outcome_cross_entropy(logits, torch.full((6,), 0.3), weights)
    torch.testing.assert_close(between, 0.3 * poor + 0.7 * good)


def test_training_reads_the_chance_and_evaluation_what_came(cases: list[CacheCase]) -> None:
    task = outcome_task()
    bled = int(np.flatnonzero([(labels == 1).any() for labels in cases[0].labels])[0])
    assert 0 < task.build_dataset(cases, "train")[bled]["outcome"] < 1
    assert task.build_dataset(cases, "val")[bled]["outcome"] == 0.0
