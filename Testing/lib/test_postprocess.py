"""Candidate rules and proposed boxes on a stack made by hand, with numbers that can be counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ICHAnalysisLib.config.analyze import CandidateModel, FusionConfig, PostprocessConfig, ProposalConfig
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.postprocess import clean_ivh, find_candidates, find_evidence, keep_candidates, native_labels
from ICHAnalysisLib.preprocess import SliceStack
from ICHAnalysisLib.prompts import SlicePrompts
from ICHAnalysisLib.proposals import propose_boxes
from ICHAnalysisLib.segmentation_session import obey_points, within_boxes, without_negatives, without_regions
from ICHAnalysisLib.stages import fused_presence

RULES = PostprocessConfig()
MODEL = CandidateModel(*[0.0] * 10)
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
    return find_candidates(probability, stack, presence, brain, RULES, kwargs.pop("model", MODEL), **kwargs)


def test_the_model_weighs_what_was_measured(stack):
    brain = np.zeros(stack.hu.shape, bool)
    brain[:, 8:56, 8:56] = True
    place = (slice(1, 5), slice(10, 54), slice(8, 16))  # 8 mm thick along the inner table: 7 mL
    probability = blob(np.zeros(stack.hu.shape, np.float32), *place, 0.95)
    ivh = blob(np.zeros(stack.hu.shape, np.float32), *place, 0.25)
    blob(stack.hu, *place, 65.0)
    weights = tuple(float(n) for n in range(1, 11))
    blood = np.full(stack.hu.shape, 0.99, np.float32)
    blood[1:5, 10:54, 8:16] = 0.1
    blood[2, 20:28, 8:16] = 0.39  # one cell of the volume net
    seen = {"brain": brain, "ivh": ivh, "blood": blood}
    _, (found,) = candidates_of(stack, probability, **seen, model=CandidateModel(*weights))
    volume = np.log(4 * 44 * 8 * 5 / 1000)
    # Brain begins 2 pixels above the first row and at the first column: the last columns but two lie 6 mm from it.
    near = 1 - (44 - 2 * 3) * 3 / (44 * 8)
    assert found.facts.near_skull == pytest.approx(near)
    terms = (volume, np.log(0.05), np.log(9.0), 0.25, near, near * volume, np.log(20.0), np.log(4.0), 0.0)
    expected = 1 + sum(weight * term for weight, term in zip(weights[1:], terms, strict=True))
    small = CandidateModel(*(value / 100 for value in weights))
    _, (scaled,) = candidates_of(stack, probability, **seen, model=small)
    assert scaled.log_odds == pytest.approx(expected / 100, rel=1e-4)
    for nothing in (None, np.full(stack.hu.shape, np.nan, np.float32)):  # its weight is 9 / 100
        _, (unknown,) = candidates_of(stack, probability, **{**seen, "blood": nothing}, model=small)
        assert scaled.log_odds - unknown.log_odds == pytest.approx(0.09 * np.log(4.0), rel=1e-3)
    assert found.log_odds == 6.0 and found.probability == pytest.approx(1 / (1 + np.exp(-6.0)))


def test_the_judge_is_asked_about_what_no_rule_refuses(stack):
    probability = blob(np.zeros(stack.hu.shape, np.float32), slice(2, 4), slice(20, 30), slice(20, 30), 0.95)
    blob(probability, slice(0, 2), slice(40, 50), slice(40, 50), 0.95)
    blob(probability, slice(4, 6), slice(50, 60), slice(10, 20), 0.95)
    blob(stack.hu, slice(2, 4), slice(20, 30), slice(20, 30), 60.0)
    blob(stack.hu, slice(0, 2), slice(40, 50), slice(40, 50), 300.0)  # calcified
    blob(stack.hu, slice(4, 6), slice(50, 60), slice(10, 20), 60.0)
    asked = []

    def judge(components, found):
        asked.extend(found)
        assert all((components[box] == label).any() for label, box in found)
        return np.array([3.0, -4.0])

    _, found = candidates_of(stack, probability, model=replace(MODEL, intercept=0.5, appearance=1.0), judge=judge)
    assert [box[0].start for _, box in asked] == [2, 4]  # from below: the calcified one is the first, and not asked
    by_slice = {c.slices[0]: c for c in found}
    assert by_slice[2].log_odds == pytest.approx(3.5) and by_slice[2].kept
    assert by_slice[4].log_odds == pytest.approx(-3.5) and not by_slice[4].kept
    assert by_slice[0].facts.appearance == 0.0 and "calcification" in by_slice[0].reason


def test_evidence_is_the_likeliest_candidate_s(stack):
    probability = blob(np.zeros(stack.hu.shape, np.float32), slice(2, 4), slice(20, 30), slice(20, 30), 0.95)
    blob(probability, slice(0, 2), slice(40, 44), slice(40, 44), 0.95)
    blob(stack.hu, slice(0, 4), slice(20, 44), slice(20, 44), 60.0)
    larger_is_likelier = replace(MODEL, log_volume=1.0)
    _, found = candidates_of(stack, probability, model=larger_is_likelier)
    volumes = [candidate.volume_ml for candidate in found]
    assert sorted(volumes) == pytest.approx([0.16, 1.0])
    assert find_evidence(found) == pytest.approx(0.0, abs=1e-6)  # log of 1 mL
    assert [c.kept for c in found] == [c.volume_ml > 0.5 for c in found]  # log odds of 0.16 mL: -1.8, below 0.3
    unlikely = next(c for c in found if not c.kept)
    assert "something else" in unlikely.reason
    assert find_evidence([unlikely]) == pytest.approx(np.log(0.16))  # what is not shown still is evidence
    assert find_evidence([]) == -6.0
    refused = candidates_of(stack, np.where(probability > 0, 0.6, 0.0).astype(np.float32))[1]
    assert find_evidence(refused) == -6.0  # a hard rule leaves none


def test_volume_and_means_of_a_candidate_are_counted(stack):
    probability = blob(np.zeros(stack.hu.shape, np.float32), slice(2, 4), slice(20, 30), slice(20, 30), 0.95)
    blob(stack.hu, slice(2, 4), slice(20, 30), slice(20, 30), 60.0)
    _, (candidate,) = candidates_of(stack, probability)
    assert candidate.volume_ml == pytest.approx(2 * 100 * 5.0 / 1000)
    assert candidate.mean_hu == pytest.approx(60.0)
    assert candidate.slices == (2, 3)
    assert candidate.kept
    assert candidate.facts.mean_probability == pytest.approx(0.95) and candidate.facts.height_mm == 10.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hu": 150.0}, "calcification"),
        ({"hu": 20.0}, "too low for blood"),
        ({"value": 0.6}, "never reaches"),
        ({"width": 2}, "smaller than"),
        ({"brain": False}, "outside the brain"),
        ({"model": replace(MODEL, intercept=-2.0)}, "something else"),
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
    model = change.get("model", MODEL)
    components, (candidate,) = candidates_of(stack, probability, brain, first=first, model=model)
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
    above = np.array([[4, -20, 11, -9]], np.float32)
    assert not within_boxes(probability, SlicePrompts(above, none, np.zeros(0, np.int64))).any()


def test_presence_rises_with_either_network():
    fusion = FusionConfig(slice_logit=1.0, lesion_evidence=1.0, intercept=0.0)
    nothing = 1 / (1 + np.exp(6.0))
    assert fused_presence(0.5, [], fusion) == pytest.approx(nothing)
    assert fused_presence(0.9, [], fusion) == pytest.approx(9 * np.exp(-6.0) / (1 + 9 * np.exp(-6.0)))


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
