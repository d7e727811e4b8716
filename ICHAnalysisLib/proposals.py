"""Box prompts proposed automatically: around what ICH-SCNet doubts or sees in part, as far as dense tissue reaches.

Without prompts a small network finds a lesion before it finds the whole of it; with a box it outlines what the box
holds, blood or not. So boxes come from its own first answer, and the first answer decides what is kept.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.config.analyze import ProposalConfig
from ICHAnalysisLib.ct.morphology import erode, opening
from ICHAnalysisLib.postprocess import CONNECTIVITY
from ICHAnalysisLib.preprocess import SliceStack
from ICHAnalysisLib.prompt_projection import StackPrompts
from ICHAnalysisLib.prompts import SlicePrompts, box_of


def propose_boxes(probability: np.ndarray, brain: np.ndarray, stack: SliceStack, cfg: ProposalConfig) -> StackPrompts:
    """Boxes on the slices of a stack from its first ICH `probability` (S, H, W).

    Regions are where the probability exceeds `low`, together with dense tissue inside the brain that touches them;
    only regions that reach `high` somewhere are boxed, at most `largest` of them a slice.
    """
    low = probability > cfg.low
    side = 2 * cfg.margin_px + 1
    core = erode(brain, np.ones((1, side, side), dtype=bool))
    smooth = ndimage.uniform_filter(stack.hu, (1, 5, 5))
    dense = opening((smooth > cfg.dense_hu[0]) & (smooth < cfg.dense_hu[1]) & core, np.ones((1, 3, 3), dtype=bool))
    regions, count = ndimage.label(low | dense, structure=CONNECTIVITY)
    reached = set(regions[probability >= cfg.high].tolist())
    boxes: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(len(probability))]
    for label, sides in enumerate(ndimage.find_objects(regions, max_label=count), start=1):
        if label not in reached:
            continue
        for s in range(sides[0].start, sides[0].stop):
            _add_box(boxes[s], regions[s][sides[1:]] == label, sides, cfg)
    slices = tuple(_slice_prompts(found, cfg.largest) for found in boxes)
    boxed = np.array([len(found) > 0 for found in boxes])
    return StackPrompts(slices, boxed, np.zeros_like(boxed), True)


def _add_box(boxes: list[tuple[int, np.ndarray]], inside: np.ndarray, sides: tuple, cfg: ProposalConfig) -> None:
    """Append the region's box on one slice, with its size, where it is large enough."""
    size = int(np.count_nonzero(inside))
    if size < cfg.smallest_px:
        return
    corner, padding = np.array([sides[2].start, sides[1].start] * 2), np.array([-1, -1, 1, 1]) * cfg.padding_px
    boxes.append((size, (box_of(inside) + corner + padding).astype(np.float32)))


def _slice_prompts(found: list[tuple[int, np.ndarray]], largest: int) -> SlicePrompts:
    """The largest boxes of one slice."""
    kept = [box for _, box in sorted(found, key=lambda item: -item[0])[:largest]]
    return SlicePrompts.of_boxes(kept)
