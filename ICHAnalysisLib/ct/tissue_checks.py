"""What the voxels inside a skull say: density, noise, contrast, metal, operation, a child (nos. 9, 14, 17, 20-23)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.head import COARSE_PIXEL_MM, CoarseHead, disk, to_native
from ICHAnalysisLib.ct.morphology import bounding_box, closing, dilate, erode
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.findings import Finding, Level

NOISE_HU, THICK_MM = 12.0, 4.0
LOW_DOSE_NOISE_HU = 8.0
VESSEL_HU, VESSEL_ML, VESSEL_PIECES = 110.0, 3.0, 4
METAL_HU, METAL_ML = 3000.0, 0.1
AIR_INSIDE_HU, AIR_INSIDE_ML = -300.0, 1.0
SKULL_GAP_CM2 = 8.0
CHILD_WIDTH_MM = 120.0
CALCIUM_ML = 0.03
SECTORS = 72


@dataclass(frozen=True, eq=False)
class Inside:
    """The volume, its coarse copy, and what is derived from both once."""

    volume: CTVolume
    coarse: CoarseHead

    @cached_property
    def pixel_mm(self) -> float:
        """Size of a coarse pixel."""
        return float(np.mean(self.volume.spacing_mm[:2])) * self.coarse.factors[1]

    @cached_property
    def hull(self) -> np.ndarray:
        """(k, j, i) brain with its dents and holes closed."""
        size = max(4, round(24.0 / self.pixel_mm))
        pad = ((0, 0), (size, size), (size, size))
        closed = closing(np.pad(self.coarse.brain, pad), disk(16.0, self.pixel_mm))
        plane = ndimage.generate_binary_structure(2, 1)[None]
        return ndimage.binary_fill_holes(closed, structure=plane)[:, size:-size, size:-size]

    @cached_property
    def vault(self) -> np.ndarray:
        """(k,) slices from the widest upward while still half as wide: no skull base, no cap."""
        area = np.count_nonzero(self.coarse.brain, axis=(1, 2))
        wide = np.flatnonzero(area >= 0.95 * area.max())
        ks = np.arange(len(area))
        upward = ks >= wide[0] if self.volume.normal_ras[2] >= 0 else ks <= wide[-1]
        return np.flatnonzero(upward & (area >= 0.5 * area.max()))

    def native(self, coarse_mask: np.ndarray) -> np.ndarray:
        """A coarse mask on the acquired slices."""
        return to_native(coarse_mask, self.coarse.factors, self.volume.shape)


def tissue_findings(volume: CTVolume, coarse: CoarseHead) -> list[Finding]:
    """Findings of a head with a brain; values clipped to a window are judged as far as they go."""
    inside = Inside(volume, coarse)
    checks: tuple[Callable[[Inside], Finding | None], ...] = (
        _density, _noise, _vessels, _metal, _operated, _child, _calcium,
    )  # fmt: skip
    return [finding for check in checks if (finding := check(inside)) is not None]


def _density(inside: Inside) -> Finding | None:
    """Hazard 14: a brain far from 20 to 45 HU."""
    middle = float(np.median(inside.coarse.mean[inside.coarse.brain]))
    if 0.0 <= middle <= 60.0:
        return None
    level = Level.ASK if -20.0 <= middle <= 75.0 else Level.BLOCK
    message = f"The brain has {middle:.0f} HU where 20 to 45 is usual: the scale of the values seems wrong."
    return Finding("brain_density", level, message, "Export the original CT images again.", 14)


def noise_hu(inside: Inside) -> float:
    """Robust standard deviation of what varies within 3 mm, in brain 6 mm from its edge, over the widest slices."""
    volume, coarse = inside.volume, inside.coarse
    area = np.count_nonzero(coarse.brain, axis=(1, 2))
    core = erode(coarse.brain, disk(6.0, inside.pixel_mm))
    sigma = 3.0 / float(np.mean(volume.spacing_mm[:2]))
    spreads = []
    for k in np.argsort(area)[-5:]:
        native_k = min(k * coarse.factors[0], volume.shape[0] - 1)
        plane = volume.hu[native_k]
        mask = to_native(core[k : k + 1], (1, *coarse.factors[1:]), (1, *volume.shape[1:]))[0]
        if np.count_nonzero(mask) > 200:
            rest = plane - ndimage.gaussian_filter(plane, sigma)
            spreads.append(1.4826 * float(np.median(np.abs(rest[mask]))))
    return float(np.median(spreads)) if spreads else 0.0


def _noise(inside: Inside) -> Finding | None:
    """Hazards 9 and 20: sharp kernel or low dose, seen by their noise."""
    thickness = float(np.median(inside.volume.slice_thickness_mm))
    noise = noise_hu(inside)
    if thickness >= THICK_MM and noise > NOISE_HU:
        message = f"The brain is very noisy ({noise:.0f} HU at {thickness:g} mm): a bone kernel or a low-dose scan."
        remedy = "Prefer the soft-tissue series; accepting smooths this one."
        return Finding("bone_kernel", Level.ASK, message, remedy, 9)
    if noise * np.sqrt(min(thickness, 5.0) / 5.0) <= LOW_DOSE_NOISE_HU:
        return None
    message = f"The brain is noisier than usual ({noise:.0f} HU at {thickness:g} mm slices)."
    return Finding("low_dose_ct", Level.NOTE, message, "Small or faint bleeds may be missed.", 20)


def _vessels(inside: Inside) -> Finding | None:
    """Hazard 17: several dense structures far from bone, above the skull base."""
    coarse, vault = inside.coarse, inside.vault
    deep = erode(inside.hull, disk(10.0, inside.pixel_mm))
    dense = deep & (coarse.mean > VESSEL_HU)
    keep = np.zeros(len(dense), dtype=bool)
    keep[vault] = True
    dense &= keep[:, None, None]
    amount = float(np.count_nonzero(dense, axis=(1, 2)) @ coarse.volume_ml)
    if coarse.clipped or amount < VESSEL_ML or ndimage.label(dense, np.ones((3, 3, 3)))[1] < VESSEL_PIECES:
        return None
    message = (
        f"Vessels or other structures inside the brain are denser than {VESSEL_HU:.0f} HU ({amount:.0f} mL): the scan "
        "seems contrast-enhanced, which is not validated."
    )
    return Finding("contrast", Level.ASK, message, "Use the non-contrast series.", 17)


def metal_mask(inside: Inside) -> np.ndarray:
    """Metal inside the skull, pieces of at least 0.1 mL: bool (K, J, I)."""
    volume = inside.volume
    metal = volume.hu > METAL_HU
    if not metal.any():
        return metal
    metal &= inside.native(dilate(inside.hull, disk(4.0, inside.pixel_mm)))
    labels, count = ndimage.label(metal, structure=np.ones((3, 3, 3)))
    for piece in range(1, count + 1):
        if volume.mask_volume_ml(labels == piece) < METAL_ML:
            metal &= labels != piece
    return metal


def _metal(inside: Inside) -> Finding | None:
    metal = metal_mask(inside)
    if not metal.any():
        return None
    amount = inside.volume.mask_volume_ml(metal)
    message = f"There is metal inside the skull ({amount:.1f} mL above {METAL_HU:.0f} HU: clip, coil or electrode)."
    return Finding("metal", Level.NOTE, message, "What is found within 10 mm of it may be streaks.", 22)


def calcium_mask(inside: Inside) -> np.ndarray:
    """Pieces denser than 110 HU, of 0.03 mL or more, deep in the brain above its base: bool (K, J, I)."""
    volume = inside.volume
    vault = np.zeros(len(inside.hull), dtype=bool)
    vault[inside.vault] = True
    deep = erode(inside.hull, disk(12.0, inside.pixel_mm)) & vault[:, None, None]
    place = inside.native(deep)
    calcium = np.zeros(volume.shape, dtype=bool)
    box = bounding_box(place)  # labels are counted where they can lie, not through the whole scan
    hu = volume.hu[box]
    labels, count = ndimage.label((hu > VESSEL_HU) & (hu < METAL_HU) & place[box], structure=np.ones((3, 3, 3)))
    if not count:
        return calcium
    per_slice = np.array([np.bincount(plane.ravel(), minlength=count + 1) for plane in labels])  # (k, count + 1)
    amounts = volume.voxel_volumes_ml[box[0]] @ per_slice
    amounts[0] = 0.0
    calcium[box] = (amounts >= CALCIUM_ML)[labels]
    return calcium


def _calcium(inside: Inside) -> Finding | None:
    if inside.coarse.clipped:
        return None
    calcium = calcium_mask(inside)
    if not calcium.any():
        return None
    count = ndimage.label(calcium[bounding_box(calcium)], structure=np.ones((3, 3, 3)))[1]
    amount = inside.volume.mask_volume_ml(calcium)
    message = (
        f"{count} calcification{'s' if count > 1 else ''} inside the brain ({amount:.2f} mL), not counted as blood."
    )
    return Finding("calcification", Level.NOTE, message, "None needed.", 41)


def _operated(inside: Inside) -> Finding | None:
    """Hazard 23: air inside the skull, or a piece of the vault missing."""
    coarse, vault = inside.coarse, inside.vault
    air = np.zeros_like(coarse.brain)
    air[vault] = (inside.hull & (coarse.mean < AIR_INSIDE_HU))[vault]
    amount = float(np.count_nonzero(air, axis=(1, 2)) @ coarse.volume_ml)
    gap = 0.0 if cut_at_the_sides(inside) else skull_gap_cm2(inside)
    signs = [f"{amount:.1f} mL of air inside the skull"] if amount >= AIR_INSIDE_ML and not coarse.clipped else []
    signs += [f"a gap of {gap:.0f} cm2 in the skull"] if gap >= SKULL_GAP_CM2 else []
    if not signs:
        return None
    message = f"The head seems to have been operated on: {' and '.join(signs)}."
    remedy = "Scores and prognosis are made for scans before surgery; they are given only where you accept (--yes)."
    return Finding("postoperative", Level.NOTE, message, remedy, 23)


def skull_gap_cm2(inside: Inside) -> float:
    """Area of the vault where no bone is met from the middle of the brain outward, cm2."""
    coarse, total = inside.coarse, 0.0
    heights = np.add.reduceat(inside.volume.slice_heights_mm, np.arange(0, inside.volume.shape[0], coarse.factors[0]))
    for k in inside.vault:
        rows, columns = np.nonzero(inside.hull[k])
        bone_rows, bone_columns = np.nonzero(coarse.bone[k])
        if not len(rows):
            continue
        angles = np.arctan2(bone_rows - rows.mean(), bone_columns - columns.mean())
        met = np.histogram(angles, bins=SECTORS, range=(-np.pi, np.pi))[0]
        radius = np.sqrt(len(rows) / np.pi) * inside.pixel_mm
        total += np.count_nonzero(met == 0) / SECTORS * 2 * np.pi * radius * heights[k] / 100.0
    return total


def head_width_mm(inside: Inside) -> float:
    """Largest right-to-left width of the skull, mm."""
    coarse = inside.coarse
    sides = (np.abs(inside.volume.column_step_ras[0]), np.abs(inside.volume.row_step_ras[0]))
    axis = 2 if sides[0] >= sides[1] else 1
    shadow = coarse.bone.any(axis=3 - axis) if coarse.bone.any() else coarse.head.any(axis=3 - axis)
    size = inside.volume.spacing_mm[0 if axis == 2 else 1] * coarse.factors[axis]
    return float(np.count_nonzero(shadow, axis=1).max() * size) if shadow.any() else 0.0


def cut_at_the_sides(inside: Inside) -> bool:
    """True where the picture ends within the head, at its left, right, front or back, in the slices of the vault."""
    head = inside.coarse.head[inside.vault]
    edges = (head[:, 0], head[:, -1], head[:, :, 0], head[:, :, -1])
    return any(np.count_nonzero(edge) > 0.2 * edge.size for edge in edges)


def _child(inside: Inside) -> Finding | None:
    width = head_width_mm(inside)
    if cut_at_the_sides(inside):  # a narrow picture is no narrow skull
        return None
    if not COARSE_PIXEL_MM < width < CHILD_WIDTH_MM:
        return None
    message = f"The skull is {width:.0f} mm wide, as in a child; the networks and the scores are made for adults."
    return Finding("pediatric", Level.ASK, message, "No prognosis is given automatically.", 21)
