"""An interval for a predicted volume, from the errors on cases the network was not trained on (split conformal).

Errors are of the size s, the cube root of the volume in mm: they grow less with the volume than mL do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ICHAnalysisLib.analysis import Interval
from ICHAnalysisLib.errors import UsageError


@dataclass(frozen=True)
class SizeBands:
    """Bounds of the error s_true - s_predicted, mm, by bands of the predicted size.

    edges: ascending upper edges of the bands, mm; the last band is open. lower, upper: one more than edges.
    coverage: share of calibration cases inside. cases: how many there were.
    """

    edges: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    coverage: float = 0.95
    cases: int = 0

    def __post_init__(self) -> None:
        if not len(self.lower) == len(self.upper) == len(self.edges) + 1:
            raise UsageError(f"Size bands: {len(self.edges)} edges need {len(self.edges) + 1} lower and upper bounds.")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SizeBands:
        """The inverse of `dataclasses.asdict`, lists allowed."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in data.items()}
        return cls(**fields)


def size_of_volume(volume_ml: np.ndarray | float) -> np.ndarray:
    """Cube root of the volume in mm3: mm (decision R5; 30 mL gives 31.07 mm)."""
    return np.cbrt(1000.0 * np.maximum(np.asarray(volume_ml, dtype=float), 0.0))


def volume_of_size(size_mm: np.ndarray | float, error_sd_mm: float = 0.0) -> np.ndarray:
    """The inverse of `size_of_volume`; sizes below 0 give 0 mL.

    error_sd_mm: standard deviation of the size's error. Cubing is convex, so a size without bias gives volumes that
    are too small on average by 3 s sd^2 (decision R5), which is added; 0: off.
    """
    size = np.maximum(np.asarray(size_mm, dtype=float), 0.0)
    return (size**3 + 3 * size * error_sd_mm**2) / 1000.0


def fit_size_bands(
    predicted_mm: np.ndarray, true_mm: np.ndarray, coverage: float = 0.95, smallest_band: int = 40
) -> SizeBands | None:
    """Bands of equal counts with finite-sample quantiles of the error in each; None below 20 cases.

    With n cases in a band the interval covers a new one with probability `coverage` or more where
    n >= 2 / (1 - coverage) - 1; below that the widest errors seen are the bounds.
    """
    predicted, true = np.asarray(predicted_mm, dtype=float), np.asarray(true_mm, dtype=float)
    known = np.isfinite(predicted) & np.isfinite(true)
    predicted, error = predicted[known], (true - predicted)[known]
    if predicted.size < 20:
        return None
    count = int(np.clip(predicted.size // smallest_band, 1, 4))
    edges = np.quantile(predicted, np.arange(1, count) / count)
    band = np.searchsorted(edges, predicted, side="right")
    lower, upper = [], []
    for n in range(count):
        low, high = _bounds(error[band == n] if (band == n).any() else error, coverage)
        lower.append(low)
        upper.append(high)
    return SizeBands(tuple(map(float, edges)), tuple(lower), tuple(upper), coverage, int(predicted.size))


def volume_interval(
    size_mm: float, bands: SizeBands | None, origin: str = "volume net", error_sd_mm: float = 0.0
) -> Interval:
    """The volume in mL of a predicted size with its interval; without bands, without one.

    error_sd_mm: as in `volume_of_size`; it moves the value alone, since the bands hold for the size.
    """
    value = float(volume_of_size(size_mm, error_sd_mm))
    if bands is None:
        return Interval(value, unit="mL", origin=f"{origin}; interval not calibrated")
    n = int(np.searchsorted(np.asarray(bands.edges), size_mm, side="right"))
    lower, upper = (float(volume_of_size(size_mm + bound[n])) for bound in (bands.lower, bands.upper))
    text = f"{origin}; {bands.coverage:.0%} interval from the errors on {bands.cases} cases not trained on"
    return Interval(value, min(lower, value), max(upper, value), "mL", text)


def _bounds(error: np.ndarray, coverage: float) -> tuple[float, float]:
    """Conformal lower and upper bound of the error: order statistics of rank (n + 1) alpha / 2 from either end."""
    ordered = np.sort(error)
    rank = max(1, int(np.floor((ordered.size + 1) * (1 - coverage) / 2)))
    return float(ordered[rank - 1]), float(ordered[-rank])
