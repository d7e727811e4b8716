"""Hemorrhage: where it starts, how it grows through tissue, how dense it is, edema and blood in the ventricles.

Recipe: seeds and volumes by location class, growth at tissue-dependent speed (fast marching), density 62 +- 6 HU.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.simulate.fields import smooth_noise
from ICHAnalysisLib.simulate.scene import (
    BARRIER,
    GREY,
    SUBTENTORIAL,
    VENTRICLE,
    WHITE,
    Grid,
    Paint,
    Scene,
    resample,
)

#: Seed sites in head coordinates (x is mirrored for the left side): name, weight, center mm, spread mm.
SITES: dict[str, tuple[tuple[str, float, tuple[float, float, float], float], ...]] = {
    "deep": (
        ("putamen", 0.6, (27.0, 3.0, 3.0), 4.0),
        ("thalamus", 0.3, (11.0, -14.0, 8.0), 3.0),
        ("caudate", 0.05, (13.0, 17.0, 9.0), 2.0),
        ("capsule", 0.05, (20.0, -4.0, 10.0), 3.0),
    ),
    "lobar": (
        ("frontal", 0.3, (30.0, 38.0, 28.0), 12.0),
        ("parietal", 0.3, (34.0, -42.0, 40.0), 12.0),
        ("temporal", 0.25, (48.0, -14.0, -14.0), 9.0),
        ("occipital", 0.15, (24.0, -70.0, 6.0), 8.0),
    ),
    "subtentorial": (
        ("cerebellum", 0.6, (20.0, -52.0, -38.0), 6.0),
        ("pons", 0.4, (1.0, -14.0, -33.0), 2.5),
    ),
}
#: Least mean HU of the darker of two zones: it is blood and denser than the brain, if hardly.
DARKER_ZONE_HU = 42.0
FEATURES = ("plain", "swirl", "black_hole", "blend", "fluid_level", "low_density", "two_densities")


def grow(
    scene: Scene, seed: np.ndarray, volume_ml: float, rng: np.random.Generator, irregularity: float = 0.5
) -> tuple[tuple[slice, slice, slice], np.ndarray] | None:
    """A clot of `volume_ml` grown from scene point `seed` (x, y, z): its box and its alpha (0..1).

    None where the tissue around the seed is too small for it. Bone, CSF, falx and tentorium stop the growth.
    """
    radius = (volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    box, grid = scene.box(seed, 2.0 * radius + 8.0)
    arrival = _arrival_times(scene, box, grid, seed, radius, irregularity, rng)
    if arrival is None:
        return None
    arrival *= 1 + 0.07 * irregularity * smooth_noise(rng, grid.shape, grid.step_mm, 3.0)
    below = scene.region_at(seed) == SUBTENTORIAL
    allowed = np.isin(scene.tissue[box], (GREY, WHITE)) & np.isfinite(arrival)
    allowed &= (scene.region[box] == SUBTENTORIAL) == below
    count = round(volume_ml / grid.voxel_ml)
    times = arrival[allowed]
    if count < 1 or len(times) < count * 1.5:
        return None
    mask = allowed & (arrival <= np.partition(times, count - 1)[count - 1])
    mask = ndimage.binary_fill_holes(mask)
    alpha = ndimage.gaussian_filter(mask.astype(np.float32), [0.45 / d for d in grid.step_mm])
    alpha[(scene.tissue[box] == BARRIER) & ~mask] = 0.0
    alpha *= np.float32(volume_ml / (float(alpha.sum()) * grid.voxel_ml))
    return box, np.clip(alpha, 0, 1)


def _arrival_times(
    scene: Scene, box: tuple[slice, slice, slice], grid: Grid, seed: np.ndarray, radius: float, irregularity: float,
    rng: np.random.Generator,
) -> np.ndarray | None:  # fmt: skip
    """When growth from `seed` reaches each voxel of the box (infinite: never); None where it cannot even start.

    Fast marching on a grid as coarse as the clot allows, at speed 1 in white and 0.6 in grey matter times exp(noise).
    """
    import SimpleITK

    step = float(np.clip(radius / 8, 0.7, 2.0))
    counts = [int(np.ceil((n - 1) * d / step)) + 1 for n, d in zip(grid.shape, grid.step_mm, strict=True)]
    coarse = Grid(grid.start_mm, (step, step, step), (counts[0], counts[1], counts[2]))
    nearest = np.ix_(*grid.nearest_to(coarse))
    tissue, below = scene.tissue[box][nearest], scene.region[box][nearest] == SUBTENTORIAL
    start = tuple(
        int(np.clip(round((seed[2 - a] - coarse.start_mm[a]) / step), 0, coarse.shape[a] - 1)) for a in range(3)
    )
    speed = np.where(tissue == WHITE, 1.0, np.where(tissue == GREY, 0.6, 0.0)).astype(np.float32)
    speed[below != below[start]] = 0.0
    speed *= np.exp(irregularity * smooth_noise(rng, coarse.shape, coarse.step_mm, max(0.7 * radius, 3.0)))
    if speed[start] <= 0:
        return None
    late = 8.0 * max(coarse.shape)
    march = SimpleITK.FastMarchingImageFilter()
    march.SetTrialPoints([tuple(int(v) for v in start[::-1])])
    march.SetStoppingValue(0.75 * late)
    times = SimpleITK.GetArrayFromImage(march.Execute(SimpleITK.GetImageFromArray(speed)))
    times = np.where(speed > 0, np.minimum(times, late), late).astype(np.float32)
    # Where growth is stopped the time is that of the neighbors, so the fine tissue alone draws the wall.
    times = resample(np.minimum(times, ndimage.grey_erosion(times, size=3) + 1.5), coarse, grid)
    return np.where(times < 0.7 * late, times, np.inf).astype(np.float32)


def density(
    alpha: np.ndarray, grid: Grid, rng: np.random.Generator, mean_hu: float, feature: str, gravity: tuple[float, float]
) -> np.ndarray:
    """HU of the clot on its box: texture, a slightly brighter core, and the drawn feature."""
    hu = mean_hu + 3.5 * smooth_noise(rng, alpha.shape, grid.step_mm, 3.0)
    inside = alpha > 0.5
    if not inside.any():
        return hu
    depth = ndimage.distance_transform_edt(inside, sampling=grid.step_mm).astype(np.float32)
    reach = float(depth.max())
    hu += 3.0 * (depth / max(reach, 1.0) - 0.4)
    z, y, x = np.meshgrid(
        *[np.arange(n) * d for n, d in zip(alpha.shape, grid.step_mm, strict=True)], indexing="ij", sparse=True
    )
    chosen = np.argwhere(depth >= 0.5 * reach)
    spot = chosen[rng.integers(len(chosen))] * np.asarray(grid.step_mm)
    distance = np.sqrt((z - spot[0]) ** 2 + (y - spot[1]) ** 2 + (x - spot[2]) ** 2)
    wobble = smooth_noise(rng, alpha.shape, grid.step_mm, max(0.6 * reach, 2.0))
    if feature == "swirl":
        zone = np.abs(distance - 0.5 * reach + 0.25 * reach * wobble) < 0.18 * reach + 0.8
        hu = np.where(zone, hu - rng.uniform(14, 25), hu)
    elif feature == "black_hole":
        pocket = np.clip(0.5 - (distance - rng.uniform(0.3, 0.5) * reach - 1.0 + 0.1 * reach * wobble) / 1.2, 0, 1)
        hu = hu - pocket * rng.uniform(28, 34)
    elif feature in ("blend", "two_densities"):
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        plane = (z - spot[0]) * direction[0] + (y - spot[1]) * direction[1] + (x - spot[2]) * direction[2]
        share = np.clip(0.5 + (plane + 0.4 * reach * wobble) / 2.0, 0, 1)
        drop = rng.uniform(18, 24) if feature == "blend" else rng.uniform(8, 18)
        hu = hu + max(0.0, DARKER_ZONE_HU - (mean_hu - drop)) - share * drop
    elif feature == "fluid_level":
        height = y * gravity[0] + z * gravity[1]
        level = float(np.median(np.broadcast_to(height, alpha.shape)[inside]))
        share = np.clip(0.5 + (height - level) / 1.5, 0, 1)
        hu = hu - mean_hu + 41 + share * 32
    return hu.astype(np.float32)


def edema_rim(
    scene: Scene,
    box: tuple[slice, slice, slice],
    alpha: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
    width_mm: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(delta HU, fraction) of perihematomal edema: white matter within `width_mm`, tapering outward."""
    distance = ndimage.distance_transform_edt(alpha < 0.5, sampling=grid.step_mm).astype(np.float32)
    distance += 0.35 * width_mm * smooth_noise(rng, alpha.shape, grid.step_mm, max(2.0 * width_mm, 5.0))
    wet = np.where(scene.tissue[box] == WHITE, 1.0, np.where(scene.tissue[box] == GREY, 0.35, 0.0)).astype(np.float32)
    share = np.clip((width_mm - distance) / 2.0, 0, 1) * wet
    taper = np.clip(1.2 - distance / max(width_mm, 1.0), 0.35, 1)
    delta = -rng.uniform(8, 15) * share * taper
    return ndimage.gaussian_filter(delta, 0.7), share * (alpha < 0.5)


