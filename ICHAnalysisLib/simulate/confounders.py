"""What resembles hemorrhage and is not the target: blood outside the brain, calcium, infarcts, dense vessels, metal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.simulate.fields import capsule_chain, ellipsoid, ramp, smooth_noise
from ICHAnalysisLib.simulate.hemorrhage import flood_ventricles
from ICHAnalysisLib.simulate.regions import tentorium_height
from ICHAnalysisLib.simulate.scene import (
    BARRIER,
    CSF,
    GREY,
    OUTSIDE,
    VENTRICLE,
    WHITE,
    Grid,
    Paint,
    Scene,
    StackPlan,
    resample,
)

#: Chance of each in a scan without and with intraparenchymal hemorrhage, at the usual strength.
CHANCES: dict[str, tuple[float, float]] = {
    "subdural": (0.16, 0.04),
    "epidural": (0.05, 0.01),
    "subarachnoid": (0.13, 0.08),
    "ventricular": (0.04, 0.0),
    "calcification": (0.35, 0.25),
    "dense_vessel": (0.20, 0.12),
    "dense_cortex": (0.15, 0.10),
    "dense_dura": (0.20, 0.15),
    "infarct": (0.28, 0.15),
    "old_infarct": (0.15, 0.10),
    "metal": (0.05, 0.02),
}
COARSE_MM = 2.5


@dataclass(frozen=True)
class Metal:
    """A piece of metal: scene point (mm) and strength of its streaks."""

    point: np.ndarray
    strength: float


@dataclass(eq=False)
class Surroundings:
    """Coarse maps of a scene: depth under the brain's outer surface, and head coordinates."""

    scene: Scene

    @cached_property
    def grid(self) -> Grid:
        """A coarse grid over the scene."""
        source = self.scene.grid
        counts = [int((n - 1) * d / COARSE_MM) + 1 for n, d in zip(source.shape, source.step_mm, strict=True)]
        return Grid(source.start_mm, (COARSE_MM,) * 3, (counts[0], counts[1], counts[2]))

    @cached_property
    def depth(self) -> np.ndarray:
        """Distance (mm) inward from the outer surface of brain and its CSF; negative outside."""
        inside = self.scene.tissue[np.ix_(*self.scene.grid.nearest_to(self.grid))] != OUTSIDE
        inside = ndimage.binary_closing(inside, iterations=2)
        within = ndimage.distance_transform_edt(inside, sampling=self.grid.step_mm)
        beyond = ndimage.distance_transform_edt(~inside, sampling=self.grid.step_mm)
        return ndimage.gaussian_filter((within - beyond).astype(np.float32), 0.7)

    @cached_property
    def head(self) -> np.ndarray:
        """(3, Z, Y, X) head coordinates, mm."""
        z, y, x = np.meshgrid(*self.grid.axes(), indexing="ij", sparse=True)
        m = self.scene.head
        return np.stack([m[a, 0] * x + m[a, 1] * y + m[a, 2] * z + m[a, 3] for a in range(3)]).astype(np.float32)


def add_confounders(
    scene: Scene, paint: Paint, rng: np.random.Generator, has_ich: bool, strength: float
) -> tuple[list[str], list[Metal]]:
    """Draw and lay confounders under the target; their names, and metal for the scanner to streak."""
    drawn = [name for name, chance in CHANCES.items() if rng.random() < strength * chance[int(has_ich)]]
    around = Surroundings(scene)
    metal: list[Metal] = []
    for name in drawn:
        if name in ("subdural", "epidural"):
            _extra_axial(around, paint, rng, name)
        elif name == "subarachnoid":
            _subarachnoid(around, paint, rng)
        elif name == "ventricular":
            where = np.argwhere(scene.tissue == VENTRICLE)
            if len(where):
                spot = where[rng.integers(len(where))][::-1]
                contact = spot * np.array(scene.grid.step_mm[::-1]) + np.array(scene.grid.start_mm[::-1])
                flood_ventricles(scene, paint, contact, rng, float(rng.beta(2, 4)), cast=False)
        elif name == "calcification":
            for _ in range(rng.integers(1, 5)):
                _calcification(scene, paint, rng)
        elif name == "dense_vessel":
            _dense_vessel(scene, paint, rng)
        elif name == "dense_dura":
            _dense_dura(around, paint, rng)
        elif name == "dense_cortex":
            _dense_cortex(scene, paint, rng)
        elif name in ("infarct", "old_infarct"):
            _infarct(scene, paint, rng, old=name == "old_infarct")
        elif name == "metal":
            metal.append(_metal(scene, paint, rng))
    return drawn, metal


