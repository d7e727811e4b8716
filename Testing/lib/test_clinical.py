"""The clinical record: units, ranges, one sentence of at most 77 tokens, nothing that leaks the outcome by default."""

from __future__ import annotations

import itertools

import pytest

from ICHAnalysisLib.clinical import CONTEXT_LENGTH, RANGES, TREATMENTS, ClinicalRecord, tokenize
from ICHAnalysisLib.config.preprocess import LOCATIONS
from ICHAnalysisLib.errors import UsageError

FULL = {
    "age": 71.3,
    "sex": "male",
    "gcs": 14,
    "onset_to_ct_h": 103.5,
    "location": "subtentorial",
    "volume_ml": 124.5,
    "length_of_stay_days": 120,
    "treatment": "minimally invasive surgery",
    "ivh": True,
    "cognitive_impairment": False,
    "antithrombotics": True,
}


def test_sentence_of_what_is_known_at_admission() -> None:
    record = ClinicalRecord.from_dict(FULL)
    assert record.sentence() == (
        "Intracerebral hemorrhage, age 71.3, sex male, Glasgow Coma Scale 14, onset to CT 103.5 hours, "
        "location subtentorial, volume 124.5 mL."
    )


def test_what_is_known_later_enters_on_request_only() -> None:
    record = ClinicalRecord.from_dict(FULL)
    assert "stay" not in record.sentence() and "surgery" not in record.sentence()
    assert "length of stay 120 days, treatment minimally invasive surgery" in record.sentence(retrospective=True)
    assert "intraventricular blood yes" in record.sentence(scores=True)


@pytest.mark.parametrize("treatment", TREATMENTS)
@pytest.mark.parametrize("decimals", [0.0, 0.5])
def test_the_longest_template_fits_the_context(treatment: str, decimals: float) -> None:
    """Every number as long as its range allows; digits are tokens of their own."""
    pytest.importorskip("open_clip")
    longest = {name: high - decimals for name, (_, high, _) in RANGES.items()}
    for location in LOCATIONS:
        record = ClinicalRecord.from_dict({**FULL, **longest, "gcs": 15, "treatment": treatment, "location": location})
        for retrospective, scores in itertools.product((False, True), repeat=2):
            tokens = tokenize(record.sentence(retrospective, scores))
            assert len(tokens.ids) == CONTEXT_LENGTH and not tokens.truncated


def test_longer_text_is_cut_and_says_so() -> None:
    pytest.importorskip("open_clip")
    tokens = tokenize("hemorrhage " * 100)
    assert tokens.truncated and len(tokens.ids) == CONTEXT_LENGTH and tokens.ids[-1] == 49407
    assert not tokenize("hemorrhage").truncated


def test_unknown_fields_read_unknown_and_free_text_replaces_the_sentence() -> None:
    assert "age unknown" in ClinicalRecord(sex="female").sentence()
    assert ClinicalRecord(age=50, text=" found on the floor ").sentence() == "found on the floor"


def test_nothing_known_is_empty() -> None:
    assert ClinicalRecord().is_empty and not ClinicalRecord(ivh=False).is_empty


@pytest.mark.parametrize("name", RANGES)
def test_values_outside_their_range_name_field_value_and_unit(name: str) -> None:
    low, high, unit = RANGES[name]
    for value in (low - 1, high + 1, float("nan"), "x", True):
        with pytest.raises(UsageError, match=f"{name} is .*{unit}"):
            ClinicalRecord(**{name: value})
    assert getattr(ClinicalRecord(**{name: low}), name) == low
    assert getattr(ClinicalRecord(**{name: high}), name) == high


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sex": "m"}, "male, female"),
        ({"location": "infratentorial"}, "deep, lobar, subtentorial"),
        ({"treatment": "prayer"}, "treatment"),
        ({"gcs": 9.5}, "whole number"),
        ({"ivh": 1}, "true or false"),
        ({"text": 5}, "string"),
        ({"ages": 5}, "unknown key 'ages'"),
    ],
)
def test_wrong_values_are_usage_errors(values: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ClinicalRecord.from_dict(values)


def test_names_of_lists_of_cases_are_understood() -> None:
    record = ClinicalRecord.from_dict({"age_years": 60, "onset_to_ct_hours": 2, "cognition_impaired": True})
    assert (record.age, record.onset_to_ct_h, record.cognitive_impairment) == (60, 2, True)


def test_outputs_never_hold_the_free_text() -> None:
    assert ClinicalRecord(age=50, text="private").to_dict() == {"age": 50}


def test_scores_get_what_they_ask_for() -> None:
    inputs = ClinicalRecord.from_dict(FULL).score_inputs()
    assert inputs == {
        "age": 71.3,
        "gcs": 14,
        "ivh": True,
        "location": "subtentorial",
        "volume_ml": 124.5,
        "cognitive_impairment": False,
    }
