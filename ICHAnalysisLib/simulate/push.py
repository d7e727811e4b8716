"""Mass effect: tissue around a growing clot is pushed aside, in the plane of the slices, and stops at the skull.

The displacement of a sphere grown from a point, u(r) = r - (r^3 - 3V/4pi)^(1/3), faded toward the brain's surface.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.simulate.confounders import Surroundings
from ICHAnalysisLib.simulate.fields import linear_weights
from ICHAnalysisLib.simulate.scene import Grid, Scene, StackPlan

REACH_MM = 55.0


@dataclass(frozen=True, eq=False)
class Push:
    """In-plane displacement (dy, dx) in mm on a coarse grid: matter at a point came from point + displacement."""

    grid: Grid
    dy: np.ndarray
    dx: np.ndarray
    center: np.ndarray
    largest_mm: float

    def on_plane(self, z: float, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(Y, X) dy and dx, mm, on one plane; zero outside the grid."""
        steps, starts, shape = self.grid.step_mm, self.grid.start_mm, self.grid.shape
        wz = linear_weights(np.array([z]), starts[0], steps[0], shape[0])[0]
        wy = linear_weights(y, starts[1], steps[1], shape[1])
        wx = linear_weights(x, starts[2], steps[2], shape[2])
        dy, dx = (wy @ np.tensordot(wz, field, axes=1) @ wx.T for field in (self.dy, self.dx))
        return dy, dx


def make_push(scene: Scene, center: np.ndarray, volume_ml: float) -> Push:
    """The displacement by `volume_ml` of new matter at scene point `center` (x, y, z)."""
    around = Surroundings(scene)
    grid = around.grid
    z, y, x = np.meshgrid(*grid.axes(), indexing="ij", sparse=True)
    away = (z - center[2], y - center[1], x - center[0])
    r = np.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2) + 1e-3
    cubed = volume_ml * 1000 * 3 / (4 * np.pi)
    moved = np.minimum(r - np.cbrt(np.clip(r**3 - cubed, 0, None)), 0.75 * r)
    fade = np.clip(around.depth / 14.0, 0, 1) * np.clip((REACH_MM - r) / 15.0, 0, 1)
    moved = ndimage.gaussian_filter((moved * fade).astype(np.float32), 1.0)
    return Push(grid, -moved * away[1] / r, -moved * away[2] / r, center, float(moved.max()))


def push_scene(scene: Scene, push: Push) -> None:
    """Displace tissue, region and (where present) HU of the scene in place."""
    z, y, x = scene.grid.axes()
    rows, columns = np.meshgrid(np.arange(len(y)), np.arange(len(x)), indexing="ij")
    for n in np.flatnonzero(np.abs(z - push.center[2]) < REACH_MM):
        dy, dx = push.on_plane(float(z[n]), y, x)
        index = [rows + dy / scene.grid.step_mm[1], columns + dx / scene.grid.step_mm[2]]
        for codes in (scene.tissue, scene.region):
            codes[n] = ndimage.map_coordinates(codes[n], index, order=0, mode="nearest")
        if scene.hu is not None:
            scene.hu[n] = ndimage.map_coordinates(scene.hu[n], index, order=1, mode="nearest")


def push_slices(slices: np.ndarray, plan: StackPlan, push: Push) -> np.ndarray:
    """Displaced copies of slices (K, M, M)."""
    result = slices.copy()
    pixels = plan.pixel_axis()
    rows, columns = np.meshgrid(np.arange(plan.matrix), np.arange(plan.matrix), indexing="ij")
    for k in np.flatnonzero(np.abs(plan.positions_mm - push.center[2]) < REACH_MM):
        center = plan.centers_mm[k]
        dy, dx = push.on_plane(float(plan.positions_mm[k]), pixels + center[0], pixels + center[1])
        moving = np.hypot(dy, dx) > 0.05
        where = [(rows + dy / plan.spacing_mm)[moving], (columns + dx / plan.spacing_mm)[moving]]
        result[k][moving] = ndimage.map_coordinates(slices[k], where, order=1, mode="nearest")
    return result
