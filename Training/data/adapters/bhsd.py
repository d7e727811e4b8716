"""BHSD (= MBH-Seg-24) and MBH-Seg-25: voxel labels of five subtypes on RSNA scans.

The first ID of a file name is the RSNA PatientID, so RSNA, BHSD, MBH-Seg and HemSeg share the patient family "rsna".
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.ct.images import load_spatial
from ICHAnalysisLib.errors import UsageError
from Training.data.adapters import Options, find_one, is_real, nifti_stem
from Training.data.compressed import check_compressed
from Training.data.manifest import ManifestRow

logger = logging.getLogger(__name__)

LICENCE = "BHSD: NC-ND by its repository (other places say MIT); use it without redistribution"
#: Mask values: 1 EDH, 2 IPH, 3 IVH, 4 SAH, 5 SDH.
VALUES = {"edh": 1, "has_ich": 2, "ivh": 3, "sah": 4, "sdh": 5}
RULE = {"ich": [2], "ivh": [3]}
#: Of a vote: blood to most raters, but of a kind on which no majority agrees.
DISPUTED = 6
_NAME = re.compile(r"(ID_[0-9a-f]{8})_(ID_[0-9a-f]{10})")


def bhsd(root: Path, options: Options) -> Iterator[ManifestRow]:
    """The 192 labeled volumes; the split of dataset.json where it is there."""
    images = find_one(root, "label_192/images", "images", "**/label_192/images")
    masks = find_one(images.parent, "ground truths", "ground_truths", "labels")
    splits = _splits(root)
    for scan in sorted(path for path in images.glob("*.nii*") if is_real(path)):
        patient, study = names(scan)
        mask = next((masks / name for name in (scan.name, f"{nifti_stem(scan)}.nii") if (masks / name).is_file()), None)
        if mask is None:
            logger.warning("%s has no mask and was left out", scan.name)
            continue
        values = readable_values(mask)
        if values is not None:
            yield row(scan, mask, patient, study, values, options, "bhsd", splits.get(nifti_stem(scan)))


def mbh25(root: Path, options: Options) -> Iterator[ManifestRow]:
    """Cases with one to five raters: the majority of their labels is written beside the manifest.

    Where most raters see blood but no subtype has a majority, the voxel is `DISPUTED`: unknown, not background. A
    subtype that stands only there is neither present nor absent.
    """
    scans = sorted(path for path in root.glob("**/image.nii.gz") if is_real(path))
    for scan in scans:
        raters = sorted(scan.parent.glob("label_annot_*.nii.gz"))
        if not raters:
            continue  # the part with labels of whole cases only
        patient, study = names(scan.parent)
        values = [found for found in map(readable_values, raters) if found is not None]
        if len(values) < len(raters):
            continue  # a vote without one of the raters would be another vote
        voted = vote(values)
        target = options.beside("masks") / f"{scan.parent.name}.nii.gz"
        mask = raters[0] if len(raters) == 1 else write_like(target, voted, raters[0])
        part = "val" if "val" in scan.parent.parent.name.lower() else "train"
        found = row(scan, mask, patient, study, voted, options, "mbh25", part)
        yield _with_disputes(found, values, voted)


def row(
    scan: Path,
    mask: Path,
    patient: str,
    study: str,
    values: np.ndarray,
    options: Options,
    source: str,
    split: str | None,
) -> ManifestRow:
    """The row of a scan whose mask tells all five subtypes."""
    present: dict[str, Any] = {name: int((values == value).any()) for name, value in VALUES.items()}
    return ManifestRow(
        case_id=f"{source}:{study}",
        patient_id=f"rsna:{patient}",
        study_id=study,
        image=options.relative(scan),
        mask=options.relative(mask),
        mask_values=RULE,
        mask_kind="hard",
        has_any_bleed=int(any(present.values())),
        split=split,
        source=source,
        licence=LICENCE,
        **present,
    )


def _with_disputes(found: ManifestRow, raters: Sequence[np.ndarray], voted: np.ndarray) -> ManifestRow:
    """The row of a vote that left voxels `DISPUTED`."""
    disputed = voted == DISPUTED
    if not disputed.any():
        return found
    claimed = {name for name, value in VALUES.items() if any((rater[disputed] == value).any() for rater in raters)}
    unknown: dict[str, Any] = {name: None for name in claimed if getattr(found, name) == 0}
    return replace(found, mask_values={**RULE, "bleed": [DISPUTED]}, has_any_bleed=1, **unknown)


def names(path: Path) -> tuple[str, str]:
    """(patient, study) of ID_<8hex>_ID_<10hex>."""
    found = _NAME.match(path.name)
    if found is None:
        raise UsageError(f"{path}: the name is not of the form ID_<8hex>_ID_<10hex>.")
    return found.group(1), found.group(2)


def read_values(path: Path) -> np.ndarray:
    """uint8 (I, J, K), the whole-number voxels of a mask. Raises UsageError where it is damaged or holds others."""
    import nibabel as nib

    check_compressed(path)
    try:
        values = np.rint(np.asarray(load_spatial(path).dataobj))
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); copy it again.") from error
    if values.size == 0 or not (values.min() >= 0 and values.max() <= 255):
        raise UsageError(f"{path}: a mask holds values from 0 to 255, and this file others; copy it again.")
    return values.astype(np.uint8)


def readable_values(path: Path) -> np.ndarray | None:
    """`read_values`, or None with a warning: one damaged mask of a published set must not cost the others."""
    try:
        return read_values(path)
    except UsageError as error:
        logger.warning("left out: %s", error)
        return None


def binary_rule(mask: Path, values: np.ndarray, meaning: str, options: Options) -> dict[str, Any]:
    """Columns of a mask of one structure, whether its file says 0 and 1 or 0 and 255. Raises UsageError for others."""
    present = set(np.unique(values).tolist()) - {0}
    if not present <= {1} and present != {255}:
        raise UsageError(f"{mask}: expected the values 0 and 1, or 0 and 255, and found {sorted(present)}.")
    kind = "0-255" if present == {255} else "hard"
    return {"mask": options.relative(mask), "mask_values": {meaning: [1]}, "mask_kind": kind}


def vote(raters: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 values that more than half of the raters gave; `DISPUTED` where as many see blood, each another; else 0."""
    if any(rater.shape != raters[0].shape for rater in raters):
        raise UsageError(f"Raters' masks differ in shape: {sorted({rater.shape for rater in raters})}.")
    voted = np.zeros_like(raters[0])
    for value in VALUES.values():
        votes = sum((rater == value).astype(np.uint8) for rater in raters)
        voted[2 * votes > len(raters)] = value
    blood = sum((rater > 0).astype(np.uint8) for rater in raters)
    voted[(2 * blood > len(raters)) & (voted == 0)] = DISPUTED
    return voted


def write_like(target: Path, values: np.ndarray, template: Path) -> Path:
    """A mask with the geometry of `template`."""
    import nibabel as nib

    target.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, load_spatial(template).affine), target)
    return target


def _splits(root: Path) -> dict[str, str]:
    """File stem -> train or test, from an nnU-Net style dataset.json."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("dataset.json")):
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key, split in (("training", "train"), ("test", "test")):
            for entry in data.get(key, []):
                name = entry.get("image", "") if isinstance(entry, dict) else str(entry)
                match = _NAME.search(name)
                if match:
                    found[match.group(0)] = split
    return found
