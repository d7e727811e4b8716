"""DTViT's losses: presence, location where there is blood, and the blood fraction of each patch.

Legend: B slices, L locations, h, w patches.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

#: Presence or location that is not known, and so not learned from.
UNKNOWN = -1


def dtvit_losses(
    output: dict[str, Tensor],
    presence: Tensor,
    location: Tensor,
    patch_fraction: Tensor,
    *,
    location_weight: float = 1.0,
    patch_weight: float = 1.0,
    location_class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """presence_loss, location_loss and, where the network has that head, patch_loss.

    output: what DTViT returns. presence: int (B,), 1 hemorrhage, 0 none, -1 unknown. location: int (B,), index of
    LOCATIONS or -1 where the slice shows no blood (decisions V9, V21). patch_fraction: (B, h, w) in [0, 1], or
    negative where unknown. A batch without a single known label gives 0 with a gradient of 0.
    """
    known = presence >= 0
    each = F.binary_cross_entropy_with_logits(
        output["presence_logits"], presence.clamp_min(0).to(output["presence_logits"].dtype), reduction="none"
    )
    losses = {
        "presence_loss": masked_mean(each, known),
        "location_loss": location_weight * location_loss(output["location_logits"], location, location_class_weights),
    }
    if "patch_logits" in output:
        losses["patch_loss"] = patch_weight * fraction_loss(output["patch_logits"], patch_fraction)
    return losses


def location_loss(logits: Tensor, location: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross entropy over the slices whose location is known; logits (B, L), location int (B,) with -1 unknown."""
    each = F.cross_entropy(logits, location.clamp_min(0), weight=class_weights, reduction="none")
    return masked_mean(each, location >= 0)


def fraction_loss(logits: Tensor, fraction: Tensor, background: float = 10.0) -> Tensor:
    """Cross entropy with soft targets, summed over known cells and divided by the blood in them.

    Uniform over cells, so that the fraction stays calibrated; the division keeps the few cells with blood from
    drowning. `background` cells' worth is added below the line, for batches without blood. logits and fraction have
    one shape (B, ...); fraction is negative where unknown.
    """
    known = (fraction >= 0).to(logits.dtype)
    target = fraction.clamp(0, 1).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (each * known).sum() / ((target * known).sum() + background)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B,) values where `mask`; 0 where it is false everywhere."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1.0)