def _full(paint: Paint) -> tuple[slice, slice, slice]:
    z, y, x = paint.grid.shape
    return slice(0, z), slice(0, y), slice(0, x)


def _spot_in(scene: Scene, rng: np.random.Generator, codes: tuple[int, ...]) -> np.ndarray:
    """A random scene point (x, y, z) in tissue of `codes`."""
    candidates = np.flatnonzero(np.isin(scene.tissue[::2, ::2, ::2], codes))
    if len(candidates) == 0:
        return scene.from_head(np.zeros(3))[0]
    index = np.unravel_index(candidates[rng.integers(len(candidates))], scene.tissue[::2, ::2, ::2].shape)
    steps, starts = scene.grid.step_mm, scene.grid.start_mm
    z, y, x = (starts[a] + 2 * int(index[a]) * steps[a] for a in range(3))
    return np.array([x, y, z])


def _extra_axial(around: Surroundings, paint: Paint, rng: np.random.Generator, kind: str) -> None:
    """Blood under the skull: a long crescent (subdural, also along the falx) or a lens (epidural)."""
    scene, depth, (hx, hy, hz) = around.scene, around.depth, around.head
    side = rng.choice([-1.0, 1.0])
    direction = np.array([side * rng.uniform(0.5, 1.0), rng.uniform(-1.0, 1.0), rng.uniform(-0.1, 0.9)])
    direction /= np.linalg.norm(direction)
    length = np.sqrt(hx**2 + hy**2 + hz**2) + 1e-3
    cosine = (hx * direction[0] + hy * direction[1] + hz * direction[2]) / length
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    noise = smooth_noise(rng, depth.shape, around.grid.step_mm, 25.0)
    if kind == "subdural":
        reach, thickest = rng.uniform(45, 85), rng.uniform(3, 14)
        width = thickest * np.clip(1 - (angle / reach) ** 2, 0, 1) ** 0.5 * (1 + 0.25 * noise)
        width = np.where(hx * side < 2.0, 0, width)
        mean = rng.choice([rng.uniform(52, 74), rng.uniform(18, 35), rng.uniform(36, 48)], p=[0.65, 0.2, 0.15])
    else:
        reach, thickest = rng.uniform(22, 38), rng.uniform(8, 24)
        width = thickest * np.clip(1 - (angle / reach) ** 2, 0, 1) * (1 + 0.1 * noise)
        mean = rng.uniform(55, 75)
    inside = np.where(depth > -3.0, depth - width, 9.0)
    if kind == "subdural" and rng.random() < 0.35:
        falx = np.abs(hx - side * 1.2) - rng.uniform(1.0, 3.0) * (1 + 0.4 * noise)
        inside = np.minimum(inside, np.maximum(falx, np.maximum(25 - hz + 0.2 * np.abs(hy), -depth)))
    alpha = ramp(resample(inside, around.grid, scene.grid), 1.5)
    alpha *= scene.tissue != OUTSIDE
    hu = mean + 4 * smooth_noise(rng, alpha.shape, scene.grid.step_mm, 5.0)
    paint.cover(_full(paint), alpha, hu)
    scene.tissue[alpha > 0.5] = OUTSIDE


def _subarachnoid(around: Surroundings, paint: Paint, rng: np.random.Generator) -> None:
    """Blood in CSF outside the ventricles: sulci of a patch, or the basal cisterns."""
    scene = around.scene
    hx, hy, hz = around.head
    if rng.random() < 0.5:
        far = np.sqrt((hx / 45) ** 2 + ((hy - 5) / 40) ** 2 + ((hz + 14) / 18) ** 2)
    else:
        spot = scene.to_head(_spot_in(scene, rng, (CSF,)))[0]
        far = np.sqrt((hx - spot[0]) ** 2 + (hy - spot[1]) ** 2 + (hz - spot[2]) ** 2) / rng.uniform(18, 40)
    amount = np.clip(1.4 - far + 0.35 * smooth_noise(rng, far.shape, around.grid.step_mm, 15.0), 0, 1)
    alpha = ndimage.gaussian_filter((scene.tissue == CSF).astype(np.float32), 0.4)
    alpha *= resample(amount.astype(np.float32), around.grid, scene.grid) * rng.uniform(0.6, 1.0)
    paint.cover(_full(paint), alpha, float(rng.uniform(45, 68)))


