"""Torch data set of candidates' crops (`Training.data.candidate_pool`)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ICHAnalysisLib.candidate_crops import CandidateCrop, candidate_arrays
from ICHAnalysisLib.config.preprocess import PreprocessConfig
from ICHAnalysisLib.errors import UsageError
from Training.data.augment import AugmentConfig, augment
from Training.data.cache import UNKNOWN
from Training.data.candidate_pool import CropCase

#: Scanners differ by as much, HU; more would make blood of what is none.
_SHIFT_HU = 3.0


class CandidateDataset(Dataset):
    """Every crop of every scan.

    Items: "image" float32 (W, slices, size, size) windows in [0, 1], "outline" float32 (slices, size, size),
    "log_height", "is_ich" 1.0 or 0.0, "missed", "volume_ml", "candidate" (its number in the scan), "case_has_ich"
    (1, 0, -1 unknown) and "case_id".
    """

    varies_visits = True

    def __init__(
        self, cases: Sequence[CropCase], preprocess: PreprocessConfig, augment: AugmentConfig | None, seed: int
    ) -> None:
        if not cases:
            raise UsageError("No scan of this split has a candidate; cut those of more scans.")
        self.cases, self.preprocess, self.augment, self.seed = list(cases), preprocess, augment, seed
        self.index = [(c, n) for c, case in enumerate(self.cases) for n in range(len(case.candidates))]
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.index)

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch; decides its augmentation together with the seed and the index."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        visit, index = divmod(index, len(self))
        number, n = self.index[index]
        case = self.cases[number]
        crop, facts = case.crop(n), case.candidates[n]
        if self.augment is not None:
            key = zlib.crc32(case.folder.name.encode())
            rng = np.random.default_rng([self.seed, int(self._epoch), key, n, visit])
            crop = vary_crop(crop, rng, self.augment, self.preprocess.spacing_mm)
        image, outline, log_height = (part[0] for part in candidate_arrays([crop], self.preprocess.windows))
        has_ich = case.meta.get("has_ich")
        return {
            "image": image,
            "outline": outline,
            "log_height": float(log_height),
            "is_ich": float(facts["is_ich"]),
            "missed": bool(facts["missed"]),
            "volume_ml": float(facts["volume_ml"]),
            "candidate": n,
            "case_has_ich": -1 if has_ich is None else int(has_ich),
            "case_id": case.case_id,
        }


def vary_crop(crop: CandidateCrop, rng: np.random.Generator, cfg: AugmentConfig, pixel_mm: float) -> CandidateCrop:
    """The crop in another head and on another scanner.

    The outline goes along as pixels of unknown class: whatever lies under it keeps the density that tells what it is.
    """
    labels = np.where(crop.outline, UNKNOWN, 0).astype(np.uint8)
    hu, labels, _ = augment(crop.hu + rng.uniform(-_SHIFT_HU, _SHIFT_HU), labels, rng, cfg, pixel_mm)
    return CandidateCrop(hu, labels == UNKNOWN, crop.log_height)
