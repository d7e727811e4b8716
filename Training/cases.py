"""The cases of a run, by split. No patient is ever in two splits: that is checked, whatever made the split."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ICHAnalysisLib.errors import UsageError
from Training.config import DataConfig

if TYPE_CHECKING:
    from Training.data.cache import CacheCase

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


def load_cases(cfg: DataConfig) -> dict[str, list[CacheCase]]:
    """The cached cases of each split, sorted by case_id.

    With a splits file, its fold `cfg.fold` is "test" and a `val_fraction` of the other patients is "val", so that the
    fold that is held out never chooses a checkpoint. Without one, the cases' own splits hold where all have one; else
    a hash of the patient decides.
    Raises UsageError where there is no cache, or a patient or scan stands in two splits.
    """
    from Training.data.splits import Member, check_leaks

    cases = _listed(_open(cfg.cache), cfg.manifest)
    split_of = _assign(cases, cfg)
    check_leaks([Member(c.case_id, c.patient_id, "", c.meta.get("image_sha256")) for c in cases], dict(split_of))
    splits = {name: [c for c in cases if split_of[c.case_id] == name][: cfg.limit] for name in SPLITS}
    return {**splits, "val": splits["val"][: cfg.val_limit]}


def _open(folders: str | tuple[str, ...] | None) -> list[CacheCase]:
    """The cases of one cache or several, sorted by case_id."""
    from Training.data.cache import open_cache

    if not folders:
        raise UsageError("data.cache is not set: name the folder of preprocessed cases, data.cache=DIR.")
    cases = [case for folder in ([folders] if isinstance(folders, str) else folders) for case in open_cache(folder)]
    doubled = [name for name, count in Counter(case.case_id for case in cases).items() if count > 1]
    if doubled:
        raise UsageError(f"{len(doubled)} cases are in {folders} twice, {doubled[0]} for one; remove the old entries.")
    return sorted(cases, key=lambda case: case.case_id)


def _listed(cases: list[CacheCase], manifest: str | None) -> list[CacheCase]:
    """The cases that the manifest lists; all without a manifest."""
    if manifest is None:
        return cases
    from Training.data.manifest import read_manifest

    wanted = {row.scan_case_id for row in read_manifest(manifest, check_files=False).rows}
    missing = len(wanted - {case.case_id for case in cases})
    if missing:
        log.warning("%d of %d cases of %s are not in the cache and are left out.", missing, len(wanted), manifest)
    return [case for case in cases if case.case_id in wanted]


def _assign(cases: Sequence[CacheCase], cfg: DataConfig) -> dict[str, str]:
    """Split of each case_id."""
    by_hash = {c.case_id: split_by_hash(c.patient_id, cfg.val_fraction, cfg.test_fraction) for c in cases}
    if cfg.folds is not None:
        from Training.data.splits import read_folds

        parts = read_folds(cfg.folds).split(cfg.fold, by_hash)
        others = {c.case_id: split_by_hash(c.patient_id, cfg.val_fraction) for c in cases}
        return {**{case: others[case] for case in parts["train"]}, **dict.fromkeys(parts["val"], "test")}
    own = {case.case_id: str(case.meta.get("split")) for case in cases}
    return own if all(split in SPLITS for split in own.values()) else by_hash


def split_by_hash(patient_id: str, val_fraction: float, test_fraction: float = 0.0) -> str:
    """A split that depends on the patient alone, so that a growing cache never moves one."""
    digest = hashlib.sha256(f"split:{patient_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test_fraction:
        return "test"
    return "val" if place < test_fraction + val_fraction else "train"


def fingerprint(splits: Mapping[str, Iterable]) -> str:
    """SHA-256 over which case is in which split, with the content key of its cache entry where it has one."""
    digest = hashlib.sha256()
    for split in sorted(splits):
        for case in splits[split]:
            folder = getattr(case, "folder", None)
            digest.update(f"{split}\0{case.case_id}\0{'' if folder is None else folder.name}\n".encode())
    return digest.hexdigest()


def describe(splits: Mapping[str, Sequence]) -> dict[str, dict[str, int | dict[str, int]]]:
    """Of each split: cases, patients, simulated cases and cases by source. For model cards; names nobody."""
    facts: dict[str, dict[str, int | dict[str, int]]] = {}
    for split, cases in splits.items():
        metas = [getattr(case, "meta", {}) for case in cases]
        facts[split] = {
            "cases": len(cases),
            "patients": len({case.patient_id for case in cases}),
            "simulated": sum(bool(meta.get("synthetic")) for meta in metas),
            "sources": dict(sorted(Counter(str(meta.get("source") or "unknown") for meta in metas).items())),
        }
    return facts
