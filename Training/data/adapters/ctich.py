"""PhysioNet CT-ICH (Hssayeni): 75 trauma scans with one mask for all subtypes, and subtypes of every slice.

Version 1.3.1 has NIfTI scans; 1.0.0 has 8-bit pictures of a brain window, which are no CT numbers: their rows stand
in the manifest, but no cache can be built from them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ICHAnalysisLib.errors import UsageError
from Training.data.adapters import Options, find_one, read_table
from Training.data.manifest import ManifestRow

LICENCE_131 = "PhysioNet restricted data agreement (1.3.1)"
LICENCE_100 = "CC BY 4.0 (1.0.0, files withdrawn)"
_SUBTYPES = {
    "Intraparenchymal": "has_ich",
    "Intraventricular": "ivh",
    "Subarachnoid": "sah",
    "Epidural": "edh",
    "Subdural": "sdh",
}


def ctich(root: Path, options: Options) -> Iterator[ManifestRow]:
    """One row a slice, of either version."""
    if any(root.glob("ct_scans/*.nii*")):
        yield from _nifti_rows(root, options)
    else:
        yield from _picture_rows(root, options)


def _nifti_rows(root: Path, options: Options) -> Iterator[ManifestRow]:
    facts = slice_facts(find_one(root, "hemorrhage_diagnosis_raw_ct.csv", "hemorrhage_diagnosis*.csv"))
    people = demographics(root)
    for (patient, number), found in sorted(facts.items()):
        scan = next(iter(sorted(root.glob(f"ct_scans/{patient:03d}.nii*"))), None)
        mask = next(iter(sorted(root.glob(f"masks/{patient:03d}.nii*"))), None)
        if scan is None:
            continue
        yield ManifestRow(
            case_id=f"ctich:{patient:03d}#{number - 1}",
            patient_id=f"ctich:{patient:03d}",
            image=options.relative(scan),
            slice_index=number - 1,
            **_mask(mask, options),
            source="ctich",
            licence=LICENCE_131,
            **people.get(patient, {}),
            **found,
        )


def _picture_rows(root: Path, options: Options) -> Iterator[ManifestRow]:
    facts = slice_facts(find_one(root, "hemorrhage_diagnosis.csv", "*/hemorrhage_diagnosis.csv"))
    folder = find_one(root, "Patients_CT", "*/Patients_CT")
    people = demographics(root)
    for (patient, number), found in sorted(facts.items()):
        picture = folder / f"{patient:03d}" / "brain" / f"{number}.jpg"
        mask = picture.with_name(f"{number}_HGE_Seg.jpg")
        if not picture.is_file():
            continue
        yield ManifestRow(
            case_id=f"ctich:{patient:03d}:{number}",
            patient_id=f"ctich:{patient:03d}",
            study_id=f"ctich:{patient:03d}",
            image=options.relative(picture),
            **_mask(mask if mask.is_file() else None, options),
            source="ctich",
            licence=LICENCE_100,
            **people.get(patient, {}),
            **found,
        )


def _mask(mask: Path | None, options: Options) -> dict[str, Any]:
    """Columns of a 0 / 255 mask that holds all subtypes together."""
    if mask is None:
        return {}
    return {"mask": options.relative(mask), "mask_values": {"bleed": [1]}, "mask_kind": "0-255"}


def slice_facts(path: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """(patient, 1-based slice) -> subtypes of the slice."""
    facts: dict[tuple[int, int], dict[str, Any]] = {}
    for record in read_table(path):
        cells = {name.replace(" ", "").replace("_", "").lower(): value.strip() for name, value in record.items()}
        try:
            key = (int(cells["patientnumber"]), int(cells["slicenumber"]))
            found = {column: int(cells[name.lower()]) for name, column in _SUBTYPES.items()}
            none = int(cells["nohemorrhage"])
        except (KeyError, ValueError) as error:
            raise UsageError(f"{path}: a row lacks {error}; is this the diagnosis table of CT-ICH?") from error
        told = {**found, "has_any_bleed": 1 - none}
        if facts.setdefault(key, told) != told:
            raise UsageError(f"{path}: patient {key[0]}, slice {key[1]} stands there twice, with different findings.")
    return facts


def demographics(root: Path) -> dict[int, dict[str, Any]]:
    """Patient -> age and sex; the table has two header rows, and may be absent."""
    tables = [path for path in sorted(root.rglob("*.csv")) if path.name.lower() == "patient_demographics.csv"]
    if not tables:
        return {}
    rows = list(csv.reader(tables[0].read_text(encoding="utf-8-sig").splitlines()))
    titles = [" ".join(cells).lower() for cells in zip(*rows[:2], strict=False)]
    age, sex = (next((n for n, title in enumerate(titles) if word in title), None) for word in ("age", "gender"))
    people: dict[int, dict[str, Any]] = {}
    for row in rows[2:]:
        if not row or not row[0].strip().isdigit():
            continue
        facts: dict[str, Any] = {}
        if age is not None and row[age].strip().replace(".", "", 1).isdigit():
            facts["age"] = float(row[age])
        if sex is not None and row[sex].strip().lower() in ("male", "female"):
            facts["sex"] = row[sex].strip().lower()
        people[int(row[0])] = facts
    return people
