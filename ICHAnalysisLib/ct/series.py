"""Grouping the slices of a study into series, and the choice of the one to analyze (hazards 4, 7, 8, 26, 37)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from ICHAnalysisLib.ct.headers import ENHANCED_CT, SliceHeader
from ICHAnalysisLib.ct.words import (
    BONE_KERNEL,
    BOTH_RUNS,
    CONTRAST_WORDS,
    DUAL_ENERGY_WORDS,
    HEAD_WORDS,
    NO_AGENT,
    OTHER_BODY_WORDS,
    PLAIN_WORDS,
)

MIN_SLICES = 5
CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", ENHANCED_CT, "1.2.840.10008.5.1.4.1.1.2.2")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Series:
    """Slices that form one stack, in order of position.

    label: what `--series` takes: the series number, with .1, .2 ... where one series holds several stacks.
    reasons: why it stands where it stands; offered: False where it can never be analyzed.
    split: what told this stack apart from others of its series; siblings: how many such stacks there are;
    twin: a sibling's slice where this stack has its middle slice, to compare the pixels.
    """

    label: str
    headers: tuple[SliceHeader, ...]
    score: float = 0.0
    offered: bool = True
    reasons: tuple[str, ...] = ()
    split: str = ""
    siblings: int = 1
    twin: SliceHeader | None = None
    all_instance_numbers: frozenset[int] = field(default_factory=frozenset)

    @property
    def first(self) -> SliceHeader:
        """The first slice's header."""
        return self.headers[0]

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.first.series_uid

    @property
    def description(self) -> str:
        """SeriesDescription, or the protocol's name."""
        return self.first.series_description or self.first.protocol

    @property
    def thickness_mm(self) -> float:
        """Median nominal slice thickness, NaN where unknown."""
        return median(header.thickness for header in self.headers)

    @property
    def spacing_mm(self) -> float:
        """Median step between slices along their normal, NaN where unknown."""
        positions = slice_positions(self.headers)
        return median(np.diff(np.sort(positions))) if len(positions) > 1 else float("nan")

    @property
    def cover_mm(self) -> float:
        """Distance from the first to the last slice, 0 where unknown."""
        positions = slice_positions(self.headers)
        return float(np.ptp(positions)) if len(positions) > 1 else 0.0


def median(values: Iterable[float]) -> float:
    """Median of the finite values, NaN for none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.median(finite)) if finite else float("nan")


def slice_normal(header: SliceHeader) -> np.ndarray | None:
    """(3,) unit normal of a slice in RAS, toward superior (else right, else anterior); None without directions."""
    if header.orientation is None:
        return None
    normal = np.cross(header.orientation[:3], header.orientation[3:])
    normal /= np.linalg.norm(normal)
    main = 2 if abs(normal[2]) > 0.3 else int(np.argmax(np.abs(normal)))
    return normal if normal[main] > 0 else -normal


def slice_positions(headers: Iterable[SliceHeader]) -> np.ndarray:
    """(N,) position along the normal in mm; empty where any slice lacks its position and its location."""
    headers = list(headers)
    normal = slice_normal(headers[0])
    if normal is not None and all(header.position is not None for header in headers):
        return np.array([np.dot(header.position, normal) for header in headers])  # type: ignore[arg-type]
    located = np.array([header.slice_location for header in headers])
    return located if np.isfinite(located).all() else np.zeros(0)


def group_series(headers: Iterable[SliceHeader]) -> list[Series]:
    """Stacks of parallel, equally large slices, best first."""
    by_uid: dict[tuple, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        by_uid[(header.patient, header.study_uid, header.series_uid or header.series_description)].append(header)
    series: list[Series] = []
    taken: Counter[str] = Counter()
    for members in by_uid.values():
        numbers = frozenset(h.instance_number for h in members if h.instance_number is not None)
        stacks = [part for stack in _by_geometry(members) for part in split_repeats(stack)]
        base = _base_label(members[0], taken)
        for index, (stack, why) in enumerate(stacks, 1):
            label = base if len(stacks) == 1 else f"{base}.{index}"
            siblings = sum(1 for _, reason in stacks if reason) if why else 1
            twin = _twin(stack, [other for other, reason in stacks if reason and other is not stack]) if why else None
            series.append(_ranked(Series(label, tuple(stack), 0.0, True, (), why, siblings, twin, numbers)))
    return sorted(series, key=lambda one: (not one.offered, -one.score, one.first.series_number or 0))


def _twin(stack: list[SliceHeader], others: list[list[SliceHeader]]) -> SliceHeader | None:
    """The slice of another stack that lies where this one has its middle slice."""
    middle = stack[len(stack) // 2]
    candidates = [header for other in others for header in other]
    if middle.position is None or any(header.position is None for header in candidates) or not candidates:
        return None
    apart = [np.abs(np.subtract(header.position, middle.position)).max() for header in candidates]  # type: ignore[arg-type]
    best = int(np.argmin(apart))
    return candidates[best] if apart[best] < 0.02 else None


def _base_label(header: SliceHeader, taken: Counter[str]) -> str:
    """The series number, made unique with a letter where two series share it."""
    base = str(header.series_number) if header.series_number is not None else "0"
    taken[base] += 1
    return base if taken[base] == 1 else f"{base}{chr(96 + min(taken[base], 26))}"


def _by_geometry(headers: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Slices of one series apart by direction, size, pixel spacing, kind and kernel; largest stack first.

    Directions and spacings are compared with each stack's first slice, since rounding could tear a stack apart.
    """
    groups: dict[tuple, list[list[SliceHeader]]] = defaultdict(list)
    for header in headers:
        kind = (header.is_localizer, header.samples, header.sop_class, header.modality)
        stacks = groups[(header.rows, header.columns, kind, header.kernel)]
        stack = next((one for one in stacks if _alike(one[0], header)), None)
        if stack is None:
            stacks.append([header])
        else:
            stack.append(header)
    return sorted((stack for stacks in groups.values() for stack in stacks), key=len, reverse=True)


