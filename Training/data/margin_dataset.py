"""Torch data set of boxes and what they hold, and of places without a box, for the margin net."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ICHAnalysisLib.config.margin_net import MarginNetConfig
from ICHAnalysisLib.config.preprocess import PreprocessConfig
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.margin_crops import everything, square_at
from ICHAnalysisLib.preprocess import log_heights
from ICHAnalysisLib.prompts import box_of, drawn_boxes
from Training.data.augment import AugmentConfig
from Training.data.cache import ICH, UNKNOWN, CacheCase
from Training.data.datasets import SliceDataset
from Training.data.prompt_simulation import (
    PromptSimulationConfig,
    empty_box,
    jittered_box,
    place_without_blood,
    simulate_prompts,
)
from Training.data.sampling import slice_weights

#: Further draws of an item must not repeat those of the slices' augmentation.
_STREAM = 2
#: Boxes are drawn on every slice, and nothing else is; many are as loose as a 3-D box is on a lesion's end slices.
BOXES = PromptSimulationConfig(none=0.0, box=1.0, point=0.0, mask=0.0, empty_none=0.0, loose=0.5, loose_factor=4.0)
#: Shares of the boxes that hold what the neighbors show as well, and that hold only a part of the clot, which is meant
#: as a whole: without prompts a box is drawn around what was seen of it.
_WITH_NEIGHBORS, _IN_PART = 0.3, 0.2
_SMALLEST_PART = 0.35  # of each side
#: Slices beyond a clot are drawn less often than those that hold it, and those that hold little more often.
_BEYOND, _SMALL_PX, _SMALL = 0.4, 150, 2.0
_SHIFT_PX, _UNBOXED_SHIFT_PX = 8, 48  # how far a crop's middle may lie from its box's, and from a clot's without one
#: Share of the crops without a box that lie on slices away from any clot.
_AWAY = 0.5


class MarginDataset(Dataset):
    """The slices that hold hemorrhage, and those next to them, cropped around a box.

    unboxed: share of the training crops that are asked without a box, which is one around everything; half of them lie
    on slices away from any hemorrhage, which are drawn for nothing else.

    Items: "image" float32 (C, size, size); "box" and "target" and "known" float32 (1, size, size); "log_height";
    "slice_index", "case_id" and "pixel_ml", the volume of a pixel of the slice.
    """

    varies_visits = True

    def __init__(
        self,
        cases: Sequence[CacheCase],
        preprocess: PreprocessConfig,
        network: MarginNetConfig,
        *,
        training: bool = False,
        augment: AugmentConfig | None = None,
        prompts: PromptSimulationConfig = BOXES,
        unboxed: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.slices = SliceDataset(cases, preprocess, augment=augment, seed=seed)
        self.network, self.prompts, self.seed, self.training = network, prompts, seed, training
        held = [np.asarray(case.meta["slices"]["ich"]) for case in self.slices.cases]
        weights = np.concatenate([_weights(pixels) for pixels in held])
        if not training:  # scores are of the slices that hold hemorrhage
            weights = np.where(np.concatenate(held) > 0, weights, 0.0)
        self.near = weights > 0  # of all slices, those at a clot
        if not self.near.any():
            raise UsageError("No slice of this split holds a hemorrhage, so no margin can be learned.")
        away = 0.0  # share of the crops on slices away from any clot
        if training and unboxed:
            others = np.where(self.near, 0.0, slice_weights(self.slices.cases))
            if others.any():
                away = unboxed * _AWAY
                weights = weights / weights.sum() * (1 - away) + others / others.sum() * away
        self.unboxed = (unboxed - away) / (1 - away) if training else 0.0  # of the crops at a clot
        self.places = np.flatnonzero(weights)
        self.sample_weights = torch.from_numpy(weights[self.places])

    def __len__(self) -> int:
        return len(self.places)

    def set_epoch(self, epoch: int) -> None:
        """As the slices do."""
        self.slices.set_epoch(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        visit, index = divmod(index, len(self))
        place = int(self.places[index])
        item = self.slices[visit * len(self.slices) + place]
        case, s = self.slices.cases[self.slices.index[place][0]], int(item["slice_index"])
        epoch = int(self.slices._epoch) if self.training else 0
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(case.folder.name.encode()), s, visit, _STREAM])
        if self.near[place] and rng.random() >= self.unboxed:
            labels, boxes = self._boxed(item, rng)
            center, shift = boxes[rng.integers(len(boxes))].reshape(2, 2).mean(axis=0), _SHIFT_PX
        else:
            labels, boxes = item["labels"], everything(item["labels"].shape)
            center, shift = _somewhere(item, rng), _UNBOXED_SHIFT_PX
        if self.training:
            center = center + rng.uniform(-shift, shift, 2)
        square = square_at(center, labels.shape, self.network.size)
        inside = labels[square]
        return {
            "image": np.ascontiguousarray(item["image"][:, square[0], square[1]]),
            "box": drawn_boxes(boxes, labels.shape)[square][None],
            "target": (inside == ICH)[None].astype(np.float32),
            "known": (inside != UNKNOWN)[None].astype(np.float32),
            "log_height": log_heights(case.meta["heights_mm"], [s])[0],
            "slice_index": s,
            "case_id": case.case_id,
            "pixel_ml": float(np.prod(case.meta["spacing_mm"]) * case.meta["heights_mm"][s] / 1000.0),
        }

    def _boxed(self, item: dict[str, Any], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Labels (H, W) that obey the boxes, and the boxes (N, 4)."""
        labels, held = item["labels"], item["labels"] == ICH
        if held.any() and not self.training:
            return labels, jittered_box(held, rng, self.prompts.jitter)[None]
        if held.any():
            draw = rng.random()
            if draw < _WITH_NEIGHBORS:
                return labels, jittered_box(held | item["beside"], rng, self.prompts.jitter_wild)[None]
            if draw < _WITH_NEIGHBORS + _IN_PART:
                return labels, part_of(jittered_box(held, rng, 0.0), rng)[None]
            labels, given = simulate_prompts(labels, item["hu"], rng, self.prompts)
            return labels, given.boxes
        if item["beside"].any():  # as a 3-D box has it on the slices just beyond its lesion
            return labels, jittered_box(item["beside"], rng, self.prompts.jitter_wild)[None]
        return labels, empty_box(labels.shape, rng)


def _somewhere(item: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """(2,) x, y the middle of the clot, or a place in tissue, often one that looks like blood, where there is none."""
    held = item["labels"] == ICH
    if held.any():
        return box_of(held).reshape(2, 2).mean(axis=0)
    return place_without_blood(item["labels"], item["hu"], rng)


def part_of(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(4,) a box somewhere inside a box."""
    low, extent = box[:2], box[2:] - box[:2]
    size = extent * rng.uniform(_SMALLEST_PART, 1.0, 2)
    corner = low + rng.random(2) * (extent - size)
    return np.concatenate([corner, corner + size]).astype(np.float32)


def _weights(pixels: np.ndarray) -> np.ndarray:
    """(S,) how often each slice of a scan is drawn, from its pixels of hemorrhage; 0 away from it."""
    held = pixels > 0
    beside = np.zeros_like(held)
    beside[1:] |= held[:-1]
    beside[:-1] |= held[1:]
    return np.where(held, np.where(pixels < _SMALL_PX, _SMALL, 1.0), np.where(beside, _BEYOND, 0.0))
