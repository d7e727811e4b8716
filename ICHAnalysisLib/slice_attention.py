"""Where DTViT looked on a scan's slices, as a volume on the acquired slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ICHAnalysisLib.ct.head import brain_mask
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.gradcam import slice_heatmap
from ICHAnalysisLib.preprocess import make_stack, native_to_stack, stack_to_native

if TYPE_CHECKING:
    from ICHAnalysisLib.ct.volume import CTVolume
    from ICHAnalysisLib.predict import DTViTPredictor


def slice_attention(
    volume: CTVolume, network: DTViTPredictor, slices: Sequence[int] | None = None, in_brain: bool = True
) -> np.ndarray:
    """Grad-CAM of DTViT's "hemorrhage", float32 (K, J, I): 1 is the most important place of a slice, 0 none.

    network: `Models.load().dtvit`, or one with other weights. slices: acquired slices (0-based), all where None; the
    others stay 0. Every slice is scaled by itself, also one without hemorrhage: read it beside the slice's probability.
    in_brain: 0 outside the brain, whose edge draws attention too. Model attention, not a segmentation. Raises
    UsageError for a slice that the scan does not have.
    """
    wanted = np.arange(volume.shape[0]) if slices is None else np.unique(np.asarray(slices, dtype=int))
    if wanted.size and not 0 <= wanted[0] <= wanted[-1] < volume.shape[0]:
        raise UsageError(f"Slices {list(wanted)} must lie in 0 to {volume.shape[0] - 1}.")
    stack = make_stack(volume, network.preprocess)
    attention = np.zeros(stack.hu.shape, dtype=np.float32)
    for n in np.unique(stack.slice_of_native()[wanted]):
        with torch.enable_grad():
            attention[n] = slice_heatmap(network.network, network.slices_tensor(stack.hu, [int(n)]))[0]
    if in_brain:
        attention *= native_to_stack(brain_mask(volume).astype(np.float32), stack) > 0.5
    native = stack_to_native(attention, stack)
    native[np.setdiff1d(np.arange(volume.shape[0]), wanted)] = 0.0
    return native