def flood_ventricles(
    scene: Scene, paint: Paint, contact: np.ndarray, rng: np.random.Generator, fraction: float, cast: bool
) -> float:
    """Blood in the ventricles from scene point `contact`: near it and, by gravity, in the dependent horns. Volume mL.

    cast: the nearby ventricle is filled wholly (fourth ventricle in pontine and cerebellar bleeds).
    """
    room = scene.tissue == VENTRICLE
    if room.sum() * scene.grid.voxel_ml < 0.3:
        return 0.0
    bounds = ndimage.find_objects(room.astype(np.uint8))[0]
    box = (bounds[0], bounds[1], bounds[2])
    z, y, x = (axis[part] for axis, part in zip(scene.grid.axes(), box, strict=True))
    inside = room[box]
    gap = np.sqrt(
        (z[:, None, None] - contact[2]) ** 2
        + (y[None, :, None] - contact[1]) ** 2
        + (x[None, None, :] - contact[0]) ** 2
    )
    gravity = y[None, :, None] * scene.gravity_yz[0] + z[:, None, None] * scene.gravity_yz[1]
    score = -gap / (18.0 if cast else 28.0) + 0.045 * (gravity - contact[1])
    score = score + 0.35 * smooth_noise(rng, inside.shape, scene.grid.step_mm, 7.0)
    score += np.where(np.abs(x[None, None, :] - contact[0]) > 14, -0.4, 0.0)
    values = score[inside]
    mask = inside & (score >= np.quantile(values, 1 - np.clip(fraction, 0.02, 0.98)))
    alpha = ndimage.gaussian_filter(mask.astype(np.float32), 0.4) * ndimage.binary_dilation(inside)
    hu = rng.uniform(50, 66) + 4 * smooth_noise(rng, inside.shape, scene.grid.step_mm, 4.0)
    alpha *= 1 - paint.blood[box]
    paint.cover(box, alpha, hu)
    paint.ivh[box] += alpha
    return float(alpha.sum() * scene.grid.voxel_ml)


