"""A procedural head: smooth signed distances in head coordinates, painted in Hounsfield units on a fine grid.

Large smooth fields are computed on a coarse lattice and interpolated; small structures are painted in their own boxes.
Head coordinates: x right, y front, z up (mm), origin near the middle of the brain; slices are about parallel to the
orbitomeatal line at pitch 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.simulate.fields import (
    apply_separable,
    linear_weights,
    ramp,
    rotation_matrix,
    smooth_noise,
)
from ICHAnalysisLib.simulate.scene import Grid, Scene

COARSE_MM = 2.5
Points = tuple[np.ndarray, np.ndarray, np.ndarray]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Anatomy:
    """What varies from head to head. Lengths mm, densities HU; atrophy 0 (young) to 1 (marked)."""

    scale: tuple[float, float, float]
    pose_deg: tuple[float, float, float]
    atrophy: float
    skull_mm: float
    scalp_mm: float
    grey_hu: float
    white_hu: float
    csf_hu: float
    muscle_hu: float
    fat_hu: float
    bone_hu: float
    ventricle_asymmetry: float
    fold_mm: float
    leukoaraiosis: float
    calcium: tuple[str, ...]
    sinus_hu: float
    pneumatization: float
    ventricle_size: float = 1.0  # besides what atrophy does to them
    trigone_mm: float = 23.0  # of the lateral ventricles, from the midline
    cavum_mm: float = 0.0  # radius of a cavity between the lateral ventricles; 0 without one
    horn_size: float = 1.0  # of the occipital and temporal horns, besides `ventricle_size`
    third_size: float = 1.0
    fourth_size: float = 1.0
    lateral_shift_mm: tuple[float, float] = (0.0, 0.0)  # of the lateral ventricles, to the front and up


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a head of an adult stroke patient: mostly elderly, atrophy from mild to marked."""
    size = rng.normal(1.01, 0.035)
    calcium = [
        name
        for name, chance in (
            ("pineal", 0.6),
            ("choroid", 0.6),
            ("falx", 0.25),
            ("basal_ganglia", 0.12),
            ("arteries", 0.4),
        )
        if rng.random() < chance
    ]
    grey = rng.normal(38.0, 2.2)
    return Anatomy(
        scale=(size * rng.normal(1.02, 0.04), size * rng.normal(0.99, 0.035), size * rng.normal(1, 0.03)),
        pose_deg=(rng.normal(4, 7), rng.normal(0, 4), rng.normal(0, 5) if rng.random() < 0.6 else rng.uniform(-28, 28)),
        atrophy=float(np.clip(rng.beta(2.4, 2.2), 0, 1)),
        skull_mm=float(np.clip(rng.normal(6.5, 1.3), 4, 11)),
        scalp_mm=float(np.clip(rng.normal(5.5, 1.2), 3, 9)),
        grey_hu=float(grey),
        white_hu=float(grey - rng.uniform(8, 13)),
        csf_hu=float(rng.uniform(3, 9)),
        muscle_hu=float(rng.normal(58, 6)),
        fat_hu=float(rng.uniform(-105, -75)),
        bone_hu=float(rng.uniform(1050, 1550)),
        ventricle_asymmetry=float(rng.normal(0, 0.1)),
        fold_mm=float(rng.uniform(7.0, 10.0)),
        leukoaraiosis=float(rng.beta(1.2, 2.5)),
        calcium=tuple(calcium),
        sinus_hu=float(np.clip(rng.normal(52, 6), 40, 70)),
        pneumatization=float(rng.uniform(0.3, 1.0)),
    )


def build_head(grid: Grid, rng: np.random.Generator, anatomy: Anatomy | None = None) -> Scene:
    """Paint a head on `grid` (scene coordinates)."""
    anatomy = anatomy or draw_anatomy(rng)
    canvas = Canvas(grid, anatomy, rng)
    from ICHAnalysisLib.simulate import brain, calcium, midline, skull

    skull.paint_outer(canvas)
    brain.paint_brain(canvas)
    calcium.paint_calcium(canvas)
    skull.paint_dense_vessels(canvas)
    scene = Scene(grid, canvas.tissue, canvas.region, canvas.head, canvas.hu)
    scene.notes["anatomy"] = asdict(anatomy)
    scene.midline = midline.painted_midline(canvas)
    return scene


