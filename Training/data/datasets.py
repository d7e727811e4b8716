"""Torch data sets over the cache: single slices (`SliceDataset`) and whole scans (`ScanDataset`).

Items are dicts of arrays, numbers and plain values. What is unknown stays unknown: classes are -1, amounts NaN,
label pixels 255. Augmentation derives from (seed, epoch, case, slice, visit) alone, so a resumed run sees the same
pictures with any number of workers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ICHAnalysisLib.config.preprocess import LOCATIONS, PreprocessConfig
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.preprocess import AIR_HU, channels_of, planes_seen, scan_tensor, slice_channels
from ICHAnalysisLib.stretch import Stretch
from Training.data.augment import AugmentConfig, augment, sharpen
from Training.data.cache import EDEMA, ICH, IVH, UNKNOWN, CacheCase
from Training.data.patients import another_patient
from Training.data.sampling import scan_weights, slice_weights

#: Fields of the preprocessing that decide the cached arrays; the windows are applied afterwards.
GEOMETRY = ("spacing_mm", "size", "layout", "slab_mm", "remove_holder")
_MIX_PROBABILITY = 0.2  # of averaging a slice with its neighbor, as a thicker slice would
_ALONE_PROBABILITY = 0.05  # of seeing a slice without its neighbors, as a scan of one slice is


class CaseDataset(Dataset):
    """What both data sets share: cases, preprocessing, augmentation and its random numbers.

    An index of n * len(self) + i is item i, drawn for the n-th time in an epoch after its first: varied anew.
    """

    varies_visits = True

    def __init__(
        self,
        cases: Sequence[CacheCase],
        preprocess: PreprocessConfig,
        *,
        augment: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        if not cases:
            raise UsageError("A data set needs at least one case; the split is empty.")
        for case in cases:
            self._check(case, preprocess)
        self.cases: Sequence[CacheCase] = list(cases)
        self.preprocess, self.augment, self.seed = preprocess, augment, seed
        # Shared memory: loader processes that outlive an epoch must see the next one's number.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def _check(self, case: CacheCase, preprocess: PreprocessConfig) -> None:
        """Raises where the case's arrays are not what the preprocessing asks for."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch; decides its augmentation together with the seed and the index."""
        self._epoch.fill_(epoch)

    def _rng(self, case: CacheCase, s: int, visit: int) -> np.random.Generator:
        # By the case's own key, not its place in the list: another fold or a grown cache draws the same for it.
        return np.random.default_rng([self.seed, int(self._epoch), zlib.crc32(case.folder.name.encode()), s, visit])


class SliceDataset(CaseDataset):
    """Every slice of every case.

    Items: "image" float32 (C, H, W) in [0, 1], one channel a window of the slice, then those of its neighbors; "hu"
    float32 (H, W) behind it; "labels" uint8 (H, W); "beside" bool (H, W), ICH of the neighbors where they are seen;
    "slice_index" in the case's stack; "has_ich" of the slice (1, 0, -1 unknown); and the facts of `case_facts`.
    """

    def _check(self, case: CacheCase, preprocess: PreprocessConfig) -> None:
        check_geometry(case, preprocess)

    @cached_property
    def index(self) -> list[tuple[int, int]]:
        """(case, slice) of each item."""
        return [(c, s) for c, case in enumerate(self.cases) for s in range(case.num_slices)]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def sample_weights(self) -> torch.Tensor:
        """float64 (len,): blood half of the draws, then what resembles it, skull base and vertex, and the rest."""
        return torch.from_numpy(slice_weights(self.cases))

    def __getitem__(self, index: int) -> dict[str, Any]:
        visit, index = divmod(index, len(self))
        case_number, s = self.index[index]
        case = self.cases[case_number]
        planes = planes_seen(case.hu, [s], self.preprocess)[0].astype(np.float32)
        labels = planes_seen(case.labels, [s], self.preprocess)[0]
        own = len(planes) // 2
        if self.augment is not None:
            rng = self._rng(case, s, visit)
            planes[own] = _thicker(case, s, planes[own], rng, self.augment)
            pixel_mm = float(np.mean(case.meta.get("spacing_mm", 0.9)))
            bled_into = own if case.meta.get("has_ich") is False and not labels.any() else None
            planes, labels, _ = augment(planes, labels, rng, self.augment, pixel_mm, bled_into)
            if len(planes) > 1 and rng.random() < _ALONE_PROBABILITY:
                planes[:] = planes[own]
        seen = {} if len(planes) == 1 else {"beside": (np.delete(labels, own, axis=0) == ICH).any(axis=0)}
        hu, labels = planes[own], labels[own]
        image = slice_channels(planes, self.preprocess)
        if self.augment is not None and self.augment.sharpness and rng.random() < self.augment.sharpness:
            image = sharpen(image)
        facts = case_facts(case)
        if self.augment is not None:
            facts = _of_a_patient(facts, case, rng, self.augment)
        return {
            "image": image,
            "hu": hu,
            "labels": labels,
            "slice_index": s,
            "has_ich": _slice_has_ich(case, s, labels),
            **seen,
            **facts,
        }