def _alike(one: SliceHeader, other: SliceHeader) -> bool:
    """True where two slices have the same direction (1 degree) and pixel spacing (1 %), or neither states them.

    One slice that does not say where it lies must not take the places of all others away: it is no part of the stack.
    """
    for first, second, tolerance in (
        (one.orientation, other.orientation, 0.02),
        (one.position, other.position, 1e9),
        (one.pixel_spacing, other.pixel_spacing, 0.01 * max(one.pixel_spacing or (1.0,))),
    ):
        if (first is None) != (second is None):
            return False
        if first is not None and second is not None and not np.allclose(first, second, rtol=0.0, atol=tolerance):
            return False
    return True


_SPLITTERS: tuple[tuple[str, Callable[[SliceHeader], object]], ...] = (
    ("acquisition", lambda header: header.acquisition),
    ("time point", lambda header: header.temporal),
    ("content time", lambda header: header.content_time),
)


def split_repeats(stack: list[SliceHeader]) -> list[tuple[list[SliceHeader], str]]:
    """A stack apart into phases where most positions are repeated, each with the name of what told them apart.

    Copies of one file (the same SOP instance) are left alone, they are dropped when the pixels are read.
    """
    stack = in_order(stack)
    unique = list({(header.sop_uid or id(header), header.frame): header for header in stack}.values())
    positions = slice_positions(unique)
    if len(positions) < 4:
        return [(stack, "")]
    places = np.round(positions / 0.02).astype(int)
    repeats = Counter(places.tolist())
    if sum(count > 1 for count in repeats.values()) < 0.5 * len(repeats):
        return [(stack, "")]
    for name, key in _SPLITTERS:
        parts: dict[object, list[int]] = defaultdict(list)
        for index, header in enumerate(unique):
            parts[key(header)].append(index)
        if 1 < len(parts) <= max(repeats.values()) and all(
            len({places[i] for i in part}) == len(part) for part in parts.values()
        ):
            return [(in_order([unique[i] for i in parts[k]]), name) for k in sorted(parts, key=str)]
    return _split_by_turn(unique, places)


def _split_by_turn(headers: list[SliceHeader], places: np.ndarray) -> list[tuple[list[SliceHeader], str]]:
    """First, second, third ... slice at every position, in order of instance number."""
    turns: dict[int, list[SliceHeader]] = defaultdict(list)
    seen: Counter[int] = Counter()
    order = sorted(range(len(headers)), key=lambda i: (headers[i].instance_number or 0, i))
    for index in order:
        turns[seen[places[index]]].append(headers[index])
        seen[places[index]] += 1
    return [(in_order(turn), "order of the images") for _, turn in sorted(turns.items())]


def in_order(headers: list[SliceHeader]) -> list[SliceHeader]:
    """Slices from bottom to top along their normal; by instance number where no position is given."""
    by_number = sorted(headers, key=lambda header: (header.instance_number or 0, header.ref.name))
    positions = slice_positions(by_number)
    if not len(positions):
        return by_number
    return [by_number[i] for i in np.argsort(np.round(positions, 3), kind="stable")]


