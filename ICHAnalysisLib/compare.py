"""Comparison of raters and methods: a table of volumes in the layout of paper 003, or pairs of label maps.

The volumes CSV has one row a case: `case_id`, one column of mL a rater or method, and optionally `location`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.agreement import (
    BlandAltman,
    Estimate,
    VolumeErrors,
    bland_altman,
    class_agreement,
    concordance,
    icc,
    volume_errors,
)
from ICHAnalysisLib.analysis import LABEL_ICH
from ICHAnalysisLib.discrimination import Proportion, wilson
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.overlap import Overlap, overlap

#: Columns of a volumes CSV that are no method.
NOT_METHODS = ("case_id", "location", "note")
#: Names under which a reference is found where none is named.
REFERENCE_NAMES = ("reference", "slicer", "3d_slicer", "truth")
_MASK_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd")


@dataclass(frozen=True)
class VolumeTable:
    """Volumes in mL, NaN where unknown: (cases,) for each method. infratentorial: bool (cases,) or None."""

    case_ids: tuple[str, ...]
    volumes_ml: Mapping[str, np.ndarray]
    infratentorial: np.ndarray | None = None


@dataclass(frozen=True)
class MethodAgreement:
    """One method against the reference. None where fewer than 3 cases are known."""

    method: str
    errors: VolumeErrors
    limits: BlandAltman | None
    icc: Estimate | None
    concordance: float
    large: Proportion  # of the cases on the same side of 30 mL (15 mL infratentorially), with Wilson's interval
    large_kappa: float

    def row(self) -> dict[str, Any]:
        """One line of table 1: the paper's three columns first, then what else agreement means."""
        limits, errors = self.limits, self.errors
        return {
            "method": self.method,
            "mae": errors.mae_ml,
            "mse": errors.mse_ml2,
            "mape_percent": errors.mape_percent,
            "cases": errors.cases,
            "mape_dropped": errors.dropped,
            "bias": errors.bias_ml,
            "loa_lower": limits.lower.value if limits else None,
            "loa_upper": limits.upper.value if limits else None,
            "icc_2_1": self.icc.value if self.icc else None,
            "icc_lower": self.icc.lower if self.icc else None,
            "icc_upper": self.icc.upper if self.icc else None,
            "ccc": self.concordance,
            "agreement_30_ml": self.large.value,
            "agreement_30_ml_lower": self.large.lower,
            "agreement_30_ml_upper": self.large.upper,
            "kappa_30_ml": self.large_kappa,
        }


@dataclass(frozen=True)
class MaskPair:
    """One case of label maps on the reference's grid. false_positive_ml: what PRO does not see (definition 3.8)."""

    case_id: str
    model_ml: float
    reference_ml: float
    overlap: Overlap
    false_positive_ml: float

    def row(self) -> dict[str, Any]:
        """One line of the table of cases."""
        return {
            "case_id": self.case_id,
            "model_ml": self.model_ml,
            "reference_ml": self.reference_ml,
            "difference_ml": self.model_ml - self.reference_ml,
            "false_positive_ml": self.false_positive_ml,
            **asdict(self.overlap),
        }