def draw_seed(
    scene: Scene, location: str, site: str, side: str, rng: np.random.Generator, volume_ml: float
) -> np.ndarray | None:
    """A scene point (x, y, z) in tissue of the right region, near the site's center; None where there is none."""
    entry = next(item for item in SITES[location] if item[0] == site)
    sign = 1.0 if side == "right" else -1.0
    code = ("deep", "lobar", "subtentorial").index(location) + 1
    for spread in (1.0, 1.0, 1.5, 1.5, 2.0, 2.5):
        target = np.array(entry[2]) + rng.standard_normal(3) * entry[3] * spread
        target[0] *= sign
        center = scene.from_head(target)[0]
        box, grid = scene.box(center, 14.0)
        good = np.isin(scene.tissue[box], (WHITE, GREY)) & (scene.region[box] == code)
        if good.sum() * grid.voxel_ml < 0.2:
            continue
        # Away from the walls: the larger clots start deeper in the tissue.
        depth = ndimage.distance_transform_edt(good, sampling=grid.step_mm)
        z, y, x = grid.axes()
        gap = np.sqrt(
            (z[:, None, None] - center[2]) ** 2
            + (y[None, :, None] - center[1]) ** 2
            + (x[None, None, :] - center[0]) ** 2
        )
        wanted = min(0.5 * (volume_ml * 239) ** (1 / 3), 4.0)
        cost = gap + 3.0 * np.clip(wanted - depth, 0, None) + np.where(good, 0, 1e3)
        k, j, i = np.unravel_index(int(np.argmin(cost)), cost.shape)
        if good[k, j, i]:
            return np.array([x[i], y[j], z[k]])
    return None


def center_of(alpha: np.ndarray, grid: Grid) -> np.ndarray:
    """(3,) scene x, y, z of the center of mass of `alpha` on `grid`."""
    total = float(alpha.sum())
    z, y, x = grid.axes()
    return np.array(
        [
            float(alpha.sum((0, 1)) @ x) / total,
            float(alpha.sum((0, 2)) @ y) / total,
            float(alpha.sum((1, 2)) @ z) / total,
        ]
    )
