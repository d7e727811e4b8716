"""The multi-task loss of ICH-SCNet (paper 000, Eq. 3-6, in the readings of decisions S1-S5, S29 and S40).

B batch, K classes (1 ICH, 2 IVH), H, W size of the slice. Logits may be bfloat16; every sum is float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.networks.ich_scnet import ICHSCNetOutput
from Training.losses.outcome import outcome_cross_entropy

_CLAMP = 1e-6
Overlap = Literal["image", "batch", "mixed"]


@dataclass(frozen=True)
class ICHSCNetLossConfig:
    """Weights of Eq. 6 and what the paper leaves out.

    alpha, beta, mta_weight: of the segmentation, classification and multi-task aware losses. gammas: of the stages,
    finest first. bce_weight: of a binary cross-entropy added to the overlap of each stage (0 in the paper; overlap
    alone hardly teaches slices without blood). valid_mask_weight: of the same loss on the valid masks (0 in the paper,
    whose decoder is pretrained). overlap: "image": of each image (decision S2). "batch": of the whole batch at once,
    which does not make a few stray pixels on a slice without blood cost as much as a missed clot. "mixed": half of
    that, and half of each image that holds the class; in a batch alone a clot of 0.3 mL is too few pixels to matter.
    divergence: "js" is the Jensen-Shannon divergence, "jeffreys" what Eq. 5 writes out.
    mta_from_epoch: L_mta is off before this epoch (decision S40).
    """

    alpha: float = 0.2
    beta: float = 0.8
    mta_weight: float = 1.0
    gammas: tuple[float, float, float, float] = (1.0, 0.75, 0.5, 0.25)
    bce_weight: float = 0.0
    valid_mask_weight: float = 0.0
    overlap: Overlap = "image"
    divergence: Literal["js", "jeffreys"] = "js"
    mta_from_epoch: int = 0


def ich_scnet_losses(
    output: ICHSCNetOutput,
    target: Tensor,
    known: Tensor,
    outcome: Tensor,
    class_weights: Tensor,
    cfg: ICHSCNetLossConfig,
    epoch: int = 0,
) -> dict[str, Tensor]:
    """Weighted terms, whose sum is Eq. 6: segmentation_loss, outcome_loss, mta_loss, as the variant has outputs.

    target (B, K, H, W) in {0, 1}; known (B, 1, H, W) or (B, 1, 1, 1), 0 where no mask is known, which teaches
    nothing there; outcome (B,) 1 poor, 0 good, -1 unknown, or its chance; class_weights (2,).
    """
    losses: dict[str, Tensor] = {}
    if output.stage_logits:
        loss = segmentation_loss(output.stage_logits, target, known, cfg.gammas, cfg.bce_weight, cfg.overlap)
        if cfg.valid_mask_weight and output.valid_masks:  # comparators have none
            masks = valid_mask_loss(output.valid_masks, target[:, :1], known, cfg.overlap)
            loss = loss + cfg.valid_mask_weight * masks
        losses["segmentation_loss"] = cfg.alpha * loss
    if output.outcome is not None:
        losses["outcome_loss"] = cfg.beta * outcome_loss(output.outcome, outcome, class_weights)
    if output.feature_logits is not None and output.segmentation is not None:
        weight = cfg.mta_weight if epoch >= cfg.mta_from_epoch else 0.0
        losses["mta_loss"] = weight * mta_loss(output.feature_logits, output.segmentation[:, 0], cfg.divergence)
    return losses


def segmentation_loss(
    stage_logits: Sequence[Tensor],
    target: Tensor,
    known: Tensor,
    gammas: Sequence[float],
    bce_weight: float = 0.0,
    overlap: Overlap = "image",
) -> Tensor:
    """Eq. 3 as a loss: sum over stages of gamma x [(1 - soft Dice) + (1 - soft Jaccard) + bce_weight x BCE]."""
    terms = []
    for gamma, logits in zip(gammas, stage_logits):
        term = overlap_loss(logits, target, known, overlap=overlap)
        if bce_weight:
            term = term + bce_weight * masked_bce(logits, target, known)
        terms.append(gamma * term)
    return torch.stack(terms).sum()


def overlap_loss(
    logits: Tensor, target: Tensor, known: Tensor, epsilon: float = 1.0, overlap: Overlap = "image"
) -> Tensor:
    """(1 - soft Dice) + (1 - soft Jaccard), per image and class, then the mean over images with a known mask.

    overlap: over what the sums go; see `ICHSCNetLossConfig`.
    """
    mask = known.expand(-1, 1, *target.shape[-2:])
    probs = torch.sigmoid(logits.float()) * mask
    truth = target * mask
    both, held = (probs * truth).sum(dim=(2, 3)), truth.sum(dim=(2, 3))  # (B, K)
    total = probs.sum(dim=(2, 3)) + held
    is_known = (mask.amax(dim=(1, 2, 3)) > 0).float().unsqueeze(1).expand_as(both)
    if overlap == "image":
        return _weighted_mean(_lack_of_overlap(both, total, epsilon), is_known)
    whole = _lack_of_overlap(both.sum(dim=0), total.sum(dim=0), epsilon)  # (K,)
    of_batch = _weighted_mean(whole, is_known.amax(dim=0))
    if overlap == "batch":
        return of_batch
    of_bled = _weighted_mean(_lack_of_overlap(both, total, epsilon), is_known * (held > 0))
    return (of_batch + of_bled) / 2


def _lack_of_overlap(both: Tensor, total: Tensor, epsilon: float) -> Tensor:
    """(1 - Dice) + (1 - Jaccard) from the sums of intersection and of both masks."""
    return 2 - (2 * both + epsilon) / (total + epsilon) - (both + epsilon) / (total - both + epsilon)


def masked_bce(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy, mean over the known pixels."""
    values = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return _weighted_mean(values, known.expand_as(values))


