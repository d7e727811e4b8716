"""A real bleed-free head CT as a background: its tissue, its head coordinates, and strong variations of it.

The scan comes at run time as a CTVolume; nothing of it is stored here.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate.acquisition import AcquisitionSpec
from ICHAnalysisLib.simulate.fields import linear_weights, rotation_matrix, smooth_noise
from ICHAnalysisLib.simulate.regions import region_of
from ICHAnalysisLib.simulate.scene import CSF, GREY, OUTSIDE, VENTRICLE, WHITE, Grid, Scene, StackPlan
from ICHAnalysisLib.simulate.tissue_head import TissueHead, is_tissue_model, read_tissue_head

#: Beyond its ends the scan goes on with its end slices for so many mm, so that turned stacks have no cut corners.
END_MM = 9.0
#: No blood is as dense: between its slices the scan shows bone.
BONE_HU = 120.0
#: Less than this of a slice is no brain.
_LEAST_BRAIN_MM2 = 400.0
#: Widest gap of the skull that is closed, tried in turn.
SKULL_GAPS_MM = (10.0, 20.0, 30.0)
_prepared: weakref.WeakKeyDictionary[CTVolume, Background] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Background:
    """A prepared scan. tissue, region: uint8 (K, J, I). head: (3, 4) affine from scene mm to head coordinates.

    plan describes the scan's own slices in scene coordinates (x left, y back, z up the normal; mm).
    """

    volume: CTVolume
    hu: np.ndarray
    tissue: np.ndarray
    region: np.ndarray
    plan: StackPlan
    head: np.ndarray


def read_background(path: Path) -> CTVolume:
    """A bleed-free head CT, or one made from an anatomical model (`simulate.tissue_head`)."""
    from ICHAnalysisLib.ct.readers import read_scan

    return read_tissue_head(path) if is_tissue_model(path) else read_scan(path, accept=True)


def prepare(volume: CTVolume) -> Background:
    """Brain, ventricles and head coordinates of a bleed-free head. Raises UsageError where no brain is found."""
    known = _prepared.get(volume)
    if known is None:
        known = _prepare(volume if isinstance(volume, TissueHead) else _upright(volume))
        _prepared[volume] = known
    return known


def _upright(volume: CTVolume) -> CTVolume:
    """The same scan with columns to the patient's left, rows to the back and slices upward (flips alone)."""
    hu, origins = volume.hu, volume.slice_origins_ras
    column, row, thickness = volume.column_step_ras, volume.row_step_ras, volume.slice_thickness_mm
    if abs(column[0]) < 0.7 * np.linalg.norm(column) or abs(row[1]) < 0.7 * np.linalg.norm(row):
        raise UsageError(
            "A background scan must be an axial head CT; this one has rows or columns along other directions."
        )
    if column[0] > 0:
        origins = origins + column * (hu.shape[2] - 1)
        hu, column = hu[:, :, ::-1], -column
    if row[1] > 0:
        origins = origins + row * (hu.shape[1] - 1)
        hu, row = hu[:, ::-1], -row
    if origins[-1, 2] < origins[0, 2]:
        hu, origins, thickness = hu[::-1], origins[::-1], thickness[::-1]
    return CTVolume(np.ascontiguousarray(hu), column, row, origins, thickness)


def _prepare(volume: CTVolume) -> Background:
    pixel = volume.spacing_mm[0]
    if abs(volume.spacing_mm[1] / pixel - 1) > 0.02 or volume.shape[1] != volume.shape[2]:
        raise UsageError(
            f"A background scan needs square images and pixels; got {volume.shape[1:]} at {volume.spacing_mm[:2]} mm."
        )
    hu = np.clip(volume.hu, -1024, 3071)
    brain = volume.brain if isinstance(volume, TissueHead) else _brain_of(hu, pixel, volume.positions_mm)
    tissue = _tissue(hu, brain, pixel)
    plan = _plan_of(volume)
    head = _head_affine(brain, plan)
    grid_y, grid_x = np.meshgrid(plan.pixel_axis(), plan.pixel_axis(), indexing="ij")
    region = np.zeros(brain.shape, dtype=np.uint8)
    for k, (center, z) in enumerate(zip(plan.centers_mm, plan.positions_mm, strict=True)):
        points = [grid_x + center[1], grid_y + center[0], z]
        xyz = [head[a, 0] * points[0] + head[a, 1] * points[1] + head[a, 2] * points[2] + head[a, 3] for a in range(3)]
        region[k] = np.where(brain[k], region_of(*xyz), 0)
    tissue = _split_ventricles(tissue, hu, plan, head, model=isinstance(volume, TissueHead))
    return Background(volume, hu, tissue, region, plan, head)


