"""A disk cache of frozen towers' features, for networks whose encoders cost more than everything that is trained.

Features of augmented slices cannot be made in advance for endless augmentation, so a stated number of draws a slice
is made, and training picks among them. The picture itself is augmented again when read: its draw is deterministic.

    KEY/CASE/<name>.npy   float16 (draws, S, ...), one file a tower
KEY is a hash of the towers' weights, the preprocessing, the augmentation and the draws; CASE the cached case's key.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.errors import UsageError
from Training.data.cache import CacheCase
from Training.data.datasets import SliceDataset

logger = logging.getLogger(__name__)

#: (B, C, H, W) images to named features (B, ...).
Encoder = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class FeatureStore:
    """Where the features of one data set's draws lie. draws: pre-drawn augmentations a slice."""

    folder: Path
    draws: int

    def has(self, case: CacheCase) -> bool:
        """True where all draws of a case are there."""
        return (self.folder / case.folder.name).is_dir()

    def read(self, case: CacheCase, s: int, draw: int) -> dict[str, np.ndarray]:
        """{name: float16 features} of one slice's draw. Raises UsageError where the case has none."""
        if not self.has(case):
            raise UsageError(f"Case {case.case_id} has no features in {self.folder.name}; build them first.")
        paths = sorted((self.folder / case.folder.name).glob("*.npy"))
        return {path.stem: np.array(np.load(path, mmap_mode="r")[draw, s]) for path in paths}


def open_store(root: str | os.PathLike, towers: str, dataset: SliceDataset, draws: int) -> FeatureStore:
    """The store for a data set's slices seen by towers of digest `towers`; without augmentation one draw is all.

    Raises UsageError for less than one draw.
    """
    if draws < 1:
        raise UsageError(f"Features: {draws} draws a slice; at least one is needed.")
    draws = draws if dataset.augment is not None else 1
    facts = [towers, to_dict(dataset.preprocess), to_dict(dataset.augment), dataset.seed, draws]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    return FeatureStore(Path(root) / digest, draws)


def towers_digest(states: Iterable[Mapping[str, Tensor]]) -> str:
    """SHA-256 over the weights of frozen towers, names and values."""
    digest = hashlib.sha256()
    for state in states:
        for name in sorted(state):
            value = state[name].detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def build_features(dataset: SliceDataset, store: FeatureStore, encode: Encoder, batch_size: int = 4) -> int:
    """Encode every draw of every case that is missing; returns the number of new cases. Safe to stop and to repeat.

    `encode` runs without gradients on the images as the data set gives them, on whatever device it likes.
    """
    made, first = 0, 0
    for case in dataset.cases:
        if not store.has(case):
            features = _encode_case(dataset, first, case.num_slices, store.draws, encode, batch_size)
            _write(store.folder / case.folder.name, features)
            made += 1
            logger.info("features of case %s: %d draws of %d slices", case.case_id, store.draws, case.num_slices)
        first += case.num_slices
    return made


class FeatureDataset(Dataset):
    """The items of a `SliceDataset` at one of its pre-drawn augmentations, with "features": {name: float16 (...)}.

    Which draw an item takes derives from (seed, epoch, index, visit).
    """

    varies_visits = True

    def __init__(self, dataset: SliceDataset, store: FeatureStore) -> None:
        self.dataset, self.store = dataset, store
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        dataset.set_epoch(0)  # the draws themselves do not change with the epoch

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def sample_weights(self) -> Tensor:
        """As the slices' own."""
        return self.dataset.sample_weights

    @property
    def cases(self) -> Sequence[CacheCase]:
        """As the slices'."""
        return self.dataset.cases

    @property
    def index(self) -> list[tuple[int, int]]:
        """(case number, slice) of each item."""
        return self.dataset.index

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        visit, index = divmod(index, len(self))
        rng = np.random.default_rng([self.dataset.seed, int(self._epoch), index, visit])
        draw = int(rng.integers(self.store.draws))
        item = self.dataset[index + draw * len(self)]
        case_number, s = self.dataset.index[index]
        return {**item, "features": self.store.read(self.dataset.cases[case_number], s, draw)}


def _encode_case(
    dataset: SliceDataset, first: int, slices: int, draws: int, encode: Encoder, batch_size: int
) -> dict[str, np.ndarray]:
    """{name: float16 (draws, S, ...)} of the slices from data set index `first` on."""
    dataset.set_epoch(0)
    indices = [first + s + draw * len(dataset) for draw in range(draws) for s in range(slices)]
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(indices), batch_size):
        images = np.stack([dataset[index]["image"] for index in indices[start : start + batch_size]])
        with torch.no_grad():
            encoded = encode(torch.from_numpy(images))
        for name, value in encoded.items():
            with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused below
                parts.setdefault(name, []).append(value.float().cpu().numpy().astype(np.float16))
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    bad = [name for name, value in joined.items() if not np.isfinite(value).all()]
    if bad:
        raise UsageError(f"Features {', '.join(bad)} are not finite in float16; these towers cannot be cached so.")
    return {name: value.reshape(draws, slices, *value.shape[1:]) for name, value in joined.items()}


def _write(target: Path, features: Mapping[str, np.ndarray]) -> None:
    """Write one case's files under a hidden name, then rename the folder in place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:12]}"
    temporary.mkdir()
    try:
        for name, value in features.items():
            np.save(temporary / f"{name}.npy", value)
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
