"""Weights of a narrow network for a wider one of the same layers, which answers alike until it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def widened(
    narrow: Mapping[str, Tensor], wide: Mapping[str, Tensor], places: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """The state dict `narrow` in the shapes of `wide`, the state dict of a wider network as it was initialized.

    The first outputs of every layer are the narrow network's, and read nothing of what is new; further outputs keep
    their random weights and read everything. So the answer stays, and gradients reach the new weights (the idea of
    Chen, Goodfellow and Shlens 2016, Net2Net). places: by name, where among a wide weight's inputs those of the narrow
    one stand, if they are not the first. Names and layers that cannot be widened are left as `narrow` has them, for
    `load_state` to refuse. Group norm must have groups of as many channels in both.
    """
    return {
        name: _fitted(value, wide[name], places.get(name)) if name in wide else value for name, value in narrow.items()
    }


def _fitted(narrow: Tensor, wide: Tensor, places: Sequence[int] | None) -> Tensor:
    """One weight or bias; axis 0 are its outputs, axis 1 its inputs, the others must agree."""
    larger = narrow.ndim == wide.ndim and all(a <= b for a, b in zip(narrow.shape, wide.shape, strict=True))
    if narrow.shape == wide.shape or not larger or narrow.shape[2:] != wide.shape[2:]:
        return narrow
    result = wide.detach().to(narrow.dtype).clone()
    outputs = narrow.shape[0]
    if narrow.ndim == 1:
        result[:outputs] = narrow
        return result
    result[:outputs] = 0
    result[:outputs, list(range(narrow.shape[1]) if places is None else places)] = narrow
    return result