def _brain_of(hu: np.ndarray, pixel: float, positions_mm: np.ndarray) -> np.ndarray:
    """The brain of a scan, by morphology on half the rows and columns of a fine matrix."""
    every = 2 if pixel < 0.7 else 1
    smooth = ndimage.gaussian_filter(hu, (0, 0.4 / pixel, 0.4 / pixel))[:, ::every, ::every]
    coarse = _brain_mask(smooth, pixel * every, np.abs(np.gradient(positions_mm)))
    return coarse.repeat(every, axis=1).repeat(every, axis=2)[:, : hu.shape[1], : hu.shape[2]]


def _brain_mask(hu: np.ndarray, pixel: float, steps_mm: np.ndarray) -> np.ndarray:
    """Brain and its CSF: soft matter enclosed by skull, connected to the largest such part after an opening."""
    smooth = ndimage.gaussian_filter(hu, (0, 0.8 / pixel, 0.8 / pixel))
    bone = smooth > 180
    soft = (smooth > -8) & (smooth < 95)
    disk = _disk(3.0 / pixel)
    core = np.zeros_like(soft)
    for k in range(len(hu)):
        core[k] = ndimage.binary_erosion(soft[k] & _inside_skull(bone[k], soft[k], pixel), disk)
    labels, count = ndimage.label(core)
    if count == 0:
        raise UsageError("The background scan shows no brain inside a skull.")
    sizes = np.bincount(labels.ravel(), weights=np.broadcast_to(steps_mm[:, None, None], labels.shape).ravel())
    sizes[0] = 0
    if sizes.max() * pixel**2 / 1000 < 300:
        raise UsageError("The background scan shows no whole brain inside a skull.")
    main = labels == int(sizes.argmax())
    area = main.sum((1, 2)) * pixel**2
    brain = np.zeros_like(main)
    for k in range(len(hu)):
        if area[k] > _LEAST_BRAIN_MM2:
            grown = ndimage.binary_dilation(main[k], _disk(4.0 / pixel)) & soft[k]
            brain[k] = ndimage.binary_fill_holes(grown)
    return brain


def _inside_skull(bone: np.ndarray, soft: np.ndarray, pixel: float) -> np.ndarray:
    """What the bone of one slice encloses; gaps of a craniotomy or the orbits are closed where it encloses nothing."""
    for gap_mm in SKULL_GAPS_MM:
        closed = ndimage.binary_dilation(bone, _disk(gap_mm / 2 / pixel))
        filled = ndimage.binary_fill_holes(closed)
        inner = ndimage.binary_erosion(filled, _disk((gap_mm / 2 + 1.0) / pixel))
        if (inner & soft).sum() * pixel**2 > _LEAST_BRAIN_MM2:
            break
    return inner


def _disk(radius: float) -> np.ndarray:
    """A flat disk structuring element of `radius` pixels."""
    r = max(int(np.ceil(radius)), 1)
    y, x = np.mgrid[-r : r + 1, -r : r + 1]
    return x * x + y * y <= radius * radius + 0.5


def _tissue(hu: np.ndarray, brain: np.ndarray, pixel: float) -> np.ndarray:
    """Tissue codes from a denoised copy: CSF below 17 HU, white below 31.5, grey above; calcium is left out."""
    smooth = ndimage.gaussian_filter(hu, (0, 1.2 / pixel, 1.2 / pixel))
    code = np.where(smooth < 17, CSF, np.where(smooth < 31.5, WHITE, GREY))
    code = np.where((smooth > 60) | (smooth < -8), OUTSIDE, code)
    return np.where(brain, code, OUTSIDE).astype(np.uint8)


