"""Agreement of volumes against published numbers and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.agreement import bland_altman, class_agreement, concordance, icc, volume_errors
from ICHAnalysisLib.errors import UsageError

#: Shrout and Fleiss 1979, table 2: six targets, four judges.
JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)  # fmt: skip


def test_icc_of_shrout_and_fleiss() -> None:
    absolute, consistent = icc(JUDGES, "2,1"), icc(JUDGES, "3,1")
    assert absolute.value == pytest.approx(0.2898, abs=1e-4)
    assert (absolute.lower, absolute.upper) == pytest.approx((0.0188, 0.7611), abs=2e-4)
    assert consistent.value == pytest.approx(0.7148, abs=1e-4)
    assert (consistent.lower, consistent.upper) == pytest.approx((0.3425, 0.9459), abs=2e-4)


def test_icc_of_a_constant_offset_is_consistent_but_not_absolute() -> None:
    base = np.array([5.0, 12, 30, 44, 61])
    table = np.stack([base, base + 10], axis=1)
    assert icc(table, "3,1").value == pytest.approx(1.0)
    assert icc(table, "2,1").value < 0.95
    assert icc(np.stack([base, base], axis=1)).value == pytest.approx(1.0)


def test_icc_of_scans_without_blood_is_not_estimable() -> None:
    for kind in ("2,1", "3,1"):
        for table in (np.zeros((4, 2)), np.array([[0.0, 0.1]] * 4)):  # also where the raters differ
            found = icc(table, kind)
            assert np.isnan([found.value, found.lower, found.upper]).all()


def test_icc_refuses_gaps_and_too_few() -> None:
    with pytest.raises(UsageError):
        icc(JUDGES[:2])
    with pytest.raises(UsageError):
        icc(np.where(JUDGES == 9, np.nan, JUDGES))


def test_errors_and_the_cases_mape_drops() -> None:
    errors = volume_errors(np.array([12.0, 18, 0.9, np.nan]), np.array([10.0, 20, 0.5, 3]))
    assert (errors.cases, errors.dropped) == (3, 1)
    assert errors.mae_ml == pytest.approx((2 + 2 + 0.4) / 3)
    assert errors.mse_ml2 == pytest.approx((4 + 4 + 0.16) / 3)
    assert errors.rmse_ml == pytest.approx(np.sqrt(errors.mse_ml2))
    assert errors.mape_percent == pytest.approx(100 * (0.2 + 0.1) / 2)
    assert errors.bias_ml == pytest.approx(0.4 / 3)


def test_bland_altman_by_hand() -> None:
    reference = np.array([10.0, 20, 30, 40, 50])
    found = bland_altman(reference + np.array([1.0, 2, 3, 2, 2]), reference)
    sd = np.sqrt(0.5)
    assert found.bias.value == pytest.approx(2.0)
    assert found.sd == pytest.approx(sd)
    assert found.upper.value - found.lower.value == pytest.approx(2 * 1.96 * sd)
    assert found.bias.upper - 2.0 == pytest.approx(2.7764451 * sd / np.sqrt(5), rel=1e-6)
    reach = 2.7764451 * sd * np.sqrt(1 / 5 + 1.959964**2 / 8)
    assert found.upper.upper - found.upper.value == pytest.approx(reach, rel=1e-6)
    assert found.lower.value - found.lower.lower == pytest.approx(reach, rel=1e-6)
    with pytest.raises(UsageError, match="at least 3"):
        bland_altman(np.array([1.0, 2]), np.array([1.0, 2]))


def test_differences_that_grow_with_volume_get_ratio_limits() -> None:
    rng = np.random.default_rng(0)
    reference = np.exp(rng.normal(2.5, 1, 200))
    method = reference * np.exp(rng.normal(0.1, 0.2, 200))
    found = bland_altman(method, reference)
    assert found.trend > 0.4 and found.trend_p < 1e-6
    assert found.ratio is not None
    assert found.ratio[0] == pytest.approx(np.exp(0.1), rel=0.05)
    assert found.ratio[2] == pytest.approx(np.exp(0.1 + 1.96 * 0.2), rel=0.1)
    assert bland_altman(reference + rng.normal(0, 1, 200), reference).ratio is None


def test_bland_altman_limits_cover_95_percent() -> None:
    rng = np.random.default_rng(1)
    reference = rng.uniform(5, 80, 4000)
    method = reference + rng.normal(-1, 3, 4000)
    found = bland_altman(method, reference)
    inside = np.mean((method - reference >= found.lower.value) & (method - reference <= found.upper.value))
    assert inside == pytest.approx(0.95, abs=0.01)


def test_lins_concordance() -> None:
    x = np.array([1.0, 2, 3, 4, 5])
    assert concordance(x, x) == pytest.approx(1.0)
    assert concordance(x + 1, x) == pytest.approx(0.8)  # 2 * 2 / (2 + 2 + 1)
    assert concordance(-x, x) < 0


def test_class_agreement_at_both_limits() -> None:
    method, reference = np.array([29.0, 31, 14, 16]), np.array([31.0, 33, 16, 17])
    plain = class_agreement(method, reference)
    assert plain["agreement"] == pytest.approx(0.75)
    below = class_agreement(method, reference, np.array([False, False, True, True]))
    assert below["agreement"] == pytest.approx(0.5)
    assert np.isnan(class_agreement(np.array([40.0, 50]), np.array([40.0, 50]))["kappa"])