class ScanDataset(CaseDataset):
    """One item a case, on the even grid of a scan network (preprocessing with a depth).

    Items: "image" float32 (C, D, H, W) in [0, 1]; "hu" float32 (D, H, W); "labels" uint8 (D, H, W); and the facts
    of `case_facts`, the volume grown or shrunk as the augmentation did. With layout "stretch" also "voxel_ml", float.
    """

    def _check(self, case: CacheCase, preprocess: PreprocessConfig) -> None:
        check_scan_geometry(case, preprocess)

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def sample_weights(self) -> torch.Tensor:
        """float64 (len,): three of four draws bleed, rarer locations more often."""
        return torch.from_numpy(scan_weights(self.cases))

    def __getitem__(self, index: int) -> dict[str, Any]:
        visit, index = divmod(index, len(self))
        case = self.cases[index]
        rng = self._rng(case, 0, visit)
        first = _lowest_slice(case, rng) if self.augment is not None else 0
        facts = case_facts(case)
        if self.preprocess.layout == "stretch":
            hu, labels, facts["voxel_ml"] = stretched_arrays(case, self.preprocess, first)
        else:
            hu, labels = scan_arrays(case, self.preprocess, first)
        if self.augment is not None:
            hu, labels, growth = augment(hu, labels, rng, self.augment, self.preprocess.spacing_mm)
            facts["volume_ml"] *= growth
            facts = _of_a_patient(facts, case, rng, self.augment)
        channels = channels_of(hu, self.preprocess)  # (D, C, H, W)
        return {"image": np.ascontiguousarray(channels.swapaxes(0, 1)), "hu": hu, "labels": labels, **facts}


def case_facts(case: CacheCase) -> dict[str, Any]:
    """Labels of the whole scan, as an item carries them.

    case_id, patient_id; "location": index in LOCATIONS or -1; "case_has_ich", "dead_30d", "poor_outcome": 1, 0, -1;
    "chance_dead_30d", "chance_poor_outcome": the same as floats, or what `another_patient` says;
    "gos", "mrs": -1 unknown; "volume_ml", "ivh_ml": NaN unknown; "record": the clinical fields; "synthetic": bool.
    """
    meta, outcome = case.meta, case.meta.get("outcome") or {}
    location = meta.get("location")
    return {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "location": LOCATIONS.index(location) if location in LOCATIONS else -1,
        "case_has_ich": _class(meta.get("has_ich")),
        "dead_30d": _class(outcome.get("dead_30d")),
        "poor_outcome": _class(outcome.get("poor_outcome")),
        "chance_dead_30d": float(_class(outcome.get("dead_30d"))),
        "chance_poor_outcome": float(_class(outcome.get("poor_outcome"))),
        "gos": _class(outcome.get("gos")),
        "mrs": _class(outcome.get("mrs_90d", outcome.get("mrs"))),
        "volume_ml": _amount(meta.get("volume_ml")),
        "ivh_ml": _amount(meta.get("ivh_ml")),
        "record": dict(meta.get("record") or {}),
        "synthetic": bool(meta.get("synthetic")),
    }


def _of_a_patient(
    facts: dict[str, Any], case: CacheCase, rng: np.random.Generator, cfg: AugmentConfig
) -> dict[str, Any]:
    """The facts of the scan as it is seen, now and then of another patient."""
    another = cfg.new_patient and rng.random() < cfg.new_patient
    return another_patient(facts, case.meta, rng) if another else facts


