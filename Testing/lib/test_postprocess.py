"""Candidate rules and proposed boxes on a stack made by hand, with numbers that can be counted."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.config.analyze import FusionConfig, PostprocessConfig, ProposalConfig
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.postprocess import clean_ivh, find_candidates, keep_candidates, native_labels
from ICHAnalysisLib.preprocess import SliceStack
from ICHAnalysisLib.prompts import SlicePrompts
from ICHAnalysisLib.proposals import propose_boxes
from ICHAnalysisLib.segmentation_session import obey_points, within_boxes, without_negatives, without_regions
from ICHAnalysisLib.stages import fused_presence

RULES = PostprocessConfig()
SIZE, SLICES = 64, 6


@pytest.fixture
def stack() -> SliceStack:
    """Six slices of 5 mm, 1 mm pixels, brain of 35 HU; the acquired grid is the stack's own."""
    hu = np.full((SLICES, SIZE, SIZE), 35.0, np.float32)
    affine = np.diag([-1.0, -1.0, 5.0, 1.0])
    volume = CTVolume.from_affine(hu, affine)
    return SliceStack(
        hu,
        5.0 * np.arange(SLICES),
        np.full(SLICES, 5.0),
        tuple(np.array([k]) for k in range(SLICES)),
        (1.0, 1.0),
        np.zeros(2),
        np.eye(2),
        volume,
        np.ones(hu.shape, bool),
    )


def blob(values: np.ndarray, k: slice, y: slice, x: slice, value: float) -> np.ndarray:
    values[k, y, x] = value
    return values


def candidates_of(stack, probability, brain=None, presence=None, **kwargs):
    brain = np.ones(stack.hu.shape, bool) if brain is None else brain
    presence = np.full(SLICES, 0.9) if presence is None else presence
    return find_candidates(probability, stack, presence, brain, RULES, **kwargs)


def test_a_flat_candidate_is_no_clot(stack):
    probability = blob(np.zeros(stack.hu.shape, np.float32), slice(2, 3), slice(16, 40), slice(16, 40), 0.95)
    blob(stack.hu, slice(2, 3), slice(16, 40), slice(16, 40), 60.0)
    _, (flat,) = candidates_of(stack, probability)  # 5 mm high, a section of 576 mm2: 27 mm across
    assert not flat.kept and "flat" in flat.reason
    blob(probability, slice(3, 4), slice(16, 40), slice(16, 40), 0.95)
    blob(stack.hu, slice(3, 4), slice(16, 40), slice(16, 40), 60.0)
    _, (tall,) = candidates_of(stack, probability)
    assert tall.kept


def test_a_large_candidate_along_the_skull_is_outside_the_brain(stack):
    brain = np.zeros(stack.hu.shape, bool)
    brain[:, 8:56, 8:56] = True
    collection = (slice(1, 5), slice(10, 54), slice(8, 16))  # 8 mm thick along the inner table: 7 mL
    probability = blob(np.zeros(stack.hu.shape, np.float32), *collection, 0.95)
    blob(stack.hu, *collection, 65.0)
    _, (along,) = candidates_of(stack, probability, brain=brain)
    assert along.volume_ml == pytest.approx(4 * 44 * 8 * 5 / 1000)
    assert not along.kept and "skull" in along.reason
    small = blob(np.zeros(stack.hu.shape, np.float32), slice(1, 4), slice(30, 40), slice(8, 16), 0.95)
    _, (superficial,) = candidates_of(stack, small, brain=brain)
    assert superficial.volume_ml < 5 and superficial.kept


def test_volume_and_means_of_a_candidate_are_counted(stack):
    probability = blob(np.zeros(stack.hu.shape, np.float32), slice(2, 4), slice(20, 30), slice(20, 30), 0.95)
    blob(stack.hu, slice(2, 4), slice(20, 30), slice(20, 30), 60.0)
    _, (candidate,) = candidates_of(stack, probability)
    assert candidate.volume_ml == pytest.approx(2 * 100 * 5.0 / 1000)
    assert candidate.mean_hu == pytest.approx(60.0)
    assert candidate.slices == (2, 3)
    assert candidate.kept
    assert candidate.evidence == pytest.approx(np.log1p(10.0) * 0.95, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hu": 150.0}, "calcification"),
        ({"hu": 20.0}, "too low for blood"),
        ({"value": 0.6}, "never reaches"),
        ({"width": 2}, "smaller than"),
        ({"brain": False}, "outside the brain"),
        ({"presence": 0.0}, "DTViT"),
        ({"first": 0.1}, "never reaches"),
    ],
)
def test_each_rule_refuses_with_its_reason(stack, change, said):
    width = change.get("width", 10)
    place = (slice(2, 4), slice(20, 20 + width), slice(20, 20 + width))
    probability = blob(np.zeros(stack.hu.shape, np.float32), *place, change.get("value", 0.95))
    blob(stack.hu, *place, change.get("hu", 60.0))
    first = None if "first" not in change else np.full(stack.hu.shape, change["first"], np.float32)
    brain = np.full(stack.hu.shape, change.get("brain", True))
    presence = np.full(SLICES, change.get("presence", 0.9))
    components, (candidate,) = candidates_of(stack, probability, brain, presence, first=first)
    assert not candidate.kept
    assert said in candidate.reason
    assert not keep_candidates(components, [candidate]).any()