def _split_ventricles(
    tissue: np.ndarray, hu: np.ndarray, plan: StackPlan, head: np.ndarray, model: bool = False
) -> np.ndarray:
    """CSF deep inside the brain is ventricle, if as dark as CSF (an old infarct is brighter).

    In an anatomical model the trigones are too, and the quadrigeminal and Galenic cisterns are not; scans keep the
    codes by which their cohorts were measured.
    """
    result = tissue.copy()
    axis = plan.pixel_axis()
    sigma = 1.5 / plan.spacing_mm
    dark = ndimage.gaussian_filter(hu, (0, sigma, sigma)) < 13.0
    for k, (center, z) in enumerate(zip(plan.centers_mm, plan.positions_mm, strict=True)):
        x, y = axis[None, :] + center[1], axis[:, None] + center[0]
        hx, hy, hz = (head[a, 0] * x + head[a, 1] * y + head[a, 2] * z + head[a, 3] for a in range(3))
        upper = ((hx / 34) ** 2 + ((hy + 2) / 60) ** 2 + ((hz - 14) / 30) ** 2) < 1
        fissure = (np.abs(hx) < 4) & ((hy > 32) | (hy < -45) | (hz > 28))
        lower = ((hx / 9) ** 2 + ((hy + 36) / 12) ** 2 + ((hz + 30) / 15) ** 2) < 1
        deep = (upper & ~fissure) | lower
        if model:
            trigones = (((np.abs(hx) - 26) / 11) ** 2 + ((hy + 42) / 18) ** 2 + ((hz - 4) / 16) ** 2) < 1
            cistern = (hy < -24) & (hz > -16) & (hz < 13) & (np.abs(hx) < 17)
            vein = (hy < -30) & (hz >= 13) & (hz < 24) & (np.abs(hx) < 7)
            deep = (deep | trigones) & ~cistern & ~vein
        result[k][(tissue[k] == CSF) & dark[k] & deep] = VENTRICLE
    return result


def _plan_of(volume: CTVolume) -> StackPlan:
    """The scan's slices as a StackPlan; the isocenter is the middle of the stack."""
    normal = volume.normal_ras
    tilt = float(np.degrees(np.arctan2(-normal[1], normal[2])))
    pixel = volume.spacing_mm[0]
    half = (volume.shape[2] - 1) / 2
    middles = volume.slice_origins_ras + half * (volume.column_step_ras + volume.row_step_ras)
    row = volume.row_step_ras / np.linalg.norm(volume.row_step_ras)
    column = volume.column_step_ras / np.linalg.norm(volume.column_step_ras)
    centers = np.stack([middles @ row, middles @ column], axis=1)
    return StackPlan(volume.shape[1], pixel, volume.positions_mm, volume.slice_thickness_mm, centers, tilt)


def _head_affine(brain: np.ndarray, plan: StackPlan) -> np.ndarray:
    """(3, 4) affine from scene mm to head mm: centered, scaled and turned by the brain's own extent and axis."""
    pixel = plan.spacing_mm
    area = brain.sum((1, 2)) * pixel**2
    widest = int(area.argmax())
    axis = plan.pixel_axis()
    j, i = np.nonzero(brain[widest])
    points = np.stack([axis[i] + plan.centers_mm[widest, 1], axis[j] + plan.centers_mm[widest, 0]], axis=1)
    middle = points.mean(0)
    values, vectors = np.linalg.eigh(np.cov((points - middle).T))
    long_axis = vectors[:, values.argmax()]
    long_axis *= np.sign(long_axis[1])
    yaw = float(np.arctan2(long_axis[0], long_axis[1]))
    cos, sin = np.cos(yaw), np.sin(yaw)
    side = (points - middle) @ np.array([cos, -sin])
    back = (points - middle) @ np.array([sin, cos])
    scale_x = 134.0 / np.ptp(side)
    scale_y = 168.0 / np.ptp(back)
    top = float(plan.positions_mm[area > 150.0].max()) + 2.0
    scale_z = (scale_x + scale_y) / 2
    mid_y = (back.max() + back.min()) / 2
    mid_x = (side.max() + side.min()) / 2
    # Head x is to the right and y to the front, scene x to the left and y to the back.
    rows = np.array(
        [
            [-scale_x * cos, scale_x * sin, 0.0, 0.0],
            [-scale_y * sin, -scale_y * cos, 0.0, 0.0],
            [0.0, 0.0, scale_z, 75.0 - scale_z * top],
        ]
    )
    rows[0, 3] = -(rows[0, :2] @ middle) + scale_x * mid_x
    rows[1, 3] = -(rows[1, :2] @ middle) + scale_y * mid_y
    return rows


