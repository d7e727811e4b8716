"""Where the hemorrhage lies: class from DTViT's slices, side from geometry.

Legend: S slices, K acquired slices, L = 3 locations in the order of LOCATIONS.
"""

from __future__ import annotations

import numpy as np

from ICHAnalysisLib.analysis import Location
from ICHAnalysisLib.config.preprocess import LOCATIONS
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.holder import head_without_holder
from ICHAnalysisLib.volumetry import lesion_components

#: A lesion whose center of mass lies within this distance of the midline has no side, mm.
MIDLINE_MM = 4.0
#: A second location with at least this probability is worth a word.
_RIVAL = 0.35


def scan_presence(slice_probability: np.ndarray, top_k: int = 3) -> float:
    """Mean of the k highest slice probabilities (decision V16); slices that were not assessed are NaN. 0 for none."""
    known = np.asarray(slice_probability, dtype=float)
    known = np.sort(known[np.isfinite(known)])
    return float(known[-top_k:].mean()) if known.size else 0.0


def scan_location(location: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """(L,) location probabilities of a scan: the mean of (S, L) over slices with `weights` (S,), summing to 1.

    Weights are presence probabilities of positive slices, or mask areas; NaN rows do not count. None where none does.
    """
    location, weights = np.asarray(location, dtype=float), np.nan_to_num(np.asarray(weights, dtype=float))
    weights = np.where(np.isfinite(location).all(axis=1), weights, 0.0)
    if weights.sum() <= 0:
        return None
    mean = np.average(np.nan_to_num(location), axis=0, weights=weights)
    return mean / mean.sum()


def describe(
    volume: CTVolume, mask: np.ndarray, slice_location: np.ndarray | None, label: str | None = None
) -> tuple[Location, tuple[Finding, ...]]:
    """Location of the ICH `mask` (K, J, I) and what is to be said about it.

    slice_location: (K, L) DTViT's probabilities of each acquired slice, or None; they are averaged by mask area.
    label: a location that stands already (a person's), kept without the network's word. The side comes from the mask
    and the head's midline alone, and only where the scan's left and right are known.
    """
    if not mask.any():
        return Location(label=None, side=None, source="no hemorrhage"), ()
    side, findings = _side(volume, mask)
    areas = np.count_nonzero(mask, axis=(1, 2)) * volume.slice_heights_mm
    probabilities = None if slice_location is None else scan_location(slice_location, areas)
    if label is not None or probabilities is None:
        return Location(label=label, side=side, source="given" if label else "side from geometry"), findings
    order = np.argsort(probabilities)[::-1]
    best = LOCATIONS[order[0]]
    if probabilities[order[1]] >= _RIVAL:
        findings += (_disagreement(best, LOCATIONS[order[1]], probabilities[order[0]]),)
    named = {name: float(p) for name, p in zip(LOCATIONS, probabilities, strict=True)}
    return Location(best, side, named, "slice network weighted by mask area; side from geometry"), findings


def epicenter_ras(volume: CTVolume, mask: np.ndarray) -> np.ndarray:
    """(3,) RAS mm of the center of mass of the largest component of a (K, J, I) mask, by true slice heights."""
    labels, count = lesion_components(mask)
    if count == 0:
        raise ValueError("The mask is empty; it has no epicenter.")
    k, j, i = np.nonzero(mask)
    weights = volume.slice_heights_mm[k]
    volumes = np.bincount(labels[k, j, i], weights=weights)
    largest = labels[k, j, i] == np.argmax(volumes)
    points = volume.ijk_to_ras_points(np.stack([i[largest], j[largest], k[largest]], axis=1))
    return np.average(points, axis=0, weights=weights[largest])


def midline_offset_mm(volume: CTVolume, mask: np.ndarray, head: np.ndarray | None = None) -> float | None:
    """Signed distance of the hemorrhage's epicenter from the head's midline, mm; positive toward the patient's right.

    The midline is the axis of best mirror symmetry of the skull's outline on the slices with blood, so a rotated
    or shifted head is followed. None where no outline is seen. head: (K, J, I) bool, found anew where None.
    """
    ks = np.flatnonzero(mask.any(axis=(1, 2)))
    head = head_without_holder(volume.hu[ks], volume.spacing_mm) if head is None else head[ks]
    points = _outline_ras(volume, head, ks)
    if len(points) < 50:
        return None
    center, axis = _symmetry_axis(points)
    return float((epicenter_ras(volume, mask)[:2] - center) @ axis)


def _side(volume: CTVolume, mask: np.ndarray) -> tuple[str | None, tuple[Finding, ...]]:
    """left, right or midline, or None where the scan does not tell its sides."""
    if not volume.side_known:
        return None, ()
    offset = midline_offset_mm(volume, mask)
    if offset is None:
        return None, (
            Finding(
                "side_unknown",
                Level.NOTE,
                "The head's midline was not found, so no side is given.",
                "Look at the slices.",
            ),
        )
    if abs(offset) < MIDLINE_MM:
        return "midline", ()
    return ("right" if offset > 0 else "left"), ()


def _disagreement(best: str, rival: str, probability: float) -> Finding:
    """The slices do not speak with one voice."""
    return Finding(
        "location_uncertain",
        Level.NOTE,
        f"The location is {best} with probability {probability:.2f}; {rival} is nearly as likely.",
        "Judge the location on the slices; ICH Score and FUNC depend on it.",
    )


def _outline_ras(volume: CTVolume, head: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """(N, 2) right and anterior mm of the head's pixels on slices `ks`, thinned to about 4 mm."""
    step_j, step_i = (max(1, round(4.0 / volume.spacing_mm[axis])) for axis in (1, 0))
    k, j, i = np.nonzero(head[:, ::step_j, ::step_i])
    if k.size == 0:
        return np.zeros((0, 2))
    return volume.ijk_to_ras_points(np.stack([i * step_i, j * step_j, ks[k]], axis=1))[:, :2]


def _symmetry_axis(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Center (2,) and unit vector (2,) toward the right of the direction across which the head mirrors best.

    Heads are longer from front to back than across, yet in round ones the principal axes wander: of all turns up to
    35 degrees the one is taken whose mirror image overlaps the head best.
    """
    center = points.mean(axis=0)
    local = points - center
    best, best_score = np.array([1.0, 0.0]), -1.0
    cells = np.unique(np.round(local / 4.0).astype(int), axis=0)
    reach = 2 * int(np.abs(cells).max()) + 1  # a mirror image lies no farther out than its head reaches along both axes
    occupied = np.zeros((2 * reach + 1,) * 2, dtype=bool)
    occupied[tuple(cells.T + reach)] = True
    for angle in np.radians(np.arange(-35.0, 35.1, 2.5)):
        axis = np.array([np.cos(angle), np.sin(angle)])
        mirrored = cells - 2 * (cells @ axis)[:, None] * axis
        score = np.count_nonzero(occupied[tuple(np.round(mirrored).astype(int).T + reach)]) / len(cells)
        score -= 1e-3 * abs(angle)  # an upright head where nothing else speaks
        if score > best_score:
            best, best_score = axis, score
    return center, best
