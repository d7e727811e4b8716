"""The loss of ICH-SCNet against numbers computed by hand (paper 000, Eq. 3-6)."""

from __future__ import annotations

import math

import pytest
import torch

from ICHAnalysisLib.networks.ich_scnet import ICHSCNetOutput
from Training.losses.ich_scnet import (
    ICHSCNetLossConfig,
    class_weights_of,
    ich_scnet_losses,
    masked_bce,
    mta_loss,
    outcome_loss,
    overlap_loss,
    segmentation_loss,
    valid_mask_loss,
)

ALL = torch.ones(1, 1, 1, 1)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_overlap_of_four_pixels_by_hand() -> None:
    """Probabilities .5 .5 .5 .5, truth 1 1 0 0: sum p = 2, sum t = 2, both = 1; Dice 3/5, Jaccard 2/4."""
    target = torch.tensor([[[[1.0, 1], [0, 0]]]])
    loss = overlap_loss(torch.zeros(1, 1, 2, 2), target, ALL)
    assert loss.item() == pytest.approx((1 - 3 / 5) + (1 - 2 / 4), abs=1e-6)


def test_overlap_is_per_image_before_the_mean() -> None:
    """Image 1 empty and found empty: loss 0. Image 2 all missed: Dice 1/5, Jaccard 1/5."""
    logits = torch.full((2, 1, 2, 2), -50.0)
    target = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    loss = overlap_loss(logits, target, torch.ones(2, 1, 1, 1))
    assert loss.item() == pytest.approx((0 + 2 * (1 - 1 / 5)) / 2, abs=1e-5)


def test_overlap_of_a_whole_batch_by_hand() -> None:
    """Image 1 empty, image 2 with 2 of 4 pixels, all probabilities .5: sum p = 4, t = 2, both = 1."""
    target = torch.zeros(2, 1, 2, 2)
    target[1, 0, 0] = 1
    loss = overlap_loss(torch.zeros(2, 1, 2, 2), target, torch.ones(2, 1, 1, 1), overlap="batch")
    assert loss.item() == pytest.approx((1 - 3 / 7) + (1 - 2 / 6), abs=1e-6)


def test_mixed_overlap_counts_a_small_clot_as_much_as_a_large_one() -> None:
    target = torch.zeros(3, 1, 4, 4)
    target[0] = 1.0
    target[1, 0, 0, 0] = 1.0  # image 3 holds nothing and enters the batch's sums alone
    known = torch.ones(3, 1, 1, 1)
    loss = overlap_loss(torch.zeros(3, 1, 4, 4), target, known, overlap="mixed")
    batch = 2 - (17 + 1) / (24 + 17 + 1) - (8.5 + 1) / (24 + 17 - 8.5 + 1)
    large = 2 - (16 + 1) / (8 + 16 + 1) - (8 + 1) / (8 + 16 - 8 + 1)
    small = 2 - (1 + 1) / (8 + 1 + 1) - (0.5 + 1) / (8 + 1 - 0.5 + 1)
    assert loss == pytest.approx((batch + (large + small) / 2) / 2, abs=1e-6)


def test_stages_are_weighted_from_the_finest() -> None:
    target = torch.tensor([[[[1.0, 1], [0, 0]]]])
    stages = [torch.zeros(1, 1, 2, 2)] * 4
    loss = segmentation_loss(stages, target, ALL, (1.0, 0.75, 0.5, 0.25))
    assert loss.item() == pytest.approx(2.5 * 0.9, abs=1e-6)
    with_bce = segmentation_loss(stages, target, ALL, (1.0, 0.75, 0.5, 0.25), bce_weight=1.0)
    assert with_bce.item() == pytest.approx(2.5 * (0.9 + math.log(2)), abs=1e-6)


def test_better_masks_cost_less() -> None:
    """The sign of Eq. 3 as printed would reward the opposite (decision S1)."""
    target = torch.tensor([[[[1.0, 1], [0, 0]]]])
    sign = 2 * target - 1
    costs = [overlap_loss(sign * strength, target, ALL).item() for strength in (-2.0, 0.0, 2.0, 9.0)]
    assert costs == sorted(costs, reverse=True) and costs[-1] < 1e-3


def test_unknown_pixels_and_images_teach_nothing() -> None:
    logits = torch.zeros(2, 1, 2, 2, requires_grad=True)
    target = torch.ones(2, 1, 2, 2)
    known = torch.ones(2, 1, 2, 2)
    known[0, 0, 0, 0] = 0
    known[1] = 0
    (overlap_loss(logits, target, known) + masked_bce(logits, target, known)).backward()
    assert logits.grad[1].abs().sum() == 0 and logits.grad[0, 0, 0, 0] == 0
    assert (logits.grad[0, 0].flatten()[1:] < 0).all()
    nothing = overlap_loss(logits, target, known * 0) + masked_bce(logits, target, known * 0)
    assert nothing.item() == 0


