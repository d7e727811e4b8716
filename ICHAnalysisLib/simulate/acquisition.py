"""The scanner: where slices lie, how they blur, their noise and artifacts, and how the numbers are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate.scene import StackPlan

Storage = Literal["full", "window_0_120", "window_-20_100"]
STORAGES = ("full", "window_0_120", "window_-20_100")


@dataclass(frozen=True)
class AcquisitionSpec:
    """One acquisition; None = drawn. Lengths in mm, angles in degrees, noise in HU at 5 mm thickness.

    uneven: thinner slices at the base than at the vertex (5/10 mm style). gap_mm: table step minus thickness.
    shift_hu and noise_factor make a second "centre". bottom_mm and top_mm: head z of the first and last slice.
    """

    matrix: int = 256
    spacing_mm: float | None = None
    thickness_mm: float | None = None
    gap_mm: float | None = None
    uneven: bool | None = None
    tilt_degrees: float | None = None
    noise_hu: float | None = None
    noise_factor: float = 1.0
    shift_hu: float = 0.0
    kernel_mm: float | None = None
    storage: Storage | None = None
    artifacts: bool = True
    holder: bool | None = None
    bottom_mm: float | None = None
    top_mm: float | None = None
    detail_mm: float | None = None

    def __post_init__(self) -> None:
        if self.matrix < 32:
            raise UsageError(f"Acquisition: a matrix of {self.matrix} is too small; use 32 or more.")
        for name in ("spacing_mm", "thickness_mm", "detail_mm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"Acquisition: {name} {value} must be above 0.")


@dataclass(frozen=True)
class Acquisition:
    """A drawn acquisition: every field has a value."""

    plan: StackPlan
    noise_hu: float
    kernel_mm: float
    shift_hu: float
    storage: Storage
    holder: bool
    detail_mm: float
    artifacts: bool
    sharpen: float = 0.0
    moving: tuple[int, ...] = ()
    parameters: dict[str, object] = field(default_factory=dict)


def draw_acquisition(spec: AcquisitionSpec, rng: np.random.Generator) -> Acquisition:
    """Draw what `spec` leaves open."""

    def pick(value: float | None, drawn: float) -> float:
        return float(drawn if value is None else value)

    default_spacing = 230.0 / spec.matrix * rng.uniform(0.95, 1.12)
    spacing = pick(spec.spacing_mm, default_spacing)
    thickness = pick(spec.thickness_mm, rng.choice([3.0, 4.0, 4.5, 5.0, 5.0, 5.0, 5.0, 6.0, 7.0, 8.0]))
    uneven_drawn = bool(rng.random() < 0.12)
    uneven = uneven_drawn if spec.uneven is None else spec.uneven
    gap = pick(spec.gap_mm, rng.choice([0.0, 0.0, 0.0, 0.0, 0.5, 1.0]) if thickness >= 4.5 else 0.0)
    tilt_drawn = float(rng.uniform(8, 24)) if rng.random() < 0.35 else 0.0
    tilt = pick(spec.tilt_degrees, tilt_drawn)
    bottom = pick(spec.bottom_mm, rng.uniform(-92, -58))
    top = pick(spec.top_mm, rng.uniform(78, 94))
    positions, thicknesses = _positions(bottom, top, thickness, gap, uneven)
    center = rng.normal(0, 3.0, 2) + np.array([0.0, 0.0])
    drift = -(positions - positions.mean()) * np.tan(np.radians(tilt))
    centers = np.stack([center[0] + drift, np.full(len(positions), center[1])], axis=1)
    kernel = pick(spec.kernel_mm, rng.uniform(0.8, 1.5))
    plan = StackPlan(spec.matrix, spacing, positions, thicknesses, centers, tilt, kernel)
    noise = pick(spec.noise_hu, rng.uniform(2.2, 4.5)) * spec.noise_factor
    storage_drawn = str(rng.choice(STORAGES, p=[0.68, 0.16, 0.16]))
    storage: Storage = storage_drawn if spec.storage is None else spec.storage  # type: ignore[assignment]
    holder_drawn = bool(rng.random() < 0.7)
    holder = holder_drawn if spec.holder is None else spec.holder
    detail = pick(spec.detail_mm, min(max(spacing, 0.8), 2.5))
    sharpen = float(rng.uniform(0.3, 0.9)) if spec.artifacts and rng.random() < 0.2 else 0.0
    first = int(rng.integers(len(positions)))
    moving = tuple(range(first, min(first + 3, len(positions)))) if spec.artifacts and rng.random() < 0.12 else ()
    parameters = {
        "sharpen": sharpen,
        "moving_slices": list(moving),
        "matrix": spec.matrix,
        "spacing_mm": spacing,
        "thickness_mm": thickness,
        "gap_mm": gap,
        "uneven": uneven,
        "tilt_degrees": tilt,
        "bottom_mm": bottom,
        "top_mm": top,
        "noise_hu_at_5_mm": noise,
        "kernel_mm": kernel,
        "shift_hu": spec.shift_hu,
        "storage": str(storage),
        "holder": holder,
        "detail_mm": detail,
        "positions_mm": [round(float(v), 4) for v in positions],
    }
    return Acquisition(
        plan, noise, kernel, spec.shift_hu, storage, holder, detail, spec.artifacts, sharpen, moving, parameters
    )


def _positions(bottom: float, top: float, thickness: float, gap: float, uneven: bool) -> tuple[np.ndarray, np.ndarray]:
    """(K,) positions and thicknesses; the uneven stack changes to twice the thickness above the base."""
    if not uneven:
        positions = np.arange(bottom, top, thickness + gap)
        return positions, np.full(len(positions), thickness)
    change = bottom + 0.4 * (top - bottom)
    low = np.arange(bottom, change, thickness)
    thick = min(1.8 * thickness, 10.0)
    first = low[-1] + thickness / 2 + thick / 2 - 0.4 * thickness
    high = np.arange(first, top, thick)
    positions = np.concatenate([low, high])
    return positions, np.concatenate([np.full(len(low), thickness), np.full(len(high), thick)])


def blur_and_shift(slices: np.ndarray, acquisition: Acquisition, rng: np.random.Generator) -> np.ndarray:
    """Slices after patient motion (doubled edges in some) and, where drawn, through a sharper kernel."""
    result = slices
    pixel = acquisition.plan.spacing_mm
    if acquisition.moving:
        result = slices.copy()
        for k in acquisition.moving:
            away = ndimage.shift(slices[k], rng.uniform(-3, 3, 2) / pixel, order=1, mode="nearest")
            result[k] += rng.uniform(0.3, 0.6) * (away - slices[k])
    if acquisition.sharpen > 0:
        sigma = 0.9 / pixel
        mild = np.clip(result, -120.0, 180.0)  # so that bone and air do not overshoot far into soft tissue
        result = result + acquisition.sharpen * (mild - ndimage.gaussian_filter(mild, (0, sigma, sigma)))
    return result


def correlated_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: float, kernel_mm: float
) -> np.ndarray:
    """(K, M, M) unit-variance noise of reconstructed slices: band-pass in plane, independent between slices."""
    white = rng.standard_normal(shape, dtype=np.float32)
    sigma = max(0.36 * kernel_mm / spacing_mm, 0.3)
    fine = ndimage.gaussian_filter(white, (0, sigma, sigma), mode="wrap")
    coarse = ndimage.gaussian_filter(white, (0, 5 * sigma, 5 * sigma), mode="wrap")
    noise = fine - 0.85 * coarse
    return noise / float(noise.std())


def add_noise(
    slices: np.ndarray, plan: StackPlan, rng: np.random.Generator, noise_hu: float, kernel_mm: float
) -> np.ndarray:
    """Slices with noise of `noise_hu` at 5 mm thickness, more in thinner slices and in the middle of a head."""
    noise = correlated_noise(rng, slices.shape, plan.spacing_mm, kernel_mm)
    scale = noise_hu * np.sqrt(5.0 / plan.thickness_mm)[:, None, None]
    body = slices > -300
    share = ndimage.uniform_filter(body.astype(np.float32), (0, 41, 41))
    return slices + noise * scale * (0.35 + 0.65 * share)


def base_artifacts(slices: np.ndarray, plan: StackPlan, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Beam hardening: cupping under the skull, a dark band and streaks between dense bones on the same rows."""
    bone = np.clip((slices - 300.0) / 700.0, 0, 1.5)
    result = slices.copy()
    base = np.clip((-8.0 - plan.positions_mm) / 12.0, 0, 1)
    pixel = plan.spacing_mm
    soft = ndimage.gaussian_filter(bone, (0, 5 / pixel, 5 / pixel))
    result += strength * 9.0 * soft * (slices > -200)
    half = plan.matrix // 2
    for k in np.flatnonzero(base):
        # Dense bone left and right on one row darkens what lies between.
        left, right = bone[k, :, :half].sum(1) * pixel, bone[k, :, half:].sum(1) * pixel
        both = base[k] * np.clip((np.minimum(left, right) - 16.0) / 40.0, 0, 0.8)
        both = ndimage.gaussian_filter1d(both, 2 / pixel)
        if both.max() < 0.02:
            continue
        columns = np.arange(plan.matrix)
        mass = bone[k].sum(0)
        middle = float((mass * columns).sum() / max(mass.sum(), 1e-6))
        window = np.exp(-(((columns - middle) * pixel / 32.0) ** 2))
        streaks = 1 + 0.8 * ndimage.gaussian_filter1d(rng.standard_normal(plan.matrix), 1.2 / pixel)
        result[k] -= strength * 20.0 * (both * streaks)[:, None] * window[None]
    return result