@dataclass(frozen=True, eq=False)
class Variation:
    """How a background is turned, scaled and warped: scene point -> background scene point."""

    matrix: np.ndarray  # (3, 3)
    pivot: np.ndarray  # (3,) background scene point that the scene's origin maps to
    warp: np.ndarray  # (3, Z, Y, X) displacement, mm
    warp_grid: Grid
    parameters: dict[str, Any]


def draw_variation(background: Background, rng: np.random.Generator, strength: float = 1.0) -> Variation:
    """A strong 3-D variation; `strength` 0 leaves the scan as it is."""
    s = strength
    angles = np.array([rng.uniform(-9, 9), rng.uniform(-7, 7), rng.uniform(-30, 30)]) * s
    scale = np.exp(rng.normal(0, [0.05, 0.05, 0.04]) * s)
    shear = rng.normal(0, 0.03) * s
    flip = bool(rng.random() < 0.5 * min(s, 1.0))
    matrix = rotation_matrix(angles.tolist()) @ np.diag(1 / scale) @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1.0]])
    if flip:
        matrix = np.diag([-1.0, 1, 1]) @ matrix
    center_head = np.linalg.inv(background.head[:, :3]) @ (-background.head[:, 3])
    grid = Grid((-140.0, -140.0, -140.0), (10.0, 10.0, 10.0), (29, 29, 29))
    warp = np.stack([smooth_noise(rng, grid.shape, grid.step_mm, 40.0) * a for a in (3.5 * s, 3.5 * s, 2.0 * s)])
    warp += np.stack([smooth_noise(rng, grid.shape, grid.step_mm, 20.0) * a for a in (1.0 * s, 1.0 * s, 0.5 * s)])
    parameters = {
        "strength": s,
        "angles_deg": [float(v) for v in angles],
        "scale": [float(v) for v in scale],
        "shear": float(shear),
        "flip": flip,
    }
    return Variation(matrix, center_head, warp, grid, parameters)


def extent(background: Background, variation: Variation) -> tuple[float, float]:
    """Lowest and highest scene z (mm) along the middle of the varied scan."""
    ends = background.plan.positions_mm[[0, -1]] - variation.pivot[2]
    return float(ends[0] / variation.matrix[2, 2]), float(ends[1] / variation.matrix[2, 2])


def within(spec: AcquisitionSpec, bottom: float, top: float, rng: np.random.Generator) -> AcquisitionSpec:
    """`spec` with the stack's ends inside the scan where they are left open."""
    low = bottom + rng.uniform(0, 35) if spec.bottom_mm is None else spec.bottom_mm
    high = top + rng.uniform(-4, 4) if spec.top_mm is None else spec.top_mm
    return replace(spec, bottom_mm=max(low, bottom), top_mm=min(high, top + 5))


