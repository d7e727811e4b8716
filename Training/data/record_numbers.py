"""The clinical record as numbers, for networks that read a table where ICH-SCNet reads a sentence."""

from __future__ import annotations

import math

import numpy as np

from ICHAnalysisLib.clinical import RETROSPECTIVE, SEXES, TREATMENTS, ClinicalRecord
from ICHAnalysisLib.config.preprocess import LOCATIONS

#: Amounts: center and scale, of log(1 + value) where the last is true. Fixed, so that nothing is fitted to a fold.
_AMOUNTS: dict[str, tuple[float, float, bool]] = {
    "age": (65.0, 15.0, False),
    "gcs": (11.0, 4.0, False),
    "onset_to_ct_h": (1.5, 1.0, True),
    "volume_ml": (3.0, 1.0, True),
    "length_of_stay_days": (2.5, 1.0, True),
}
_CHOICES = {"sex": SEXES, "location": LOCATIONS, "treatment": TREATMENTS}
#: Length of what `record_numbers` returns: an amount and whether it is known, and one number a choice.
WIDTH = 2 * len(_AMOUNTS) + sum(len(choices) for choices in _CHOICES.values())


def record_numbers(record: ClinicalRecord, retrospective: bool = False) -> np.ndarray:
    """(WIDTH,) float32; what is unknown is 0 and says so. Fields of the sentence alone.

    retrospective: also length of stay and treatment, which leak the outcome (decision S31).
    """
    values = record.to_dict()
    if not retrospective:
        values = {name: value for name, value in values.items() if name not in RETROSPECTIVE}
    numbers: list[float] = []
    for name, (center, scale, in_logs) in _AMOUNTS.items():
        value = values.get(name)
        amount = None if value is None else math.log1p(value) if in_logs else float(value)
        numbers += [0.0, 0.0] if amount is None else [(amount - center) / scale, 1.0]
    for name, choices in _CHOICES.items():
        numbers += [float(values.get(name) == choice) for choice in choices]
    return np.array(numbers, dtype=np.float32)