def scan_arrays(case: CacheCase, preprocess: PreprocessConfig, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(D, H, W) HU float32 and labels uint8 of a case on a scan network's grid, from slice `first` upward."""
    positions = np.asarray(case.meta["positions_mm"], dtype=float)[first:]
    spacing = float(np.mean(case.meta["spacing_mm"]))
    hu = scan_tensor(case.hu[first:], positions, spacing, preprocess, AIR_HU)
    labels = _reduced_labels(
        np.asarray(case.labels[first:]), hu.shape, lambda mask: scan_tensor(mask, positions, spacing, preprocess, 0.0)
    )
    return hu, labels


def stretched_arrays(
    case: CacheCase, preprocess: PreprocessConfig, first: int = 0
) -> tuple[np.ndarray, np.ndarray, float]:
    """(D, H, W) HU float32 and labels uint8 of a case stretched to the network's size, and its voxels' volume in mL."""
    positions, heights = (np.asarray(case.meta[name], dtype=float)[first:] for name in ("positions_mm", "heights_mm"))
    values = np.asarray(case.hu[first:], dtype=np.float32)
    stretch = Stretch.of(values, positions, heights, float(np.mean(case.meta["spacing_mm"])), preprocess)
    hu = stretch.apply(values)
    return hu, _reduced_labels(np.asarray(case.labels[first:]), hu.shape, stretch.apply), stretch.voxel_ml


def _reduced_labels(
    stored: np.ndarray, shape: tuple[int, ...], reduce: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """uint8 labels where `reduce` leaves at least half of a label's mask."""
    labels = np.zeros(shape, dtype=np.uint8)
    present = np.bincount(stored.ravel(), minlength=256)
    for value in (EDEMA, IVH, ICH, UNKNOWN):
        if present[value]:
            labels[reduce((stored == value).astype(np.float32)) >= 0.5] = value
    return labels


def check_geometry(case: CacheCase, preprocess: PreprocessConfig) -> None:
    """Raise UsageError where the cached slices were not made with this preprocessing."""
    stored = case.meta.get("preprocess")
    if stored is None:
        return
    wanted = {name: getattr(preprocess, name) for name in GEOMETRY}
    differing = [
        f"{name} {stored[name]!r} instead of {wanted[name]!r}" for name in GEOMETRY if stored[name] != wanted[name]
    ]
    if differing:
        raise UsageError(f"Case {case.case_id} was cached with {'; '.join(differing)}; build a cache for this network.")


def check_scan_geometry(case: CacheCase, preprocess: PreprocessConfig) -> None:
    """Raise UsageError without a depth, or where the network's pixels are no whole blocks of the cached ones."""
    if preprocess.depth is None:
        raise UsageError("A scan network's preprocessing needs a depth (number of slices).")
    stored = (case.meta.get("preprocess") or {}).get("layout", "physical")
    if preprocess.layout == "stretch" and stored == "physical":
        return  # any spacing: the head's box is stretched
    factor = preprocess.spacing_mm / float(np.mean(case.meta["spacing_mm"]))
    if preprocess.layout != "physical" or abs(factor - round(factor)) > 0.02 or factor < 0.9:
        raise UsageError(
            f"Case {case.case_id} is cached at {np.mean(case.meta['spacing_mm']):.3f} mm; the network's "
            f"{preprocess.spacing_mm} mm must be a whole multiple of it, with layout physical."
        )


def _thicker(case: CacheCase, s: int, hu: np.ndarray, rng: np.random.Generator, cfg: AugmentConfig) -> np.ndarray:
    """The slice mixed with less than half of a neighbor: partial volume of thicker slices; its label stays."""
    if rng.random() >= _MIX_PROBABILITY * cfg.strength:
        return hu
    neighbor = s + (1 if rng.random() < 0.5 else -1)
    if not 0 <= neighbor < case.num_slices:
        return hu
    share = np.float32(rng.uniform(0.05, 0.45))
    return (1 - share) * hu + share * np.asarray(case.hu[neighbor], dtype=np.float32)


def _lowest_slice(case: CacheCase, rng: np.random.Generator) -> int:
    """First slice of a scan that starts higher: up to five bloodless slices of the base are left out."""
    blood = np.flatnonzero(np.add(case.meta["slices"]["ich"], case.meta["slices"]["ivh"]))
    most = min(5, int(blood[0]) if len(blood) else 5, max(0, case.num_slices - 8))
    return int(rng.integers(0, most + 1)) if rng.random() < 0.5 else 0


def _slice_has_ich(case: CacheCase, s: int, labels: np.ndarray) -> int:
    """1 or 0 of one slice as it is after augmentation, -1 where neither mask nor slice label tells."""
    if (labels == ICH).any():
        return 1
    known = case.meta.get("slice_has_ich")
    if known is not None and known[s] is not None:
        return int(known[s])
    return -1 if (labels == UNKNOWN).any() else 0


def _class(value: Any) -> int:
    return -1 if value is None else int(value)


def _amount(value: Any) -> float:
    return float("nan") if value is None else float(value)
