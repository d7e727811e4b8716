"""The volume net's losses: size, outcome, and the blood fraction of each cell.

Legend: B scans, d, h, w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from Training.losses.dtvit import fraction_loss, masked_mean
from Training.losses.outcome import outcome_cross_entropy


def volume_net_losses(
    output: dict[str, Tensor],
    size_mm: Tensor,
    outcome: Tensor,
    density: Tensor,
    *,
    size_sd: Tensor | float,
    outcome_weight: float = 1.0,
    density_weight: float = 1.0,
    outcome_class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """size_loss, outcome_loss and density_loss, each where the network has that head.

    size_mm: (B,) cube root of the volume in mm3, NaN where unknown; its squared error is divided by size_sd ** 2
    (decision R6). outcome: (B,), 1 poor, 0 good, its chance between them, -1 unknown. density: (B, d, h, w) blood
    fraction in [0, 1], negative where unknown. Where the network has log_variances v (decision R10; Kendall, Gal and
    Cipolla 2018) the size's loss is exp(-v) / 2 times what it was and the outcome's exp(-v) times, with v / 2 added.
    """
    losses: dict[str, Tensor] = {}
    if "size_mm" in output:
        known = torch.isfinite(size_mm)
        error = (output["size_mm"] - torch.nan_to_num(size_mm)) / size_sd
        losses["size_loss"] = masked_mean(error.square(), known)
    if "outcome_logits" in output:
        each = outcome_cross_entropy(output["outcome_logits"], outcome, outcome_class_weights)
        losses["outcome_loss"] = outcome_weight * masked_mean(each, outcome >= 0)
    if "log_variances" in output:
        v_size, v_outcome = output["log_variances"]
        losses["size_loss"] = 0.5 * (torch.exp(-v_size) * losses["size_loss"] + v_size)
        # An outcome that is not learned yet must not pull its variance down either.
        losses["outcome_loss"] = torch.exp(-v_outcome) * losses["outcome_loss"] + 0.5 * outcome_weight * v_outcome
    if "density_logits" in output:
        losses["density_loss"] = density_weight * fraction_loss(output["density_logits"], density)
    return losses
