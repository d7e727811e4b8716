"""Agreement of volumes, measured twice: errors, Bland-Altman, intraclass and concordance correlation (definition 3.9).

Masks are compared in `overlap`, classes and probabilities in `discrimination`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from ICHAnalysisLib.errors import UsageError

#: Volume limits of treatment and score, mL: supratentorial and infratentorial.
LARGE_ML, LARGE_INFRATENTORIAL_ML = 30.0, 15.0
_Z = 1.959963984540054


@dataclass(frozen=True)
class VolumeErrors:
    """Errors of a method against a reference over `cases`; mape over those of at least 1 mL, `dropped` were smaller."""

    mae_ml: float
    mse_ml2: float
    rmse_ml: float
    mape_percent: float
    bias_ml: float
    cases: int
    dropped: int


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class BlandAltman:
    """Differences method - reference: bias and limits of agreement (bias +- 1.96 s), each with its 95 % interval, mL.

    trend, trend_p: Spearman's correlation of the absolute difference with the mean. ratio: bias and limits of the
    ratio method / reference from log differences, given where the trend is significant and all volumes are above 0.
    """

    bias: Estimate
    lower: Estimate
    upper: Estimate
    sd: float
    cases: int
    trend: float
    trend_p: float
    ratio: tuple[float, float, float] | None = None  # bias, lower, upper


def volume_errors(method_ml: np.ndarray, reference_ml: np.ndarray) -> VolumeErrors:
    """MAE, MSE, RMSE, MAPE and bias; pairs with an unknown volume are left out. Raises UsageError without any pair."""
    method, reference = _pairs(method_ml, reference_ml, 1)
    error = method - reference
    large = reference >= 1.0
    relative = np.abs(error[large]) / reference[large]
    return VolumeErrors(
        float(np.abs(error).mean()),
        float((error**2).mean()),
        float(np.sqrt((error**2).mean())),
        float(100 * relative.mean()) if large.any() else float("nan"),
        float(error.mean()),
        int(error.size),
        int((~large).sum()),
    )


def bland_altman(method_ml: np.ndarray, reference_ml: np.ndarray) -> BlandAltman:
    """Bland and Altman's limits with exact-style confidence limits; raises UsageError below 3 pairs."""
    method, reference = _pairs(method_ml, reference_ml, 3)
    difference, mean = method - reference, (method + reference) / 2
    bias, sd, n = float(difference.mean()), float(difference.std(ddof=1)), difference.size
    t = float(stats.t.ppf(0.975, n - 1))
    around_bias = t * sd / np.sqrt(n)
    around_limit = t * sd * np.sqrt(1 / n + _Z**2 / (2 * (n - 1)))
    limits = [bias - 1.96 * sd, bias + 1.96 * sd]
    trend, trend_p = _spearman(np.abs(difference), mean)
    ratio = None
    if trend > 0 and trend_p < 0.05 and (method > 0).all() and (reference > 0).all():
        log_difference = np.log(method) - np.log(reference)
        center, spread = float(log_difference.mean()), float(log_difference.std(ddof=1))
        low, middle, high = np.exp([center - 1.96 * spread, center, center + 1.96 * spread])
        ratio = (float(middle), float(low), float(high))
    return BlandAltman(
        Estimate(bias, bias - around_bias, bias + around_bias),
        Estimate(limits[0], limits[0] - around_limit, limits[0] + around_limit),
        Estimate(limits[1], limits[1] - around_limit, limits[1] + around_limit),
        sd,
        n,
        trend,
        trend_p,
        ratio,
    )


