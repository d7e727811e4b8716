"""How well a probability or a class separates two groups: confusion measures, AUC, thresholds, calibration.

Class 1 is the event (hemorrhage; poor outcome or death). Formulas: definitions 3.10 and 3.11, which correct paper 002.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from ICHAnalysisLib.errors import UsageError


@dataclass(frozen=True)
class Proportion:
    """A proportion with its Wilson 95 % interval; NaN where nothing was counted."""

    value: float
    lower: float
    upper: float
    count: int
    total: int


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve with its 95 % interval; the interval is NaN where DeLong's is not estimable."""

    value: float
    lower: float
    upper: float
    standard_error: float
    events: int
    others: int


def wilson(count: int, total: int, confidence: float = 0.95) -> Proportion:
    """`count` of `total` with Wilson's score interval; NaN for total 0."""
    if total == 0:
        return Proportion(np.nan, np.nan, np.nan, 0, 0)
    interval = stats.binomtest(int(count), int(total)).proportion_ci(confidence, method="wilson")
    return Proportion(count / total, float(interval.low), float(interval.high), int(count), int(total))


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts; rows are the truth."""
    truth, predicted = np.asarray(truth, dtype=int), np.asarray(predicted, dtype=int)
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def binary_measures(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, precision, recall (= sensitivity), specificity, npv, f1, balanced_accuracy and mcc of 0/1 labels.

    A ratio of nothing is NaN ("n/a").
    """
    (tn, fp), (fn, tp) = confusion_matrix(truth, predicted, 2).astype(float)
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": _ratio(tp + tn, tp + tn + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "npv": _ratio(tn, tn + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "balanced_accuracy": (recall + specificity) / 2,
        "mcc": _ratio(tp * tn - fp * fn, spread),
    }


