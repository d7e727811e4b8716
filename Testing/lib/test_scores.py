"""ICH Score and FUNC at every limit, with what is missing, and for children."""

from __future__ import annotations

import itertools

import pytest

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.scores import func_score, ich_score

FULL = {"age": 60, "gcs": 15, "volume_ml": 10.0, "ivh": False, "infratentorial": False}
FUNC = {"age": 60, "gcs": 15, "volume_ml": 10.0, "location": "lobar", "cognitive_impairment": False}


@pytest.mark.parametrize(
    ("change", "points"),
    [
        ({}, 0),
        ({"gcs": 13}, 0),
        ({"gcs": 12}, 1),
        ({"gcs": 5}, 1),
        ({"gcs": 4}, 2),
        ({"gcs": 3}, 2),
        ({"volume_ml": 29.99}, 0),
        ({"volume_ml": 30.0}, 1),
        ({"ivh": True}, 1),
        ({"infratentorial": True}, 1),
        ({"age": 79}, 0),
        ({"age": 80}, 1),
        ({"gcs": 3, "volume_ml": 31, "ivh": True, "infratentorial": True, "age": 90}, 6),
    ],
)
def test_ich_score_points(change: dict, points: int) -> None:
    assert ich_score(**{**FULL, **change}).score == points


def test_ich_score_mortality_reproduces_the_cohort() -> None:
    """0/26, 4/32, 7/27, 23/32, 28/29 and 6/6 died: 152 patients, 44.7 %."""
    ladder = [
        {}, {"ivh": True}, {"ivh": True, "age": 80}, {"ivh": True, "age": 80, "volume_ml": 30},
        {"ivh": True, "age": 80, "volume_ml": 30, "gcs": 8}, {"ivh": True, "age": 80, "volume_ml": 30, "gcs": 4},
    ]  # fmt: skip
    rates = [ich_score(**{**FULL, **change}).probability for change in ladder]
    assert rates == [0.0, 0.13, 0.26, 0.72, 0.97, 1.0]
    for rate, dead, all_ in zip(rates, (0, 4, 7, 23, 28, 6), (26, 32, 27, 32, 29, 6), strict=True):
        assert rate == pytest.approx(dead / all_, abs=0.006)
    assert sum((0, 4, 7, 23, 28, 6)) / 152 == pytest.approx(0.447, abs=5e-4)


@pytest.mark.parametrize(
    ("change", "points"),
    [
        ({}, 11),
        ({"volume_ml": 30.0}, 9),
        ({"volume_ml": 60.0}, 9),
        ({"volume_ml": 60.1}, 7),
        ({"age": 70}, 10),
        ({"age": 79}, 10),
        ({"age": 80}, 9),
        ({"location": "deep"}, 10),
        ({"location": "subtentorial"}, 9),
        ({"gcs": 9}, 11),
        ({"gcs": 8}, 9),
        ({"cognitive_impairment": True}, 10),
    ],
)
def test_func_points(change: dict, points: int) -> None:
    assert func_score(**{**FUNC, **change}).score == points


def test_func_probabilities_name_both_rows() -> None:
    best = func_score(**FUNC)
    assert best.probability == 0.82
    assert best.items["survivors"] == 0.95
    middle = func_score(**{**FUNC, "volume_ml": 70, "cognitive_impairment": False, "location": "lobar"})
    assert (middle.score, middle.probability, middle.items["survivors"]) == (7, 0.13, 0.29)
    assert "survivors" in best.caveat


def test_every_func_score_has_its_published_rates() -> None:
    """Definition 3.4: 0-4 0 %, 5-7 13 %, 8 42 %, 9-10 66 %, 11 82 %; of survivors 0, 29, 48, 75 and 95 %."""
    published = {
        **dict.fromkeys(range(5), (0.0, 0.0)), **dict.fromkeys((5, 6, 7), (0.13, 0.29)), 8: (0.42, 0.48),
        **dict.fromkeys((9, 10), (0.66, 0.75)), 11: (0.82, 0.95),
    }  # fmt: skip
    seen = set()
    for volume_ml, age, place, gcs, impaired in itertools.product(
        (10, 40, 70), (60, 75, 85), ("lobar", "deep", "subtentorial"), (15, 6), (False, True)
    ):
        answer = func_score(age=age, gcs=gcs, volume_ml=volume_ml, location=place, cognitive_impairment=impaired)
        assert (answer.probability, answer.items["survivors"]) == published[answer.score]
        seen.add(answer.score)
    assert seen == set(range(12))


def test_the_highest_ich_score_is_an_estimate_of_certainty() -> None:
    worst = ich_score(age=90, gcs=3, volume_ml=60, ivh=True, infratentorial=True)
    assert (worst.score, worst.probability) == (6, 1.0)
    assert "overestimate" in worst.caveat


def test_missing_items_give_a_range_never_a_score() -> None:
    answer = ich_score(**{**FULL, "gcs": None})
    assert answer.score is None and answer.probability is None
    assert answer.score_range == (0, 2)
    assert answer.probability_range == (0.0, 0.26)
    assert "needs the Glasgow Coma Scale;" in answer.reason
    everything = ich_score(age=None, gcs=None, volume_ml=None, ivh=None, infratentorial=None)
    assert everything.score_range == (0, 6)
    unknown = func_score(**{**FUNC, "cognitive_impairment": None})
    assert unknown.score_range == (10, 11)
    assert unknown.probability_range == (0.66, 0.82)
    assert "survivors" not in unknown.items


def test_children_are_refused_with_a_reason() -> None:
    for answer in (ich_score(**{**FULL, "age": 17}), func_score(**{**FUNC, "age": 17})):
        assert answer.score is None and answer.score_range is None and answer.probability is None
        assert "17" in answer.reason


@pytest.mark.parametrize("change", [{"gcs": 2}, {"gcs": 16}, {"age": -1}, {"volume_ml": -0.1}])
def test_impossible_values_raise(change: dict) -> None:
    with pytest.raises(UsageError):
        ich_score(**{**FULL, **change})


def test_an_unknown_location_raises() -> None:
    with pytest.raises(UsageError, match="brainstem"):
        func_score(**{**FUNC, "location": "brainstem"})


def test_every_prognosis_says_what_it_is_not_for() -> None:
    for answer in (ich_score(**FULL), func_score(**FUNC)):
        assert answer.caveat.startswith("Not a basis for limiting care, least of all in the first days.")