def store(slices: np.ndarray, acquisition: Acquisition) -> np.ndarray:
    """Whole HU as a scanner stores them, or clipped to a display window where the archive kept only that."""
    hu = np.clip(np.rint(slices + acquisition.shift_hu), -1024, 3071)
    if acquisition.storage == "window_0_120":
        hu = np.clip(hu, 0, 120)
    elif acquisition.storage == "window_-20_100":
        hu = np.clip(hu, -20, 100)
    return hu.astype(np.float32)


def head_holder(slices: np.ndarray, plan: StackPlan, rng: np.random.Generator) -> np.ndarray:
    """Slices with a plastic head holder under and beside the head, some with a foam filling or a flat table."""
    radius_x, radius_y = rng.uniform(92, 112), rng.uniform(95, 125)
    center_y = rng.uniform(-5, 20)
    wall, hu, top = rng.uniform(1.0, 2.5), rng.uniform(-250, 350), rng.uniform(-25, 45)
    pad = bool(rng.random() < 0.4)
    result = slices.copy()
    pixels = plan.pixel_axis()
    for k, center in enumerate(plan.centers_mm):
        x, y = pixels[None, :] + center[1], pixels[:, None] + center[0] - center_y
        shape = np.sqrt((x / radius_x) ** 2 + (np.clip(y, 0, None) / radius_y) ** 2)
        distance = (shape - 1) * radius_x
        below = np.clip((y - top) / 2.0 + 0.5, 0, 1)
        shell = np.clip(0.5 + (wall - np.abs(distance)) / plan.spacing_mm, 0, 1) * below
        free = result[k] < -700
        result[k] = np.where(free, result[k] + shell * (hu + 1000), result[k])
        if pad:
            foam = np.clip(0.5 - distance / 2.0, 0, 1) * np.clip(0.5 + (distance + 14) / 2.0, 0, 1) * below
            result[k] = np.where(result[k] < -950, result[k] + foam * 60.0, result[k])
    return result
