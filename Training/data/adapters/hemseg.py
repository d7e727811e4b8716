"""HemSeg-200 and HemSeg-500: masks of intra-axial blood on RSNA scans, which the user rebuilds as <10hex>.nii.gz.

The set's own split puts patients into two parts, so it is not taken over; the patient key is RSNA's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from ICHAnalysisLib.errors import UsageError
from Training.data.adapters import Options, is_real, nifti_stem
from Training.data.adapters.bhsd import binary_rule, readable_values
from Training.data.manifest import ManifestRow

logger = logging.getLogger(__name__)


def hemseg(root: Path, options: Options) -> Iterator[ManifestRow]:
    """One row a mask. Whether its blood is in the tissue or in a ventricle is not told, so both stay unknown."""
    patients = read_patients(root)
    folder = options.images or root / "images"
    labels = sorted(p for p in root.glob("**/label/*.nii.gz") if is_real(p) and p.parts[-3] in ("train", "val", "test"))
    missing, unnamed, seen = 0, 0, set()
    for mask in labels:
        study = nifti_stem(mask).removeprefix("ID_")
        if study in seen:  # the two parts of the set overlap
            continue
        seen.add(study)
        scan = next(
            (folder / f"{p}{study}.nii.gz" for p in ("", "ID_") if (folder / f"{p}{study}.nii.gz").is_file()), None
        )
        missing += scan is None
        unnamed += scan is not None and study not in patients
        values = readable_values(mask) if scan is not None and study in patients else None
        if scan is None or values is None:
            continue
        yield ManifestRow(
            case_id=f"hemseg:{study}",
            patient_id=f"rsna:{patients[study]}",
            study_id=f"ID_{study}",
            image=options.relative(scan),
            **binary_rule(mask, values, "bleed", options),
            has_any_bleed=int(values.any()),
            source="hemseg",
            licence="masks: none stated; images: RSNA-2019 Kaggle competition rules",
        )
    if missing or unnamed:
        logger.warning("left out: %d masks without a scan in %s, %d without a patient", missing, folder, unnamed)


def read_patients(root: Path) -> dict[str, str]:
    """Study (10 hexadecimal digits) -> RSNA PatientID (ID_ and 8), from the annotation lists."""
    patients: dict[str, str] = {}
    for path in sorted(root.rglob("annotion_file_info*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UsageError(f"{path}, line {number}: not JSON ({error}).") from error
            patient = str(record.get("patient") or record.get("patient_name") or "")
            study = str(record.get("scan_") or record.get("scan_name") or "").removeprefix("ID_")
            if patient and study:
                patients[study] = patient if patient.startswith("ID_") else f"ID_{patient}"
    if not patients:
        raise UsageError(f"{root}: no annotion_file_info*.jsonl, so patients are unknown and splits would leak.")
    return patients