def _calcification(scene: Scene, paint: Paint, rng: np.random.Generator) -> None:
    """A calcified spot or a pair: basal ganglia, choroid plexus, pineal, falx, or anywhere."""
    kind = str(rng.choice(["basal_ganglia", "choroid", "pineal", "falx", "anywhere", "dentate"]))
    size = float(rng.uniform(1.0, 3.5))
    hu = float(rng.uniform(75, 400))
    centers: dict[str, list[Any]] = {
        "basal_ganglia": [(20, 2, 1), (-20, 2, 1)],
        "choroid": [(22, -37, 9), (-22, -37, 9)],
        "pineal": [(0, -28, 2)],
        "falx": [(0, rng.uniform(-40, 55), rng.uniform(35, 55))],
        "dentate": [(17, -50, -36), (-17, -50, -36)],
    }
    anywhere = scene.to_head(_spot_in(scene, rng, (WHITE, GREY)))[0]
    for center in centers.get(kind, [anywhere]):
        place = scene.from_head(np.asarray(center) + rng.normal(0, 1.5, 3) * (kind != "falx"))[0]
        box, grid = scene.box(place, 3 * size + 3)
        z, y, x = np.meshgrid(*grid.axes(), indexing="ij", sparse=True)
        radii = size * rng.uniform(0.6, 1.6, 3)
        distance = ellipsoid((x, y, z), tuple(place), tuple(radii))
        distance = distance + 0.5 * size * smooth_noise(rng, grid.shape, grid.step_mm, max(size, 2.0))
        paint.cover(box, ramp(distance, 1.5) * (scene.tissue[box] != OUTSIDE), hu * float(rng.uniform(0.7, 1)))


def _dense_vessel(scene: Scene, paint: Paint, rng: np.random.Generator) -> None:
    """A dense artery or vein: a thin tube of 50 to 75 HU in or on the brain."""
    start = _spot_in(scene, rng, (CSF, GREY))
    nodes = [start]
    heading = rng.standard_normal(3) * [1, 1, 0.4]
    for _ in range(3):
        heading = 0.75 * heading + 0.5 * rng.standard_normal(3) * [1, 1, 0.4]
        nodes.append(nodes[-1] + heading / np.linalg.norm(heading) * rng.uniform(4, 10))
    radius = rng.uniform(0.9, 2.0)
    box, grid = scene.box(np.mean(nodes, axis=0), 28.0)
    z, y, x = np.meshgrid(*grid.axes(), indexing="ij", sparse=True)
    alpha = ramp(capsule_chain((x, y, z), np.array(nodes), [radius] * 4), 1.3) * (scene.tissue[box] != OUTSIDE)
    paint.cover(box, alpha, float(rng.uniform(48, 75)))


def _dense_dura(around: Surroundings, paint: Paint, rng: np.random.Generator) -> None:
    """A dense falx, tentorium or sagittal sinus of 42 to 70 HU."""
    scene, depth, (hx, hy, hz) = around.scene, around.depth, around.head
    wave = 0.8 * smooth_noise(rng, depth.shape, around.grid.step_mm, 30.0)
    half = rng.uniform(0.4, 1.5)
    kind = rng.choice(["falx", "tentorium", "sinus"])
    if kind == "falx":
        lower = np.maximum(30.0 - 0.006 * (hy + 4.0) ** 2, np.where(hy < -40, 0.0, -99.0))
        sheet = np.maximum(np.abs(hx + wave) - half, np.maximum(lower - hz, -depth))
    elif kind == "tentorium":
        notch = 15.0 * (1 - np.hypot(hx / 19.0, (hy + 14) / 26.0))
        sheet = np.maximum(np.abs(hz - tentorium_height(hx, hy) + wave) - half, np.maximum(notch, hy + 20))
        sheet = np.maximum(sheet, -depth)
    else:
        width = rng.uniform(2.5, 5.0) * np.clip((50 - hy) / 90, 0.35, 1)
        sheet = np.maximum(np.abs(hx) + 0.8 * np.abs(depth - 1.0) - width, -hz)
    alpha = ramp(resample(sheet.astype(np.float32), around.grid, scene.grid), 1.4)
    paint.cover(_full(paint), alpha, float(rng.uniform(42, 70)))
    scene.tissue[alpha > 0.5] = BARRIER


def _dense_cortex(scene: Scene, paint: Paint, rng: np.random.Generator) -> None:
    """A patch of grey matter 4 to 10 HU denser than usual."""
    spot = _spot_in(scene, rng, (GREY,))
    box, grid = scene.box(spot, 32.0)
    z, y, x = np.meshgrid(*grid.axes(), indexing="ij", sparse=True)
    far = np.sqrt((x - spot[0]) ** 2 + (y - spot[1]) ** 2 + (z - spot[2]) ** 2) / rng.uniform(14, 30)
    amount = np.clip(1.3 - far, 0, 1) * ndimage.gaussian_filter((scene.tissue[box] == GREY).astype(np.float32), 0.6)
    paint.shift(box, amount * np.float32(rng.uniform(4, 10)))


