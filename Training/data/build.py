"""From a manifest to the cache: read, check, preprocess and store every case; one that fails stops no other."""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.config.preprocess import PreprocessConfig
from ICHAnalysisLib.ct.readers import read_scan
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from ICHAnalysisLib.preprocess import SliceStack, make_stack
from Training.data.cache import (
    ICH,
    IVH,
    UNKNOWN,
    cache_key,
    folder_digest,
    is_cached,
    open_cache,
    update_meta,
    write_case,
)
from Training.data.compressed import check_compressed
from Training.data.manifest import Manifest, ManifestRow, read_manifest
from Training.data.masks import native_labels, stack_labels

logger = logging.getLogger(__name__)

FAILURES = "failures.csv"


@dataclass(frozen=True)
class BuildConfig:
    """How a cache is built. accept: answer every question that the reader asks about a scan with yes."""

    out: Path
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    workers: int = 1
    accept: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"Cache: --workers {self.workers} must be at least 1.")


@dataclass(frozen=True)
class Built:
    """What became of one case: its key, or why it failed."""

    case_id: str
    key: str | None = None
    reason: str | None = None
    new: bool = False


def build_cache(path: str | os.PathLike, cfg: BuildConfig) -> list[Built]:
    """Bring every case of the manifest into the cache; those that are there keep their arrays, with facts renewed.

    Entries that a case left behind under another key (its scan or mask changed) are removed. Failures are written to
    failures.csv beside the entries. Raises UsageError for a faulty manifest.
    """
    manifest = read_manifest(path)
    cases = group_rows(manifest.rows)
    cfg.out.mkdir(parents=True, exist_ok=True)
    jobs = [(rows, manifest, cfg) for rows in cases.values()]
    results = []
    for done, built in enumerate(_run(jobs, cfg.workers), start=1):
        results.append(built)
        if built.reason:
            logger.warning("case %s failed: %s", built.case_id, built.reason)
        if done % 20 == 0 or done == len(jobs):
            logger.info("%d/%d cases, %d failed", done, len(jobs), sum(b.reason is not None for b in results))
    _remove_superseded(cfg.out, results)
    _write_failures(cfg.out, results)
    return results


def group_rows(rows: Sequence[ManifestRow]) -> dict[str, list[ManifestRow]]:
    """The rows of each scan: one whole, or its slices."""
    cases: dict[str, list[ManifestRow]] = {}
    for row in rows:
        cases.setdefault(row.scan_case_id, []).append(row)
    return cases


