"""Where the head, the skull and the brain lie in a CT, fast: found on a coarse copy, returned on the acquired slices.

The coarse copy has pixels of about 2 mm and slices of about 4 mm. A voxel counts as inside the skull where bone is met
in most of eight in-plane directions and above it, which a burr hole, a craniectomy or a cut field of view leaves true
for most of the brain, and which orbits, face and neck do not fulfil.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.morphology import closing, dilate, erode, opening
from ICHAnalysisLib.ct.volume import CTVolume

COARSE_PIXEL_MM = 2.0
COARSE_SLICE_MM = 4.0
AIR_HU = -300.0  # paper 002 and 003: the head is what lies above it
BONE_MEAN_HU, BONE_MAX_HU = 160.0, 350.0
TISSUE_HU = (-15.0, 190.0)  # everything inside a skull but air, fat and bone: CSF to clotted blood
WINDOW_CEILING_HU = 300.0  # a scan that never reaches this was cut to a display window


@dataclass(frozen=True)
class CoarseHead:
    """A coarse copy of a stack, block averages, with what was found in it.

    mean, peak: float32 (k, j, i) average and largest HU of each block; factors: (K, J, I) block sizes.
    head, bone, brain: bool (k, j, i). volume_ml: (k,) volume of one coarse voxel of each coarse slice.
    clipped: True where the values end at a display window's upper edge.
    """

    mean: np.ndarray
    peak: np.ndarray
    factors: tuple[int, int, int]
    head: np.ndarray
    bone: np.ndarray
    brain: np.ndarray
    volume_ml: np.ndarray
    clipped: bool

    @property
    def brain_ml(self) -> float:
        """Volume inside the skull that is tissue, fluid or blood, mL."""
        return float(np.count_nonzero(self.brain, axis=(1, 2)) @ self.volume_ml)


def head_mask(volume: CTVolume) -> np.ndarray:
    """The head without table and holder, holes filled: bool (K, J, I)."""
    coarse = coarse_head(volume)
    return to_native(coarse.head, coarse.factors, volume.shape)


def brain_mask(volume: CTVolume) -> np.ndarray:
    """What lies inside the skull (brain, CSF, blood, calcium), without face, orbits and neck: bool (K, J, I)."""
    coarse = coarse_head(volume)
    mask = to_native(coarse.brain, coarse.factors, volume.shape)
    if not coarse.clipped:
        mask &= volume.hu < 400.0  # the blocks' edges reach into the inner table
    return mask


def coarse_head(volume: CTVolume) -> CoarseHead:
    """Find head, bone and brain on the coarse copy."""
    factors = _factors(volume)
    mean, peak = _blocks(volume.hu, factors)
    pixel_mm = float(np.mean(volume.spacing_mm[:2])) * factors[1]
    heights = np.add.reduceat(volume.slice_heights_mm, np.arange(0, volume.shape[0], factors[0]))
    area = volume.voxel_area_mm2 * factors[1] * factors[2]
    ceiling, floor = float(volume.hu.max(initial=-1024.0)), float(volume.hu.min(initial=0.0))
    clipped = ceiling < WINDOW_CEILING_HU
    head = _head(mean, pixel_mm, AIR_HU if floor < AIR_HU else floor + 0.02 * (min(ceiling, 160.0) - floor))
    if clipped:  # bone is what reaches the window's upper end and hangs together; a dense clot inside does not
        edge = ceiling - 0.12 * min(ceiling - floor, 100.0)
        bone = _largest(mean >= min(edge, BONE_MEAN_HU)) | _largest(peak >= ceiling)
    else:
        bone = (mean > BONE_MEAN_HU) | (peak > BONE_MAX_HU)
    bone &= ndimage.binary_dilation(head, iterations=2, structure=_PLANE)
    tissue_hu = (max(TISSUE_HU[0], floor + 4.0), np.inf if clipped else TISSUE_HU[1])
    brain = _brain(mean, head, bone, _superior_sign(volume), pixel_mm, tissue_hu)
    return CoarseHead(mean, peak, factors, head, bone, brain, area * heights / 1000.0, clipped)


_PLANE = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], dtype=bool)


def _factors(volume: CTVolume) -> tuple[int, int, int]:
    column, row = volume.spacing_mm[:2]
    height = float(np.mean(volume.slice_heights_mm))
    return (
        max(1, round(COARSE_SLICE_MM / height)),
        max(1, round(COARSE_PIXEL_MM / row)),
        max(1, round(COARSE_PIXEL_MM / column)),
    )


def _blocks(hu: np.ndarray, factors: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Block averages and maxima; the last, incomplete blocks are filled by repeating the edge."""
    pads = [(0, -size % factor) for size, factor in zip(hu.shape, factors)]
    padded = np.pad(hu, pads, mode="edge") if any(after for _, after in pads) else hu
    k, j, i = (size // factor for size, factor in zip(padded.shape, factors))
    blocks = padded.reshape(k, factors[0], j, factors[1], i, factors[2])
    # Rows first: adding whole rows is one pass over memory, adding four neighbors in a row is not.
    rows_mean = blocks.mean(axis=3, dtype=np.float32).mean(axis=4)  # (k, fk, j, i)
    rows_peak = blocks.max(axis=3).max(axis=4)
    return np.maximum(rows_mean.mean(axis=1), -1024.0), rows_peak.mean(axis=1)


def to_native(mask: np.ndarray, factors: tuple[int, int, int], shape: tuple[int, int, int]) -> np.ndarray:
    """A coarse mask on the acquired slices, with its edge smoothed in plane.

    Linear between the centers of the blocks, the border repeated, true above one half; in whole numbers of
    1 / (2 f), so that no rounding decides.
    """
    rows, columns = factors[1], factors[2]
    soft = _grown(_grown(mask.astype(np.int16), rows, 1), columns, 2)
    fine = soft > 2 * rows * columns
    if factors[0] > 1:
        fine = np.repeat(fine, factors[0], axis=0)
    return fine[: shape[0], : shape[1], : shape[2]]


def _grown(values: np.ndarray, factor: int, axis: int) -> np.ndarray:
    """int16 (k, j, i), one axis `factor` times longer by linear interpolation, times 2 * factor."""
    moved = np.moveaxis(values, axis, -1)
    edged = np.concatenate([moved[..., :1], moved, moved[..., -1:]], axis=-1)
    out = np.empty((*values.shape[:axis], values.shape[axis], factor, *values.shape[axis + 1 :]), dtype=np.int16)
    target = np.moveaxis(out, (axis, axis + 1), (-2, -1))
    for n in range(factor):
        offset = 2 * n + 1 - factor  # of this fine pixel from its block's center, in units of 1 / (2 factor)
        beside = edged[..., :-2] if offset < 0 else edged[..., 2:]
        target[..., n] = moved * (2 * factor - abs(offset)) + beside * abs(offset)
    return out.reshape(*values.shape[:axis], -1, *values.shape[axis + 1 :])


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest 26-connected component, or the mask itself where it is empty."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def disk(radius_mm: float, pixel_mm: float) -> np.ndarray:
    """A flat disk for morphology, (1, n, n)."""
    radius = max(1, round(radius_mm / pixel_mm))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius)[None]


