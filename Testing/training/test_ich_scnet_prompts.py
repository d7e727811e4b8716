"""Simulated prompts mean what the user would mean by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ICHAnalysisLib.clinical import ClinicalRecord
from Training.data.cache import ICH, IVH
from Training.data.prompt_simulation import PromptSimulationConfig, jittered_box, simulate_prompts
from Training.data.prompted_slices import drop_fields, with_lesion

SIZE = 96
ALWAYS = PromptSimulationConfig(none=0.0, mask=0.0, empty_none=0.0)


def slice_with_two_clots() -> tuple[np.ndarray, np.ndarray]:
    """Two clots, ventricular blood, and two dense patches that are none."""
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[20:30, 20:34] = ICH
    labels[60:66, 60:64] = ICH
    labels[40:46, 44:52] = IVH
    hu = np.full((SIZE, SIZE), 30.0, np.float32)
    hu[labels > 0] = 65
    hu[70:76, 20:28] = 70
    hu[10:14, 70:76] = 60
    return labels, hu


def draws(cfg: PromptSimulationConfig, count: int = 200):
    labels, hu = slice_with_two_clots()
    for seed in range(count):
        yield labels, hu, *simulate_prompts(labels, hu, np.random.default_rng(seed), cfg)


def inside(prompts, y: int, x: int) -> bool:
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in prompts.boxes)


def covered(prompts) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    for x0, y0, x1, y1 in np.round(prompts.boxes).astype(int):
        mask[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = True
    return mask


def test_the_share_without_prompts_is_as_set() -> None:
    bare = [len(p.boxes) + len(p.points) == 0 for *_, p in draws(PromptSimulationConfig(mask=0.0), 600)]
    assert np.mean(bare) == pytest.approx(0.45, abs=0.06)


def test_without_prompts_everything_is_the_target() -> None:
    for labels, _, target, prompts in draws(replace(ALWAYS, none=1.0), 10):
        assert np.array_equal(target, labels) and not len(prompts.boxes) and not len(prompts.points)


def test_boxes_keep_whole_the_clots_they_hold_and_drop_the_others() -> None:
    seen = set()
    for labels, _, target, prompts in draws(replace(ALWAYS, box=1.0, point=0.0)):
        assert len(prompts.boxes)
        for region in (np.s_[20:30, 20:34], np.s_[60:66, 60:64]):
            kept = (target[region] == ICH).all()
            assert kept or (target[region] == 0).all()
            assert kept == (covered(prompts)[region].mean() >= 0.5)
            seen.add(kept)
        assert (target[labels == IVH] == IVH).all()
        assert ((target == ICH) <= (labels == ICH)).all()
    assert seen == {True, False}


def test_a_negative_point_on_a_clot_removes_all_of_it() -> None:
    removed = 0
    for labels, _, target, prompts in draws(replace(ALWAYS, box=0.0, point=1.0, adopt=0.0)):
        for (x, y), sign in zip(prompts.points.astype(int), prompts.point_labels):
            if sign == 0 and labels[y, x]:
                removed += 1
                region = np.s_[20:30, 20:34] if y < 35 else (np.s_[60:66, 60:64] if y > 55 else np.s_[40:46, 44:52])
                assert (target[region] == 0).all()
            if sign == 0:
                assert target[y, x] == 0
    assert removed > 20


def test_a_positive_point_is_always_on_target_and_can_add_tissue() -> None:
    added = 0
    for labels, hu, target, prompts in draws(replace(ALWAYS, box=0.5, point=1.0)):
        for (x, y), sign in zip(prompts.points.astype(int), prompts.point_labels):
            if sign == 1:
                assert target[y, x] == ICH
                added += labels[y, x] == 0
        new = (target == ICH) & (labels != ICH)
        assert (hu[new] > 45).all()
    assert added > 20


def test_a_point_adds_a_clot_that_no_box_holds() -> None:
    found = 0
    for _, _, target, prompts in draws(replace(ALWAYS, box=1.0, point=1.0, adopt=0.0, all_boxed=0.0), 300):
        for (x, y), sign in zip(prompts.points.astype(int), prompts.point_labels):
            if sign == 1 and not inside(prompts, y, x):
                assert target[y, x] == ICH
                found += 1
    assert found > 5


def test_slices_without_a_clot_get_prompts_that_find_nothing() -> None:
    labels, hu = np.zeros((SIZE, SIZE), np.uint8), np.full((SIZE, SIZE), 30.0, np.float32)
    boxes = 0
    for seed in range(100):
        target, prompts = simulate_prompts(labels, hu, np.random.default_rng(seed), ALWAYS)
        assert not target.any()
        assert (prompts.point_labels == 0).all()
        boxes += len(prompts.boxes)
    assert 5 < boxes < 40


def test_draws_follow_the_generator_alone_and_leave_the_labels() -> None:
    labels, hu = slice_with_two_clots()
    kept = labels.copy()
    first, second = (simulate_prompts(labels, hu, np.random.default_rng(3), ALWAYS) for _ in range(2))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1].points, second[1].points)
    assert np.array_equal(labels, kept)


def test_jitter_stays_within_its_share() -> None:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10:50, 20:80] = True
    boxes = np.array([jittered_box(mask, np.random.default_rng(seed), 0.05) for seed in range(200)])
    change = np.abs(boxes - [20, 10, 79, 49])
    assert (change[:, [0, 2]] <= 3.0 + 1e-5).all() and (change[:, [1, 3]] <= 2.0 + 1e-5).all()
    assert change.max() > 2.5


def test_loose_boxes_hold_their_clot_and_are_up_to_so_much_larger() -> None:
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[40:60, 30:60] = ICH
    config = replace(ALWAYS, box=1.0, point=0.0, mask=0.0, jitter=0.0, wild=0.0, loose=1.0, loose_factor=2.5)
    sides = []
    for seed in range(100):
        target, prompts = simulate_prompts(labels, np.zeros((SIZE, SIZE)), np.random.default_rng(seed), config)
        (x0, y0, x1, y1) = prompts.boxes[0]
        assert x0 <= 31 and y0 <= 41 and x1 >= 58 and y1 >= 58 and (target == labels).all()
        sides.append([(x1 - x0 + 1) / 30, (y1 - y0 + 1) / 20])
    found = np.array(sides)
    assert found.max() < 2.75 and found.max() > 2.0 and found.min() < 1.2
    assert np.log(found).mean() == pytest.approx(np.log(2.5) / 2, abs=0.12)


def test_fields_of_the_record_are_dropped_and_the_volume_is_as_if_predicted() -> None:
    """Decision S31: each field unknown with probability 0.3; the reference's volume only with an error of 15 %."""
    record = ClinicalRecord(age=70, sex="male", gcs=9, onset_to_ct_h=3.0)
    drawn = [drop_fields(record, np.random.default_rng(seed)).to_dict() for seed in range(600)]
    for name in ("age", "sex", "gcs", "onset_to_ct_h"):
        assert np.mean([name not in kept for kept in drawn]) == pytest.approx(0.3, abs=0.06)
    item = {"volume_ml": 20.0, "location": 1}
    seen = [with_lesion(record, item, np.random.default_rng(seed)) for seed in range(400)]
    assert np.std(np.log([r.volume_ml / 20 for r in seen])) == pytest.approx(0.15, abs=0.02)
    assert {r.location for r in seen} == {"lobar"}
    told = ClinicalRecord(text="found at home")
    assert with_lesion(told, item, np.random.default_rng(0)) is told
    assert with_lesion(record, {"volume_ml": 0.0, "location": -1}, np.random.default_rng(0)) is record
