"""Growth between scans of one patient, where dates allow."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

COLUMNS = ("case_id_first", "case_id_second", "hours", "first_ml", "second_ml", "growth_ml", "growth_percent",
           "expansion")  # fmt: skip


def growth_rows(stored: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each pair of consecutive scans of a patient, from the stored rows of a batch.

    Only scans with status ok, a patient and a time count; scans at the same time are no pair.
    """
    by_patient: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in stored:
        private = item["private"]
        if item["row"]["status"] == "ok" and private.get("patient") and private.get("acquired_h") is not None:
            by_patient[private["patient"]].append(item)
    rows = []
    for scans in by_patient.values():
        scans.sort(key=lambda item: (item["private"]["acquired_h"], item["row"]["case_id"]))
        for first, second in itertools.pairwise(scans):
            hours = second["private"]["acquired_h"] - first["private"]["acquired_h"]
            volumes = first["row"]["volume_ml"], second["row"]["volume_ml"]
            if hours > 0 and None not in volumes:
                rows.append(_pair(first["row"]["case_id"], second["row"]["case_id"], hours, *volumes))
    return sorted(rows, key=lambda row: (row["case_id_first"], row["hours"]))


def _pair(first: str, second: str, hours: float, before: float, after: float) -> dict[str, Any]:
    """The row of one pair; the percentage is left out where there was no blood before."""
    from ICHAnalysisLib.volumetry import growth  # scipy: only where there is a pair

    change = growth(before, after)
    return {
        "case_id_first": first,
        "case_id_second": second,
        "hours": round(hours, 2),
        "first_ml": before,
        "second_ml": after,
        "growth_ml": change.change_ml,
        "growth_percent": None if change.change_share is None else 100 * change.change_share,
        "expansion": change.expansion,
    }
