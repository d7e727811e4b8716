"""Figures of a simulated cohort from its rows: presence, overlap, volume, place and outcome, by band where it matters.

Rows are those of `Training.cohort`. A figure that cannot be had (no positives, for one) is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ICHAnalysisLib.config.analyze import FusionConfig
from ICHAnalysisLib.config.preprocess import LOCATIONS
from ICHAnalysisLib.discrimination import auc_delong, class_measures, wilson

#: Upper edges of the volume bands, mL, and of the thickness and noise bands, mm and HU at 5 mm thickness.
BANDS_ML = (1.0, 2.0, 10.0, 30.0, 1000.0)
BANDS_MM = (4.0, 5.0, 20.0)
BANDS_HU = (3.0, 4.0, 20.0)
_RESAMPLES = 1000
#: What is asked about a poor outcome -> the column that answers.
_OUTCOME_SCORES = {
    "outline's network": "segment_poor",
    "outline's network with the record": "record_poor",
    "volume net": "scan_poor",
    "true volume alone": "volume_ml",
}
Row = dict[str, Any]


def fit_fusion(rows: Sequence[Row]) -> FusionConfig:
    """Logistic regression of presence on DTViT's logit and the lesion evidence, with weights at least 0."""
    from scipy.optimize import minimize

    probability = np.clip([float(row["slice_probability"]) for row in rows], 1e-4, 1 - 1e-4)
    features = np.stack([np.log(probability / (1 - probability)), [float(r["evidence"]) for r in rows]], axis=1)
    truth = np.array([int(row["has_ich"]) for row in rows])

    def loss(weights: np.ndarray) -> float:
        score = features @ weights[:2] + weights[2]
        return float(np.logaddexp(0, np.where(truth == 1, -score, score)).sum() + 0.05 * (weights[:2] ** 2).sum())

    found = minimize(loss, np.array([0.5, 1.0, -1.0]), bounds=[(0, None), (0, None), (None, None)]).x
    score = 1 / (1 + np.exp(-(features @ found[:2] + found[2])))
    base = FusionConfig(*(round(float(value), 3) for value in found))
    return replace(base, threshold=round(threshold_for(score, truth, [float(r["volume_ml"]) for r in rows]), 3))


def threshold_for(
    score: np.ndarray, truth: np.ndarray, volumes_ml: Sequence[float], sensitivity: float = 0.99
) -> float:
    """The highest threshold that finds `sensitivity` of the hemorrhages above 1 mL, between 0.05 and 0.5."""
    large = np.sort(score[(truth == 1) & (np.asarray(volumes_ml) > 1.0)])
    if not large.size:
        return 0.5
    missed = int(np.floor((1 - sensitivity) * large.size))
    return float(np.clip(large[missed] - 1e-3, 0.05, 0.5))


def summarize(rows: Sequence[Row], threshold: float) -> dict[str, Any]:
    """All figures with 95 % intervals: [value, lower, upper, number of scans].

    Overlap and volume errors are of hemorrhages above 1 mL, sensitivity also by band; specificity also of the scans
    that show something that looks like a hemorrhage.
    """
    truth = _numbers(rows, "has_ich") == 1
    volume = _numbers(rows, "volume_ml")
    positive = _numbers(rows, "presence") >= threshold
    alike = np.array([bool(str(row.get("look_alikes", "")).strip()) for row in rows])
    large = [row for row, bled, ml in zip(rows, truth, volume, strict=True) if bled and ml > 1.0]
    return {
        "cases": len(rows),
        "presence_auc": _auc(truth, _numbers(rows, "presence")),
        "sensitivity_above_1_ml": _share(positive[truth & (volume > 1.0)]),
        "specificity": _share(~positive[~truth]),
        "specificity_look_alikes": _share(~positive[~truth & alike]),
        "sensitivity_by_volume_ml": _by_band(rows, "volume_ml", BANDS_ML, lambda part: _found(part, threshold)),
        "dice": _mean(large, "dice"),
        "dice_p10": _tenth(large, "dice"),
        "dice_box": _mean(large, "dice_box"),
        "dice_box_p10": _tenth(large, "dice_box"),
        "dice_slice_boxes": _mean(large, "dice_slice_boxes"),
        "dice_slice_boxes_p10": _tenth(large, "dice_slice_boxes"),
        "dice_box_by_volume_ml": _by_band(rows, "volume_ml", BANDS_ML, lambda part: _mean(part, "dice_box")),
        "dice_by_location": {place: _mean([r for r in large if r["location"] == place], "dice") for place in LOCATIONS},
        "dice_by_thickness_mm": _by_band(large, "thickness_mm", BANDS_MM, lambda part: _mean(part, "dice")),
        "dice_by_noise_hu": _by_band(large, "noise_hu", BANDS_HU, lambda part: _mean(part, "dice")),
        "outline_error_ml": _error(large, "found_ml"),
        "volume_net_error_ml": _error(large, "network_ml"),
        "location_macro_f1": _location_f1(large),
        "outcome_auc": {name: _outcome_auc(rows, key) for name, key in _OUTCOME_SCORES.items()},
        "outcome_auc_over_all_throws": {
            **{name: _chance_auc(rows, key) for name, key in _OUTCOME_SCORES.items()},
            "the simulation's own chance": _chance_auc(rows, "poor_chance"),
        },
    }


