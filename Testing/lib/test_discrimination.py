"""Classes and probabilities against published numbers, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.discrimination import (
    auc,
    auc_cluster_bootstrap,
    auc_delong,
    binary_measures,
    binary_proportions,
    brier,
    calibration_error,
    class_measures,
    confusion_matrix,
    delong_test,
    fit_temperature,
    reliability,
    wilson,
    youden_threshold,
)
from ICHAnalysisLib.errors import UsageError


def labels(tp: int, fn: int, fp: int, tn: int) -> tuple[np.ndarray, np.ndarray]:
    truth = np.repeat([1, 1, 0, 0], [tp, fn, fp, tn])
    return truth, np.repeat([1, 0, 1, 0], [tp, fn, fp, tn])


def test_table_2_of_paper_002_row_1() -> None:
    """With "normal" as the positive class, FN 18 and FP 5 of 1342 and 1681 are the only numbers that fit the row."""
    measures = binary_measures(*labels(1342 - 18, 18, 5, 1681 - 5))
    printed = {"accuracy": 0.992, "precision": 0.996, "recall": 0.987, "f1": 0.991, "specificity": 0.997}
    for name, value in printed.items():
        assert measures[name] == pytest.approx(value, abs=6e-4)


def test_ratios_of_nothing_are_nan() -> None:
    measures = binary_measures(np.zeros(4, int), np.zeros(4, int))
    assert measures["accuracy"] == 1.0 and measures["specificity"] == 1.0
    assert all(np.isnan(measures[name]) for name in ("recall", "precision", "f1", "mcc"))


def test_confusion_rows_are_the_truth_and_macro_is_the_mean() -> None:
    truth, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    assert confusion_matrix(truth, predicted, 3).tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    rows = class_measures(truth, predicted, ("a", "b", "c"))
    assert rows["macro"]["recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert rows["weighted"]["recall"] == pytest.approx(4 / 6)
    assert rows["macro"]["accuracy"] == pytest.approx(4 / 6)


def test_every_binary_measure_by_hand() -> None:
    """6 found, 2 missed, 1 invented, 11 right."""
    measures = binary_measures(*labels(6, 2, 1, 11))
    expected = {
        "accuracy": 17 / 20, "precision": 6 / 7, "recall": 6 / 8, "specificity": 11 / 12, "npv": 11 / 13,
        "f1": 12 / 15, "balanced_accuracy": (6 / 8 + 11 / 12) / 2,
        "mcc": (6 * 11 - 1 * 2) / np.sqrt(7 * 8 * 12 * 13),
    }  # fmt: skip
    assert measures == pytest.approx(expected)


def test_proportions_of_the_confusion_matrix_have_wilson_s_intervals() -> None:
    truth, predicted = labels(6, 2, 1, 11)
    found, measures = binary_proportions(truth, predicted), binary_measures(truth, predicted)
    assert {name: item.value for name, item in found.items()} == pytest.approx({name: measures[name] for name in found})
    recall = found["recall"]
    p, n, z = 6 / 8, 8, 1.959964
    center, reach = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (recall.lower, recall.upper) == pytest.approx(
        ((center - reach) / (1 + z**2 / n), (center + reach) / (1 + z**2 / n)), abs=1e-6
    )
    assert np.isnan(binary_proportions(np.zeros(3, int), np.zeros(3, int))["recall"].value)


def test_wilson() -> None:
    half = wilson(10, 20)
    assert (half.lower, half.upper) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert wilson(0, 10).upper == pytest.approx(0.2775, abs=1e-4)
    assert np.isnan(wilson(0, 0).value)


def test_auc_by_midranks() -> None:
    assert auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert auc(np.array([0, 1]), np.array([0.5, 0.5])) == 0.5
    assert np.isnan(auc(np.array([1, 1]), np.array([0.2, 0.3])))


def test_delong_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.4
    score = np.round(truth + rng.normal(0, 1, 60), 1)  # with ties
    x, y = score[truth], score[~truth]
    psi = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    variance = psi.mean(axis=1).var(ddof=1) / len(x) + psi.mean(axis=0).var(ddof=1) / len(y)
    found = auc_delong(truth, score)
    assert found.value == pytest.approx(psi.mean())
    assert found.standard_error == pytest.approx(np.sqrt(variance))
    logit = np.log(found.value / (1 - found.value))
    reach = 1.959964 * found.standard_error / (found.value * (1 - found.value))
    expected = [1 / (1 + np.exp(-(logit - reach))), 1 / (1 + np.exp(-(logit + reach)))]
    assert [found.lower, found.upper] == pytest.approx(expected, rel=1e-5)


def test_paired_delong_uses_the_covariance() -> None:
    """Variance of the difference from the components of both scores, by their definition."""
    rng = np.random.default_rng(1)
    truth = rng.random(80) < 0.5
    shared = rng.normal(0, 1, 80)
    scores = [truth + shared + rng.normal(0, 0.5, 80) for _ in range(2)]
    placed = [[(s[truth][:, None] > s[~truth][None]).mean(axis=a) for s in scores] for a in (1, 0)]
    covariance = sum(np.cov(np.array(part)) / len(part[0]) for part in placed)
    difference, z, _ = delong_test(truth, *scores)
    assert z == pytest.approx(difference / np.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1])))
    assert covariance[0, 1] > 0.3 * covariance[0, 0]  # which an unpaired test would throw away


def test_delong_at_the_edges() -> None:
    perfect = auc_delong(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert perfect.value == 1.0 and np.isnan(perfect.lower)
    assert np.isnan(auc_delong(np.array([0, 0, 0, 1]), np.array([0.1, 0.2, 0.3, 0.9])).standard_error)


def test_paired_delong() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(300) < 0.5
    good, poor = truth + rng.normal(0, 0.7, 300), truth + rng.normal(0, 3, 300)
    difference, z, p = delong_test(truth, good, poor)
    assert difference == pytest.approx(auc(truth, good) - auc(truth, poor))
    assert z > 3 and p < 0.01
    assert np.isnan(delong_test(truth, good, good)[2])


def test_cluster_bootstrap_is_wider_than_that_of_single_slices() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(30), 10)
    truth = np.repeat(rng.random(30) < 0.5, 10)
    score = truth + np.repeat(rng.normal(0, 1.2, 30), 10) + rng.normal(0, 0.1, 300)
    clustered = auc_cluster_bootstrap(truth, score, groups, repeats=200)
    single = auc_cluster_bootstrap(truth, score, np.arange(300), repeats=200)
    assert clustered.upper - clustered.lower > 2 * (single.upper - single.lower)


def test_youden_takes_a_midpoint_and_the_higher_sensitivity() -> None:
    assert youden_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)
    # thresholds 0.25 (sens 1, spec 1/2) and 0.75 (sens 1/2, spec 1) tie
    assert youden_threshold(np.array([0, 1, 0, 1]), np.array([0.2, 0.3, 0.7, 0.8])) == pytest.approx(0.25)
    with pytest.raises(UsageError):
        youden_threshold(np.array([1, 1]), np.array([0.2, 0.3]))


def test_temperature_undoes_a_known_stretch() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, 20000)
    truth = rng.random(20000) < 1 / (1 + np.exp(-logits))
    assert fit_temperature(truth, 3 * logits) == pytest.approx(3.0, rel=0.05)
    table = np.stack([np.zeros_like(logits), 3 * logits], axis=1)
    assert fit_temperature(truth, table) == pytest.approx(fit_temperature(truth, 3 * logits), rel=1e-3)
    assert fit_temperature(np.ones(5), np.ones(5)) == 1.0


def test_calibration_measures() -> None:
    truth, probability = np.array([0, 1, 1, 1]), np.array([0.25, 0.25, 0.95, 0.95])
    curve = reliability(truth, probability)
    assert curve["count"].tolist() == [2, 2]
    assert curve["rate"].tolist() == [0.5, 1.0]
    assert calibration_error(truth, probability) == pytest.approx((0.25 + 0.05) / 2)
    assert brier(truth, probability) == pytest.approx((0.0625 + 0.5625 + 2 * 0.0025) / 4)