def icc(ratings: np.ndarray, kind: str = "2,1") -> Estimate:
    """Intraclass correlation of (cases, raters) ratings with its F-based 95 % interval (McGraw and Wong 1996).

    kind "2,1": absolute agreement, two-way random, single rater; "3,1": consistency, two-way mixed, single rater.
    NaN where no rater tells any case from another, as among scans without blood. Raises UsageError for fewer than 3
    cases or 2 raters, or a missing rating.
    """
    table = np.asarray(ratings, dtype=float)
    if table.ndim != 2 or table.shape[0] < 3 or table.shape[1] < 2 or not np.isfinite(table).all():
        raise UsageError(f"ICC needs at least 3 cases rated by at least 2 raters without gaps, got {table.shape}.")
    if kind not in ("2,1", "3,1"):
        raise UsageError(f"ICC kind {kind!r} is neither '2,1' nor '3,1'.")
    n, k = table.shape
    if not np.ptp(table, axis=0).any():
        return Estimate(float("nan"), float("nan"), float("nan"))
    rows, columns, residual = _mean_squares(table)
    if kind == "3,1":
        value = (rows - residual) / (rows + (k - 1) * residual)
        f = rows / residual if residual > 0 else np.inf
        low = f / stats.f.ppf(0.975, n - 1, (n - 1) * (k - 1))
        high = f * stats.f.ppf(0.975, (n - 1) * (k - 1), n - 1)
        return Estimate(float(value), float(_share(low, k)), float(_share(high, k)))
    value = (rows - residual) / (rows + (k - 1) * residual + k * (columns - residual) / n)
    a = k * value / (n * (1 - value)) if value < 1 else np.inf
    if not np.isfinite(a):
        return Estimate(1.0, 1.0, 1.0)
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    v = (a * columns + b * residual) ** 2 / ((a * columns) ** 2 / (k - 1) + (b * residual) ** 2 / ((n - 1) * (k - 1)))
    f_low, f_high = stats.f.ppf(0.975, n - 1, v), stats.f.ppf(0.975, v, n - 1)
    spread = k * columns + (k * n - k - n) * residual
    lower = n * (rows - f_low * residual) / (f_low * spread + n * rows)
    upper = n * (f_high * rows - residual) / (spread + n * f_high * rows)
    return Estimate(float(value), float(lower), float(upper))


def concordance(method_ml: np.ndarray, reference_ml: np.ndarray) -> float:
    """Lin's concordance correlation coefficient; NaN where neither varies and they agree on nothing else."""
    method, reference = _pairs(method_ml, reference_ml, 2)
    covariance = float(np.cov(method, reference, ddof=0)[0, 1])
    spread = float(method.var() + reference.var() + (method.mean() - reference.mean()) ** 2)
    return 2 * covariance / spread if spread > 0 else float("nan")


def class_agreement(
    method_ml: np.ndarray, reference_ml: np.ndarray, infratentorial: np.ndarray | None = None
) -> dict[str, float]:
    """Share of cases on the same side of 30 mL (15 mL infratentorially, where told), Cohen's kappa, and the cases.

    kappa is NaN where one class holds all cases of both.
    """
    method, reference = np.asarray(method_ml, dtype=float), np.asarray(reference_ml, dtype=float)
    below = np.zeros(method.shape, dtype=bool) if infratentorial is None else np.asarray(infratentorial, dtype=bool)
    known = np.isfinite(method) & np.isfinite(reference)
    limit = np.where(below, LARGE_INFRATENTORIAL_ML, LARGE_ML)[known]
    first, second = method[known] >= limit, reference[known] >= limit
    if first.size == 0:
        raise UsageError("No pair of volumes is known; there is nothing to compare.")
    observed = float(np.mean(first == second))
    expected = float(first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean()))
    kappa = (observed - expected) / (1 - expected) if expected < 1 else float("nan")
    return {"agreement": observed, "kappa": kappa, "cases": float(first.size)}


def _mean_squares(table: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of cases, raters and residual of a two-way layout without replication."""
    n, k = table.shape
    grand = table.mean()
    rows = k * ((table.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    columns = n * ((table.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + grand
    return float(rows), float(columns), float((rest**2).sum() / ((n - 1) * (k - 1)))


def _share(f: float, k: int) -> float:
    """(F - 1) / (F + k - 1), 1 for an infinite F."""
    return 1.0 if np.isinf(f) else (f - 1) / (f + k - 1)


def _spearman(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation and p; 0 and 1 where one does not vary."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0, 1.0
    result = stats.spearmanr(first, second)
    return float(result.statistic), float(result.pvalue)


def _pairs(first: np.ndarray, second: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs known on both sides; raises UsageError where there are fewer than `least`."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 1:
        raise UsageError(f"Volumes {first.shape} and {second.shape} must be lists of the same length.")
    known = np.isfinite(first) & np.isfinite(second)
    if known.sum() < least:
        raise UsageError(f"{int(known.sum())} pairs of volumes are known; this needs at least {least}.")
    return first[known], second[known]
