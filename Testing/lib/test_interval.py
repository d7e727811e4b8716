"""Conformal intervals of volumes: coverage on new cases, order, round trips."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.interval import SizeBands, fit_size_bands, size_of_volume, volume_interval, volume_of_size


def draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true sizes; the error grows with the size and is skewed."""
    predicted = rng.uniform(8, 50, count)
    return predicted, predicted + (0.05 * predicted) * (rng.gamma(2, 1, count) - 1.5)


def test_bands_cover_new_cases() -> None:
    rng = np.random.default_rng(0)
    bands = fit_size_bands(*draw(rng, 800))
    assert bands is not None and len(bands.edges) == 3
    predicted, true = draw(rng, 4000)
    inside = 0
    for p, t in zip(predicted, true, strict=True):
        answer = volume_interval(p, bands)
        inside += answer.lower <= volume_of_size(t) <= answer.upper
    assert inside / 4000 == pytest.approx(0.95, abs=0.02)
    widths = np.array(bands.upper) - np.array(bands.lower)
    assert widths[-1] > 2 * widths[0]


def test_convexity_is_added_on_request_alone() -> None:
    """3 s sd^2 (decision R5), by hand at 30 mm and 2 mm: 27 mL and 0.36 mL."""
    assert volume_of_size(30.0) == pytest.approx(27.0)
    assert volume_of_size(30.0, 2.0) == pytest.approx(27.36)
    assert volume_of_size(-1.0, 2.0) == 0.0
    assert volume_interval(30.0, None, error_sd_mm=2.0).value == pytest.approx(27.36)


def test_few_cases_give_no_interval() -> None:
    assert fit_size_bands(np.arange(10.0), np.arange(10.0)) is None
    answer = volume_interval(31.07, None)
    assert answer.value == pytest.approx(30, abs=0.02)
    assert answer.lower is None and "not calibrated" in answer.origin


def test_bounds_enclose_the_value_and_never_go_below_zero() -> None:
    bands = SizeBands((), (-20.0,), (-1.0,), cases=30)
    answer = volume_interval(12.0, bands)
    assert answer.lower == 0.0
    assert answer.upper == answer.value


def test_round_trips_and_checks() -> None:
    bands = SizeBands((20.0,), (-1.0, -2.0), (1.0, 2.0), 0.9, 50)
    assert SizeBands.from_dict({k: list(v) if isinstance(v, tuple) else v for k, v in asdict(bands).items()}) == bands
    assert volume_of_size(size_of_volume(17.3)) == pytest.approx(17.3)
    assert volume_of_size(-3) == 0.0
    with pytest.raises(UsageError):
        SizeBands((20.0,), (-1.0,), (1.0,))
