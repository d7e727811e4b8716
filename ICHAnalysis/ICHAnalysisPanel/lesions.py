"""Which lesions of an analysis are shown one by one: specks would cover the views with labels of 0.0 mL."""

from __future__ import annotations

from typing import Any

from ICHAnalysisLib.analysis import Analysis, Lesion
from ICHAnalysisLib.config.analyze import PostprocessConfig

#: Below this an automatic outline is dropped; a prompted or edited one may hold such specks, and counts them.
SPECK_ML = PostprocessConfig().smallest_lesion_ml


def shown_lesions(analysis: Analysis) -> list[Lesion]:
    """The lesions that are no specks, largest first; the largest one in any case."""
    ordered = sorted(analysis.lesions, key=lambda lesion: -lesion.volume_ml)
    return ordered[:1] + [lesion for lesion in ordered[1:] if lesion.volume_ml >= SPECK_ML]


def shown_lines(analysis: Analysis) -> list[dict[str, Any]]:
    """The lines of ABC/2 of the lesions that are no specks, in the order of the analysis; the first in any case."""
    lines = list(analysis.abc2_lines)
    return lines[:1] + [line for line in lines[1:] if line.get("volumes_ml", {}).get("abc2", SPECK_ML) >= SPECK_ML]
