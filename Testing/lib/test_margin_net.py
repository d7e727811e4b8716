"""The margin net and where it looks: squares around boxes, boxes of an outline, answers back on the slice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.config.margin_net import PREPROCESS, PRESETS
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.margin_crops import (
    boxes_around,
    everything,
    rectangle_around,
    square_around,
    square_at,
)
from ICHAnalysisLib.networks.margin_net import MarginNet
from ICHAnalysisLib.overlap import dice
from ICHAnalysisLib.predict import MarginPredictor, Models
from ICHAnalysisLib.preprocess import SliceStack, log_heights, slice_channels, with_neighbors
from ICHAnalysisLib.prompts import drawn_boxes
from ICHAnalysisLib.segmentation_session import SegmentationSession, beside_ivh
from ICHAnalysisLib.variations import VARIATIONS, Variation
from ICHAnalysisLib.weights.registry import LoadedWeights, load_weights, weights_path
from Testing.lib.norms import draw_statistics
from Testing.lib.stacks import stack_of

TINY, SEEN = PRESETS["tiny"], PREPROCESS["tiny"]


def noise_stack(slices: int = 4, spacing_mm: float = SEEN.spacing_mm, size: int = 64) -> SliceStack:
    hu = np.random.default_rng(1).normal(40, 20, (slices, size, size)).astype(np.float32)
    return stack_of(hu, spacing_mm)


def predictor() -> MarginPredictor:
    torch.manual_seed(0)
    network = MarginNet(TINY)
    draw_statistics(network)
    weights = LoadedWeights("margin_net", to_dict(TINY), SEEN, network.state_dict())
    net = MarginPredictor(MarginNet(TINY), weights, torch.device("cpu"))
    net.dtype = torch.float32  # the tests compare to more places than bfloat16 has, which some CPUs answer in
    return net


def box(*sides: float) -> np.ndarray:
    return np.array([sides], np.float32)


def test_a_square_lies_around_its_boxes_and_inside_the_slice() -> None:
    both = np.array([[30, 60, 39, 69], [50, 80, 59, 99]], np.float32)  # middle 44.5, 79.5
    assert square_around(both, (256, 256), 32, 8) == (slice(44, 116), slice(8, 80))  # 40 + 2 x 16, no less
    assert square_around(box(100, 100, 103, 103), (256, 256), 96, 8) == (slice(54, 150), slice(54, 150))
    assert square_around(box(0, 250, 5, 255), (256, 256), 96, 8) == (slice(160, 256), slice(0, 96))
    assert square_around(box(3, 3, 250, 250), (256, 256), 96, 8) == (slice(0, 256), slice(0, 256))
    assert square_at(np.array([10.0, 20.0]), (64, 64), 16) == (slice(12, 28), slice(2, 18))


def test_a_rectangle_holds_a_head_and_halves() -> None:
    head = np.zeros((64, 48), bool)
    head[10:31, 40:45] = True
    assert rectangle_around(head, 8) == (slice(10, 34), slice(40, 48))
    head[60, 46] = True
    assert rectangle_around(head, 8) == (slice(8, 64), slice(40, 48))
    assert rectangle_around(np.zeros_like(head), 8) == (slice(0, 64), slice(0, 48))
    assert drawn_boxes(everything(head.shape), head.shape).all()


def test_boxes_of_an_outline_hold_it_and_its_neighbors() -> None:
    outline = np.zeros((5, 32, 32), bool)
    outline[1, 10:14, 5:9] = True
    outline[2, 12:20, 6:12] = True
    outline[2, 28, 28] = True  # a lesion of its own
    found = [given.tolist() for given in boxes_around(outline)]
    assert found[0] == [[4, 9, 9, 14]]
    assert found[1] == [[4, 9, 12, 20], [27, 27, 29, 29]]
    assert found[2] == found[1]
    assert found[3] == [[5, 11, 12, 20], [27, 27, 29, 29]]
    assert found[4] == []


def test_boxes_are_drawn_as_far_as_the_slice_goes() -> None:
    drawn = drawn_boxes(np.array([[-3, 2, 1, 3], [6.4, 6.4, 40, 7.4]], np.float32), (8, 8))
    assert drawn.sum() == 2 * 2 + 2 * 2
    assert drawn[2:4, :2].all() and drawn[6:8, 6:8].all()
    beside = np.array([[-9, 1, -4, 3], [1, -7, 3, -3], [9, 9, 12, 12]], np.float32)
    assert not drawn_boxes(beside, (8, 8)).any()


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = MarginNet(TINY).train()
    answer = network(torch.rand(3, 4, 32, 40), (torch.rand(3, 1, 32, 40) > 0.5).float(), torch.tensor([0.0, 0.3, -1.0]))
    assert answer.shape == (3, 1, 32, 40)
    answer.square().sum().backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert dead == []


def test_sizes_that_do_not_halve_are_refused() -> None:
    with pytest.raises(UsageError, match="size 33"):
        replace(TINY, size=33)
    with pytest.raises(UsageError, match="widths"):
        replace(TINY, widths=(4,))


def test_answers_are_the_network_s_and_reach_eight_pixels_beyond_the_boxes() -> None:
    stack, net = noise_stack(), predictor()
    given = box(20, 30, 27, 33)
    (found,) = net.predict(stack, [2], [given], Variation())
    assert np.isfinite(found).sum() == (8 + 16) * (4 + 16)
    assert np.isfinite(found[22:42, 12:36]).all()
    rows, columns = square_around(given, (64, 64), TINY.size, TINY.step)
    image = slice_channels(with_neighbors(stack.hu, [2]), SEEN)[..., rows, columns]
    with torch.inference_mode():
        logits = net.network(
            torch.from_numpy(np.ascontiguousarray(image)),
            torch.from_numpy(drawn_boxes(given, (64, 64))[rows, columns][None, None]),
            torch.from_numpy(log_heights(stack.heights_mm, [2])),
        )
    whole = np.full((64, 64), np.nan, np.float32)
    whole[rows, columns] = torch.sigmoid(logits[0, 0]).numpy()
    np.testing.assert_allclose(found[22:42, 12:36], whole[22:42, 12:36], atol=1e-5)


def test_slices_of_one_call_may_have_boxes_of_any_size_and_number() -> None:
    stack, net = noise_stack(12), predictor()
    boxes = [box(n, 20 - n, 8 + n, 30) for n in range(11)] + [np.array([[2, 2, 9, 9], [50, 50, 60, 61]], np.float32)]
    together = net.predict(stack, range(12), boxes, Variation())
    assert together.shape == (12, 64, 64)
    for n in (0, 11):
        (alone,) = net.predict(stack, [n], [boxes[n]], Variation())
        assert (np.isfinite(alone) == np.isfinite(together[n])).all()
    assert np.isfinite(together[11][[5, 55], [5, 55]]).all() and np.isnan(together[11][30, 30])


def test_a_mirrored_showing_answers_on_the_scan_as_it_is() -> None:
    stack, net = noise_stack(), predictor()
    given = box(20, 30, 27, 33)
    mirrored = stack_of(stack.hu[..., ::-1].copy(), SEEN.spacing_mm)
    turned = box(63 - 27, 30, 63 - 20, 33)
    (shown,) = net.predict(stack, [1], [given], VARIATIONS[0])
    (other,) = net.predict(mirrored, [1], [turned], Variation())
    assert VARIATIONS[0].mirrored and np.isfinite(shown).any()
    np.testing.assert_allclose(shown, other[:, ::-1], atol=1e-5)
    (plain,) = net.predict(stack, [1], [given], Variation())
    assert np.nanmax(np.abs(plain - shown)) > 1e-3


def test_without_a_box_the_whole_head_is_seen() -> None:
    stack, net = noise_stack(11), predictor()
    stack.head[:] = False
    stack.head[:, 12:41, 20:60] = True
    found = net.everywhere(stack, range(11), Variation())
    assert found.shape == (11, 64, 64)
    rows, columns = rectangle_around(stack.head[0], TINY.step)
    outside = np.ones((64, 64), bool)
    outside[rows, columns] = False
    assert not found[:, outside].any() and found[:, rows, columns].min() > 0
    image = slice_channels(with_neighbors(stack.hu, [9]), SEEN)[..., rows, columns]
    with torch.inference_mode():
        seen = torch.from_numpy(np.ascontiguousarray(image))
        logits = net.network(seen, torch.ones_like(seen[:, :1]), torch.from_numpy(log_heights(stack.heights_mm, [9])))
    np.testing.assert_allclose(found[9, rows, columns], torch.sigmoid(logits[0, 0]).numpy(), atol=1e-5)

    turned = replace(stack, hu=stack.hu[..., ::-1].copy(), head=stack.head[..., ::-1].copy())
    mirrored = net.everywhere(stack, [4], VARIATIONS[0])
    np.testing.assert_allclose(mirrored[..., ::-1], net.everywhere(turned, [4], Variation()), atol=1e-5)


def test_other_pixels_are_left_to_ich_scnet() -> None:
    net = predictor()
    assert net.fits(noise_stack())
    assert not net.fits(noise_stack(spacing_mm=1.0))
    assert not net.fits(noise_stack(size=63))


class Halves:
    """A margin net that finds blood in the right half of every slice, as far as it is asked."""

    def predict(self, stack: SliceStack, indices: list[int], boxes: list[np.ndarray], _: Variation) -> np.ndarray:
        answers = np.full((len(indices), *stack.hu.shape[1:]), np.nan, np.float32)
        for answer, given in zip(answers, boxes, strict=True):
            answer[drawn_boxes(given, answer.shape) > 0] = 0.0
            answer[:, 32:][np.isfinite(answer[:, 32:])] = 0.9
        return answers


class Unprompted(SegmentationSession):
    """A session whose ICH-SCNet sees blood of 0.3 and no ventricular blood everywhere."""

    def predict(self, indices, prompts=None, with_outcome=False):
        shape = (len(indices), *self.stack.hu.shape[1:])
        return np.full(shape, 0.3, np.float32), np.zeros(shape, np.float32)


def test_both_networks_answer_without_prompts_where_the_margin_net_has_learned_to() -> None:
    stack, net = noise_stack(), predictor()
    alone, _ = Unprompted(None, stack, None).unprompted([1, 3])  # type: ignore[arg-type]
    assert (alone == np.float32(0.3)).all()
    boxed_only, _ = Unprompted(None, stack, None, net).unprompted([1, 3])  # type: ignore[arg-type]
    assert (boxed_only == np.float32(0.3)).all()
    net.network.cfg = replace(TINY, unboxed=True)
    both, ivh = Unprompted(None, stack, None, net).unprompted([1, 3])  # type: ignore[arg-type]
    np.testing.assert_allclose(both, 0.35 * 0.3 + 0.65 * net.everywhere(stack, [1, 3], Variation()), atol=1e-6)
    assert both.std() > 0 and not ivh.any()


def test_what_is_settled_is_joined_near_the_outline_and_nothing_is_added_elsewhere() -> None:
    stack = noise_stack(5)
    session = SegmentationSession(None, stack, None, Halves())  # type: ignore[arg-type]
    ich = np.zeros(stack.hu.shape, np.float32)
    ich[1:3, 20:30, 24:40] = 0.8
    ich[4, 50:60, 50:60] = 0.9  # outlined and not kept
    outline = ich == np.float32(0.8)
    ivh = np.zeros_like(ich)
    found = session.settled(ich, ivh, outline)
    assert found[1, 25, 26] == pytest.approx(0.2 * 0.8)  # the margin net refuses it
    assert found[1, 25, 36] == pytest.approx(0.2 * 0.8 + 0.8 * 0.9)
    assert found[1, 25, 41] == 0.0  # beyond the box
    assert found[3, 25, 36] == pytest.approx(0.8 * 0.9)  # just beyond the lesion, which it touches
    assert not found[4].any()
    assert not session.settled(ich, ivh, np.zeros_like(outline)).any()
    alone = SegmentationSession(None, stack, None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(alone.settled(ich, ivh, outline), ich * outline)
    ivh[3] = 0.9  # where the margin net would go on, and ICH-SCNet sees a ventricle
    within = session.settled(ich, ivh, outline)
    np.testing.assert_array_equal(within[1], found[1])
    assert within[3].max() == pytest.approx(0.8 * 0.1)


def test_ventricular_blood_leaves_little_room_for_hemorrhage() -> None:
    ich, ivh = np.array([0.9, 0.9, 0.2, np.nan], np.float32), np.array([0.0, 0.8, 0.3, 1.0], np.float32)
    np.testing.assert_allclose(beside_ivh(ich, ivh), [0.9, 0.2, 0.2, np.nan], atol=1e-6)  # NaN: not asked


def test_without_a_box_the_margin_net_leaves_ventricular_blood_alone() -> None:
    class Ventricle(SegmentationSession):
        def predict(self, indices, prompts=None, with_outcome=False):
            shape = (len(indices), *self.stack.hu.shape[1:])
            return np.full(shape, 0.3, np.float32), np.where(np.arange(shape[2]) < 32, 0.9, 0.0) + np.zeros(shape)

    class Everywhere(Halves):
        network = SimpleNamespace(cfg=SimpleNamespace(unboxed=True))

        def everywhere(self, stack, indices, variation):
            return np.full((len(indices), *stack.hu.shape[1:]), 0.8, np.float32)

    found, _ = Ventricle(None, noise_stack(), None, Everywhere()).unprompted([1, 3])  # type: ignore[arg-type]
    np.testing.assert_allclose(found[..., :32], 0.35 * 0.3 + 0.65 * 0.1, atol=1e-6)
    np.testing.assert_allclose(found[..., 32:], 0.35 * 0.3 + 0.65 * 0.8, atol=1e-6)


def test_a_folder_of_other_weights_needs_no_margin_net(tmp_path: Path) -> None:
    for name in ("ich_scnet", "dtvit", "volume_net"):
        (tmp_path / f"{name}.safetensors").symlink_to(weights_path(name))
    models = Models.load(tmp_path, "cpu")
    assert models.margin_net.weights.path == weights_path("margin_net")
    assert models.session(noise_stack(spacing_mm=0.9, size=256), None).margin is models.margin_net
    assert models.session(noise_stack(), None).margin is None


@pytest.mark.parametrize("two_densities", [False, True])
def test_the_shipped_net_outlines_a_boxed_clot(two_densities: bool) -> None:
    weights = load_weights(weights_path("margin_net"), "margin_net")
    net = MarginPredictor(MarginNet(PRESETS["compact"]), weights, torch.device("cpu"))
    z, y, x = np.ogrid[-3:4, -128:128, -128:128]
    radius = np.hypot(y, x) * np.ones((7, 1, 1))
    tissue = np.select([radius < 75, radius < 82, radius < 88], [32.0, 1000.0, 20.0], -1000.0)
    clot = np.hypot(np.hypot(y / 14, (x - 30) / 20), z / 2.4) < 1
    tissue[clot] = 64
    if two_densities:
        tissue[clot & (x > 34)] = 50
    stack = stack_of((tissue + np.random.default_rng(0).normal(0, 3, clot.shape)).astype(np.float32), 0.9)
    slices = np.flatnonzero(clot.any(axis=(1, 2))).tolist()
    boxes = [box(xs.min() - 2, ys.min() - 2, xs.max() + 2, ys.max() + 2) for ys, xs in map(np.nonzero, clot[slices])]
    found = net.predict(stack, slices, boxes, Variation())
    assert dice(np.nan_to_num(found) >= 0.5, clot[slices]) > 0.9