def test_kept_region_grows_but_spares_refused_neighbors(stack):
    probability = blob(np.zeros(stack.hu.shape, np.float32), slice(2, 4), slice(20, 30), slice(20, 30), 0.95)
    blob(probability, slice(2, 4), slice(20, 30), slice(32, 42), 0.6)  # never reaches the seed threshold
    blob(stack.hu, slice(2, 4), slice(20, 30), slice(20, 42), 60.0)
    components, candidates = candidates_of(stack, probability)
    kept = keep_candidates(components, candidates)
    assert kept[2, 25, 31]
    assert not kept[2, 25, 33]


def test_labels_take_the_likelier_class_and_isolated_ivh_is_left_out(stack):
    ich = blob(np.zeros(stack.hu.shape, np.float32), slice(2, 4), slice(20, 30), slice(20, 30), 0.8)
    ivh = blob(np.zeros(stack.hu.shape, np.float32), slice(2, 4), slice(20, 30), slice(25, 35), 0.9)
    labels, _ = native_labels(ich, clean_ivh(ivh, ich > 0.5, stack, RULES), stack, RULES)
    assert np.count_nonzero(labels == 1) == 100
    assert np.count_nonzero(labels == 2) == 200
    assert not clean_ivh(ivh, np.zeros(ich.shape, bool), stack, RULES).any()


def test_box_is_proposed_around_the_dense_region_that_the_answer_touches(stack):
    first = blob(np.zeros(stack.hu.shape, np.float32), slice(2, 3), slice(24, 28), slice(24, 28), 0.9)
    blob(stack.hu, slice(2, 3), slice(20, 36), slice(20, 40), 65.0)
    blob(stack.hu, slice(2, 3), slice(50, 60), slice(50, 60), 65.0)  # as dense, but the answer says nothing there
    brain = np.ones(stack.hu.shape, bool)
    cfg = ProposalConfig()
    proposed = propose_boxes(first, brain, stack, cfg)
    assert proposed.boxed.tolist() == [False, False, True, False, False, False]
    (box,) = proposed.slices[2].boxes
    assert box[0] <= 21 and box[1] <= 21 and box[2] >= 38 and box[3] >= 34
    assert box[2] < 45


def test_what_lies_outside_every_box_is_removed_unless_a_point_holds_it():
    probability = np.zeros((40, 40), np.float32)
    probability[5:10, 5:10] = 0.9
    probability[25:30, 25:30] = 0.9
    boxes = np.array([[4, 4, 11, 11]], np.float32)
    none, one = np.zeros((0, 2), np.float32), np.array([[27.0, 27.0]], np.float32)
    alone = within_boxes(probability, SlicePrompts(boxes, none, np.zeros(0, np.int64)))
    held = within_boxes(probability, SlicePrompts(boxes, one, np.array([1])))
    assert np.count_nonzero(alone) == 25
    assert np.count_nonzero(held) == 50


def test_presence_rises_with_either_network():
    fusion = FusionConfig(slice_logit=1.0, lesion_evidence=1.0, intercept=0.0)
    assert fused_presence(0.5, [], fusion) == pytest.approx(0.5)
    assert fused_presence(0.9, [], fusion) == pytest.approx(0.9)


def test_points_are_obeyed_where_the_network_did_not():
    hu = np.full((60, 60), 35.0, np.float32)
    hu[10:20, 10:20] = hu[30:40, 30:40] = 62.0
    probability = np.zeros((60, 60), np.float32)
    probability[10:20, 10:20] = 0.9
    points = np.array([[35.0, 35.0], [15.0, 15.0]], np.float32)
    given = SlicePrompts(np.zeros((0, 4), np.float32), points, np.array([1, 0]))
    found = obey_points(probability, hu, given) >= 0.5
    assert not found[10:20, 10:20].any()
    assert found[31:39, 31:39].all()
    assert np.count_nonzero(found) <= 144


def test_a_negative_point_removes_the_regions_it_lies_in_and_nothing_else():
    probability = np.zeros((40, 40), np.float32)
    probability[5:15, 5:15], probability[25:30, 25:30] = 0.9, 0.8
    points = np.array([[9.0, 9.0], [35.0, 3.0]], np.float32)
    given = SlicePrompts(np.zeros((0, 4), np.float32), points, np.array([0, 0]))
    found = without_regions(probability, given)
    assert not found[5:15, 5:15].any()
    assert np.array_equal(found[20:], probability[20:])
    kept = without_negatives(SlicePrompts(given.boxes, points, np.array([1, 0])))
    assert kept.points.tolist() == [[9.0, 9.0]] and kept.point_labels.tolist() == [1]