class Canvas:
    """The fine grid under paint, with head coordinates on a coarse lattice and, per box, on the fine grid."""

    def __init__(self, grid: Grid, anatomy: Anatomy, rng: np.random.Generator) -> None:
        self.grid, self.anatomy, self.rng = grid, anatomy, rng
        counts = [int(np.ceil((n - 1) * d / COARSE_MM)) + 2 for n, d in zip(grid.shape, grid.step_mm, strict=True)]
        self.coarse = Grid(grid.start_mm, (COARSE_MM,) * 3, (counts[0], counts[1], counts[2]))
        self.up = self.coarse.weights_to(grid)
        rotation = rotation_matrix(anatomy.pose_deg)
        linear = np.diag(1 / np.asarray(anatomy.scale)) @ rotation @ np.diag([-1.0, -1.0, 1.0])
        self.head = np.concatenate([linear, np.zeros((3, 1))], axis=1)
        self.points = self._coarse_points()
        self.hu = np.full(grid.shape, -1000.0, dtype=np.float32)
        self.tissue = np.zeros(grid.shape, dtype=np.uint8)
        self.region = np.zeros(grid.shape, dtype=np.uint8)
        # Signed distance to the inner table of the skull, coarse and fine; painting the skull sets both.
        self.cavity: np.ndarray = np.empty(0)
        self.inner: np.ndarray = np.empty(0)

    def _coarse_points(self) -> Points:
        """Head x, y, z on the coarse lattice with smooth random deformation."""
        z, y, x = self.coarse.axes()
        out = []
        for a in range(3):
            value = (
                self.head[a, 0] * x[None, None]
                + self.head[a, 1] * y[None, :, None]
                + self.head[a, 2] * z[:, None, None]
            )
            value = value + 2.6 * smooth_noise(self.rng, self.coarse.shape, self.coarse.step_mm, 45.0)
            value = value + 0.8 * smooth_noise(self.rng, self.coarse.shape, self.coarse.step_mm, 18.0)
            out.append(value.astype(np.float32))
        return out[0], out[1], out[2]

    def raise_up(self, field: np.ndarray) -> np.ndarray:
        """A coarse field on the fine grid."""
        return apply_separable(field.astype(np.float32, copy=False), self.up)

    def noise(self, correlation_mm: float) -> np.ndarray:
        """Coarse unit noise."""
        return smooth_noise(self.rng, self.coarse.shape, self.coarse.step_mm, correlation_mm)

    def near(self, low: Sequence[float], high: Sequence[float]) -> tuple[Box, Points] | None:
        """The box of fine voxels whose head coordinates may lie in [low, high], with their head coordinates."""
        inside = np.ones(self.coarse.shape, dtype=bool)
        for p, a, b in zip(self.points, low, high, strict=True):
            inside &= (p >= a - COARSE_MM) & (p <= b + COARSE_MM)
        found = ndimage.find_objects(inside.astype(np.uint8))
        if not found:
            return None
        parts, matrices = [], []
        for axis, part in enumerate(found[0]):
            step, count = self.grid.step_mm[axis], self.grid.shape[axis]
            first = int(np.floor(part.start * COARSE_MM / step))
            last = min(int(np.ceil(part.stop * COARSE_MM / step)) + 1, count)
            if last - first < 1:
                return None
            parts.append(slice(first, last))
            matrices.append(
                linear_weights(np.arange(first, last) * step, part.start * COARSE_MM, COARSE_MM, part.stop - part.start)
            )
        points = [apply_separable(p[found[0]], matrices) for p in self.points]
        return (parts[0], parts[1], parts[2]), (points[0], points[1], points[2])

    def lay(self, box: Box, alpha: np.ndarray, hu: np.ndarray | float) -> None:
        """Blend `hu` into the box with coverage `alpha`."""
        part = self.hu[box]
        part += alpha * (hu - part)

    def shape(
        self,
        low: Sequence[float],
        high: Sequence[float],
        distance: Callable[[Points], np.ndarray],
        hu: float,
        tissue: int | None = None,
        within: Callable[[Box], np.ndarray] | None = None,
        width_mm: float = 1.2,
    ) -> None:
        """Paint a shape given by its signed distance, in the box [low, high] of head coordinates."""
        found = self.near(low, high)
        if found is None:
            return
        box, points = found
        alpha = ramp(distance(points), width_mm)
        if within is not None:
            alpha = alpha * within(box)
        self.lay(box, alpha, hu)
        if tissue is not None:
            self.tissue[box][alpha > 0.5] = tissue

    def mirrored(
        self,
        low: Sequence[float],
        high: Sequence[float],
        distance: Callable[[Points], np.ndarray],
        hu: float,
        **kw: object,
    ) -> None:
        """`shape` on both sides; `low`, `high` and `distance` are those of the right side (x > 0)."""
        self.shape(low, high, distance, hu, **kw)  # type: ignore[arg-type]
        self.shape(
            (-high[0], low[1], low[2]),
            (-low[0], high[1], high[2]),
            lambda p: distance((-p[0], p[1], p[2])),
            hu,
            **kw,  # type: ignore[arg-type]
        )