def _run(jobs: list[tuple], workers: int) -> Iterator[Built]:
    if workers == 1:
        yield from map(build_case, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(build_case, jobs)


def build_case(job: tuple[list[ManifestRow], Manifest, BuildConfig]) -> Built:
    """One case; whatever a damaged scan can raise becomes a reason."""
    rows, manifest, cfg = job
    first = rows[0]
    try:
        digest = folder_digest(manifest.path(first.image))
        key = _key(rows, manifest, digest, cfg.preprocess)
        if is_cached(cfg.out, key):
            volume_known = {} if first.volume_ml is None else {"volume_ml": first.volume_ml}
            update_meta(cfg.out / key, {**row_facts(rows), **volume_known})
            return Built(first.scan_case_id, key)
        for part in {first.image, *(row.mask for row in rows if row.mask is not None)}:
            check_compressed(manifest.path(part))
        volume = read_scan(manifest.path(first.image), first.series, accept=cfg.accept)
        stack = make_stack(volume, cfg.preprocess)
        labels = native_labels(rows, manifest, volume)
        meta = {
            **row_facts(rows),
            **_measured(rows, labels, volume),
            "slice_has_ich": _stack_slice_labels(rows, stack),
            "boxes": stack_boxes(first.boxes, stack),
            "positions_mm": stack.positions_mm,
            "heights_mm": stack.heights_mm,
            "spacing_mm": stack.spacing_mm,
            "preprocess": to_dict(cfg.preprocess),
            "image_sha256": digest,
        }
        write_case(cfg.out, key, stack.hu, stack_labels(labels, stack), meta)
    except (ICHAnalysisError, OSError, ValueError, ArithmeticError, MemoryError) as error:
        return Built(first.scan_case_id, reason=" ".join(f"{type(error).__name__}: {error}".split()))
    return Built(first.scan_case_id, key, new=True)


def _key(rows: Sequence[ManifestRow], manifest: Manifest, digest: str, preprocess: PreprocessConfig) -> str:
    """Key over the pixels, the masks and whatever decides how these become labels."""
    parts = [digest, rows[0].series or ""]
    masks = {row.mask for row in rows if row.mask is not None}
    parts += [folder_digest(manifest.path(mask)) for mask in sorted(masks)]
    for row in rows:
        rule = (row.slice_index, row.mask, row.mask_values, row.mask_kind, row.slice_has_ich, row.boxes)
        subtypes = (row.has_ich, row.has_any_bleed, row.ivh, row.sdh, row.edh, row.sah)
        parts.append(json.dumps([rule, subtypes], sort_keys=True))
    return cache_key(parts, preprocess)


def row_facts(rows: Sequence[ManifestRow]) -> dict[str, Any]:
    """Facts of a case that stand in its rows alone, for meta.json; None where unknown."""
    row = rows[0]
    poor = row.outcome_binary if row.outcome_binary is not None else None if row.gos is None else int(row.gos < 4)
    dead = row.dead_30d
    outcome = {"dead_30d": dead, "poor_outcome": poor, "gos": row.gos, "mrs": row.mrs, "outcome_days": row.outcome_days}
    record = {name: getattr(row, name) for name in ("age", "sex", "gcs", "onset_to_ct_h", "text")}
    return {
        "case_id": row.scan_case_id,
        "patient_id": row.patient_id,
        "source": row.source,
        "licence": row.licence,
        "split": row.split,
        "synthetic": row.synthetic == 1,
        "location": row.location,
        "location_source": row.location_source,
        "record": {name: value for name, value in record.items() if value is not None},
        "outcome": {name: value for name, value in outcome.items() if value is not None},
    }


def _measured(rows: Sequence[ManifestRow], labels: np.ndarray, volume: CTVolume) -> dict[str, Any]:
    """has_ich and volumes: as the rows say, else from a mask that is known on every slice, else None."""
    row, known = rows[0], not (labels == UNKNOWN).any()
    rules = [r.mask_values or {} for r in rows if r.mask is not None]
    has_ich = row.has_ich if row.slice_index is None else _any([r.has_ich for r in rows])
    if has_ich is None and known and rules:
        has_ich = int((labels == ICH).any())
    volume_ml = row.volume_ml
    if volume_ml is None and known and has_ich is not None:
        volume_ml = volume.mask_volume_ml(labels == ICH)
    ivh_known = known and all("ivh" in rule for rule in rules)
    return {
        "has_ich": None if has_ich is None else bool(has_ich),
        "volume_ml": volume_ml,
        "ivh_ml": volume.mask_volume_ml(labels == IVH) if ivh_known else None,
        "side": None,
    }


def _stack_slice_labels(rows: Sequence[ManifestRow], stack: SliceStack) -> list[int | None] | None:
    """1, 0 or None of each stack slice, from slice rows, from a list of the row, or from a scan without ICH."""
    row, depth = rows[0], stack.volume.shape[0]
    if row.slice_index is not None:
        of_native: list[int | None] = [None] * depth
        for each in rows:
            of_native[each.slice_index or 0] = each.has_ich
    elif row.slice_has_ich is not None and len(row.slice_has_ich) == depth:
        upward = stack.volume.normal_ras[2] >= 0
        of_native = list(row.slice_has_ich) if upward else list(row.slice_has_ich)[::-1]
    elif row.has_ich == 0:
        of_native = [0] * depth
    else:
        return None
    return [_any([of_native[int(k)] for k in natives]) for natives in stack.native_slices]


def stack_boxes(boxes: Sequence[dict[str, Any]] | None, stack: SliceStack) -> list[dict[str, Any]] | None:
    """Boxes of a row on the stack: {"slice", "x0", "y0", "x1", "y1", "label"} in stack pixels."""
    if boxes is None:
        return None
    depth, upward = stack.volume.shape[0], stack.volume.normal_ras[2] >= 0
    of_native, found = stack.slice_of_native(), []
    for box in boxes:
        if not 0 <= box["slice"] < depth:
            continue  # the reader dropped a doubled slice, so positions no longer agree
        k = box["slice"] if upward else depth - 1 - box["slice"]
        corners = np.array([[box["x"], box["y"]], [box["x"] + box["width"], box["y"] + box["height"]]])
        low, high = np.sort(stack.px_of_ij(corners), axis=0)
        sides = {"x0": low[0], "y0": low[1], "x1": high[0], "y1": high[1]}
        found.append(
            {"slice": int(of_native[k]), **{n: round(float(v), 2) for n, v in sides.items()}, "label": box["label"]}
        )
    return found


def _any(values: Sequence[int | None]) -> int | None:
    """1 where one is 1, 0 where all are 0, else unknown."""
    if 1 in values:
        return 1
    return 0 if values and all(value == 0 for value in values) else None


def _remove_superseded(out: Path, results: Sequence[Built]) -> None:
    """Delete entries of the manifest's cases under keys that are no longer theirs."""
    keys = {built.case_id: built.key for built in results if built.key is not None}
    if not keys:
        return
    for case in open_cache(out):
        current = keys.get(case.case_id)
        if current is not None and case.folder.name != current:
            logger.info("case %s changed; its old entry is removed", case.case_id)
            shutil.rmtree(case.folder, ignore_errors=True)  # another process may be at it too


def _write_failures(out: Path, results: Sequence[Built]) -> None:
    """failures.csv with the reason of each failed case; none where all succeeded."""
    failed = [built for built in results if built.reason is not None]
    target = out / FAILURES
    if not failed:
        target.unlink(missing_ok=True)
        return
    temporary = target.with_name(f".{FAILURES}.{uuid.uuid4().hex[:12]}")
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("case_id", "reason"))
        writer.writerows((built.case_id, built.reason) for built in failed)
    os.replace(temporary, target)
