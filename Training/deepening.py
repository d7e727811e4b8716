"""Weights of a margin net for one of wider or further levels, which answers alike until it learns."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Normal

from Training.widening import widened

#: As torch's batch norm has it.
_EPS = 1e-5


def deepened(shallow: Mapping[str, Tensor], deep: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict `shallow` of a `MarginNet` in the shapes of `deep`, that of another as it was initialized.

    Levels are widened as `widened` does it. Further, coarser levels keep their random weights; the first level on the
    way back that they reach hands on what stood at the bottom before, and learns to read them. Weights that cannot be
    fitted are left as they are, for `load_state` to refuse.
    """
    held, wanted = _widths(shallow), _widths(deep)
    further = len(wanted) - len(held)
    if further < 0 or any(before > after for before, after in zip(held, wanted, strict=False)):
        return dict(shallow)
    renamed = {_renamed(name, further): value for name, value in shallow.items()}
    places = {
        f"up.{len(wanted) - 2 - level}.first.weight": [
            *range(held[level]),
            *range(wanted[level], wanted[level] + held[level + 1]),
        ]
        for level in range(len(held) - 1)
    }
    fitted = widened(renamed, deep, places)
    if not further:
        return fitted
    new = {name: value.clone() for name, value in deep.items() if name not in fitted}
    _hand_on(new, f"up.{further - 1}", shallow, f"down.{len(held) - 2}.second_norm")
    return {**fitted, **new}


def _widths(state: Mapping[str, Tensor]) -> list[int]:
    """Channels of every level, finest first."""
    names = ["stem", *(f"down.{k}" for k in range(len(state)))]
    found = [state.get(f"{name}.second.weight") for name in names]
    return [len(weight) for weight in found if weight is not None]


def _renamed(name: str, further: int) -> str:
    """Levels on the way back are counted from the coarsest."""
    kind, *rest = name.split(".")
    return ".".join([kind, str(int(rest[0]) + further), *rest[1:]]) if kind == "up" else name


def _hand_on(new: dict[str, Tensor], level: str, shallow: Mapping[str, Tensor], norm: str) -> None:
    """Make the first channels of `level` those of the bottom of `shallow`, whose last normalization is `norm`.

    Batch norm hands on what has the mean and spread that it was told: those of ReLU of a normal variable.
    """
    center, spread = shallow[f"{norm}.bias"], shallow[f"{norm}.weight"].abs().clamp_min(_EPS)
    standard, z = Normal(torch.zeros(()), torch.ones(())), center / spread
    density, below = standard.log_prob(z).exp(), standard.cdf(z)
    mean = center * below + spread * density
    variance = ((center**2 + spread**2) * below + center * spread * density - mean**2).clamp_min(0)
    count = len(center)
    for layer in ("first", "second"):
        weight = new[f"{level}.{layer}.weight"]
        weight[:count] = 0
        weight[range(count), range(count), 1, 1] = 1
        for part, value in (
            ("weight", (variance + _EPS).sqrt()),
            ("bias", mean),
            ("running_mean", mean),
            ("running_var", variance),
        ):
            new[f"{level}.{layer}_norm.{part}"][:count] = value
