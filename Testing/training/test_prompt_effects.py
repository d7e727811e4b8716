"""The measure of what prompts do, on a reader that obeys them and on one that ignores them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ICHAnalysisLib.prompts import SlicePrompts
from Training.prompt_effects import markdown, prompt_effects

HU = np.zeros((64, 64), np.float32)
HU[10:20, 10:20] = 70  # found without help
HU[40:48, 40:50] = 55  # missed without help
TRUTH = HU > 50


def ignoring(hu: np.ndarray, prompts: SlicePrompts) -> np.ndarray:
    return hu > 60


def obeying(hu: np.ndarray, prompts: SlicePrompts) -> np.ndarray:
    labels, _ = ndimage.label(hu > 50)
    found = hu > 60
    if len(prompts.boxes):
        found = hu > 50
    for (x, y), sign in zip(prompts.points.astype(int), prompts.point_labels):
        found = found | (labels == labels[y, x]) if sign else found & (labels != labels[y, x])
    return found


def test_a_reader_that_obeys() -> None:
    found = prompt_effects([(HU, TRUTH)], obeying)
    assert found["automatic_dice"] == pytest.approx(2 * 100 / (100 + 180))
    assert found["box_dice"] == 1.0
    assert (found["predicted_lesions"], found["missed_lesions"]) == (1, 1)
    assert found["negative_removed"] == 1.0 and np.isnan(found["negative_elsewhere"])
    assert (found["positive_before"], found["positive_after"]) == (0.0, 1.0)


def test_a_reader_that_ignores() -> None:
    found = prompt_effects([(HU, TRUTH)] * 2, ignoring)
    assert found["slices"] == 2 and found["negative_removed"] == 0.0 and found["positive_after"] == 0.0


def test_the_table_has_a_row_a_measure() -> None:
    found = prompt_effects([(HU, TRUTH)], obeying)
    lines = markdown({"network alone": found, "library": found}).splitlines()
    assert len(lines) == 2 + len(found) and lines[0] == "| | network alone | library |"
    assert "| predicted lesions | 1 | 1 |" in lines and "| negative removed | 1.000 | 1.000 |" in lines
