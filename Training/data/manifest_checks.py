"""What a manifest row may say: ranges, allowed words, and facts that contradict each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ICHAnalysisLib.config.preprocess import LOCATIONS

if TYPE_CHECKING:
    from Training.data.manifest import ManifestRow

BINARY = ("has_ich", "has_any_bleed", "ivh", "sdh", "edh", "sah", "dead_30d", "outcome_binary", "synthetic")
RANGES: dict[str, tuple[float, float]] = {
    "scan_time_h": (0, 24 * 365),
    "volume_ml": (0, 400),
    "gos": (1, 5),
    "mrs": (0, 6),
    "outcome_days": (0, 3660),
    "age": (0, 120),
    "gcs": (3, 15),
    "onset_to_ct_h": (0, 24 * 365),
}
WHOLE = ("slice_index", "gos", "mrs", "gcs")
CHOICES: dict[str, tuple[str, ...]] = {
    "location": LOCATIONS,
    "location_source": ("label", "atlas", "reader"),
    "sex": ("male", "female"),
    "mask_kind": ("hard", "prob", "0-255"),
    "split": ("train", "val", "test"),
}
MASK_NAMES = ("ich", "ivh", "oedema", "bleed")
_SUBTYPES = ("has_ich", "ivh", "sdh", "edh", "sah")
#: What all slice rows of one scan have in common: the cache takes it from the first of them.
_OF_THE_SCAN = (
    "patient_id", "image", "series", "study_id", "scan_time_h", "location", "volume_ml", "gos", "mrs", "dead_30d",
    "outcome_binary", "outcome_days", "age", "sex", "gcs", "onset_to_ct_h", "text", "split", "source", "synthetic",
)  # fmt: skip
_BOX_SIDES = ("x", "y", "width", "height")
_SHOWN = 60  # faults in full in one message


def row_faults(row: ManifestRow) -> list[str]:
    """Faults of one row, each a column, its value and what would be right."""
    faults = [f"{n} {getattr(row, n)}: must be 1, 0 or empty" for n in BINARY if getattr(row, n) not in (None, 0, 1)]
    for name, (low, high) in RANGES.items():
        value = getattr(row, name)
        if value is not None and not low <= value <= high:
            faults.append(f"{name} {value:g}: must lie between {low:g} and {high:g}")
    for name, choices in CHOICES.items():
        value = getattr(row, name)
        if value is not None and value not in choices:
            faults.append(f"{name} {value!r}: must be one of {', '.join(choices)}")
    family, colon, key = row.patient_id.partition(":")
    if not (family and colon and key):
        faults.append(f"patient_id {row.patient_id!r}: must be <source family>:<key>, such as cq500:12")
    return faults + _slice_faults(row) + _box_faults(row) + _mask_faults(row) + _contradictions(row)


def _slice_faults(row: ManifestRow) -> list[str]:
    """Slice rows carry their index in the case_id; slice labels are 1, 0 or null."""
    faults = []
    if row.slice_index is not None:
        if row.slice_index < 0:
            faults.append(f"slice_index {row.slice_index}: counts from 0")
        if not row.case_id.endswith(f"#{row.slice_index}"):
            faults.append(f"case_id {row.case_id!r}: a slice row's ends in #{row.slice_index}")
    labels = row.slice_has_ich
    if labels is not None and (not isinstance(labels, list) or any(value not in (None, 0, 1) for value in labels)):
        faults.append("slice_has_ich: must be a list of 1, 0 and null")
    elif labels is not None and row.has_ich == 0 and 1 in labels:
        faults.append("slice_has_ich: holds 1 while has_ich is 0")
    return faults


def _box_faults(row: ManifestRow) -> list[str]:
    """Boxes are objects with a slice, a place and size in pixels, and a label."""
    if row.boxes is None:
        return []
    boxes = row.boxes if isinstance(row.boxes, list) else [None]
    return [] if all(map(_is_box, boxes)) else [
        'boxes: must be a list such as [{"slice": 3, "x": 10, "y": 20, "width": 30, "height": 40, "label": "..."}]'
    ]  # fmt: skip


def _is_box(box: object) -> bool:
    if not isinstance(box, dict) or set(box) != {"slice", "label", *_BOX_SIDES}:
        return False
    sides = [box[name] for name in _BOX_SIDES]
    numbers = all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in sides)
    return numbers and min(sides[2:]) > 0 and type(box["slice"]) is int and box["slice"] >= 0


def _mask_faults(row: ManifestRow) -> list[str]:
    """A mask says what its values mean."""
    if row.mask is None:
        return ["mask_values: given without a mask"] if row.mask_values is not None else []
    values = row.mask_values
    if not isinstance(values, dict) or not values:
        return ['mask_values: a mask needs them, such as {"ich":[1]}']
    faults = [
        f"mask_values: unknown name {name!r}; known are {', '.join(MASK_NAMES)}"
        for name in set(values) - set(MASK_NAMES)
    ]
    seen: list[int] = []
    for name, numbers in values.items():
        if not isinstance(numbers, list) or not all(isinstance(v, int) and not isinstance(v, bool) for v in numbers):
            faults.append(f'mask_values: {name} must be a list of whole numbers, as in {{"ich":[1]}}')
        else:
            seen += numbers
    if len(seen) != len(set(seen)):
        faults.append("mask_values: one number stands for two things")
    if 0 in seen:
        faults.append("mask_values: 0 is the background")
    if row.mask_kind in ("prob", "0-255") and seen not in ([], [1]):
        faults.append(f"mask_values: a {row.mask_kind} mask becomes 0 and 1, so the only value is 1")
    return faults


def _contradictions(row: ManifestRow) -> list[str]:
    """Facts that cannot both be true."""
    pairs = [
        (
            row.has_any_bleed == 0 and any(getattr(row, name) == 1 for name in _SUBTYPES),
            "has_any_bleed 0, yet a bleed is 1",
        ),
        (row.has_ich == 0 and bool(row.volume_ml), "volume_ml above 0, yet has_ich is 0"),
        (row.has_ich == 0 and row.location is not None, "location given, yet has_ich is 0"),
        (
            row.gos is not None and row.mrs is not None and (row.gos == 1) != (row.mrs == 6),
            "gos and mrs disagree on death",
        ),
        (
            row.gos is not None and row.outcome_binary is not None and (row.gos < 4) != (row.outcome_binary == 1),
            "outcome_binary is 1 where gos is below 4, else 0",
        ),
        (row.dead_30d == 1 and row.outcome_binary == 0, "dead_30d 1, yet outcome_binary 0"),
        (row.dead_30d == 1 and row.gos not in (None, 1), "dead_30d 1, yet gos above 1"),
        (row.dead_30d == 1 and row.mrs not in (None, 6), "dead_30d 1, yet mrs below 6"),
        (
            row.location is not None and row.location_source is None,
            "location without location_source (label, atlas, reader)",
        ),
        (row.volume_ml is not None and row.volume_method is None, "volume_ml without volume_method"),
    ]
    return [text for wrong, text in pairs if wrong]


def table_faults(rows: Sequence[tuple[int, ManifestRow]]) -> list[str]:
    """Faults between rows: case_ids twice, patients in two splits, a scan whole and in slices or told in two ways."""
    faults = []
    lines: dict[str, int] = {}
    splits: dict[str, tuple[str, int]] = {}
    kinds: dict[str, tuple[bool, int]] = {}
    scans: dict[str, tuple[ManifestRow, int]] = {}
    for number, row in rows:
        first = lines.setdefault(row.case_id, number)
        if first != number:
            faults.append(f"line {number}, case_id {row.case_id!r}: stands already in line {first}")
        if row.split is not None:
            split, line = splits.setdefault(row.patient_id, (row.split, number))
            if split != row.split:
                faults.append(f"line {number}, split {row.split!r}: the patient is in {split!r} in line {line}")
        sliced, line = kinds.setdefault(row.scan_case_id, (row.slice_index is not None, number))
        if sliced != (row.slice_index is not None):
            faults.append(
                f"line {number}, case_id {row.case_id!r}: line {line} has the scan {'in slices' if sliced else 'whole'}"
            )
        scan, line = scans.setdefault(row.scan_case_id, (row, number))
        if row.slice_index is not None and scan.slice_index is not None:
            other = [name for name in _OF_THE_SCAN if getattr(row, name) != getattr(scan, name)]
            faults += [f"line {number}, {name}: another one than in line {line} of the same scan" for name in other]
        elif row.patient_id != scan.patient_id:
            faults.append(f"line {number}, patient_id: another one than in line {line} of the same scan")
    return faults


def list_faults(source: Path, faults: Sequence[str]) -> str:
    """One message: the first faults in full, and of the others, the lines that have one."""
    text = f"{source}: {len(faults)} faults.\n  " + "\n  ".join(faults[:_SHOWN])
    if len(faults) <= _SHOWN:
        return text
    numbers = sorted({int(found.group(1)) for fault in faults[_SHOWN:] if (found := re.match(r"\w+ (\d+)", fault))})
    return f"{text}\n  ... and {len(faults) - _SHOWN} more, in lines {_ranges(numbers)}"


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as 3, 5-9, 12."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
