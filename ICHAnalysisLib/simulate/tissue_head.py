"""A head CT made from an anatomical model: the tissue labels of a real head, as Hounsfield units.

The models are the discrete ones of BrainWeb's 20 normal brains (Aubert-Broche et al. 2006, NeuroImage 32: 138; IEEE
Trans. Med. Imaging 25: 1410), MINC files of 0.5 mm with one of twelve tissue classes in each voxel, drawn from MR scans
of 20 people. They bring what one real CT and procedural heads lack: sulci, ventricles and skull bases of many people.
Nothing of them is stored here.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate.fields import smooth_noise

#: How the name of a model's file ends.
SUFFIXES = (".mnc", ".mnc.gz")
#: Edge of a pixel and of a slice of the CT, mm.
PIXEL_MM, SLICE_MM = 1.0, 3.0
#: The classes, in the order of their labels, and their mean HU. Scalp, half of it fat, is one class with muscle.
CLASSES = {
    "background": -1000.0, "csf": 7.0, "grey": 38.0, "white": 29.0, "fat": -90.0, "muscle": 52.0, "skin": 15.0,
    "skull": 1050.0, "vessels": 45.0, "connective": -25.0, "dura": 48.0, "marrow": 450.0,
}  # fmt: skip
_NAMES = list(CLASSES)
_SKULL, _CSF, _DURA = (_NAMES.index(name) for name in ("skull", "csf", "dura"))
#: Bone deeper than this inside bone is honeycombed with air cells where it lies below this height above the model's
#: origin (the anterior commissure): MR shows bone and air as the same black.
_CELL_DEPTH_MM, _CELL_TOP_MM = 4.5, -15.0
_CELL_HU = -600.0
#: The falx is CSF in these models: half its thickness, and the half axes, about this center (forward, up), of the
#: middle of the brain that it spares, mm from the model's origin.
_FALX_HALF_MM = 0.8
_FALX_FREE_MM, _FALX_CENTER_MM = (58.0, 36.0), (-16.0, 4.0)


@dataclass(frozen=True, eq=False)
class TissueHead(CTVolume):
    """A CT made from a model, whose brain is known. brain: bool (K, J, I), brain and the fluid in and around it."""

    brain: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=bool))


def is_tissue_model(path: Path) -> bool:
    """Whether the name is that of a model and not of a scan."""
    return path.name.lower().endswith(SUFFIXES)


def read_tissue_head(path: Path) -> TissueHead:
    """The head CT made from a model's file. Raises UsageError where it is none, naming what it holds."""
    import nibabel

    try:
        image: Any = nibabel.load(path)
        values = np.asarray(image.dataobj, dtype=np.float32)
        affine = np.asarray(image.affine)
    except Exception as error:  # nibabel, netCDF and zlib raise many kinds
        raise UsageError(f"{path.name} cannot be read as an anatomical model: {error}. Fetch the file anew.") from error
    labels = np.rint(values)
    known = values.size > 0 and labels.min() >= 0 and labels.max() < len(CLASSES)
    if values.ndim != 3 or not known or np.abs(values - labels).max() > 0.1:
        raise UsageError(
            f"{path.name} holds values of {values.min():g} to {values.max():g}; a discrete anatomical model has whole "
            f"numbers of 0 to {len(CLASSES) - 1}. Of BrainWeb's models take subjectNN_crisp_v.mnc.gz."
        )
    return tissue_head(*_left_back_up(labels.astype(np.uint8), affine))