def _ranked(series: Series) -> Series:
    """The series with its score and reasons (hazard 8): CT, axial, original, head, soft kernel, no contrast,
    2.5 to 5 mm, 15 slices or more, most cover."""
    refusal = refused(series)
    if refusal:
        return replace(series, score=-1000.0, offered=False, reasons=(refusal,))
    score, reasons = 0.0, []
    for points, kept, good, bad in _criteria(series):
        score += points if kept else 0.0
        if good if kept else bad:
            reasons.append(good if kept else bad)
    score += min(series.cover_mm, 200.0) / 100.0
    return replace(series, score=score, reasons=tuple(reasons))


def refused(series: Series) -> str:
    """Why a series can never be analyzed, "" where it can."""
    first = series.first
    if first.is_localizer:
        return "localizer"
    if first.modality not in ("CT", "") or (first.sop_class and first.sop_class.endswith("1.1.4")):
        return f"not a CT ({first.modality or 'MR'})"
    if first.samples != 1 or first.photometric.upper().startswith(("RGB", "YBR", "PALETTE")):
        return "a color picture, not CT numbers"
    if first.sop_class.startswith(SECONDARY_CAPTURE) and (first.orientation is None or first.pixel_spacing is None):
        return "a secondary capture (screen picture)"
    if first.sop_class.startswith(SECONDARY_CAPTURE) and "DOSE_INFO" in first.image_type:
        return "a dose report"
    if first.frame is None and first.frames > 1:
        return f"{first.frames} frames in one picture, without the place of each"
    if len(series.headers) < MIN_SLICES:
        return f"only {len(series.headers)} slice{'s' if len(series.headers) > 1 else ''}"
    return ""


def _criteria(series: Series) -> list[tuple[float, bool, str, str]]:
    """(points, fulfilled, reason where fulfilled, reason where not) of each criterion."""
    first, texts = series.first, series.first.texts
    normal = slice_normal(first)
    body = f"{first.body_part.lower()} {texts}"
    other = re.search(OTHER_BODY_WORDS, body) is not None and re.search(HEAD_WORDS, body) is None
    thickness = series.thickness_mm if np.isfinite(series.thickness_mm) else series.spacing_mm
    count = len(series.headers)
    return [
        (100.0, normal is None or abs(normal[2]) > 0.8, "axial", "not axial"),
        (60.0, not other, "", "another part of the body"),
        (40.0, not bone_kernel(series), "soft kernel" if first.kernel else "", f"bone kernel {first.kernel}".strip()),
        (30.0, not contrast(series), "", "contrast"),
        (30.0, series.split != "time point" and series.siblings < 3, "", "one of several time points"),
        (25.0, not dual_energy(series), "", "dual-energy or virtual image"),
        (20.0, count >= 15, f"{count} slices", f"only {count} slices"),
        (15.0, "DERIVED" not in first.image_type, "original", "derived"),
        (10.0, bool(2.5 <= thickness <= 5.0), f"{thickness:g} mm", f"{thickness:g} mm" if thickness > 0 else ""),
        (5.0, series.siblings < 2 or series.label.endswith(".1"), "", "a later phase"),
    ]


def bone_kernel(series: Series) -> bool:
    """A sharp kernel by its name or the description (hazard 9)."""
    described = series.first.series_description
    return bool(
        re.search(BONE_KERNEL, series.first.kernel, re.I) or re.search(r"\bbone|knochen|\bos\b", described, re.I)
    )


def contrast(series: Series) -> bool:
    """Contrast medium by agent or words (hazard 17).

    The first text that says anything decides, the series' own before that of the whole examination, which may name
    runs with and without ("head w wo contrast"): there the word for contrast counts, so that somebody is asked.
    """
    first = series.first
    agent = first.contrast_agent.lower().strip()
    if agent and not re.fullmatch(NO_AGENT, agent) and not re.search(PLAIN_WORDS, agent):
        return True
    for described in (first.series_description, first.protocol, first.study_description):
        rest = re.sub(PLAIN_WORDS, " ", described.lower())
        if re.search(CONTRAST_WORDS, rest) or re.search(BOTH_RUNS, described.lower()):
            return True
        if rest != described.lower():
            return False
    return False


def dual_energy(series: Series) -> bool:
    """Dual-energy, virtual or mono-energetic images by type or words (hazard 18)."""
    first = series.first
    return bool(re.search(DUAL_ENERGY_WORDS, " ".join((*first.image_type, first.series_description)).lower()))
