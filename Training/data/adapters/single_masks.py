"""Sets with one folder of scans and one of masks: INSTANCE-2022 (all bleeds in one mask), PHE-SICH-CT-IDS (edema)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from Training.data.adapters import Options, find_one, is_real, nifti_stem
from Training.data.adapters.bhsd import binary_rule, readable_values
from Training.data.manifest import ManifestRow


def instance(root: Path, options: Options) -> Iterator[ManifestRow]:
    """INSTANCE-2022: the mask joins all subtypes, so whether a bleed is intraparenchymal stays unknown."""
    for scan, values in _pairs(find_one(root, "data", "*/data")):
        yield ManifestRow(
            case_id=f"instance:{nifti_stem(scan)}",
            patient_id=f"instance:{nifti_stem(scan)}",
            image=options.relative(scan),
            **({} if values is None else binary_rule(_mask_of(scan), values, "bleed", options)),
            has_any_bleed=None if values is None else int(values.any()),
            source="instance",
            licence="INSTANCE-2022 agreement: challenge use only, no redistribution",
        )


def phe_sich(root: Path, options: Options) -> Iterator[ManifestRow]:
    """PHE-SICH-CT-IDS: every scan has a spontaneous ICH; the masks mark its edema, not the blood."""
    for scan, values in _pairs(find_one(root, "SubdatasetA_NIFIT/NIFIT/set", "NIFIT/set", "**/NIFIT/set")):
        yield ManifestRow(
            case_id=f"phe-sich:{nifti_stem(scan)}",
            patient_id=f"phe-sich:{nifti_stem(scan)}",
            image=options.relative(scan),
            **({} if values is None else binary_rule(_mask_of(scan), values, "oedema", options)),
            has_ich=1,
            has_any_bleed=1,
            source="phe-sich",
            licence="CC BY 4.0",
        )


def _pairs(folder: Path) -> Iterator[tuple[Path, np.ndarray | None]]:
    """Each scan and the values of its mask, (I, J, K); None where it has no mask that can be read."""
    for scan in sorted(path for path in folder.glob("*.nii*") if is_real(path)):
        yield scan, readable_values(_mask_of(scan)) if _mask_of(scan).is_file() else None


def _mask_of(scan: Path) -> Path:
    return scan.parent.parent / "label" / scan.name
