"""The few lines that a command prints at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ICHAnalysisLib.analysis import RESEARCH_USE, Analysis
from ICHAnalysisLib.outputs.words import lead_sentence


def summary_lines(analysis: Analysis, files: Mapping[str, Path] | None = None) -> list[str]:
    """The outcome in plain words, then where the files are."""
    lines = [f"Status: {analysis.status}"]
    if analysis.status == "blocked":
        lines.append(analysis.message)
    elif analysis.lesions:
        lines += _positive(analysis)
    else:
        lines.append(lead_sentence(analysis))
    lines += [f"{finding.level.value} {finding.code}: {finding.message}" for finding in analysis.findings]
    for name, path in (files or {}).items():
        lines.append(f"{name}: {path}")
    lines.append(RESEARCH_USE)
    return lines


def _positive(analysis: Analysis) -> list[str]:
    """Volume, place and scores of a scan with hemorrhage."""
    volumes = analysis.volumes_ml
    location = analysis.location
    where = " ".join(
        part for part in ((location.side if location else None), (location.label if location else None)) if part
    )
    count = len(analysis.lesions)
    lines = [
        f"Hemorrhage: {count} lesion{'s' if count != 1 else ''}, {where or 'location not given'}",
        f"Volume: {_ml(volumes.get('segmentation'))} (segmentation), {_ml(volumes.get('network'))} (volume net), "
        f"{_ml(volumes.get('abc2'))} (ABC/2)",
    ]
    if volumes.get("ivh"):
        lines.append(f"Intraventricular: {_ml(volumes['ivh'])}")
    for name in ("ich_score", "func"):
        prognosis = analysis.prognosis.get(name)
        if prognosis is None:
            continue
        title = {"ich_score": "ICH Score", "func": "FUNC"}[name]
        if prognosis.score is not None and prognosis.probability is not None:
            lines.append(f"{title}: {prognosis.score} ({prognosis.event}: {prognosis.probability:.0%})")
        elif prognosis.score_range is not None:
            low, high = prognosis.score_range
            lines.append(f"{title}: {low} to {high}, items are missing")
    if analysis.prognosis:
        lines.append(next(iter(analysis.prognosis.values())).caveat)
    return lines


def _ml(value: float | None) -> str:
    """Milliliters for reading."""
    return "not given" if value is None else f"{value:.1f} mL"
