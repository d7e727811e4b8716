"""Blood into a scene: the wanted clot with its satellites, edema and ventricular blood, laid over the tissue."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.config.preprocess import LOCATIONS
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate.hemorrhage import (
    SITES,
    center_of,
    density,
    draw_seed,
    edema_rim,
    flood_ventricles,
    grow,
)
from ICHAnalysisLib.simulate.scene import VENTRICLE, Paint, Scene

#: Of a clot at most this share may lie in what is bone between the slices of a real scan.
MOST_BONE = 0.2
#: Farther from a ventricle than this a clot does not break into it, mm.
IVH_REACH_MM = 15.0


@dataclass(frozen=True)
class Blood:
    """A drawn hemorrhage. Volumes mL, widths mm, densities HU.

    mass_effect: share of the volume that pushes tissue aside. exact: volume and IVH were asked for, so never changed.
    """

    present: bool
    location: str
    side: str
    volume_ml: float
    mean_hu: float
    feature: str
    ivh: bool
    edema_mm: float
    irregularity: float
    satellites: int
    mass_effect: float
    exact: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def insert_blood(
    scene: Scene, paint: Paint, wanted: Blood, start: Start | None, rng: np.random.Generator
) -> dict[str, Any]:
    """Lay the hemorrhage over the scene; the truth: fine volumes (mL), location, side, epicenter, lesions."""
    if start is None:
        return {
            "has_ich": False, "volume_ml": 0.0, "ivh_ml": 0.0, "location": None, "side": None, "site": None,
            "epicenter_scene_mm": None, "lesions": [],
        }  # fmt: skip
    box, alpha, site = _main_clot(scene, wanted, start, rng)
    grid = scene.box_grid(box)
    hu = density(alpha, grid, rng, wanted.mean_hu, wanted.feature, scene.gravity_yz)
    if wanted.edema_mm > 0.5:
        delta, share = edema_rim(scene, box, alpha, grid, rng, wanted.edema_mm)
        paint.shift(box, delta)
        paint.edema[box] = np.maximum(paint.edema[box], share)
    paint.cover(box, alpha, hu)
    paint.blood[box] += alpha
    center = center_of(alpha, grid)
    ivh_ml = _ventricular(scene, paint, wanted, box, alpha, center, site, rng)
    _satellites(scene, paint, wanted, center, rng)
    volume = float(paint.blood.sum() * scene.grid.voxel_ml)
    head_x = float(scene.to_head(center)[0, 0])
    side = "midline" if site == "pons" and abs(head_x) < 4 else "right" if head_x > 0 else "left"
    lesions = [
        {
            "location": wanted.location, "site": site, "side": side, "volume_ml": float(alpha.sum() * grid.voxel_ml),
            "epicenter_scene_mm": center, "mean_hu": wanted.mean_hu, "feature": wanted.feature,
        }
    ]  # fmt: skip
    return {
        "has_ich": True, "volume_ml": volume, "ivh_ml": ivh_ml, "location": wanted.location, "side": side, "site": site,
        "epicenter_scene_mm": center, "lesions": lesions,
    }  # fmt: skip


@dataclass(frozen=True)
class Start:
    """Where a clot begins: the named site and the scene point (x, y, z)."""

    site: str
    point: np.ndarray


def choose_start(scene: Scene, wanted: Blood, rng: np.random.Generator) -> Start:
    """A starting point in tissue of the wanted location. Raises UsageError where the head shows none."""
    names = [item[0] for item in SITES[wanted.location]]
    shares = np.array([item[1] for item in SITES[wanted.location]])
    for _ in range(12):
        site = str(rng.choice(names, p=shares / shares.sum()))
        point = draw_seed(scene, wanted.location, site, wanted.side, rng, wanted.volume_ml)
        if point is not None:
            return Start(site, point)
    raise UsageError(f"No {wanted.location} tissue lies within these slices of this head.")


def _main_clot(
    scene: Scene, wanted: Blood, start: Start, rng: np.random.Generator
) -> tuple[tuple[slice, slice, slice], np.ndarray, str]:
    """Box, alpha and site of the main clot: other starts, then (if allowed) smaller volumes, before it gives up.

    A clot whose center leaves the wanted location, or that reaches into bone, is grown again elsewhere.
    """
    volume = wanted.volume_ml
    code = LOCATIONS.index(wanted.location) + 1
    for attempt in range(10):
        grown = grow(scene, start.point, volume, rng, wanted.irregularity)
        if grown is not None:
            box, alpha = grown
            placed = scene.region_at(center_of(alpha, scene.box_grid(box))) in (0, code)
            if placed and scene.bone_share(box, alpha) <= MOST_BONE:
                return box, alpha, start.site
        elif attempt >= 2 and not wanted.exact:
            volume *= 0.75
        start = choose_start(scene, wanted, rng)
    raise UsageError(f"No {wanted.location} clot of {wanted.volume_ml:.1f} mL fits into this head.")


def _ventricular(
    scene: Scene, paint: Paint, wanted: Blood, box: Any, alpha: np.ndarray, center: np.ndarray, site: str,
    rng: np.random.Generator,
) -> float:  # fmt: skip
    """Flood the ventricles where wanted, from the ventricle wall nearest to the clot."""
    if not wanted.ivh:
        return 0.0
    where = np.argwhere(scene.tissue == VENTRICLE)
    if len(where) == 0:
        return 0.0
    points = where[:, ::-1] * np.array(scene.grid.step_mm[::-1]) + np.array(scene.grid.start_mm[::-1])
    gaps = ((points - center) ** 2).sum(1)
    contact = points[int(gaps.argmin())]
    radius = (wanted.volume_ml * 239) ** (1 / 3)
    if np.sqrt(gaps.min()) > radius + IVH_REACH_MM and not wanted.exact:
        return 0.0
    fraction = float(np.clip(rng.beta(2, 3), 0.05, 0.95))
    return flood_ventricles(scene, paint, contact, rng, fraction, cast=site in ("pons", "cerebellum"))


def _satellites(scene: Scene, paint: Paint, wanted: Blood, center: np.ndarray, rng: np.random.Generator) -> None:
    """Small separate clots around the main one (island sign)."""
    radius = (wanted.volume_ml * 239) ** (1 / 3)
    for _ in range(wanted.satellites if wanted.volume_ml > 2 else 0):
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        spot = center + direction * radius * rng.uniform(1.1, 1.5)
        grown = grow(scene, spot, float(rng.uniform(0.1, 0.03 * wanted.volume_ml + 0.15)), rng, 0.4)
        if grown is None:
            continue
        box, alpha = grown
        alpha = alpha * (1 - ndimage.maximum_filter(paint.ivh[box], 3))
        alpha = np.minimum(alpha, 1 - paint.blood[box])
        paint.cover(box, alpha, wanted.mean_hu + rng.normal(0, 3))
        paint.blood[box] += alpha
