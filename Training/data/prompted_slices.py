"""Slices as ICH-SCNet meets them: an image, simulated prompts, the clinical sentence, and the target they imply."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ICHAnalysisLib.clinical import RANGES, ClinicalRecord, tokenize
from ICHAnalysisLib.config.preprocess import PreprocessConfig
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.prompts import SlicePrompts, pad_prompts, with_mask_prompts
from Training.data.augment import AugmentConfig
from Training.data.cache import ICH, IVH, UNKNOWN, CacheCase
from Training.data.datasets import SliceDataset
from Training.data.features import FeatureDataset, FeatureStore
from Training.data.prompt_simulation import PromptSimulationConfig, jittered_box, simulate_prompts
from Training.data.record_numbers import record_numbers

#: Apart from the slice's own augmentation, so that either can change without the other.
_STREAM = 1
_TEXT_DROP, _FIELD_DROP = 0.25, 0.3


class PromptedSlices(Dataset):
    """Items of `SliceDataset`, and: boxes, box_valid, points, point_labels, prior (1, H, W) as in `PromptBatch`;
    target float32 (K, H, W) of the classes ICH and IVH; known float32 (1, H, W); text (77,) token ids, zeros for none;
    numbers float32 (WIDTH,), the same record by `record_numbers`; outcome 1 poor, 0 good, its chance between them, -1
    unknown or a slice without a clot (decision S27); voxel_mm (3,) slice, row, column step.

    In training prompts are simulated and fields of the record dropped (decision S31); else there are no prompts, the
    whole record is read, and `oracle_box` (4,) is a box around all ICH, jittered by 5 %, for the prompted mode.
    features: finds the store of what frozen towers say; items then hold `features_sam` and `features_clip`.
    mask_prompts: rough masks also become a box and points, for networks that read no mask (decisions S15 and S16).
    bled_only: training draws none but slices that hold blood of a hemorrhage, the only ones with an outcome.
    """

    varies_visits = True

    def __init__(
        self,
        cases: Sequence[CacheCase],
        preprocess: PreprocessConfig,
        split: str,
        *,
        event: str,
        classes: int,
        prompts: PromptSimulationConfig,
        augment: AugmentConfig | None,
        retrospective: bool,
        seed: int,
        features: Callable[[SliceDataset], FeatureStore] | None = None,
        mask_prompts: bool = False,
        bled_only: bool = False,
    ) -> None:
        self.training = split == "train"
        self.split, self.event, self.classes, self.retrospective = split, event, classes, retrospective
        self.prompts, self.seed, self.mask_prompts = prompts, seed, mask_prompts
        slices = SliceDataset(cases, preprocess, augment=augment if self.training else None, seed=seed)
        self.slices = slices if features is None else FeatureDataset(slices, features(slices))
        self.sample_weights = self.slices.sample_weights
        if bled_only and self.training:
            bled = np.concatenate([np.asarray(case.meta["slices"]["ich"]) > 0 for case in slices.cases])
            if not bled.any():
                raise UsageError("No slice of the training cases holds a hemorrhage, so no outcome can be learned.")
            self.sample_weights = self.sample_weights * torch.from_numpy(bled)

    def __len__(self) -> int:
        return len(self.slices)

    def set_epoch(self, epoch: int) -> None:
        """As the slices do."""
        self.slices.set_epoch(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.slices[index]
        visit, place = divmod(index, len(self.slices))
        case = self.slices.cases[self.slices.index[place][0]]
        case_key = zlib.crc32(case.folder.name.encode())
        epoch = int(self.slices._epoch) if self.training else 0
        rng = np.random.default_rng([self.seed, epoch, case_key, item["slice_index"], visit, _STREAM])
        labels, given = item["labels"], SlicePrompts.empty()
        box = np.full(4, -1.0, np.float32)
        if self.training:
            labels, given = simulate_prompts(labels, item["hu"], rng, self.prompts)
            if self.mask_prompts:
                given = with_mask_prompts(given, rng, self.prompts.jitter)
        elif (labels == ICH).any():
            box = jittered_box(labels == ICH, rng, self.prompts.jitter)
        arrays = pad_prompts([given], self.prompts.max_boxes, self.prompts.max_points)
        prior = arrays.pop("mask")
        item.update({key: value[0] for key, value in arrays.items() if value is not None})
        item["prior"] = np.zeros((1, *labels.shape), np.float32) if prior is None else prior[0]
        item["target"] = np.stack([labels == value for value in (ICH, IVH)[: self.classes]]).astype(np.float32)
        item["known"] = (labels != UNKNOWN)[None].astype(np.float32)
        record = self._record(item, rng)
        ids = (0,) * 77 if record.is_empty else _cached_ids(record.sentence(self.retrospective))
        item["text"] = np.array(ids, dtype=np.int64)
        item["numbers"] = record_numbers(record, self.retrospective)
        item["outcome"] = item[f"chance_{self.event}"] if (item["labels"] == ICH).any() else -1.0
        item["oracle_box"], item["split"] = box, self.split
        item["voxel_mm"] = voxel_mm(case)
        item.update({f"features_{name}": value for name, value in item.pop("features", {}).items()})
        for unused in ("record", "hu", "beside"):
            item.pop(unused, None)
        return item

    def _record(self, item: dict[str, Any], rng: np.random.Generator) -> ClinicalRecord:
        """What is known of the patient; in training now and then less, or nothing."""
        record = clinical_record(item["record"])
        if not self.training:
            return record
        if rng.random() < _TEXT_DROP:
            return ClinicalRecord()
        return drop_fields(with_lesion(record, item, rng), rng)


def voxel_mm(case: CacheCase) -> np.ndarray:
    """(3,) mean step between slices, then row and column step, mm."""
    x, y = np.broadcast_to(np.asarray(case.meta["spacing_mm"], dtype=float), 2)
    steps = np.abs(np.diff(np.asarray(case.meta["positions_mm"], dtype=float)))
    step = steps.mean() if len(steps) else float(np.mean(case.meta["heights_mm"]))
    return np.array([step, y, x], dtype=np.float64)


def clinical_record(values: dict[str, Any]) -> ClinicalRecord:
    """The record of a cached case: what `ClinicalRecord` knows of it; values out of range count as unknown."""
    kept: dict[str, Any] = {}
    for name in ("age", "sex", "gcs", "onset_to_ct_h", "length_of_stay_days", "treatment", "text"):
        value = values.get(name)
        if name in RANGES and value is not None and not RANGES[name][0] <= value <= RANGES[name][1]:
            value = None
        kept[name] = value
    return ClinicalRecord(**kept)


def with_lesion(record: ClinicalRecord, item: dict[str, Any], rng: np.random.Generator) -> ClinicalRecord:
    """Location and volume added as another network would predict them: the volume 15 % off (decision S31)."""
    from ICHAnalysisLib.config.preprocess import LOCATIONS

    if record.text is not None or not item["volume_ml"] > 0:
        return record
    volume = min(float(item["volume_ml"] * np.exp(rng.normal(0, 0.15))), RANGES["volume_ml"][1])
    location = LOCATIONS[item["location"]] if item["location"] >= 0 else None
    return record.replace(volume_ml=volume, location=location)


def drop_fields(record: ClinicalRecord, rng: np.random.Generator) -> ClinicalRecord:
    """Each field unknown with probability 0.3, so that a missing one is nothing new."""
    names = [name for name, value in record.to_dict().items() if value is not None]
    dropped = {name: None for name, draw in zip(names, rng.random(len(names))) if draw < _FIELD_DROP}
    return record.replace(**dropped) if dropped else record


@lru_cache(maxsize=4096)
def _cached_ids(text: str) -> tuple[int, ...]:
    return tokenize(text).ids