def read_volume_table(path: str | Path) -> VolumeTable:
    """A volumes CSV; empty cells are unknown. Raises UsageError for no file, a text, a doubled case or no method."""
    from ICHAnalysisLib.outputs.tables import read_csv

    try:
        rows = read_csv(Path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a CSV in UTF-8 ({error}).") from error
    if not rows or "case_id" not in rows[0]:
        raise UsageError(f"{path}: the table needs a header with case_id and at least one row.")
    methods = [name for name in rows[0] if name not in NOT_METHODS]
    if not methods:
        raise UsageError(f"{path}: no column of volumes beside {', '.join(rows[0])}.")
    case_ids = tuple(row["case_id"] for row in rows)
    doubled = sorted({case for case in case_ids if case_ids.count(case) > 1})
    if doubled:
        raise UsageError(f"{path}: case_id {', '.join(doubled[:5])} stands in more than one row.")
    volumes = {name: np.array([_number(row[name], path, row["case_id"], name) for row in rows]) for name in methods}
    below = None
    if "location" in rows[0]:
        below = np.array([row["location"].strip().lower() in ("subtentorial", "infratentorial") for row in rows])
    return VolumeTable(case_ids, volumes, below)


def find_reference(table: VolumeTable, name: str | None) -> str:
    """The reference's column: the one named, or one that is called so. Raises UsageError where none is."""
    if name is not None:
        if name not in table.volumes_ml:
            raise UsageError(f"No column {name!r}; there are {', '.join(table.volumes_ml)}.")
        return name
    by_lower = {method.lower().replace(" ", "_"): method for method in table.volumes_ml}
    for known in REFERENCE_NAMES:
        if known in by_lower:
            return by_lower[known]
    raise UsageError(f"Name the reference with --reference COLUMN; there are {', '.join(table.volumes_ml)}.")


def compare_methods(table: VolumeTable, reference: str) -> list[MethodAgreement]:
    """Every other column against the reference, in the table's order. Raises UsageError where there is none."""
    methods = [name for name in table.volumes_ml if name != reference]
    if not methods:
        raise UsageError(f"The table holds {reference!r} alone; there is nothing to compare it with.")
    return [_agreement(name, table, reference) for name in methods]


def worst_disagreements(table: VolumeTable, reference: str, count: int = 20) -> list[dict[str, Any]]:
    """The cases with the largest difference of any method from the reference, one row each, largest first.

    lowest_ml, highest_ml: the range of all methods that know the case, without the reference.
    """
    methods = [name for name in table.volumes_ml if name != reference]
    values = np.stack([table.volumes_ml[name] for name in methods])
    differences = values - table.volumes_ml[reference]
    rows: list[dict[str, Any]] = []
    for n in np.flatnonzero(np.isfinite(differences).any(axis=0)):
        worst = int(np.nanargmax(np.abs(differences[:, n])))
        rows.append(
            {
                "case_id": table.case_ids[n],
                "method": methods[worst],
                "volume_ml": float(values[worst, n]),
                "reference_ml": float(table.volumes_ml[reference][n]),
                "difference_ml": float(differences[worst, n]),
                "lowest_ml": float(np.nanmin(values[:, n])),
                "highest_ml": float(np.nanmax(values[:, n])),
            }
        )
    return sorted(rows, key=lambda row: -abs(row["difference_ml"]))[:count]


def pair_masks(model: str | Path, reference: str | Path) -> list[tuple[str, Path, Path]]:
    """(case_id, model file, reference file): two files, or two folders whose files bear the same names.

    Endings may differ. Raises UsageError where nothing pairs up or a kind is mixed.
    """
    model, reference = Path(model), Path(reference)
    for path in (model, reference):
        if not path.exists():
            raise UsageError(f"{path} does not exist.")
    if model.is_dir() != reference.is_dir():
        raise UsageError(f"{model} and {reference} must both be files or both be folders.")
    if not model.is_dir():
        return [(_stem(reference), model, reference)]
    models, references = ({_stem(path): path for path in _mask_files(folder)} for folder in (model, reference))
    names = sorted(set(models) & set(references))
    if not names:
        raise UsageError(f"No file of {model} has a namesake in {reference}.")
    return [(name, models[name], references[name]) for name in names]


def compare_masks(case_id: str, model: str | Path, reference: str | Path) -> MaskPair:
    """ICH of two label maps on the reference's grid, with volumes from true slice heights.

    Raises UsageError where they do not lie at the same place or a file is no label map.
    """
    from ICHAnalysisLib.ct.images import read_image
    from ICHAnalysisLib.ct.masks import map_values, match_mask
    from ICHAnalysisLib.findings import Level

    theirs, ours = read_image(Path(reference)), read_image(Path(model))
    reference_labels, found = map_values(theirs.hu)
    model_labels, more = match_mask(ours, theirs)
    blocked = [finding.message for finding in (*found, *more) if finding.level is Level.BLOCK]
    if blocked:
        raise UsageError(f"{case_id}: {' '.join(blocked)}")
    own_labels, _ = map_values(ours.hu)
    first, second = model_labels == LABEL_ICH, reference_labels == LABEL_ICH
    spacing = (theirs.spacing_mm[2], theirs.spacing_mm[1], theirs.spacing_mm[0])
    return MaskPair(
        case_id,
        ours.mask_volume_ml(own_labels == LABEL_ICH),
        theirs.mask_volume_ml(second),
        overlap(first, second, spacing),
        theirs.mask_volume_ml(first & ~second),
    )


def masks_as_table(pairs: Sequence[MaskPair]) -> VolumeTable:
    """The volumes of label-map pairs as a table with the methods "model" and "reference"."""
    return VolumeTable(
        tuple(pair.case_id for pair in pairs),
        {
            "model": np.array([pair.model_ml for pair in pairs]),
            "reference": np.array([pair.reference_ml for pair in pairs]),
        },
    )


def _agreement(name: str, table: VolumeTable, reference: str) -> MethodAgreement:
    """One method against the reference."""
    method, truth = table.volumes_ml[name], table.volumes_ml[reference]
    known = np.isfinite(method) & np.isfinite(truth)
    if not known.any():
        raise UsageError(f"No case has both {name!r} and {reference!r}.")
    enough = known.sum() >= 3
    large = class_agreement(method, truth, table.infratentorial)
    return MethodAgreement(
        name,
        volume_errors(method, truth),
        bland_altman(method, truth) if enough else None,
        icc(np.stack([method[known], truth[known]], axis=1)) if enough else None,
        concordance(method, truth) if enough else float("nan"),
        wilson(round(large["agreement"] * large["cases"]), int(large["cases"])),
        large["kappa"],
    )


def _number(text: str, path: str | Path, case_id: str, column: str) -> float:
    """A volume, or NaN for an empty cell."""
    if text.strip().lower() in ("", "na", "n/a", "nan"):
        return float("nan")
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        raise UsageError(f"{path}: {column} of {case_id} is {text!r}, no volume in mL.") from None
    if not 0 <= value < 2000:
        raise UsageError(f"{path}: {column} of {case_id} is {value:g} mL; volumes lie in 0 to 2000 mL.")
    return value


def _mask_files(folder: Path) -> list[Path]:
    """Label maps of a folder."""
    return sorted(path for path in folder.iterdir() if path.name.endswith(_MASK_ENDINGS))


def _stem(path: Path) -> str:
    """The name without the ending of an image."""
    for ending in _MASK_ENDINGS:
        if path.name.endswith(ending):
            return path.name[: -len(ending)]
    return path.stem