def _left_back_up(labels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Labels (Z, Y, X) that run up, back and to the left, the voxels' edge, and the first voxel's place (RAS, mm)."""
    axes = np.abs(affine[:3, :3]).argmax(0)
    steps = np.array([affine[axis, n] for n, axis in enumerate(axes)])
    edge = abs(float(steps[0]))
    if sorted(axes) != [0, 1, 2] or np.ptp(np.abs(steps)) > 1e-3 * edge or edge > PIXEL_MM:
        raise UsageError(
            f"An anatomical model has cubic voxels of {PIXEL_MM:g} mm or less along the axes; these are "
            f"{', '.join(f'{abs(step):g}' for step in steps)} mm."
        )
    order = [int(np.flatnonzero(axes == axis)[0]) for axis in (2, 1, 0)]
    labels, steps = labels.transpose(order), steps[order]
    origin = affine[:3, 3].copy()
    for n, (axis, wanted) in enumerate(((2, 1), (1, -1), (0, -1))):
        if np.sign(steps[n]) != wanted:
            origin[axis] += steps[n] * (labels.shape[n] - 1)
            labels = np.flip(labels, n)
    return labels, edge, origin


def tissue_head(labels: np.ndarray, edge_mm: float, first_ras: np.ndarray) -> TissueHead:
    """The head CT of uint8 labels (Z, Y, X) of `CLASSES`, which run up, back and to the left in cubes of `edge_mm`.

    Tissue becomes its HU, with the falx, air cells and a slight unevenness that the labels lack; then every voxel of
    the CT is the mean of those within it. The same labels give the same scan. Raises UsageError where they hold no
    head.
    """
    wide, high = round(PIXEL_MM / edge_mm), round(SLICE_MM / edge_mm)
    if wide < 1 or abs(wide * edge_mm - PIXEL_MM) > 1e-3 or abs(high * edge_mm - SLICE_MM) > 1e-3:
        raise UsageError(f"Voxels of {edge_mm:g} mm do not fit into {PIXEL_MM:g} x {PIXEL_MM:g} x {SLICE_MM:g} mm.")
    rows = np.flatnonzero(labels.any((1, 2)))
    if rows.size < high:
        raise UsageError("The anatomical model holds background alone.")
    low = int(rows[0])  # below its first labeled plane is nothing
    labels = labels[low : low + (int(rows[-1]) + 1 - low) // high * high]
    first = np.asarray(first_ras, dtype=float) + np.array([0.0, 0.0, low * edge_mm])
    rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(labels).tobytes()))
    side = max(labels.shape[1], labels.shape[2])
    side += -side % wide
    before = [(side - n) // 2 for n in labels.shape[1:]]
    pads = [(0, 0), *((b, side - n - b) for b, n in zip(before, labels.shape[1:], strict=True))]
    first += [before[1] * edge_mm, before[0] * edge_mm, 0.0]
    labels = np.pad(labels, pads)
    hu = _averaged(labels, edge_mm, first, (high, wide))
    hu += _unevenness(hu, rng)
    middle = first + edge_mm / 2 * np.array([1.0 - wide, 1.0 - wide, high - 1.0])
    origins = middle + np.outer(np.arange(len(hu)) * SLICE_MM, [0.0, 0.0, 1.0])
    return TissueHead(
        hu.astype(np.float32), np.array([-PIXEL_MM, 0.0, 0.0]), np.array([0.0, -PIXEL_MM, 0.0]), origins,
        np.full(len(hu), SLICE_MM), source={"kind": "anatomical model"}, brain=_brain(labels, (high, wide)),
    )  # fmt: skip


def _averaged(labels: np.ndarray, edge_mm: float, first: np.ndarray, blocks: tuple[int, int]) -> np.ndarray:
    """(K, J, I) mean HU of blocks of `blocks` = (planes, rows and columns) voxels."""
    values = np.array(list(CLASSES.values()), dtype=np.float32)
    high, wide = blocks
    count, side = len(labels) // high, labels.shape[1] // wide
    y = first[1] - edge_mm * np.arange(labels.shape[1])[:, None]
    midline = np.abs(first[0] - edge_mm * np.arange(labels.shape[2])[None, :]) <= _FALX_HALF_MM
    cells = _air_cells(labels, edge_mm, first[2])
    hu = np.empty((count, side, side), dtype=np.float32)
    for k in range(count):
        part = values[labels[k * high : (k + 1) * high]]
        z = first[2] + edge_mm * (k * high + np.arange(high))[:, None, None]
        free = ((y - _FALX_CENTER_MM[0]) / _FALX_FREE_MM[0]) ** 2 + ((z - _FALX_CENTER_MM[1]) / _FALX_FREE_MM[1]) ** 2
        falx = (labels[k * high : (k + 1) * high] == _CSF) & midline & (free > 1) & (z > -10)
        part[falx] = values[_DURA]
        part[cells[k * high : (k + 1) * high]] = _CELL_HU
        hu[k] = part.reshape(high, side, wide, side, wide).mean((0, 2, 4))
    return hu


def _brain(labels: np.ndarray, blocks: tuple[int, int]) -> np.ndarray:
    """bool (K, J, I): the largest part of what brain, its fluid and its vessels fill by half or more."""
    high, wide = blocks
    side = labels.shape[1] // wide
    inside = np.isin(labels, [_NAMES.index(name) for name in ("csf", "grey", "white", "vessels")])
    share = inside.reshape(-1, high, side, wide, side, wide).mean((1, 3, 5), dtype=np.float32)
    parts, count = ndimage.label(share >= 0.5)
    if count == 0:
        raise UsageError("The anatomical model holds no brain.")
    largest = parts == int(np.bincount(parts.ravel())[1:].argmax()) + 1
    return np.stack([ndimage.binary_fill_holes(plane) for plane in largest])


def _air_cells(labels: np.ndarray, edge_mm: float, bottom_mm: float) -> np.ndarray:
    """bool (Z, Y, X): the inside of the sinuses and mastoids, which the models call skull."""
    count = int(np.clip((_CELL_TOP_MM - bottom_mm) / edge_mm, 0, len(labels)))
    cells = np.zeros(labels.shape, dtype=bool)
    bone = labels[: count + round(_CELL_DEPTH_MM / edge_mm)] == _SKULL
    if count and bone.any():
        depth = ndimage.distance_transform_edt(bone[::2, ::2, ::2], sampling=2 * edge_mm)
        deep = (depth > _CELL_DEPTH_MM).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        cells[:count] = deep[:count, : labels.shape[1], : labels.shape[2]]
    return cells


def _unevenness(hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What makes tissue of one class uneven: little in the brain, more in the scalp, most in bone; and noise, which a
    real scan has of its own as well."""
    spacing = (SLICE_MM, PIXEL_MM, PIXEL_MM)
    fine, coarse = (smooth_noise(rng, hu.shape, spacing, mm) for mm in (3.0, 12.0))
    soft = np.interp(hu, (-60.0, 0.0, 12.0, 24.0, 27.0, 60.0, 120.0), (0.0, 30.0, 30.0, 8.0, 1.5, 1.5, 0.0))
    brain = np.interp(hu, (-20.0, 0.0, 70.0, 110.0), (0.0, 1.5, 1.5, 0.0))
    scalp = soft * np.interp(hu, (12.0, 14.0, 16.0, 22.0), (0.0, 1.0, 1.0, 0.0))
    bone = np.interp(hu, (150.0, 500.0), (0.0, 1.0)) * 0.12 * hu
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape), (0, 0.7, 0.7))
    noise *= 2.0 / noise.std()
    return brain * (0.6 * fine + 0.8 * coarse) + scalp * fine + bone * fine + np.where(hu > -900, noise, 0.5 * noise)