def binary_proportions(truth: np.ndarray, predicted: np.ndarray) -> dict[str, Proportion]:
    """Accuracy, precision, recall, specificity and npv of 0/1 labels with Wilson's intervals (definition 3.10).

    The other measures of `binary_measures` are no proportions. Cases must be independent: for slices resample patients.
    """
    (tn, fp), (fn, tp) = confusion_matrix(truth, predicted, 2).tolist()
    counted = {
        "accuracy": (tp + tn, tp + tn + fp + fn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "npv": (tn, tn + fn),
    }
    return {name: wilson(count, total) for name, (count, total) in counted.items()}


def class_measures(truth: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """One-vs-rest `binary_measures` of each class, their "macro" mean and the mean "weighted" by class frequency.

    Accuracy in "macro" and "weighted" is that of all classes together. Classes that give NaN are left out of means.
    """
    truth, predicted = np.asarray(truth, dtype=int), np.asarray(predicted, dtype=int)
    rows = {name: binary_measures(truth == n, predicted == n) for n, name in enumerate(names)}
    shares = np.array([np.mean(truth == n) if truth.size else 0.0 for n in range(len(names))])
    overall = float(np.mean(truth == predicted)) if truth.size else np.nan
    for label, weights in (("macro", np.ones(len(names))), ("weighted", shares)):
        table = np.array([list(rows[name].values()) for name in names])
        known = np.isfinite(table) * weights[:, None]
        total = known.sum(axis=0)
        means = np.where(total > 0, np.nansum(table * known, axis=0) / np.maximum(total, 1e-12), np.nan)
        rows[label] = {**dict(zip(rows[names[0]], map(float, means), strict=True)), "accuracy": overall}
    return rows


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve by midranks; NaN with one class only."""
    truth, score = _truth_and_score(truth, score)
    events, others = int(truth.sum()), int((~truth).sum())
    if not events or not others:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[truth].sum() - events * (events + 1) / 2) / (events * others))


def auc_delong(truth: np.ndarray, score: np.ndarray) -> Auc:
    """AUC with DeLong's standard error and a 95 % interval on the logit scale.

    Not estimable (NaN) at AUC 0 or 1 or with fewer than 2 of either class; cases must be independent (no slices).
    """
    truth, score = _truth_and_score(truth, score)
    value = auc(truth, score)
    events, others = int(truth.sum()), int((~truth).sum())
    if events < 2 or others < 2:
        return Auc(value, np.nan, np.nan, np.nan, events, others)
    by_event, by_other = _placements(truth, score)
    error = float(np.sqrt(np.var(by_event, ddof=1) / events + np.var(by_other, ddof=1) / others))
    if value in (0.0, 1.0):
        return Auc(value, np.nan, np.nan, error, events, others)
    center, reach = np.log(value / (1 - value)), 1.959963984540054 * error / (value * (1 - value))
    lower, upper = (float(1 / (1 + np.exp(-end))) for end in (center - reach, center + reach))
    return Auc(value, lower, upper, error, events, others)


def delong_test(truth: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """(AUC difference first - second, z, two-sided p) of two scores of the same cases; p NaN where not estimable."""
    truth, first = _truth_and_score(truth, first)
    _, second = _truth_and_score(truth, second)
    placements = [_placements(truth, score) for score in (first, second)]
    by_event, by_other = (np.stack(part) for part in zip(*placements, strict=True))
    difference = float(by_event[0].mean() - by_event[1].mean())
    if by_event.shape[1] < 2 or by_other.shape[1] < 2:
        return difference, np.nan, np.nan
    covariance = np.cov(by_event) / by_event.shape[1] + np.cov(by_other) / by_other.shape[1]
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance <= 1e-15:
        return difference, np.nan, np.nan
    z = difference / float(np.sqrt(variance))
    return difference, z, float(2 * stats.norm.sf(abs(z)))


def auc_cluster_bootstrap(
    truth: np.ndarray, score: np.ndarray, groups: np.ndarray, repeats: int = 2000, seed: int = 0
) -> Auc:
    """AUC with a percentile interval from drawing whole groups (patients) with replacement: for slices."""
    truth, score = _truth_and_score(truth, score)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(group == n) for n in range(int(group.max()) + 1)]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(repeats):
        taken = np.concatenate([members[n] for n in rng.integers(0, len(members), len(members))])
        draws.append(auc(truth[taken], score[taken]))
    values = np.array(draws)[np.isfinite(draws)]
    lower, upper = np.percentile(values, (2.5, 97.5)) if values.size else (np.nan, np.nan)
    spread = float(values.std(ddof=1)) if values.size > 1 else np.nan
    return Auc(auc(truth, score), float(lower), float(upper), spread, int(truth.sum()), int((~truth).sum()))


def roc_curve(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(false positive rate, true positive rate, threshold) from the strictest threshold to the loosest."""
    from sklearn.metrics import roc_curve as sklearn_roc_curve

    truth, score = _truth_and_score(truth, score)
    return sklearn_roc_curve(truth, score, drop_intermediate=False)


def youden_threshold(truth: np.ndarray, score: np.ndarray) -> float:
    """The threshold of highest sensitivity + specificity - 1 among midpoints of the sorted scores.

    Ties go to the higher sensitivity. Choose it on validation cases and freeze it.
    """
    truth, score = _truth_and_score(truth, score)
    if truth.all() or not truth.any():
        raise UsageError("Youden's threshold needs cases of both classes.")
    values = np.unique(score)
    candidates = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
    sensitivity = 1.0 - np.searchsorted(np.sort(score[truth]), candidates) / truth.sum()
    specificity = np.searchsorted(np.sort(score[~truth]), candidates) / (~truth).sum()
    best = np.lexsort((sensitivity, np.round(sensitivity + specificity, 12)))[-1]
    return float(candidates[best])


def reliability(truth: np.ndarray, probability: np.ndarray, bins: int = 10) -> dict[str, np.ndarray]:
    """Reliability curve over equal-width bins: mean probability, event rate and count of each bin that is not empty."""
    truth, probability = _truth_and_score(truth, probability)
    index = np.minimum((probability * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = counts > 0
    means = np.bincount(index, weights=probability, minlength=bins)[filled] / counts[filled]
    rates = np.bincount(index, weights=truth.astype(float), minlength=bins)[filled] / counts[filled]
    return {"probability": means, "rate": rates, "count": counts[filled]}


def calibration_error(truth: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error over equal-width bins."""
    curve = reliability(truth, probability, bins)
    return float(np.average(np.abs(curve["probability"] - curve["rate"]), weights=curve["count"]))


def brier(truth: np.ndarray, probability: np.ndarray) -> float:
    """Mean squared difference of probability and 0/1 outcome."""
    truth, probability = _truth_and_score(truth, probability)
    return float(np.mean((probability - truth) ** 2))


def fit_temperature(truth: np.ndarray, logits: np.ndarray) -> float:
    """The temperature T above 0 for which sigmoid(logit / T), or softmax, has the highest likelihood.

    logits: (N,) for 0/1 truth, or (N, classes) for class indices. 1.0 where fewer than 2 cases or classes are there.
    Searched in [0.05, 20].
    """
    truth, logits = np.asarray(truth, dtype=int), np.asarray(logits, dtype=float)
    if truth.size < 2 or np.unique(truth).size < 2:
        return 1.0
    table = np.stack([np.zeros_like(logits), logits], axis=1) if logits.ndim == 1 else logits

    def loss(log_temperature: float) -> float:
        scaled = table / np.exp(log_temperature)
        peak = scaled.max(axis=1, keepdims=True)
        log_total = peak[:, 0] + np.log(np.exp(scaled - peak).sum(axis=1))
        return float(np.mean(log_total - scaled[np.arange(len(truth)), truth]))

    return float(np.exp(optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded").x))


def _placements(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's components by midranks (Sun and Xu 2014): one value an event, one value another case."""
    events, others = score[truth], score[~truth]
    together = stats.rankdata(np.concatenate([events, others]))
    by_event = (together[: len(events)] - stats.rankdata(events)) / len(others)
    by_other = 1.0 - (together[len(events) :] - stats.rankdata(others)) / len(events)
    return by_event, by_other


def _truth_and_score(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checked bool and float arrays of one length."""
    truth, score = np.asarray(truth).astype(bool), np.asarray(score, dtype=float)
    if truth.shape != score.shape or truth.ndim != 1:
        raise UsageError(f"Truth {truth.shape} and scores {score.shape} must be lists of the same length.")
    if not np.isfinite(score).all():
        raise UsageError(f"{int((~np.isfinite(score)).sum())} of {len(score)} scores are not numbers.")
    return truth, score


def _ratio(numerator: float, denominator: float) -> float:
    """numerator / denominator; NaN for 0 / 0."""
    return float(numerator / denominator) if denominator > 0 else float("nan")