def valid_mask_loss(masks: Sequence[Tensor], target: Tensor, known: Tensor, overlap: Overlap = "image") -> Tensor:
    """Cross-entropy and overlap of the valid masks (B, 1, h, w) against the blood fraction of their pixels."""
    terms = []
    for logits in masks:
        size = (logits.shape[-2], logits.shape[-1])
        fraction = F.adaptive_avg_pool2d(target, size)
        small = F.adaptive_avg_pool2d(known.expand_as(target), size)
        inside = (small > 0.999).float()
        terms.append(masked_bce(logits, fraction, inside))
        terms.append(overlap_loss(logits, fraction, inside, overlap=overlap))
    return torch.stack(terms).sum() / len(masks)


def outcome_loss(logits: Tensor, outcome: Tensor, class_weights: Tensor) -> Tensor:
    """Eq. 4, mean over the slices whose outcome is known; 0 where none is. logits (B, 2), outcome (B,) 1 poor, 0 good,
    the chance of a poor one between them, or -1."""
    values = outcome_cross_entropy(logits, outcome, class_weights)
    return _weighted_mean(values, (outcome >= 0).float())


def mta_loss(feature_logits: Tensor, segmentation: Tensor, divergence: str = "js") -> Tensor:
    """Eq. 5 between P, the softmax of the feature output, and S, mean over pixels and batch (decisions S3-S5).

    feature_logits (B, 2, H, W) background and foreground; segmentation logits (B, H, W). Both sides learn.
    """
    p = torch.sigmoid((feature_logits[:, 1] - feature_logits[:, 0]).float()).clamp(_CLAMP, 1 - _CLAMP)
    s = torch.sigmoid(segmentation.float()).clamp(_CLAMP, 1 - _CLAMP)
    if divergence == "jeffreys":
        # KL(P||S) + KL(S||P) of two Bernoulli distributions
        return ((p - s) * (torch.logit(p) - torch.logit(s))).mean()
    m = (p + s) / 2
    return (_entropy(m) - (_entropy(p) + _entropy(s)) / 2).mean()


def class_weights_of(counts: Sequence[int]) -> list[float]:
    """xi_c = N / (2 N_c) of the training fold (decision S29); 1 where a class is missing."""
    total = sum(counts)
    return [total / (len(counts) * count) if count and total else 1.0 for count in counts]


def _entropy(p: Tensor) -> Tensor:
    """Entropy of Bernoulli(p), nats; at most ln 2."""
    return -(p * torch.log(p) + (1 - p) * torch.log1p(-p))


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of values by weight; 0, with a gradient of 0, where every weight is 0."""
    return (values * weight).sum() / weight.sum().clamp(min=_CLAMP)


#: The largest value of the Jensen-Shannon divergence.
JS_BOUND = math.log(2)
