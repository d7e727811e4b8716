"""Prompts: parsing, validation against a scan, projection onto slices, padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ICHAnalysisLib.config.preprocess import PreprocessConfig
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.preprocess import make_stack
from ICHAnalysisLib.prompt_projection import project_prompts
from ICHAnalysisLib.prompts import Box, Point, PromptBatch, Prompts, SlicePrompts, with_mask_prompts

CFG = PreprocessConfig(spacing_mm=1.0, size=96, remove_holder=False)


def head(step_mm: float = 5.0, slices: int = 12, tilt_mm: float = 0.0) -> CTVolume:
    """An elliptic cylinder of tissue, radius 40 mm about RAS (0, 0); first slice at S = 0. LPS-like axes."""
    j, i = np.mgrid[:100, :100]
    plane = np.where(np.hypot(i - 49.5, j - 49.5) < 40, 30.0, -1000.0).astype(np.float32)
    k = np.arange(slices)
    origins = np.stack([np.full(slices, 49.5), 49.5 + k * tilt_mm, k * step_mm], axis=1)
    return CTVolume(
        np.repeat(plane[None], slices, axis=0),
        np.array([-1.0, 0, 0]),
        np.array([0, -1.0, 0]),
        origins.astype(float),
        np.full(slices, step_mm),
    )


def test_box_parses_and_sorts_its_corners() -> None:
    box = Box.parse("10,5,30,-10,-5.5,20")
    assert box.ras_min == (-10, -5.5, 20) and box.ras_max == (10, 5, 30)


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5,x", "", "0,0,0,1,1,0", "0,0,0,1,1,nan"])
def test_bad_box_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="Box"):
        Box.parse(text)


@pytest.mark.parametrize(("text", "positive"), [("1,2,3", True), ("1,2,3,+", True), ("1,2,3,-", False)])
def test_point_parses_with_its_sign(text: str, positive: bool) -> None:
    assert Point.parse(text) == Point((1.0, 2.0, 3.0), positive)


@pytest.mark.parametrize("text", ["1,2", "1,2,3,4", "1,2,3,*", "a,b,c", "1,inf,3"])
def test_bad_point_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="Point"):
        Point.parse(text)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (Prompts(points=(Point((0, 0, 500)),)), "Point 0,0,500,\\+ lies outside the scan"),
        (Prompts(points=(Point((200, 0, 20)),)), "outside the scan"),
        (Prompts(points=(Point((45, 45, 20), False),)), "Point 45,45,20,- lies outside the head, on slice 5 of 12"),
        (Prompts(boxes=(Box((0, 0, 100), (5, 5, 120)),)), "outside the scan"),
        (Prompts(boxes=(Box((40, 40, 10), (45, 45, 20)),)), "holds no part of the head"),
        (Prompts(mask=np.zeros((2, 3, 4), bool)), "prior mask has shape"),
        (Prompts(mask=np.zeros((12, 100, 100), bool)), "prior mask holds no part of the head"),
        (Prompts(mask=np.arange(100)[None, None] < np.full((12, 100, 1), 5)), "prior mask holds no part of the head"),
    ],
)
def test_prompts_outside_are_named(prompts: Prompts, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        prompts.validate(head())


def test_prompts_inside_pass() -> None:
    Prompts(boxes=(Box((-5, -5, 10), (5, 5, 20)),), points=(Point((0, 0, 20)),)).validate(head())


def test_box_reaches_the_slices_whose_planes_cross_it_with_its_true_rectangle() -> None:
    stack = make_stack(head(), CFG)
    found = project_prompts(Prompts(boxes=(Box((-10, -4, 9), (20, 16, 26)),)), stack)
    assert np.flatnonzero(found.boxed).tolist() == [2, 3, 4, 5]  # planes at 10, 15, 20 and 25 mm
    x0, y0, x1, y1 = found.slices[3].boxes[0]
    center = stack.px_of_ras(np.array([[0.0, 0.0, 15.0]]))[0]
    # x runs to the left, y to posterior
    assert np.allclose([x0, x1], center[0] + np.array([-20, 10]), atol=1e-4)
    assert np.allclose([y0, y1], center[1] + np.array([-16, 4]), atol=1e-4)
    assert found.restricted and found.concerned.all()


def test_thin_box_between_two_slices_goes_to_the_nearest() -> None:
    found = project_prompts(Prompts(boxes=(Box((-5, -5, 11), (5, 5, 12)),)), make_stack(head(), CFG))
    assert np.flatnonzero(found.boxed).tolist() == [2]


def test_tilted_box_is_cut_where_each_slice_really_lies() -> None:
    stack = make_stack(head(tilt_mm=1.0), CFG)
    found = project_prompts(Prompts(boxes=(Box((-5, -4, -1), (5, 16, 100)),)), stack)
    assert found.boxed.all()
    for s in (0, 11):
        x0, y0, x1, y1 = found.slices[s].boxes[0]
        back = stack.volume.ijk_to_ras_points(
            np.concatenate([stack.ij_of_px(np.array([[x0, y0], [x1, y1]])), [[s], [s]]], axis=1)
        )
        assert np.allclose(np.sort(back[:, 0]), [-5, 5], atol=1e-4)
        assert np.allclose(np.sort(back[:, 1]), [-4, 16], atol=1e-4)


def test_point_goes_to_the_slice_that_holds_it() -> None:
    stack = make_stack(head(), CFG)
    found = project_prompts(Prompts(points=(Point((3, -7, 22)), Point((0, 0, 23), False))), stack)
    assert np.flatnonzero(found.pointed).tolist() == [4, 5]
    expected = stack.px_of_ras(np.array([[3, -7, 22]]))[0, :2]
    assert np.allclose(found.slices[4].points[0], expected, atol=1e-4)
    assert found.slices[4].point_labels.tolist() == [1] and found.slices[5].point_labels.tolist() == [0]
    assert not found.restricted and found.concerned.sum() == 2


def test_thin_series_keeps_points_and_masks_on_their_slab() -> None:
    volume = head(step_mm=1.0, slices=20)
    stack = make_stack(volume, CFG)
    mask = np.zeros(volume.shape, bool)
    mask[7, 60:70, 40:50] = True  # second slab: acquired slices 5 to 9
    found = project_prompts(Prompts(points=(Point((0, 0, 7)),), mask=mask), stack)
    assert np.flatnonzero(found.pointed).tolist() == [1]
    areas = [item.mask.sum() for item in found.slices]
    assert areas == [0, 100, 0, 0]


def test_padding_keeps_what_is_real() -> None:
    one = SlicePrompts(np.array([[1, 2, 3, 4]], np.float32), np.array([[5, 6]], np.float32), np.array([0]))
    batch = PromptBatch.from_slices([one, SlicePrompts.empty()], max_boxes=2, max_points=3)
    assert batch.boxes.shape == (2, 2, 4) and batch.points.shape == (2, 3, 2)
    assert batch.box_valid.tolist() == [[True, False], [False, False]]
    assert batch.point_labels.tolist() == [[0, -1, -1], [-1, -1, -1]]
    assert batch.mask is None and len(batch) == 2


def test_padding_grows_with_more_prompts_than_usual() -> None:
    many = SlicePrompts(np.zeros((6, 4), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    assert PromptBatch.from_slices([many], max_boxes=4).boxes.shape == (1, 6, 4)


def test_options_that_were_not_given_are_no_prompts() -> None:
    assert Prompts.parse(None, None).empty
    both = Prompts.parse(["0,0,0,1,1,1"], ["1,2,3,-"])
    assert both.boxes == (Box((0, 0, 0), (1, 1, 1)),) and not both.points[0].positive


def test_empty_prompts_say_so() -> None:
    assert Prompts().empty and not Prompts(points=(Point((0, 0, 0)),)).empty


def rough(size: int = 64) -> SlicePrompts:
    mask = np.zeros((size, size), np.float32)
    mask[20:40, 10:30] = 1
    return replace(SlicePrompts.empty(), mask=mask)


def test_a_rough_mask_becomes_a_tight_box_and_points() -> None:
    """Decision S16: the tight box, three points inside and one beside; the same for the same seed."""
    found = with_mask_prompts(rough(), np.random.default_rng(4))
    assert found.boxes.tolist() == [[10, 20, 29, 39]]
    assert found.point_labels.tolist() == [1, 1, 1, 0]
    inside, (x, y) = found.points[:3], found.points[3].astype(int)
    assert ((inside >= [12, 22]) & (inside <= [27, 37])).all()  # away from the rough edge
    assert found.mask[y, x] == 0 and 2 <= x <= 37 and 12 <= y <= 47
    again, other = (with_mask_prompts(rough(), np.random.default_rng(seed)) for seed in (4, 5))
    assert np.array_equal(found.points, again.points) and not np.array_equal(found.points, other.points)


def test_the_box_of_a_rough_mask_is_jittered_in_training() -> None:
    boxes = [with_mask_prompts(rough(), np.random.default_rng(n), 0.05).boxes[0] for n in range(100)]
    change = np.abs(np.array(boxes) - [10, 20, 29, 39])
    assert 0.8 < change.max() <= 1.0


def test_a_rough_mask_adds_only_what_is_missing() -> None:
    box = np.array([[10, 20, 19, 39]], np.float32)
    boxed = with_mask_prompts(replace(rough(), boxes=box), np.random.default_rng(0))
    assert np.array_equal(boxed.boxes, box) and (boxed.points[:3, 0] <= 19).all()
    point = replace(rough(), points=np.array([[3, 3]], np.float32), point_labels=np.array([0]))
    pointed = with_mask_prompts(point, np.random.default_rng(0))
    assert pointed.points.tolist() == [[3, 3]] and len(pointed.boxes) == 1
    empty = replace(rough(), mask=np.zeros((64, 64), np.float32))
    assert with_mask_prompts(empty, np.random.default_rng(0)) is empty
    assert with_mask_prompts(SlicePrompts.empty(), np.random.default_rng(0)).mask is None
    elsewhere = replace(rough(), boxes=np.array([[40, 50, 60, 60]], np.float32))
    assert not len(with_mask_prompts(elsewhere, np.random.default_rng(0)).points)  # the box decides
    dot = np.zeros((64, 64), np.float32)
    dot[5, 6] = 1
    single = with_mask_prompts(replace(rough(), mask=dot), np.random.default_rng(0))
    assert single.points[0].tolist() == [6, 5] and single.point_labels.tolist() == [1, 0]
