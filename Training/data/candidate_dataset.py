"""Torch data set of candidates' crops (`Training.data.candidate_pool`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ICHAnalysisLib.candidate_crops import CandidateCrop, candidate_arrays
from ICHAnalysisLib.config.preprocess import PreprocessConfig
from Training.data.augment import AugmentConfig, augment
from Training.data.cache import UNKNOWN, CacheCase
from Training.data.candidate_pool import CropCase
from Training.data.datasets import CaseDataset, case_facts

#: Scanners differ by as much, HU; more would make blood of what is none.
_SHIFT_HU = 3.0


class CandidateDataset(CaseDataset):
    """Every crop of every scan.

    Items: "image" float32 (W, slices, size, size) windows in [0, 1], "outline" float32 (slices, size, size),
    "log_height", "is_ich" 1.0 or 0.0, "missed", "volume_ml", "candidate" (its number in the scan), "case_has_ich"
    (1, 0, -1 unknown) and "case_id".
    """

    cases: Sequence[CropCase]

    def _check(self, case: CacheCase, preprocess: PreprocessConfig) -> None:
        """Crops are cut with the pixels of the preset; there is nothing else to hold against them."""

    @cached_property
    def index(self) -> list[tuple[int, int]]:
        """(case, crop) of each item."""
        return [(c, n) for c, case in enumerate(self.cases) for n in range(len(case.candidates))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        visit, index = divmod(index, len(self))
        number, n = self.index[index]
        case = self.cases[number]
        crop, facts = case.crop(n), case.candidates[n]
        if self.augment is not None:
            crop = vary_crop(crop, self._rng(case, n, visit), self.augment, self.preprocess.spacing_mm)
        image, outline, log_height = (part[0] for part in candidate_arrays([crop], self.preprocess.windows))
        scan = case_facts(case)
        return {
            "image": image,
            "outline": outline,
            "log_height": log_height,
            "is_ich": float(facts["is_ich"]),
            "missed": bool(facts["missed"]),
            "volume_ml": float(facts["volume_ml"]),
            "candidate": n,
            "case_has_ich": scan["case_has_ich"],
            "case_id": scan["case_id"],
        }


def vary_crop(crop: CandidateCrop, rng: np.random.Generator, cfg: AugmentConfig, pixel_mm: float) -> CandidateCrop:
    """The crop in another head and on another scanner.

    The outline goes along as pixels of unknown class: whatever lies under it keeps the density that tells what it is.
    """
    labels = np.where(crop.outline, UNKNOWN, 0).astype(np.uint8)
    hu, labels, _ = augment(crop.hu + rng.uniform(-_SHIFT_HU, _SHIFT_HU), labels, rng, cfg, pixel_mm)
    return CandidateCrop(hu, labels == UNKNOWN, crop.log_height)