def test_outcome_by_hand() -> None:
    """xi_1 = 2 on p = .8 and xi_0 = .5 on p = .6; the third slice is unknown."""
    logits = torch.tensor([[0.0, logit(0.8)], [0.0, logit(0.4)], [5.0, -5.0]], requires_grad=True)
    loss = outcome_loss(logits, torch.tensor([1, 0, -1]), torch.tensor([0.5, 2.0]))
    assert loss.item() == pytest.approx((-2 * math.log(0.8) - 0.5 * math.log(0.6)) / 2, abs=1e-6)
    loss.backward()
    assert logits.grad[2].abs().sum() == 0


def test_class_weights_are_inverse_frequencies_of_the_fold() -> None:
    assert class_weights_of([30, 10]) == pytest.approx([2 / 3, 2.0])
    assert class_weights_of([5, 0]) == [0.5, 1.0]


@pytest.mark.parametrize(("p", "s"), [(0.9, 0.2), (0.3, 0.6)])
def test_divergences_by_hand(p: float, s: float) -> None:
    features = torch.tensor([0.0, logit(p)]).view(1, 2, 1, 1)
    segmentation = torch.full((1, 1, 1), logit(s))

    def kl(a: float, b: float) -> float:
        return a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))

    m = (p + s) / 2
    assert mta_loss(features, segmentation).item() == pytest.approx(kl(p, m) / 2 + kl(s, m) / 2, abs=1e-5)
    assert mta_loss(features, segmentation, "jeffreys").item() == pytest.approx(kl(p, s) + kl(s, p), abs=1e-4)


def test_divergence_is_bounded_symmetric_and_zero_for_equals() -> None:
    def js(a: float, b: float) -> float:
        return mta_loss(torch.tensor([0.0, a]).view(1, 2, 1, 1), torch.full((1, 1, 1), b)).item()

    assert js(-100, 100) == pytest.approx(math.log(2), abs=1e-4)
    assert js(1.3, 1.3) == pytest.approx(0, abs=1e-6)
    assert js(2.0, -1.0) == pytest.approx(js(-1.0, 2.0), abs=1e-6)


def test_both_sides_of_the_divergence_learn() -> None:
    features = torch.zeros(1, 2, 2, 2, requires_grad=True)
    segmentation = torch.ones(1, 2, 2, requires_grad=True)
    mta_loss(features, segmentation).backward()
    assert (features.grad[:, 1] < 0).all() and (segmentation.grad > 0).all()


def test_valid_masks_aim_at_the_blood_fraction() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4, :] = 1
    right = torch.full((1, 1, 2, 2), -9.0)
    right[..., 0, :] = 9
    assert valid_mask_loss([right], target, ALL).item() < 0.01
    assert valid_mask_loss([-right], target, ALL).item() > 5


def test_total_by_hand_and_warm_up() -> None:
    """alpha 0.2, beta 0.8 (Eq. 6); the multi-task term joins later."""
    output = ICHSCNetOutput(
        feature=torch.zeros(1, 3, 2, 2),
        valid_masks=(),
        segmentation=torch.zeros(1, 1, 2, 2),
        stage_logits=(torch.zeros(1, 1, 2, 2),) * 4,
        feature_logits=torch.tensor([0.0, logit(0.9)]).view(1, 2, 1, 1).expand(1, 2, 2, 2),
        outcome=torch.zeros(1, 2),
    )
    target = torch.tensor([[[[1.0, 1], [0, 0]]]])
    cfg = ICHSCNetLossConfig(mta_from_epoch=2)
    arguments = (output, target, ALL, torch.tensor([1]), torch.ones(2), cfg)
    early, late = ich_scnet_losses(*arguments, epoch=1), ich_scnet_losses(*arguments, epoch=2)
    assert early["segmentation_loss"].item() == pytest.approx(0.2 * 2.5 * 0.9, abs=1e-6)
    assert early["outcome_loss"].item() == pytest.approx(0.8 * math.log(2), abs=1e-6)
    assert early["mta_loss"].item() == 0
    m = 0.7
    entropy = -(m * math.log(m) + 0.3 * math.log(0.3))
    parts = (-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) + math.log(2)) / 2
    assert late["mta_loss"].item() == pytest.approx(entropy - parts, abs=1e-5)


def test_variants_have_the_losses_of_their_outputs() -> None:
    output = ICHSCNetOutput(feature=torch.zeros(1, 3, 2, 2), valid_masks=(), outcome=torch.zeros(1, 2))
    found = ich_scnet_losses(
        output, torch.zeros(1, 1, 2, 2), ALL, torch.tensor([0]), torch.ones(2), ICHSCNetLossConfig()
    )
    assert set(found) == {"outcome_loss"}