def vary_density(slices: np.ndarray, spacing_mm: float, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Slices whose soft tissue has another level, contrast and shading, and that are blurred or sharpened a little."""
    sigma = 1.3 / spacing_mm
    smooth = ndimage.gaussian_filter(slices, (0, sigma, sigma))
    soft = np.clip((slices + 30) / 30, 0, 1) * np.clip((130 - slices) / 40, 0, 1)
    gain, grain = np.exp(strength * rng.normal(0, 0.18)), np.exp(strength * rng.normal(-0.1, 0.3))
    shade = smooth_noise(rng, slices.shape, (6.0, spacing_mm, spacing_mm), 60.0) * 1.5 * strength
    level = 30 + gain * (smooth - 30) + strength * rng.normal(0, 3.0) + shade
    changed = level + grain * (slices - smooth)
    result = slices + soft * (changed - slices)
    if rng.random() < 0.3 * strength:
        blur = rng.uniform(0.3, 0.8) / spacing_mm
        result = ndimage.gaussian_filter(result, (0, blur, blur))
    return result.astype(np.float32)


def identity_variation() -> Variation:
    """The scan as it is."""
    grid = Grid((-140.0, -140.0, -140.0), (140.0, 140.0, 140.0), (3, 3, 3))
    return Variation(np.eye(3), np.zeros(3), np.zeros((3, 3, 3, 3), dtype=np.float32), grid, {"strength": 0.0})


def _source_index(
    background: Background, variation: Variation, z: float, y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fractional k, j, i (Y, X) in the background of the plane at scene height z, and where it lies beyond the scan."""
    disp = [_plane_of(variation.warp[a], variation.warp_grid, z, y, x) for a in range(3)]
    sx, sy = np.meshgrid(x, y)
    m, p = variation.matrix, variation.pivot
    source = [m[a, 0] * sx + m[a, 1] * sy + (m[a, 2] * z + p[a]) + disp[a] for a in range(3)]
    plan = background.plan
    numbers = np.arange(len(plan.positions_mm))
    k = np.interp(source[2], plan.positions_mm, numbers)
    half = (plan.matrix - 1) / 2
    j = (source[1] - np.interp(k, numbers, plan.centers_mm[:, 0])) / plan.spacing_mm + half
    i = (source[0] - np.interp(k, numbers, plan.centers_mm[:, 1])) / plan.spacing_mm + half
    beyond = (source[2] < plan.positions_mm[0] - END_MM) | (source[2] > plan.positions_mm[-1] + END_MM)
    return k, j, i, beyond


def sample_hu(background: Background, variation: Variation, z: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """HU (Y, X) of the varied background on the plane at scene height z and coordinates y, x."""
    k, j, i, beyond = _source_index(background, variation, z, y, x)
    hu = ndimage.map_coordinates(background.hu, [k, j, i], order=1, mode="constant", cval=-1000.0)
    return np.where(beyond, -1000.0, hu).astype(np.float32)


def sample_codes(
    background: Background, variation: Variation, z: float, y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tissue and region (Y, X) of the nearest voxels of the varied background."""
    k, j, i, beyond = _source_index(background, variation, z, y, x)
    last = background.plan.matrix - 1
    beyond = beyond | (j < 0) | (j > last) | (i < 0) | (i > last)
    index = tuple(np.rint(np.clip(v, 0, top)).astype(int) for v, top in ((k, k.max()), (j, last), (i, last)))
    tissue = np.where(beyond, OUTSIDE, background.tissue[index]).astype(np.uint8)
    region = np.where(beyond, 0, background.region[index]).astype(np.uint8)
    return tissue, region


def _plane_of(field: np.ndarray, grid: Grid, z: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(Y, X) linear interpolation of a coarse field on one plane."""
    wz = linear_weights(np.array([z]), grid.start_mm[0], grid.step_mm[0], grid.shape[0])[0]
    wy = linear_weights(y, grid.start_mm[1], grid.step_mm[1], grid.shape[1])
    wx = linear_weights(x, grid.start_mm[2], grid.step_mm[2], grid.shape[2])
    return wy @ np.tensordot(wz, field, axes=1).astype(np.float32) @ wx.T


def background_scene(background: Background, variation: Variation, grid: Grid) -> Scene:
    """Tissue and regions of the varied background on a fine grid; HU stays with the slices."""
    z, y, x = grid.axes()
    tissue = np.empty(grid.shape, dtype=np.uint8)
    region = np.empty(grid.shape, dtype=np.uint8)
    for n, height in enumerate(z):
        tissue[n], region[n] = sample_codes(background, variation, float(height), y, x)
    head = np.empty((3, 4))
    head[:, :3] = background.head[:, :3] @ variation.matrix
    head[:, 3] = background.head[:, :3] @ variation.pivot + background.head[:, 3]

    def bone(box: tuple[slice, slice, slice]) -> np.ndarray:
        heights, rows, columns = (axis[part] for axis, part in zip((z, y, x), box, strict=True))
        return np.stack([sample_hu(background, variation, float(h), rows, columns) > BONE_HU for h in heights])

    return Scene(grid, tissue, region, head, bone=bone)


def background_slices(background: Background, variation: Variation, plan: StackPlan, samples: int = 1) -> np.ndarray:
    """(K, M, M) HU of the varied background on the slices of `plan`, averaging `samples` planes over each thickness."""
    pixels = plan.pixel_axis()
    slices = np.empty((len(plan.positions_mm), plan.matrix, plan.matrix), dtype=np.float32)
    for k, (z, center) in enumerate(zip(plan.positions_mm, plan.centers_mm, strict=True)):
        offsets = ((np.arange(samples) + 0.5) / samples - 0.5) * plan.thickness_mm[k]
        y, x = pixels + center[0], pixels + center[1]
        planes = [sample_hu(background, variation, float(z + offset), y, x) for offset in offsets]
        slices[k] = np.mean(planes, axis=0)
    return slices