def _head(mean: np.ndarray, pixel_mm: float, air: float) -> np.ndarray:
    """The largest thing above `air` once thin table and holder shells are opened away, holes filled slice by slice."""
    solid = ndimage.binary_fill_holes(mean > air, structure=_PLANE)
    core = _largest(opening(solid, disk(6.0, pixel_mm)))
    grown = dilate(core, disk(6.0, pixel_mm)) & solid
    return ndimage.binary_fill_holes(grown, structure=_PLANE)


def _superior_sign(volume: CTVolume) -> int:
    """1 where k grows toward the top of the head, -1 where it falls."""
    return 1 if volume.normal_ras[2] >= 0 else -1


def _brain(
    mean: np.ndarray,
    head: np.ndarray,
    bone: np.ndarray,
    superior: int,
    pixel_mm: float,
    tissue_hu: tuple[float, float],
) -> np.ndarray:
    """Tissue with bone around it, as one piece, holes (calcium, air, dense clot) filled: bool (k, j, i)."""
    shell = closing(np.pad(bone, ((0, 0), (8, 8), (8, 8))), disk(3.0, pixel_mm))[:, 8:-8, 8:-8]
    directions = _directions_with_bone(shell)
    upward = shell if superior < 0 else np.flip(shell, 0)
    above = np.logical_or.accumulate(upward, 0)
    cover = dilate(above if superior < 0 else np.flip(above, 0), disk(8.0, pixel_mm))
    below = cover | _open_top(head, superior)
    inside = (directions >= 6) & head & ~bone & below
    smooth = ndimage.gaussian_filter(mean, (0, 1.0, 1.0))
    soft = (smooth > tissue_hu[0]) & (smooth < tissue_hu[1])
    core = _largest(opening(inside & soft, disk(7.0, pixel_mm)))
    if not core.any():
        return core
    core |= _behind_gaps(core, (directions >= 4) & below & ~shell & soft, head, superior, pixel_mm)
    steps = max(1, round(8.0 / pixel_mm))
    grown = ndimage.binary_dilation(core, _PLANE, iterations=steps, mask=inside)
    sealed = closing(np.pad(grown, ((0, 0), (8, 8), (8, 8))), disk(8.0, pixel_mm))[:, 8:-8, 8:-8]
    return ndimage.binary_fill_holes((grown | (sealed & ~shell)), structure=_PLANE) & head


