"""CQ500 (Qure.ai) with three readers' findings, BHX boxes on it, and the masks of Seg-CQ500."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ICHAnalysisLib.errors import UsageError
from Training.data.adapters import Options, find_one, is_real, need_columns, read_table
from Training.data.adapters.bhsd import binary_rule, readable_values
from Training.data.adapters.dicom_series import Header, by_series, read_header, read_headers
from Training.data.manifest import ManifestRow

logger = logging.getLogger(__name__)

LICENCE = "CC BY-NC-SA 4.0"
FINDINGS = {"IPH": "has_ich", "IVH": "ivh", "SDH": "sdh", "EDH": "edh", "SAH": "sah", "ICH": "has_any_bleed"}
_FOLDER = re.compile(r"CQ500[-_ ]?CT[-_ ]?(\d+)", re.IGNORECASE)
_NOT_PLAIN = re.compile(r"4\s*cc|sec|3d|contrast|angio|cta|post|bone|neck|chest|perf", re.IGNORECASE)


def cq500(root: Path, options: Options) -> Iterator[ManifestRow]:
    """One row a patient: the plain series of the head, the majority of three reads, and BHX boxes where given."""
    reads: dict[int, dict[str, Any]] = majority(options.reads or find_one(root, "reads.csv", "*/reads.csv"))
    boxes = read_boxes(options.boxes) if options.boxes else {}
    without = []
    for number, folder in sorted(_patients(root).items()):
        chosen = plain_series(folder, boxes)
        if chosen is None:
            without.append(str(number))
            continue
        path, uid = chosen
        yield ManifestRow(
            case_id=f"cq500:{number}",
            patient_id=f"cq500:{number}",
            image=options.relative(path),
            series=uid,
            boxes=_boxes_of(path, uid, boxes) if uid in boxes else None,
            source="cq500",
            licence=LICENCE,
            **reads.get(number, {}),
        )
    if without:
        logger.warning("%d patients have no plain head series: %s", len(without), ", ".join(without[:20]))


def seg_cq500(root: Path, options: Options) -> Iterator[ManifestRow]:
    """One row a volume of Seg-CQ500. Masks hold all subtypes: they are ICH only where the reads name nothing else."""
    info = find_one(root, "info.csv", "volumes/info.csv", "**/volumes/info.csv")
    reads: dict[int, dict[str, Any]] = majority(options.reads) if options.reads else {}
    records = read_table(info)
    need_columns(info, records, "CT_fn", "mask_fn")
    for record in records:
        scan, mask = (_beside(info, record[name]) for name in ("CT_fn", "mask_fn"))
        found = _FOLDER.search(record["CT_fn"]) or re.search(r"(\d+)", record["CT_fn"])
        values = readable_values(mask) if found is not None and is_real(scan) else None
        if found is None or values is None:
            continue
        number = int(found.group(1))
        yield ManifestRow(
            case_id=f"seg-cq500:{number}",
            patient_id=f"cq500:{number}",
            image=options.relative(scan),
            **binary_rule(mask, values, "bleed", options),
            source="seg-cq500",
            licence=LICENCE,
            **reads.get(number, {}),
        )


def majority(path: Path) -> dict[int, dict[str, int]]:
    """Patient number -> findings that at least two of the three readers agree on."""
    result: dict[int, dict[str, int]] = {}
    records = read_table(path)
    need_columns(path, records, "name", *(f"R{reader}:{finding}" for reader in (1, 2, 3) for finding in FINDINGS))
    for record in records:
        number = re.search(r"(\d+)\s*$", record["name"])
        if number is None:
            raise UsageError(f"{path}: the name {record.get('name')!r} does not end in the patient's number.")
        facts = {}
        for finding, column in FINDINGS.items():
            votes = [record[f"R{reader}:{finding}"].strip() for reader in (1, 2, 3)]
            if all(vote in ("0", "1") for vote in votes):
                facts[column] = int(votes.count("1") >= 2)
        result[int(number.group(1))] = facts
    return result


def plain_series(folder: Path, preferred: dict[str, Any]) -> tuple[Path, str] | None:
    """(folder, SeriesInstanceUID) of the unenhanced head series: with boxes, else plain with thick slices."""
    candidates = []
    for path in sorted({file.parent for file in folder.rglob("*.dcm") if is_real(file)}):
        header = read_header(min(file for file in path.glob("*.dcm") if is_real(file)))
        if (
            header is None
            or header.contrast
            or header.body_part in ("CHEST", "ABDOMEN", "NECK")
            or _NOT_PLAIN.search(path.name)
        ):
            continue
        rank = (
            header.series not in preferred,
            "plain" not in path.name.lower(),
            "thin" in path.name.lower(),
            path.name,
        )
        candidates.append((rank, path, header.series))
    return min(candidates)[1:] if candidates else None


def read_boxes(folder: Path) -> dict[str, list[dict[str, str]]]:
    """BHX rows by SeriesInstanceUID; the manual labels, and the extrapolated ones of other series."""
    boxes: dict[str, list[dict[str, str]]] = {}
    tables = sorted(path for path in folder.glob("*.csv") if is_real(path))
    if not tables:
        raise UsageError(f"{folder}: no BHX table (1_Initial_Manual_Labeling.csv ...) here.")
    for table in tables:
        rows: dict[str, list[dict[str, str]]] = {}
        records = read_table(table)
        need_columns(table, records, "SOPInstanceUID", "SeriesInstanceUID", "labelName")
        for record in records:
            rows.setdefault(record["SeriesInstanceUID"], []).append(record)
        for uid, found in rows.items():
            boxes.setdefault(uid, found)  # an earlier table is nearer to what readers drew
    return boxes


def _boxes_of(path: Path, uid: str, boxes: dict[str, list[dict[str, str]]]) -> list[dict[str, Any]]:
    """The boxes of one series with slices counted from the lowest up."""
    files = sorted(file for file in path.glob("*.dcm") if is_real(file))
    slices: Sequence[Header] = by_series(read_headers(files, threads=2)).get(uid, [])
    order = {header.instance: number for number, header in enumerate(slices)}
    found, unread = [], 0
    for record in boxes[uid]:
        sides = box_sides(record)
        unread += sides is None
        if sides is not None and record["SOPInstanceUID"] in order:
            found.append({"slice": order[record["SOPInstanceUID"]], **sides, "label": record["labelName"]})
    if unread:
        logger.warning("%d of %d boxes of a series have no place or size and were left out", unread, len(boxes[uid]))
    return found


def box_sides(record: dict[str, str]) -> dict[str, float] | None:
    """x, y, width, height in pixels, from columns of their own or from a `data` cell, which holds them as JSON or as
    Python prints a dict; None where they are missing or span nothing."""
    try:
        box = _parsed(record["data"]) if record.get("data", "").strip() else record
        sides = {name: float(box[name]) for name in ("x", "y", "width", "height")}
    except (KeyError, TypeError, ValueError, SyntaxError):
        return None
    return sides if min(sides["width"], sides["height"]) > 0 else None


def _parsed(text: str) -> Any:
    """A dict written as JSON, or as Python prints it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return ast.literal_eval(text.strip())


def _beside(table: Path, name: str) -> Path:
    """A file that the table names relative to its own folder or to one above it."""
    places = [folder / name for folder in list(table.parents)[:3]]
    return next((place for place in places if place.is_file()), places[0])


def _patients(root: Path) -> dict[int, Path]:
    """Patient number -> its topmost folder."""
    folders: dict[int, Path] = {}
    for path in sorted(root.rglob("*")):
        found = _FOLDER.search(path.name)
        if found and path.is_dir() and is_real(path):
            folders.setdefault(int(found.group(1)), path)
    return folders