def _infarct(scene: Scene, paint: Paint, rng: np.random.Generator, old: bool) -> None:
    """Ischemic tissue: 5 to 12 HU darker (recent) or near CSF (old), in an irregular patch."""
    spot = _spot_in(scene, rng, (GREY, WHITE))
    size = float(np.exp(rng.normal(2.6, 0.45)))
    box, grid = scene.box(spot, 2.2 * size + 4)
    z, y, x = np.meshgrid(*grid.axes(), indexing="ij", sparse=True)
    distance = ellipsoid((x, y, z), tuple(spot), tuple(size * rng.uniform(0.6, 1.5, 3)))
    distance = distance + 0.45 * size * smooth_noise(rng, grid.shape, grid.step_mm, 0.8 * size)
    alpha = ramp(distance, 3.0 if old else 6.0) * np.isin(scene.tissue[box], (GREY, WHITE))
    alpha = ndimage.gaussian_filter(alpha.astype(np.float32), 0.7)
    if old:
        paint.cover(box, alpha * rng.uniform(0.6, 1.0), float(rng.uniform(8, 17)))
    else:
        paint.shift(box, -alpha * np.float32(rng.uniform(5, 12)))


def _metal(scene: Scene, paint: Paint, rng: np.random.Generator) -> Metal:
    """A clip, a coil or a catheter: saturated HU; its streaks are made slice by slice."""
    spot = _spot_in(scene, rng, (GREY, WHITE, CSF))
    end = spot + rng.standard_normal(3) * rng.uniform(1, 12)
    box, grid = scene.box(spot, 22.0)
    z, y, x = np.meshgrid(*grid.axes(), indexing="ij", sparse=True)
    alpha = ramp(capsule_chain((x, y, z), np.stack([spot, end]), [rng.uniform(0.8, 2.5)] * 2), 1.2)
    paint.cover(box, alpha, 3000.0)
    return Metal((spot + end) / 2, float(rng.uniform(15, 90)))


def vary_outside(
    slices: np.ndarray, inside: np.ndarray, plan: StackPlan, rng: np.random.Generator, strength: float
) -> np.ndarray:
    """Slices with another density of muscle and, in some, a swollen dense scalp. inside: brain share (K, M, M)."""
    outside = np.clip(1 - 4 * inside, 0, 1)
    soft = np.clip((slices - 10) / 20, 0, 1) * np.clip((130 - slices) / 30, 0, 1) * outside
    result = slices + soft * np.float32(strength * rng.uniform(-5, 12))
    if rng.random() < 0.15 * strength:
        pixels = plan.pixel_axis()
        angle, height, size = rng.uniform(0, 2 * np.pi), rng.uniform(-20, 60), rng.uniform(15, 35)
        spot = np.array([72 * np.cos(angle), 88 * np.sin(angle)])
        density = rng.uniform(40, 70)
        for k, center in enumerate(plan.centers_mm):
            x, y = pixels[None, :] + center[1] - spot[0], pixels[:, None] + center[0] - spot[1]
            far = np.sqrt(x * x + y * y + (plan.positions_mm[k] - height) ** 2) / size
            fat = np.clip((slices[k] + 300) / 100, 0, 1) * np.clip((60 - slices[k]) / 30, 0, 1) * outside[k]
            result[k] += fat * np.clip(1.5 - far, 0, 1).clip(0, 0.9) * (density - result[k])
    return result


def metal_streaks(slices: np.ndarray, plan: StackPlan, metal: list[Metal], rng: np.random.Generator) -> np.ndarray:
    """Slices with bright and dark rays from each piece of metal."""
    result = slices.copy()
    pixels = plan.pixel_axis()
    for piece in metal:
        near = np.abs(plan.positions_mm - piece.point[2]) < plan.thickness_mm / 2 + 4.0
        for k in np.flatnonzero(near):
            x = pixels[None, :] + plan.centers_mm[k, 1] - piece.point[0]
            y = pixels[:, None] + plan.centers_mm[k, 0] - piece.point[1]
            angle = ((np.arctan2(y, x) / (2 * np.pi) + 0.5) * 256).astype(int) % 256
            rays = ndimage.gaussian_filter1d(rng.standard_normal(256), 1.5, mode="wrap") * 2.2
            result[k] += piece.strength * rays[angle] * np.exp(-np.hypot(x, y) / 40.0) * (slices[k] > -800)
    return result