def _behind_gaps(
    core: np.ndarray, candidates: np.ndarray, head: np.ndarray, superior: int, pixel_mm: float
) -> np.ndarray:
    """Brain that a gap in the skull leaves without bone on one side: only above the widest slice, where neither face
    nor orbits are, and not within 6 mm of the skin."""
    area = np.count_nonzero(core, axis=(1, 2))
    wide = np.flatnonzero(area >= 0.95 * area.max())
    ks = np.arange(len(area))
    vault = ks >= wide[0] if superior > 0 else ks <= wide[-1]
    deep = erode(head, disk(6.0, pixel_mm)) & vault[:, None, None]
    reached = ndimage.binary_propagation(core & deep, mask=candidates & deep | core & deep)
    return opening(reached, disk(4.0, pixel_mm))


def _open_top(head: np.ndarray, superior: int) -> bool:
    """True where the scan ends below the vertex: its top slice is still a wide ring, not a cap."""
    top = head[-1 if superior > 0 else 0]
    return bool(np.count_nonzero(top) > 0.25 * max(1, np.count_nonzero(head, axis=(1, 2)).max()))


def _directions_with_bone(bone: np.ndarray) -> np.ndarray:
    """In how many of the eight in-plane directions bone is met: uint8 (k, j, i)."""
    count = np.zeros(bone.shape, dtype=np.uint8)
    for axis in (1, 2):
        count += np.logical_or.accumulate(bone, axis)
        count += np.flip(np.logical_or.accumulate(np.flip(bone, axis), axis), axis)
    for flipped in (False, True):
        plane = np.flip(bone, 2) if flipped else bone
        met = _diagonals(plane)
        count += np.flip(met, 2) if flipped else met
    return count


def _diagonals(bone: np.ndarray) -> np.ndarray:
    """Directions with bone along one diagonal, both ways (0 to 2): uint8 (k, j, i)."""
    depth, rows, columns = bone.shape
    wide = np.zeros((depth, rows, rows + columns), dtype=bool)
    for row in range(rows):
        wide[:, row, row : row + columns] = bone[:, row]
    met = np.logical_or.accumulate(wide, 1).astype(np.uint8)
    met += np.flip(np.logical_or.accumulate(np.flip(wide, 1), 1), 1)
    out = np.empty(bone.shape, dtype=np.uint8)
    for row in range(rows):
        out[:, row] = met[:, row, row : row + columns]
    return out
