"""The preprocessed cache: one folder a scan with memory-mapped slices, labels and facts. All networks train from it.

    KEY/hu.npy      int16 (S, 256, 256), HU of the scan's `SliceStack`
    KEY/labels.npy  uint8 (S, 256, 256): 0 background, 1 ICH, 2 IVH, 3 edema, 255 unknown (no loss there)
    KEY/meta.json   positions, heights, spacing, location, volumes, outcome ... None where unknown

Built from a manifest by `python -m Training.data.cache MANIFEST --out DIR`, or by `Training.data.pool`.

KEY is a hash of the content and of the preprocessing, so a changed scan, mask or configuration never meets an old
entry. A folder appears whole or not at all: it is written under a hidden name and renamed, so several processes may
build one cache at once, and one that is killed leaves nothing that would be read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.config.preprocess import PreprocessConfig
from ICHAnalysisLib.errors import UsageError
from Training.data.regions import find_regions, grow

ICH, IVH, EDEMA, UNKNOWN = 1, 2, 3, 255
#: Raised whenever what is stored changes meaning; part of every key.
FORMAT = 1
HU_RANGE = (-1024, 3071)
_META = "meta.json"
#: HU of unlabeled pixels inside the skull that look like blood to a network: calcification, sinus, falx.
_DENSE_HU = (52.0, 600.0)


@dataclass(frozen=True, eq=False)
class CacheCase:
    """One cached scan. Arrays are memory-mapped when first touched; nothing is held open before."""

    folder: Path
    meta: dict[str, Any]

    @cached_property
    def hu(self) -> np.ndarray:
        """int16 (S, H, W), read-only."""
        return np.load(self.folder / "hu.npy", mmap_mode="r")

    @cached_property
    def labels(self) -> np.ndarray:
        """uint8 (S, H, W), read-only."""
        return np.load(self.folder / "labels.npy", mmap_mode="r")

    @property
    def case_id(self) -> str:
        return str(self.meta["case_id"])

    @property
    def patient_id(self) -> str:
        """The group that must stay on one side of every split."""
        return str(self.meta["patient_id"])

    @property
    def num_slices(self) -> int:
        return len(self.meta["positions_mm"])

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory maps, which would be copied whole into a worker process."""
        return {"folder": self.folder, "meta": self.meta}


def cache_key(content: Iterable[bytes | str], preprocess: PreprocessConfig) -> str:
    """24 hexadecimal digits over the parts of the content and the preprocessing.

    content: whatever decides the arrays, in a fixed order: file digests, mask rules, or a simulation's parameters.
    """
    facts = to_dict(preprocess)
    for name in ("bone_hu", "neighbor_windows"):  # applied when an item is read: older caches stay valid
        facts.pop(name)
    digest = hashlib.sha256(f"{FORMAT}\n{json.dumps(facts, sort_keys=True)}\n".encode())
    for part in content:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:24]