def as_markdown(summary: dict[str, Any]) -> str:
    """The summary as one table, for the model cards."""
    lines = [f"{summary['cases']} scans; presence from {summary['threshold']}.", ""]
    lines += ["| figure | value | 95 % interval | scans |", "|---|---|---|---|"]
    for name, value in summary.items():
        if name in ("cases", "threshold", "fitted_fusion"):
            continue
        entries = value if isinstance(value, dict) else {"": value}
        lines += [_line(f"{name.replace('_', ' ')} {band}".strip(), entry) for band, entry in entries.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, entry: list[float] | None) -> str:
    if entry is None:
        return f"| {name} | not estimable | | |"
    value, low, high, count = entry
    return f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} | {count} |"


def _numbers(rows: Sequence[Row], key: str) -> np.ndarray:
    """float64 column; NaN where a row has none."""
    return np.array([float(row[key]) if row.get(key) not in ("", None) else np.nan for row in rows])


def _share(hits: np.ndarray) -> list[float] | None:
    """Proportion with Wilson's interval."""
    if not len(hits):
        return None
    found = wilson(int(hits.sum()), len(hits))
    return [found.value, found.lower, found.upper, found.total]


def _found(rows: Sequence[Row], threshold: float) -> list[float] | None:
    return _share(_numbers(rows, "presence") >= threshold)


def _by_band(
    rows: Sequence[Row], key: str, edges: Sequence[float], figure: Callable[[Sequence[Row]], list[float] | None]
) -> dict[str, list[float] | None]:
    """`figure` of the bleeding rows whose `key` lies above the previous edge and up to the next."""
    bled = [row for row in rows if int(row["has_ich"])]
    values, found, low = _numbers(bled, key), {}, 0.0
    for high in edges:
        part = [row for row, value in zip(bled, values, strict=True) if low < value <= high]
        name = f"{low:g} to {high:g}" if high != edges[-1] else f"above {low:g}"
        found[name] = figure(part)
        low = high
    return found


def _resampled(values: np.ndarray, statistic: Callable[..., Any]) -> list[float] | None:
    """A statistic with its percentile interval over scans drawn with replacement."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    draws = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(statistic(values[draws], axis=1), [0.025, 0.975])
    return [float(statistic(values, axis=0)), float(low), float(high), len(values)]


def _mean(rows: Sequence[Row], key: str) -> list[float] | None:
    return _resampled(_numbers(rows, key), np.mean)


def _tenth(rows: Sequence[Row], key: str) -> list[float] | None:
    """10th percentile."""
    return _resampled(_numbers(rows, key), lambda values, axis: np.quantile(values, 0.1, axis=axis))


def _error(rows: Sequence[Row], key: str) -> list[float] | None:
    """Mean absolute error of a volume, mL."""
    return _resampled(np.abs(_numbers(rows, key) - _numbers(rows, "volume_ml")), np.mean)


def _auc(truth: np.ndarray, score: np.ndarray) -> list[float] | None:
    """Area under the curve with DeLong's interval."""
    if min(truth.sum(), (~truth).sum()) < 2:
        return None
    found = auc_delong(truth, score)
    return [found.value, found.lower, found.upper, len(truth)]


def _outcome_auc(rows: Sequence[Row], key: str) -> list[float] | None:
    """Of a poor outcome, among the bleeding scans for which the answer is known."""
    known = _bled_and_known(rows, key, "poor_outcome")
    return _auc(_numbers(known, "poor_outcome") == 1, _numbers(known, key)) if known else None


def expected_auc(chance: np.ndarray, score: np.ndarray, scan: np.ndarray | None = None) -> float:
    """The AUC that `score` has of an event with these chances, over all its throws: a pair of scans counts as often as
    the first has the event and the second has not. NaN where no pair can.

    scan: which scan each value is of, where some stand there twice. One throw of 90 scans is easily 0.05 off.
    """
    scan = np.arange(len(chance)) if scan is None else scan
    pairs = chance[:, None] * (1 - chance[None, :]) * (scan[:, None] != scan[None, :])
    order = 0.5 * (np.sign(score[:, None] - score[None, :]) + 1)
    total = float(pairs.sum())
    return float((pairs * order).sum() / total) if total > 0 else float("nan")


def _chance_auc(rows: Sequence[Row], key: str) -> list[float] | None:
    """`expected_auc` of a poor outcome among the bleeding scans, and its interval over scans drawn with replacement."""
    known = _bled_and_known(rows, key, "poor_chance")
    if len(known) < 2:
        return None
    chance, score = _numbers(known, "poor_chance"), _numbers(known, key)
    return _over_scans(len(known), lambda drawn: expected_auc(chance[drawn], score[drawn], drawn))


def _bled_and_known(rows: Sequence[Row], *keys: str) -> list[Row]:
    """The rows with hemorrhage that hold all of these."""
    return [row for row in rows if int(row["has_ich"]) and all(row.get(key) not in ("", None) for key in keys)]


def _over_scans(count: int, statistic: Callable[[np.ndarray], float]) -> list[float]:
    """A statistic of scans by their indices, with its percentile interval over scans drawn with replacement."""
    draws = np.random.default_rng(0).integers(count, size=(_RESAMPLES // 5, count))
    low, high = np.nanquantile([statistic(drawn) for drawn in draws], [0.025, 0.975])
    return [statistic(np.arange(count)), float(low), float(high), count]


def _location_f1(rows: Sequence[Row]) -> list[float] | None:
    """Macro F1 of deep, lobar and subtentorial, with its interval over scans drawn with replacement."""
    named = [row for row in rows if row["found_location"] and row["location"]]
    if len(named) < 2:
        return None
    truth, found = (
        np.array([LOCATIONS.index(str(row[key])) for row in named]) for key in ("location", "found_location")
    )
    return _over_scans(len(named), lambda drawn: class_measures(truth[drawn], found[drawn], LOCATIONS)["macro"]["f1"])
