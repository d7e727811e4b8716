"""RSNA-2019 Intracranial Hemorrhage Detection (Kaggle): one flat folder of DICOM slices and a CSV of slice labels.

The CSV names no patient: patient, study and series come from each header. Each series becomes a folder of links
beside the manifest, since the flat folder holds them all.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ICHAnalysisLib.errors import UsageError
from Training.data.adapters import Options, find_one, read_table
from Training.data.adapters.dicom_series import Header, by_series, read_headers
from Training.data.manifest import ManifestRow

logger = logging.getLogger(__name__)

LICENCE = "RSNA-2019 Kaggle competition rules: non-commercial, no redistribution"
SUBTYPES = {
    "intraparenchymal": "has_ich",
    "intraventricular": "ivh",
    "subdural": "sdh",
    "epidural": "edh",
    "subarachnoid": "sah",
    "any": "has_any_bleed",
}
DAMAGED = frozenset({"ID_6431af929"})  # truncated in the published archive


def rsna(root: Path, options: Options) -> Iterator[ManifestRow]:
    """One row a series, with a label of every slice."""
    labels = read_labels(find_one(root, "stage_2_train.csv", "*train*.csv"))
    folder = find_one(root, "stage_2_train", "*train*/")
    files = sorted(path for path in folder.glob("ID_*.dcm") if path.stem not in DAMAGED)
    for uid, slices in by_series(read_headers(files)).items():
        links = link_series(options.beside("series") / _digest(uid), slices)
        yield _row(uid, slices, labels, options.relative(links))


def read_labels(path: Path) -> dict[str, dict[str, int]]:
    """Image -> {column: 0 or 1}. Exact duplicates are one; an image labeled both ways loses that label."""
    labels: dict[str, dict[str, int]] = {}
    conflicts = set()
    for record in read_table(path):
        image, _, subtype = record.get("ID", "").rpartition("_")
        column = SUBTYPES.get(subtype)
        if column is None or record.get("Label") not in ("0", "1"):
            raise UsageError(f"{path}: {record} is not of the form ID_<9hex>_<subtype>,0 or 1.")
        value = int(record["Label"])
        if labels.setdefault(image, {}).setdefault(column, value) != value:
            conflicts.add((image, column))
    for image, column in conflicts:
        labels[image].pop(column)
    if conflicts:
        logger.warning("%d labels contradict themselves in %s and were dropped", len(conflicts), path.name)
    return labels


def link_series(folder: Path, slices: Sequence[Header]) -> Path:
    """A folder of symbolic links to a series' files, in order; what an earlier run linked otherwise is renewed."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{number:04d}.dcm": header.path.resolve() for number, header in enumerate(slices)}
    try:
        for link in folder.iterdir():
            if link.name not in wanted or not link.is_symlink() or link.readlink() != wanted[link.name]:
                link.unlink()
        for name, file in wanted.items():
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(file)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot make links here ({error}); choose an --out on a disk that allows them."
        ) from error
    return folder


def _row(uid: str, slices: Sequence[Header], labels: dict[str, dict[str, int]], image: str) -> ManifestRow:
    known = [labels.get(header.path.stem, {}) for header in slices]
    facts: dict[str, Any] = {column: _most([found.get(column) for found in known]) for column in SUBTYPES.values()}
    return ManifestRow(
        case_id=f"rsna:{uid}",
        patient_id=f"rsna:{slices[0].patient}",
        study_id=slices[0].study,
        image=image,
        slice_has_ich=[found.get("has_ich") for found in known],
        source="rsna",
        licence=LICENCE,
        **facts,
    )


def _most(values: Sequence[int | None]) -> int | None:
    """1 where a slice has it, 0 where every slice is known not to, else None."""
    if 1 in values:
        return 1
    return None if None in values else 0


def _digest(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:16]
