"""The record as numbers: nothing unknown is guessed, nothing leaks, and a regression on them learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ICHAnalysisLib.clinical import ClinicalRecord
from ICHAnalysisLib.config.ich_scnet import PRESETS
from ICHAnalysisLib.prompts import PromptBatch
from Training.comparators import COMPARATORS
from Training.data.record_numbers import WIDTH, record_numbers


def test_known_values_and_their_flags() -> None:
    numbers = record_numbers(ClinicalRecord(age=80, gcs=7, sex="female", location="lobar", onset_to_ct_h=0.0))
    assert numbers.shape == (WIDTH,) == (19,)
    assert numbers[:6] == pytest.approx([1.0, 1.0, -1.0, 1.0, -1.5, 1.0])
    assert numbers[6:10].tolist() == [0.0] * 4  # volume and length of stay are unknown
    assert numbers[10:15].tolist() == [0, 1, 0, 1, 0]


def test_nothing_known_is_zero_and_what_leaks_must_be_asked_for() -> None:
    assert not record_numbers(ClinicalRecord()).any()
    leaking = ClinicalRecord(length_of_stay_days=20, treatment="craniotomy")
    assert not record_numbers(leaking).any()
    assert np.flatnonzero(record_numbers(leaking, retrospective=True)).tolist() == [8, 9, 16]


def test_the_logistic_regression_finds_what_decides() -> None:
    """Outcome poor exactly where GCS is below 9: separable, so the loss must fall far below ln 2."""
    records = [ClinicalRecord(age=60 + n % 30, gcs=3 + n % 13) for n in range(60)]
    numbers = torch.from_numpy(np.stack([record_numbers(record) for record in records]))
    poor = torch.tensor([int(record.gcs < 9) for record in records])
    model = COMPARATORS["logistic"][1](PRESETS["tiny"])
    optimizer = torch.optim.AdamW(model.parameters(), 0.2)
    image = torch.zeros(60, 3, 8, 8)
    for _ in range(150):
        logits = model(image, PromptBatch.empty(60), numbers).outcome
        loss = torch.nn.functional.cross_entropy(logits, poor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.15 and torch.equal(logits.argmax(dim=1), poor)
    again = model(torch.rand(60, 3, 8, 8), PromptBatch.empty(60), numbers).outcome
    assert torch.equal(again, model(image, PromptBatch.empty(60), numbers).outcome)  # no image


def test_the_regression_needs_numbers() -> None:
    with pytest.raises(ValueError, match="numbers"):
        COMPARATORS["logistic"][1](PRESETS["tiny"])(torch.zeros(1, 3, 8, 8), PromptBatch.empty(1))
