"""The midline shift: how far the septum between the lateral ventricles lies from the line that holds the falx.

Read as a person reads it: on slices that show both frontal horns, a straight line from the anterior to the posterior
attachment of the falx, and the distance of the middle between the horns from that line. The attachments are where the
interhemispheric fissure mirrors itself best near the inner table. Planes are (S, T) at 1 mm: rows from front to back,
columns toward the patient's right. Lengths are mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.head import brain_mask
from ICHAnalysisLib.ct.volume import CTVolume

#: A shift from here on is usually called marked.
MARKED_MM = 5.0

_ACROSS, _ALONG = 80, 105  # half sizes of a plane
_WIDE_SHARE = 0.55  # of the largest slice's brain: slices that are looked at
_FRONTAL = (0.28, 0.48)  # where the frontal horns lie between the ends of the line
_CSF_SHARE = 0.5  # of the brain's median HU: below it is fluid
_GAP = (1.0, 18.0)  # between the horns
_HORN = 2.5  # fluid narrower than this is no horn
_HORN_DEPTH = 18.0  # a horn lies at least so deep under the skull
_REACH = 16.0  # of the septum from the line: the widest shift that is looked for
_FEWEST_ROWS = 8  # millimeters of septum that a slice must show
_FISSURE = np.arange(2.0, 20.0)  # depth under the inner table in which the fissure is looked for
_OFFSETS = np.arange(-24.0, 24.01, 0.5)  # from the skull's axis of symmetry
_MIRRORED = np.arange(1, 17)  # half millimeters on either side that must mirror
_SLOPES = np.linspace(-0.2, 0.2, 9)  # of the fissure against the axis
_LEAST_SCORE = 0.7  # of the anterior attachment: below it the fissure was not made out

_WIDEST_SPREAD = 2.5  # between slices: beyond it they contradict each other

_NO_HORNS = "both frontal horns were not seen apart"
_NO_FALX = "the front of the falx was not made out"
_ONE_SLICE = "only one slice shows both frontal horns"
_NO_ACCORD = "neighboring slices contradict each other"


@dataclass(frozen=True)
class MidlineShift:
    """The shift, or None with the reason why it could not be measured.

    toward: right or left of the patient, None where the scan does not tell its sides or nothing is shifted.
    slice: acquired slice (0-based) nearest to the median; line_ras_mm: both ends of the ideal midline on it,
    front first; septum_ras_mm: the middle between the horns on it. slices: how many were read.
    """

    shift_mm: float | None
    toward: str | None = None
    slice: int | None = None
    line_ras_mm: tuple[tuple[float, ...], ...] = ()
    septum_ras_mm: tuple[float, ...] = ()
    slices: int = 0
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Plane:
    """An acquired slice turned upright: hu, brain and blood (S, T); origin and unit vectors of its axes, RAS."""

    k: int
    hu: np.ndarray
    brain: np.ndarray
    blood: np.ndarray
    origin: np.ndarray
    right: np.ndarray
    back: np.ndarray

    @cached_property
    def rim(self) -> tuple[np.ndarray, np.ndarray]:
        """t and s of the brain's pixels within two of its border: no other can be the end of a chord.

        One step of up to (2, 1) pixels leads from any deeper one further across, within the same millimeter along.
        """
        deep = ndimage.binary_erosion(self.brain, np.ones((5, 5), dtype=bool))
        rows, columns = np.nonzero(self.brain & ~deep)
        return columns - _ACROSS, rows - _ALONG

    @cached_property
    def fluid(self) -> np.ndarray:
        """(S, T) 1 for fluid deep enough under the skull to be a horn, else 0."""
        smooth = ndimage.gaussian_filter(np.clip(self.hu, -20, 90), 0.8)
        fluid = (smooth < _CSF_SHARE * np.median(self.hu[self.brain])) & ~self.blood
        fluid &= ndimage.distance_transform_edt(self.brain) > _HORN_DEPTH
        return fluid.astype(np.float32)

    def ras(self, point: np.ndarray) -> np.ndarray:
        """RAS of (t, s), mm from the plane's origin."""
        return self.origin + point[0] * self.right + point[1] * self.back

    def at(self, picture: np.ndarray, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        """A picture of this plane at t, s, linearly interpolated."""
        where = [np.asarray(s) + _ALONG, np.asarray(t) + _ACROSS]
        return ndimage.map_coordinates(picture, where, order=1, mode="nearest")


@dataclass(frozen=True, eq=False)
class _Axis:
    """The skull's axis of symmetry: angle (radians, from the row direction) and its offset on each plane."""

    angle: float
    offsets: np.ndarray

    def point(self, n: int, across: np.ndarray | float, along: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """t, s of coordinates across and along the axis on plane n."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        u = self.offsets[n] + np.asarray(across, dtype=float)
        v = np.asarray(along, dtype=float)
        return u * cosine + v * sine, v * cosine - u * sine

    def turned(self, front: tuple[float, float], back: tuple[float, float]) -> _Axis:
        """The axis through two places given as (across, along) of this one."""
        slope = (front[0] - back[0]) / (front[1] - back[1])
        turn = float(np.arctan(slope))
        return _Axis(self.angle + turn, (self.offsets + front[0] - slope * front[1]) * np.cos(turn))


def midline_shift(volume: CTVolume, labels: np.ndarray, brain: np.ndarray | None = None) -> MidlineShift:
    """Shift of the septum pellucidum on axial slices of a CT with the label map of its hemorrhage.

    labels: (K, J, I), 0 where there is no blood; blood counts as no fluid, so filled ventricles are not measured.
    brain: (K, J, I) bool, found anew where None. Never raises for an image that shows too little: the reason says so.
    """
    brain = brain_mask(volume) if brain is None else brain
    planes = _planes(volume, brain, labels)
    if len(planes) < 2:
        return MidlineShift(None, reason="too little brain is seen")
    axis = _symmetry_axis(planes)
    seen = [n for n, plane in enumerate(planes) if len(_septum(plane, *_ends(planes, axis, n, (0, 0)))) >= _FEWEST_ROWS]
    if not seen:
        return MidlineShift(None, reason=_NO_HORNS)
    height = float(np.median(volume.slice_heights_mm))
    near = range(max(0, seen[0] - _slices(10, height)), min(len(planes), seen[-1] + _slices(10, height) + 1))
    front, back = (_fissure(planes, axis, near, end, 8.0, 0.003) for end in ("front", "back"))
    if front[0] <= _LEAST_SCORE or abs(front[2]) >= _SLOPES[-1]:
        return MidlineShift(None, reason=_NO_FALX)
    middle = seen[len(seen) // 2]
    ends = [_table(planes[middle], axis, middle, end) for end in ("front", "back")]
    axis = axis.turned((front[1], ends[0]), (back[1], ends[1]))
    found = []
    for n in near:
        around = range(max(near[0], n - _slices(6, height)), min(near[-1], n + _slices(6, height)) + 1)
        across = [_fissure(planes, axis, around, end, 3.0, 0.01)[1] for end in ("front", "back")]
        line = _ends(planes, axis, n, across)
        offsets = _septum(planes[n], *line)
        if len(offsets) >= _FEWEST_ROWS:
            found.append((n, line, offsets))
    return _answer(volume, planes, found)


def _answer(volume: CTVolume, planes: Sequence[_Plane], found: list) -> MidlineShift:
    """The median over slices, shown on the slice nearest to it."""
    if not found:
        return MidlineShift(None, reason=_NO_HORNS)
    values = np.array([np.median(offsets[:, 1]) for _, _, offsets in found])
    if len(values) < 2:
        return MidlineShift(None, reason=_ONE_SLICE)
    if np.ptp(values) > _WIDEST_SPREAD:
        return MidlineShift(None, reason=_NO_ACCORD)
    shift = float(np.median(values))
    n, (front, back), offsets = found[int(np.abs(values - shift).argmin())]
    along, right = _directions(front, back)
    septum = front + np.median(offsets[:, 0]) * along + np.median(offsets[:, 1]) * right
    side = ("right" if shift > 0 else "left") if volume.side_known and abs(shift) >= 0.05 else None
    ras = [tuple(round(float(v), 2) for v in planes[n].ras(point)) for point in (front, back, septum)]
    return MidlineShift(abs(shift), side, planes[n].k, (ras[0], ras[1]), ras[2], len(found))


def _slices(reach_mm: float, height_mm: float) -> int:
    """How many slices lie within a reach."""
    return max(1, round(reach_mm / height_mm))


def _planes(volume: CTVolume, brain: np.ndarray, labels: np.ndarray) -> list[_Plane]:
    """The slices that show much brain, upright, around one axis through the middle of the largest."""
    area = np.count_nonzero(brain, axis=(1, 2))
    if not area.any():
        return []
    normal, widest = volume.normal_ras, int(area.argmax())
    right = np.array([1.0, 0.0, 0.0]) - normal[0] * normal
    right /= np.linalg.norm(right)
    back = np.cross(right, normal)
    back = back if back[1] < 0 else -back
    j, i = np.nonzero(brain[widest])
    center = volume.ijk_to_ras_points(np.array([[(i.min() + i.max()) / 2, (j.min() + j.max()) / 2, widest]]))[0]
    to_ij = np.linalg.pinv(np.stack([volume.column_step_ras, volume.row_step_ras], axis=1))
    t, s = np.arange(-_ACROSS, _ACROSS + 1.0), np.arange(-_ALONG, _ALONG + 1.0)
    grid = (to_ij @ right)[:, None, None] * t[None, None] + (to_ij @ back)[:, None, None] * s[None, :, None]
    planes = []
    for k in np.flatnonzero(area >= _WIDE_SHARE * area.max()):
        origin = center + ((volume.slice_origins_ras[k] - center) @ normal) * normal
        where = (grid + (to_ij @ (origin - volume.slice_origins_ras[k]))[:, None, None])[::-1]
        hu = ndimage.map_coordinates(volume.hu[k], where, order=1, cval=-1000.0)
        inside, blood = (
            ndimage.map_coordinates(mask.astype(np.float32), where, order=1) > 0.5 for mask in (brain[k], labels[k] > 0)
        )
        planes.append(_Plane(int(k), hu, inside, blood, origin, right, back))
    return planes


def _symmetry_axis(planes: Sequence[_Plane]) -> _Axis:
    """The direction across which the chords of the brain have their middles on a line; linear over slices."""
    turns = np.radians(np.arange(-30.0, 30.1, 1.0))
    angle = float(np.median([turns[np.argmin([np.std(_chord_middles(p, a)) for a in turns])] for p in planes]))
    offsets = np.array([np.median(_chord_middles(plane, angle)) for plane in planes])
    n = np.arange(len(planes))
    return _Axis(angle, np.polyval(np.polyfit(n, offsets, 1), n))


def _chord_middles(plane: _Plane, angle: float) -> np.ndarray:
    """Middles of the brain's chords across an axis, for chords above 60 mm."""
    t, s = plane.rim
    across, along = np.cos(angle) * t - np.sin(angle) * s, np.rint(np.sin(angle) * t + np.cos(angle) * s).astype(int)
    low = np.full(np.ptp(along) + 1, 1e3)
    high = -low
    np.minimum.at(low, along - along.min(), across)
    np.maximum.at(high, along - along.min(), across)
    return ((low + high) / 2)[high - low > 60]


def _table(plane: _Plane, axis: _Axis, n: int, end: str) -> float:
    """Where the axis meets the inner table, along it."""
    along = np.arange(-110.0, 110.1, 0.5)
    inside = along[plane.at(plane.brain.astype(np.float32), *axis.point(n, 0.0, along)) > 0.5]
    if not inside.size:
        return 0.0
    return float(inside[0] if end == "front" else inside[-1])


def _ends(planes: Sequence[_Plane], axis: _Axis, n: int, across: Sequence[float]) -> list[np.ndarray]:
    """(t, s) of the anterior and the posterior attachment on plane n."""
    pairs = zip(("front", "back"), across, strict=True)
    return [np.array(axis.point(n, u, _table(planes[n], axis, n, end))) for end, u in pairs]


def _fissure(
    planes: Sequence[_Plane], axis: _Axis, near: range, end: str, reach: float, pull: float
) -> tuple[float, float, float]:
    """(score, offset from the axis, slope) of the fissure at one end, from all slices of `near` together.

    The profile across the fissure is averaged along it, then the place is taken around which it mirrors itself best.
    pull: cost of a squared millimeter of offset.
    """
    sign = 1.0 if end == "front" else -1.0
    profiles = []
    for n in near:
        along = _table(planes[n], axis, n, end) + sign * _FISSURE
        t, s = axis.point(n, _OFFSETS[None], along[:, None])
        profiles.append(np.clip(planes[n].at(planes[n].hu, t, s), 0, 60))
    mean = np.mean(profiles, axis=0)  # (depth, offset)
    allowed = np.flatnonzero(np.abs(_OFFSETS) <= reach)
    best = (-np.inf, 0.0, 0.0)
    for slope in _SLOPES:
        moves = np.rint(slope * _FISSURE / 0.5).astype(int)
        shifted = (np.arange(len(_OFFSETS)) + moves[:, None]) % len(_OFFSETS)
        line = np.mean(np.take_along_axis(mean, shifted, axis=1), axis=0)
        line = ndimage.gaussian_filter1d(line, 1.0) - ndimage.gaussian_filter1d(line, 12.0)
        mirrored = np.mean(line[allowed[:, None] + _MIRRORED] * line[allowed[:, None] - _MIRRORED], axis=1)
        score = mirrored / (np.mean(line**2) + 1.0) - pull * _OFFSETS[allowed] ** 2 - 0.3 * abs(slope)
        top = int(score.argmax())
        if score[top] > best[0]:
            best = (float(score[top]), float(_OFFSETS[allowed[top]]), float(slope))
    return best


def _septum(plane: _Plane, front: np.ndarray, back: np.ndarray) -> np.ndarray:
    """(N, 2) for each mm in which both frontal horns are seen: distance from the front, and the middle between the
    horns' inner walls as offset from the line, positive toward the right."""
    along, right = _directions(front, back)
    length = float(np.linalg.norm(back - front))
    across = np.arange(-30.0, 30.01, 0.25)
    distances = np.arange(_FRONTAL[0] * length, _FRONTAL[1] * length)
    t, s = ((front[n] + distances * along[n])[:, None] + right[n] * across for n in range(2))
    borders = np.diff(np.pad((plane.at(plane.fluid, t, s) > 0.5).astype(np.int8), ((0, 0), (1, 1))))
    found = []
    for distance, changes in zip(distances, borders, strict=True):
        edges = np.flatnonzero(changes)
        starts, stops = across[edges[::2]], across[edges[1::2] - 1]
        wide = stops - starts >= _HORN
        starts, stops = starts[wide], stops[wide]
        gaps, middles = starts[1:] - stops[:-1], (starts[1:] + stops[:-1]) / 2
        fits = (gaps >= _GAP[0]) & (gaps <= _GAP[1]) & (np.abs(middles) <= _REACH)
        if fits.any():
            found.append((distance, middles[fits][np.abs(middles[fits]).argmin()]))
    return np.array(found).reshape(-1, 2)


def _directions(front: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (t, s) along the line and across it toward the right."""
    along = (back - front) / np.linalg.norm(back - front)
    right = np.array([along[1], -along[0]])
    return along, right if right[0] > 0 else -right
