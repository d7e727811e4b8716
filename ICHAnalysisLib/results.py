"""From a label map to lesions, volumes, location and scores: all of an `Analysis` but the networks' words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.analysis import LABEL_ICH, LABEL_IVH, Lesion, Location, Prognosis
from ICHAnalysisLib.clinical import ClinicalRecord
from ICHAnalysisLib.ct.checks import prognosis_barrier
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.findings import Finding
from ICHAnalysisLib.location import describe
from ICHAnalysisLib.midline import midline_shift
from ICHAnalysisLib.scores import func_score, ich_score
from ICHAnalysisLib.shape import density_measures, shape_measures
from ICHAnalysisLib.volumetry import FORMULAS, ManualMeasures, lesion_components, manual_volumes

_SIMULATED_CAVEAT = "Learned from simulated outcomes: it says how the simulation works, nothing about this patient."
_HIDDEN = "not shown: it was learned from simulated outcomes, and this is not a simulated scan"


def describe_lesions(volume: CTVolume, ich: np.ndarray) -> tuple[Lesion, ...]:
    """The connected hemorrhages of a (K, J, I) mask, largest first, with volumes by true slice heights."""
    components, count = lesion_components(ich)
    lesions = []
    for label, box in enumerate(ndimage.find_objects(components, max_label=count), start=1):
        k, j, i = np.nonzero(components[box] == label)
        k, j, i = k + box[0].start, j + box[1].start, i + box[2].start
        points = volume.ijk_to_ras_points(np.stack([i, j, k], axis=1))
        weights = volume.slice_heights_mm[k]
        low, high = points.min(axis=0), points.max(axis=0)
        lesions.append(
            Lesion(
                volume_ml=round(float(volume.voxel_volumes_ml[k].sum()), 3),
                centroid_ras_mm=_rounded(np.average(points, axis=0, weights=weights)),
                box_ras_mm=_rounded(np.concatenate([low, high])),
                slices=(int(k.min()), int(k.max())),
                mean_hu=round(float(volume.hu[k, j, i].mean()), 1),
            )
        )
    return tuple(sorted(lesions, key=lambda lesion: -lesion.volume_ml))


def describe_volumes(
    volume: CTVolume, labels: np.ndarray
) -> tuple[dict[str, float | None], tuple[dict[str, Any], ...], dict[str, Any]]:
    """Volumes in mL by method, the lines of the hand formulas, and measures of density and shape."""
    ich = labels == LABEL_ICH
    sums, measures = manual_volumes(volume, ich)
    total = volume.mask_volume_ml(ich)
    volumes: dict[str, float | None] = {
        "segmentation": round(total, 3),
        "ivh": round(volume.mask_volume_ml(labels == LABEL_IVH), 3),
        **{name: round(sums[name], 3) for name in FORMULAS},
    }
    axial = all(finding.code != "non_axial" for finding in volume.findings)
    if not axial:  # ABC/2 and its relatives are defined on axial slices (hazard 24)
        volumes.update(dict.fromkeys(FORMULAS))
    if not measures:
        return volumes, (), {}
    density, shape = density_measures(volume, ich), shape_measures(volume, ich)
    measurements = {
        "lesions": len(measures),
        **{name: round(value, 3 if name.endswith(("_ml", "variation")) else 1) for name, value in density.items()},
        **{name: round(value, 3) for name, value in shape.items()},
    }
    return volumes, tuple(_lines(item) for item in measures) if axial else (), measurements


def describe_midline(volume: CTVolume, labels: np.ndarray, brain: np.ndarray | None = None) -> dict[str, Any]:
    """The midline shift as it stands in `measurements`: mm and direction, or why it could not be measured."""
    if any(finding.code == "non_axial" for finding in volume.findings):
        return {"midline_shift": "not measured: the slices are not axial"}
    found = midline_shift(volume, labels, brain)
    if found.shift_mm is None:
        return {"midline_shift": f"not measurable: {found.reason}"}
    toward = {} if found.toward is None else {"midline_shift_toward": found.toward}
    return {"midline_shift_mm": round(found.shift_mm, 1), **toward}


def kept_midline(measurements: dict[str, Any]) -> dict[str, Any]:
    """What `describe_midline` gave: an edited outline of the clot moves no septum."""
    return {key: value for key, value in measurements.items() if key.startswith("midline_")}


def describe_location(
    volume: CTVolume, ich: np.ndarray, slice_location: np.ndarray | None, previous: Location | None = None
) -> tuple[Location, tuple[Finding, ...]]:
    """Location and side of the mask; an edited mask keeps the label that stood, its side is measured anew."""
    label = previous.label if previous is not None else None
    return describe(volume, ich, slice_location, label)


def describe_prognosis(
    volume: CTVolume,
    clinical: ClinicalRecord | None,
    volumes: dict[str, float | None],
    location: Location,
    slice_poor: float | None,
    scan_poor: float | None,
    show_simulated: bool,
    accept: bool = False,
) -> dict[str, Prognosis]:
    """ICH Score and FUNC from the record and the measured items, and the networks' probabilities where shown.

    What the record states (IVH, location) is a person's word and stands before what was measured. accept: the user
    accepts what is asked, so that an operated head gets a prognosis too.
    """
    record = clinical or ClinicalRecord()
    age = record.age if record.age is not None else _child_age(volume)
    place = record.location or location.label
    ivh = record.ivh
    if ivh is None and volumes.get("ivh"):
        ivh = True
    scores = {
        "ich_score": ich_score(
            age=age,
            gcs=record.gcs,
            volume_ml=volumes["segmentation"],
            ivh=ivh,
            infratentorial=None if place is None else place == "subtentorial",
        ),
        "func": func_score(
            age=age,
            gcs=record.gcs,
            volume_ml=volumes["segmentation"],
            location=place,
            cognitive_impairment=record.cognitive_impairment,
        ),
    }
    networks = {
        "slice_network": _network_prognosis(slice_poor, "ICH-SCNet, mean of its slices by lesion area", show_simulated),
        "scan_network": _network_prognosis(scan_poor, "volume net on the whole scan", show_simulated),
    }
    given = {**scores, **{name: item for name, item in networks.items() if item is not None}}
    barrier = prognosis_barrier(volume.findings, accept)
    return {name: _withheld(item, barrier) for name, item in given.items()} if barrier else given


def _withheld(item: Prognosis, reason: str) -> Prognosis:
    """The same prognosis without its numbers: contrast, children and surgery bar them (hazards 17, 21 and 23)."""
    return replace(item, probability=None, score=None, score_range=None, probability_range=None, reason=reason)


def _network_prognosis(probability: float | None, origin: str, shown: bool) -> Prognosis | None:
    """A network's probability of a poor outcome, withheld from real scans unless asked for."""
    if probability is None:
        return None
    base = Prognosis(None, "poor outcome (GOS below 4) at 90 days", f"{origin}; trained on simulated outcomes")
    caveat = f"{base.caveat} {_SIMULATED_CAVEAT}"
    if not shown:
        return Prognosis(None, base.event, base.origin, caveat, reason=_HIDDEN)
    return Prognosis(round(float(probability), 4), base.event, base.origin, caveat)


def _child_age(volume: CTVolume) -> float | None:
    """The age of the scan's header where it says the patient is a child: the scores are refused then (hazard 21)."""
    age = volume.source.get("age_years")
    return float(age) if age is not None and float(age) < 18 else None


def _lines(item: ManualMeasures) -> dict[str, Any]:
    """A, B and C of one lesion as they stand in analysis.json."""
    return {
        "a_cm": round(item.a_cm, 3),
        "b_cm": round(item.b_cm, 3),
        "c_cm": round(item.c_cm, 3),
        "c_kothari_cm": round(item.c_kothari_cm, 3),
        "index_slice": item.index_slice,
        "a_line_ras_mm": [list(_rounded(np.array(end))) for end in item.a_line_ras_mm],
        "b_line_ras_mm": [list(_rounded(np.array(end))) for end in item.b_line_ras_mm],
        "volumes_ml": {name: round(value, 3) for name, value in item.volumes_ml.items()},
    }


def _rounded(values: np.ndarray) -> tuple[Any, ...]:
    """Millimeters with two decimals."""
    return tuple(round(float(value), 2) for value in values)
