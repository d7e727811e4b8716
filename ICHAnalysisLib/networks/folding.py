"""Batch norms folded into the convolutions beside them: the same answers, without a pass over every map for each norm.

In evaluation a batch norm is one factor and one summand a channel, which a convolution can carry in its own weights.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_Convolution = nn.Conv2d | nn.Conv3d
_BatchNorm = nn.BatchNorm2d | nn.BatchNorm3d


def fold_batch_norms(network: nn.Module) -> None:
    """Fold, in place, the batch norms that the blocks of `network` name as `foldable`; for answering only.

    A block's `foldable` lists pairs of its submodules in the order in which they are applied, one of them a
    convolution. A norm that comes first must meet a 1x1 convolution: padding is not normalized. Pairs with other
    norms, and those that a block was built without, stay. The network must be in evaluation mode; its state no longer
    fits the file that it was loaded from, and it can no longer be trained. Raises ValueError in training mode.
    """
    if network.training:
        raise ValueError("Batch norms can be folded in evaluation mode only: in training they follow the batch.")
    for block in network.modules():
        for pair in getattr(block, "foldable", ()):
            _fold(block, pair)


def _fold(block: nn.Module, names: tuple[str, str]) -> None:
    """One pair, where both stand and the norm is a batch norm."""
    here = dict(block.named_modules())
    first, second = (here.get(name) for name in names)
    if isinstance(first, _Convolution) and isinstance(second, _BatchNorm):
        _put(block, names[0], fuse_conv_bn_eval(first, second))
        _put(block, names[1], nn.Identity())
    elif isinstance(first, _BatchNorm) and isinstance(second, _Convolution):
        _fold_before(first, second)
        _put(block, names[0], nn.Identity())


def _put(block: nn.Module, name: str, module: nn.Module) -> None:
    """`module` in the place of the submodule `name`, which may lie deeper."""
    parent, _, last = name.rpartition(".")
    setattr(block.get_submodule(parent), last, module)


@torch.no_grad()
def _fold_before(norm: _BatchNorm, convolution: _Convolution) -> None:
    """A norm into the 1x1 convolution after it, which has a bias."""
    if any(size != 1 for size in convolution.kernel_size) or convolution.bias is None:
        raise ValueError(f"A batch norm can be folded into a 1x1 convolution with a bias after it, not {convolution}.")
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("A batch norm without running statistics follows the batch and cannot be folded.")
    factor = norm.weight * torch.rsqrt(variance + norm.eps)
    summand = norm.bias - factor * mean
    convolution.bias += convolution.weight.flatten(1) @ summand
    convolution.weight *= factor.reshape(1, -1, *[1] * (convolution.weight.ndim - 2))
