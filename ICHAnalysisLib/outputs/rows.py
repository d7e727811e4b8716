"""One analysis as one flat row of a table."""

from __future__ import annotations

from typing import Any

from ICHAnalysisLib.analysis import Analysis

#: Columns of cases.csv. None of them holds an identifier.
COLUMNS = (
    "case_id", "status", "message", "findings", "presence_probability", "positive", "location", "side",
    "lesions", "volume_ml", "volume_lower_ml", "volume_upper_ml", "ivh_ml", "network_ml", "abc2_ml",
    "abc2_kothari_ml", "two_thirds_sh_ml", "ich_score", "ich_score_mortality", "func_score", "func_probability",
    "slice_network_probability", "scan_network_probability", "mode", "device", "seconds", "attempts", "version",
    "report",
)  # fmt: skip

_VOLUMES = {
    "volume_ml": "segmentation",
    "ivh_ml": "ivh",
    "network_ml": "network",
    "abc2_ml": "abc2",
    "abc2_kothari_ml": "abc2_kothari",
    "two_thirds_sh_ml": "two_thirds_sh",
}


def analysis_row(analysis: Analysis) -> dict[str, Any]:
    """The row of a finished analysis; case_id, seconds, attempts and report are filled in by the batch."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "status": analysis.status,
        "message": analysis.message,
        "findings": " ".join(f"{finding.level.value}:{finding.code}" for finding in analysis.findings),
        "lesions": len(analysis.lesions) if analysis.status == "ok" else None,
        "mode": analysis.mode,
        "device": analysis.device,
        "version": analysis.version,
    }
    if analysis.presence is not None:
        row |= {"presence_probability": analysis.presence.probability, "positive": analysis.presence.positive}
    if analysis.location is not None:
        row |= {"location": analysis.location.label, "side": analysis.location.side}
    row |= {column: analysis.volumes_ml.get(key) for column, key in _VOLUMES.items()}
    interval = analysis.intervals.get("segmentation")
    if interval is not None:
        row |= {"volume_lower_ml": interval.lower, "volume_upper_ml": interval.upper}
    scores = {name: analysis.prognosis.get(name) for name in ("ich_score", "func", "slice_network", "scan_network")}
    if scores["ich_score"] is not None:
        row |= {"ich_score": scores["ich_score"].score, "ich_score_mortality": scores["ich_score"].probability}
    if scores["func"] is not None:
        row |= {"func_score": scores["func"].score, "func_probability": scores["func"].probability}
    for name in ("slice_network", "scan_network"):
        item = scores[name]
        row[f"{name}_probability"] = item.probability if item is not None else None
    return row