def folder_digest(path: Path) -> str:
    """SHA-256 over the bytes of a file, or of every file of a folder in the order of their names."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise UsageError(f"No scan at {path}; name a file or a DICOM folder.")
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def is_cached(folder: Path, key: str) -> bool:
    """True where the whole entry is there."""
    return (folder / key / _META).is_file()


def write_case(folder: str | os.PathLike, key: str, hu: np.ndarray, labels: np.ndarray, meta: dict[str, Any]) -> Path:
    """Write one scan; returns its folder. A scan that another process wrote meanwhile is kept as it is.

    hu (S, H, W) any float or int; labels uint8 (S, H, W); meta holds at least case_id, patient_id, positions_mm and
    heights_mm; counts of labeled and dense pixels of each slice are added.
    Raises UsageError where shapes disagree or H, W are no multiples of 4.
    """
    _check(hu, labels, meta)
    root = Path(folder)
    if is_cached(root, key):
        return root / key
    stored = stored_hu(hu)
    arrays = {"hu": stored, "labels": np.ascontiguousarray(labels, dtype=np.uint8)}
    return write_entry(root, key, arrays, {**meta, "slices": slice_facts(stored, labels)})


def stored_hu(hu: np.ndarray) -> np.ndarray:
    """HU as a cache keeps them, int16."""
    return np.clip(np.rint(hu), *HU_RANGE).astype(np.int16)


def write_entry(root: Path, key: str, arrays: Mapping[str, np.ndarray], meta: dict[str, Any]) -> Path:
    """One entry whole or not at all: NAME.npy of each array, and meta.json; returns its folder.

    One that another process wrote meanwhile is kept as it is.
    """
    root.mkdir(parents=True, exist_ok=True)
    target = root / key
    temporary = root / f".{key}.{uuid.uuid4().hex[:12]}"
    temporary.mkdir()
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        facts = {**meta, "format": FORMAT}
        (temporary / _META).write_text(json.dumps(_json_ready(facts), indent=1, allow_nan=False), encoding="utf-8")
        _rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def update_meta(folder: Path, facts: dict[str, Any]) -> None:
    """Renew facts of a cached case, such as an outcome that was filled in; its arrays stay."""
    path = folder / _META
    meta = json.loads(path.read_text(encoding="utf-8"))
    renewed = {**meta, **_json_ready(facts)}
    if renewed != meta:
        temporary = folder / f".{_META}.{uuid.uuid4().hex[:12]}"
        temporary.write_text(json.dumps(renewed, indent=1, allow_nan=False), encoding="utf-8")
        os.replace(temporary, path)


def _rename(temporary: Path, target: Path) -> None:
    """Put the finished folder in place, unless another process was faster."""
    try:
        os.rename(temporary, target)
    except OSError:
        if not (target / _META).is_file():
            raise


def _check(hu: np.ndarray, labels: np.ndarray, meta: dict[str, Any]) -> None:
    """Raise UsageError where the parts of a case do not fit together."""
    name = meta.get("case_id", "?")
    if hu.ndim != 3 or hu.shape != labels.shape or hu.shape[1] % 4 or hu.shape[2] % 4:
        raise UsageError(
            f"Case {name}: slices {hu.shape} and labels {labels.shape} must be equal (S, H, W), multiples of 4."
        )
    missing = [k for k in ("case_id", "patient_id", "positions_mm", "heights_mm") if meta.get(k) is None]
    if missing:
        raise UsageError(f"Case {name}: {', '.join(missing)} must be given.")
    if len(meta["positions_mm"]) != len(hu) or len(meta["heights_mm"]) != len(hu):
        raise UsageError(f"Case {name}: {len(hu)} slices need as many positions and heights.")


def slice_facts(hu: np.ndarray, labels: np.ndarray) -> dict[str, list[int]]:
    """Pixel counts of each slice that sampling needs, so that it opens no array.

    ich, ivh, edema, unknown: labeled pixels. inside: pixels enclosed by the skull. dense: unlabeled ones among
    them of 52 to 600 HU. bone: pixels above 200 HU.
    """
    facts: dict[str, list[int]] = {n: [] for n in ("ich", "ivh", "edema", "unknown", "inside", "dense", "bone")}
    for plane, label in zip(hu, labels, strict=True):
        counts = np.bincount(label.ravel(), minlength=256)
        for name, value in (("ich", ICH), ("ivh", IVH), ("edema", EDEMA), ("unknown", UNKNOWN)):
            facts[name].append(int(counts[value]))
        inside = grow(find_regions(plane).inside)
        dense = inside & (label == 0) & (plane > _DENSE_HU[0]) & (plane < _DENSE_HU[1])
        facts["inside"].append(int(inside.sum()))
        facts["dense"].append(int(dense.sum()))
        facts["bone"].append(int((plane > 200).sum()))
    return facts


def open_cache(folder: str | os.PathLike) -> list[CacheCase]:
    """Every whole case below `folder`, sorted by case_id. Raises UsageError where there is none."""
    root = Path(folder)
    cases = []
    for path in sorted(root.glob(f"*/{_META}")) if root.is_dir() else ():
        if path.parent.name.startswith("."):
            continue
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # another process has just replaced the entry
            continue
        if meta.get("format") == FORMAT:
            cases.append(CacheCase(path.parent, meta))
    if not cases:
        raise UsageError(f"No cached case in {root}; build some with Training.data.pool or Training.data.cache.")
    return sorted(cases, key=lambda case: (case.case_id, case.folder.name))


def _json_ready(value: Any) -> Any:
    """Plain JSON values; NaN, which means unknown in tables, becomes None."""
    if isinstance(value, dict):
        return {str(key): _json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_ready(item) for item in value]
    if isinstance(value, np.ndarray):
        return _json_ready(value.tolist())
    if isinstance(value, np.generic):
        return _json_ready(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 done, 2 wrong use, 4 some cases failed."""
    import argparse
    import logging
    import sys

    from ICHAnalysisLib.config.base import from_dict
    from ICHAnalysisLib.errors import ICHAnalysisError
    from Training.data.build import FAILURES, BuildConfig, build_cache

    parser = argparse.ArgumentParser(prog="python -m Training.data.cache", description="Preprocess a manifest's scans.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the cache")
    parser.add_argument("--preprocess", default="{}", help='JSON of what differs from the default, as {"size": 512}')
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--yes", action="store_true", help="accept scans about which the reader would ask")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        preprocess = from_dict(PreprocessConfig, json.loads(args.preprocess), "--preprocess")
        built = build_cache(args.manifest, BuildConfig(args.out, preprocess, args.workers, args.yes))
    except (ICHAnalysisError, json.JSONDecodeError) as error:
        print(error, file=sys.stderr)
        return 2
    failed = sum(case.reason is not None for case in built)
    new = sum(case.new for case in built)
    print(f"{args.out}: {len(built)} cases, {new} new, {failed} failed" + (f" ({FAILURES})" if failed else ""))
    return 4 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
