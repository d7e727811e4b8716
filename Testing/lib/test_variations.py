"""Copies of a scan: shown and brought back exactly, prompts with them, and the ranges that readers leave."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ICHAnalysisLib.analysis import Analysis, Interval, Prognosis  # noqa: E402
from ICHAnalysisLib.config.analyze import AnalyzeOptions  # noqa: E402
from ICHAnalysisLib.ct.volume import CTVolume  # noqa: E402
from ICHAnalysisLib.networks.ich_scnet import ICHSCNetOutput  # noqa: E402
from ICHAnalysisLib.networks.prompt_planes import prompt_planes  # noqa: E402
from ICHAnalysisLib.outputs.words import prognosis_rows  # noqa: E402
from ICHAnalysisLib.preprocess import SliceStack  # noqa: E402
from ICHAnalysisLib.prompt_projection import StackPrompts  # noqa: E402
from ICHAnalysisLib.prompts import PromptBatch, SlicePrompts  # noqa: E402
from ICHAnalysisLib.segmentation_session import SegmentationSession  # noqa: E402
from ICHAnalysisLib.variations import KIND, VARIATIONS, Variation, Varied, vary  # noqa: E402

SLICES, SIDE = 5, 64
CLOT = (slice(20, 32), slice(40, 50))  # 120 pixels, right half of the image


def stack() -> SliceStack:
    """Five slices of 5 mm and 1 mm pixels: brain of 35 HU, in slices 1 to 3 a clot of 70 HU: 3 x 0.6 mL."""
    hu = np.full((SLICES, SIDE, SIDE), 35.0, np.float32)
    hu[1:4, CLOT[0], CLOT[1]] = 70.0
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    return SliceStack(
        hu=hu,
        positions_mm=np.arange(SLICES) * 5.0,
        heights_mm=np.full(SLICES, 5.0),
        native_slices=tuple(np.array([s]) for s in range(SLICES)),
        spacing_mm=(1.0, 1.0),
        ij_origin=np.zeros(2),
        ij_step=np.eye(2),
        volume=CTVolume.from_affine(hu, affine),
        head=np.ones(hu.shape, bool),
    )


class Reader:
    """A network that outlines dense pixels; half_blind: only those in the right half of what it is shown."""

    def __init__(self, half_blind: bool = False) -> None:
        self.cfg = SimpleNamespace(max_boxes=4, max_points=8, per_scale=True, dense_prompts=True)
        self.half_blind, self.calls = half_blind, 0

    def __call__(self, image, prompts, text, **_):
        self.calls += 1
        dense = image[:, :1] > 50
        if self.half_blind:
            dense = dense & (torch.arange(image.shape[-1]) >= image.shape[-1] // 2)
        logits = torch.where(dense, 8.0, -8.0)
        return ICHSCNetOutput(feature=logits, valid_masks=(), segmentation=logits)

    def encode_text(self, tokens, batch):
        return None

    def classifier(self, feature, text):
        """Poor by the number of dense pixels: a logit of 1 for the clot's 120."""
        score = (feature > 0).flatten(1).sum(dim=1) / 60.0 - 1.0
        return torch.stack([torch.zeros_like(score), score], dim=1)


def session(reader: Reader) -> SegmentationSession:
    predictor = SimpleNamespace(
        network=reader,
        device="cpu",
        autocast=nullcontext,
        weights=SimpleNamespace(card={}),
        slices_tensor=lambda hu, indices: torch.from_numpy(hu[list(indices)])[:, None],
    )
    return SegmentationSession(predictor, stack(), None)


def varied(reader: Reader) -> Varied:
    asked = session(reader)
    ich, _ = asked.predict(range(SLICES))
    none = StackPrompts(
        tuple(SlicePrompts.empty() for _ in range(SLICES)), np.zeros(SLICES, bool), np.zeros(SLICES, bool), False
    )
    return vary(asked, ich, none, None, AnalyzeOptions())


