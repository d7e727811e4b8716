"""How often each item is drawn: weights from the facts that the cache keeps about every slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from Training.data.cache import CacheCase

#: Share of the draws of each kind of slice; a kind that does not occur gives its share to the others.
SLICE_SHARES = {"ich": 0.50, "hard": 0.25, "edge": 0.14, "plain": 0.09, "empty": 0.02}
POSITIVE_SCANS = 0.75
#: Bands of the hemorrhage's volume, mL, that scans are drawn from more evenly than patients come.
VOLUME_BANDS_ML = (5.0, 15.0, 30.0, 60.0)
_DENSE_PIXELS = 12  # unlabeled dense pixels inside the skull that make a slice hard
_EDGE_SHARE = 0.35  # of the largest brain area: slices below it are skull base or vertex
_SMALL_PIXELS, _SMALL_FACTOR = 150, 2.0  # clots below so many pixels on a slice are drawn more often
_EMPTY_BONE = 60  # slices with less bone hold no head


def slice_kinds(case: CacheCase) -> np.ndarray:
    """(S,) kind of each slice: ich, hard (resembles it, or only IVH), edge (base, vertex), plain, empty (no brain)."""
    facts = {name: np.asarray(values) for name, values in case.meta["slices"].items()}
    kinds = np.full(case.num_slices, "plain", dtype=object)
    kinds[facts["inside"] < _EDGE_SHARE * max(1, facts["inside"].max())] = "edge"
    kinds[(facts["dense"] >= _DENSE_PIXELS) | (facts["ivh"] > 0)] = "hard"
    above = np.arange(case.num_slices) > int(facts["inside"].argmax())
    kinds[(facts["inside"] == 0) & (above | (facts["bone"] < _EMPTY_BONE))] = "empty"
    marked = np.asarray([value == 1 for value in case.meta.get("slice_has_ich") or [None] * case.num_slices])
    kinds[(facts["ich"] > 0) | marked] = "ich"
    return kinds


def slice_weights(cases: Sequence[CacheCase]) -> np.ndarray:
    """float64 (all slices,) summing to 1: the shares of SLICE_SHARES; rarer locations more often within ICH."""
    kinds = np.concatenate([slice_kinds(case) for case in cases])
    sizes = np.concatenate([np.asarray(case.meta["slices"]["ich"]) for case in cases])
    places = np.concatenate([np.full(case.num_slices, str(case.meta.get("location")), dtype=object) for case in cases])
    weights = np.zeros(len(kinds))
    for kind, share in SLICE_SHARES.items():
        chosen = kinds == kind
        if not chosen.any():
            continue
        inner = np.ones(int(chosen.sum()))
        if kind == "ich":
            inner = _evened(places[chosen]) * np.where(sizes[chosen] < _SMALL_PIXELS, _SMALL_FACTOR, 1.0)
        weights[chosen] = share * inner / inner.sum()
    return weights / weights.sum()


def scan_weights(cases: Sequence[CacheCase]) -> np.ndarray:
    """float64 (cases,) summing to 1: scans with ICH three quarters of the draws, rarer places and volumes more often.

    Few patients have 60 mL and more, and a network that rarely sees such volumes takes them for half.
    """
    bleeds = np.array([bool(case.meta.get("has_ich")) for case in cases])
    places = np.array([str(case.meta.get("location")) for case in cases], dtype=object)
    bands = np.digitize([case.meta.get("volume_ml") or 0.0 for case in cases], VOLUME_BANDS_ML)
    weights = np.zeros(len(cases))
    for chosen, share in ((bleeds, POSITIVE_SCANS), (~bleeds, 1 - POSITIVE_SCANS)):
        if chosen.any():
            inner = _evened(places[chosen]) * _evened(bands[chosen])
            weights[chosen] = share * inner / inner.sum()
    return weights / weights.sum()


def _evened(places: np.ndarray) -> np.ndarray:
    """Weights that bring classes together: the inverse square root of their counts keeps rare ones from repeating."""
    _, inverse, counts = np.unique(places.astype(str), return_inverse=True, return_counts=True)
    return 1.0 / np.sqrt(counts[inverse])
