"""summary.html of a batch: counts, histograms, a table that sorts by a click, links to the reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.analysis import NEGATIVE_CAVEAT, PROGNOSIS_CAVEAT
from ICHAnalysisLib.outputs.atomic import write_text
from ICHAnalysisLib.outputs.page import render_page
from ICHAnalysisLib.outputs.words import number, percent

#: (column of the row, title, how it is shown)
_SHOWN = (
    ("status", "Status", "text"),
    ("presence_probability", "Probability", "percent"),
    ("volume_ml", "ICH, mL", "number"),
    ("ivh_ml", "IVH, mL", "number"),
    ("network_ml", "Network, mL", "number"),
    ("abc2_ml", "ABC/2, mL", "number"),
    ("location", "Location", "text"),
    ("side", "Side", "text"),
    ("ich_score", "ICH Score", "text"),
    ("findings", "Findings", "text"),
    ("message", "Message", "text"),
)


def write_summary_page(rows: Sequence[dict[str, Any]], growth: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write summary.html; rows as in cases.csv, growth as in growth.csv."""
    answered = [row for row in rows if row["status"] == "ok"]
    volumes = [row["volume_ml"] for row in answered if row["positive"]]
    histograms = [
        _histogram("ICH volume of positive scans, mL", volumes),
        _histogram("Probability of hemorrhage", [row["presence_probability"] for row in answered], (0.0, 1.0)),
    ]
    context = {
        "counts": _counts(rows),
        "titles": [title for _, title, _ in _SHOWN],
        "rows": [_cells(row) for row in rows],
        "histograms": [item for item in histograms if item is not None],
        "growth": [_growth_cells(row) for row in growth],
        "negative_caveat": NEGATIVE_CAVEAT.split(". ", 1)[1],
        "prognosis_caveat": PROGNOSIS_CAVEAT,
    }
    return write_text(path, render_page("summary", context))


def _counts(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """Cases in all, by status, and positive ones."""
    by_status = Counter(row["status"] for row in rows)
    positive = sum(bool(row["positive"]) for row in rows)
    named = [("cases", len(rows)), ("analyzed", by_status["ok"]), ("with hemorrhage", positive)]
    return named + [(status, by_status[status]) for status in ("blocked", "failed") if by_status[status]]


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """One table row: id, link, and for each column its text and the value to sort by."""
    cells = []
    for column, _, kind in _SHOWN:
        value = row.get(column)
        if kind == "percent" and value is not None:
            text = percent(value)
        elif kind == "number" and value is not None:
            text = number(value)
        else:
            text = "" if value is None else str(value)
        cells.append({"text": text, "sort": "" if value is None else str(value)})
    return {"case_id": row["case_id"], "link": row.get("report") or "", "cells": cells, "status": row["status"]}


def _growth_cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        "first": row["case_id_first"],
        "second": row["case_id_second"],
        "hours": number(row["hours"]),
        "volumes": f"{number(row['first_ml'])} to {number(row['second_ml'])}",
        "growth": f"{row['growth_ml']:+.1f}",
        "percent": "" if row["growth_percent"] is None else f"{row['growth_percent']:+.0f} %",
        "expansion": "yes" if row["expansion"] else "no",
    }


def _histogram(title: str, values: list[float | None], limits: tuple[float, float] | None = None) -> dict | None:
    """Ten bars: share of the highest, count and label of each; None where there are fewer than two values."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    counts, edges = np.histogram(known, bins=10, range=limits)
    bars = [
        {"height": round(100 * int(count) / max(1, int(counts.max())), 1), "count": int(count),
         "label": f"{number(float(low))} to {number(float(high))}"}
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    ]  # fmt: skip
    return {"title": title, "bars": bars, "low": number(float(edges[0])), "high": number(float(edges[-1]))}