@pytest.mark.parametrize("variation", VARIATIONS)
def test_what_is_shown_comes_back(variation: Variation) -> None:
    image = torch.rand(2, 3, 16, 20)
    shown = variation.image(image)
    assert not torch.equal(shown, image)
    assert np.array_equal(variation.back(shown.numpy()), image.numpy())


@pytest.mark.parametrize("variation", VARIATIONS)
def test_prompts_go_where_the_image_goes(variation: Variation) -> None:
    """Prompts drawn into the copy are the copy of the prompts drawn."""
    mask = np.zeros((32, 40), np.float32)
    mask[10:14, 12:20] = 1.0
    given = SlicePrompts(
        np.array([[10.0, 8.0, 22.0, 20.0]], np.float32),
        np.array([[14.0, 12.0], [20.0, 18.0]], np.float32),
        np.array([1, 0]),
        mask,
    )
    there = variation.prompts(given, (32, 40))
    image = torch.zeros(1, 3, 32, 40)
    drawn = [prompt_planes(PromptBatch.from_slices([item]), image) for item in (given, there)]
    inner = (..., slice(6, 26), slice(6, 34))  # what a roll brings in from the other side lies outside
    assert torch.allclose(variation.image(drawn[0])[inner], drawn[1][inner], atol=1e-4)
    assert given.boxes.tolist() == [[10.0, 8.0, 22.0, 20.0]]


def test_a_prompt_at_the_edge_stays_on_the_slice() -> None:
    given = SlicePrompts(np.array([[0, 0, 39, 31]], np.float32), np.array([[0, 31]], np.float32), np.array([1]))
    there = Variation(rows=3, columns=-2).prompts(given, (32, 40))
    assert there.boxes.tolist() == [[0, 3, 37, 31]] and there.points.tolist() == [[0, 31]]


def test_a_reader_that_sees_copies_alike_leaves_no_range() -> None:
    found = varied(Reader())
    assert len(found.volumes_ml) == 1 + len(VARIATIONS)
    interval = found.volume_interval()
    assert (interval.value, interval.lower, interval.upper) == (1.8, 1.8, 1.8)  # 3 x 120 pixels of 5 mm3
    assert interval.kind == KIND and "no confidence interval" in interval.origin and interval.unit == "mL"
    poor = found.poor_interval()
    assert poor is not None and poor.value == poor.lower == poor.upper == pytest.approx(
        1 / (1 + np.exp(-1.0)), abs=1e-4
    )


def test_a_reader_with_a_blind_half_leaves_a_wide_one() -> None:
    """The three mirrored copies have the clot in its blind half: nothing is found there, and no prognosis."""
    reader = Reader(half_blind=True)
    found = varied(reader)
    assert found.volumes_ml == pytest.approx((1.8, 0.0, 1.8, 1.8, 0.0, 0.0))
    assert [value is None for value in found.poor] == [False, True, False, False, True, True]
    interval, poor = found.volume_interval(), found.poor_interval()
    assert (interval.lower, interval.value, interval.upper) == (0.0, 1.8, 1.8)
    assert poor is not None and "2 mirrored or shifted copies" in poor.origin


def test_a_copy_costs_one_answer() -> None:
    """One batch for the scan and one a copy."""
    reader = Reader()
    varied(reader)
    assert reader.calls == 1 + len(VARIATIONS)


def test_the_report_tells_the_range_of_the_prognosis() -> None:
    analysis = Analysis(
        status="ok",
        prognosis={"slice_network": Prognosis(0.4, "poor outcome", "ICH-SCNet")},
        intervals={"slice_network": Interval(0.4, 0.31, 0.52, "", "", KIND)},
    )
    assert prognosis_rows(analysis)[0]["value"] == f"40 % ({KIND} 31 % to 52 %)"
    assert prognosis_rows(replace(analysis, intervals={}))[0]["value"] == "40 %"
