"""The scene: what lies in the scanner, on a fine grid along the slices, and how slices are cut from it.

Scene coordinates are mm from the isocenter: x to the patient's left, y to the back, z along the slice normal (up).
Head coordinates are mm RAS of the head itself: the origin near the middle of the brain, x = 0 the midline plane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ICHAnalysisLib.ct.morphology import bounding_box
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.simulate.fields import apply_separable, linear_weights

if TYPE_CHECKING:
    from ICHAnalysisLib.simulate.midline import Midline

# Tissue codes of Scene.tissue.
OUTSIDE, GREY, WHITE, CSF, VENTRICLE, BARRIER = range(6)
# Region codes of Scene.region; the order is that of LOCATIONS, plus one.
DEEP, LOBAR, SUBTENTORIAL = 1, 2, 3


@dataclass(frozen=True)
class Grid:
    """A regular fine grid: start_mm and step_mm in (z, y, x) order, shape (Z, Y, X)."""

    start_mm: tuple[float, float, float]
    step_mm: tuple[float, float, float]
    shape: tuple[int, int, int]

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The z, y and x coordinates, mm."""
        z, y, x = (
            s + d * np.arange(n, dtype=np.float32)
            for s, d, n in zip(self.start_mm, self.step_mm, self.shape, strict=True)
        )
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, mL."""
        return float(np.prod(self.step_mm)) / 1000.0

    def weights_to(self, other: Grid) -> list[np.ndarray]:
        """Linear interpolation matrices from this grid to `other`, for `apply_separable`."""
        return [
            linear_weights(axis, start, step, count)
            for axis, start, step, count in zip(other.axes(), self.start_mm, self.step_mm, self.shape, strict=True)
        ]

    def nearest_to(self, other: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices (for np.ix_) of this grid's voxels nearest to those of `other`."""
        z, y, x = (
            np.clip(np.rint((axis - start) / step).astype(int), 0, count - 1)
            for axis, start, step, count in zip(other.axes(), self.start_mm, self.step_mm, self.shape, strict=True)
        )
        return z, y, x


@dataclass(frozen=True, eq=False)
class StackPlan:
    """Where the slices of one series lie.

    positions_mm and thickness_mm: (K,) along the normal. centers_mm: (K, 2) scene (y, x) of each image's center;
    a tilted gantry moves it from slice to slice since the table goes straight.
    row_ras, normal_ras: directions in scanner RAS (the column direction is always the patient's left here).
    """

    matrix: int
    spacing_mm: float
    positions_mm: np.ndarray
    thickness_mm: np.ndarray
    centers_mm: np.ndarray
    tilt_degrees: float
    psf_mm: float = 0.9

    @property
    def axes_ras(self) -> np.ndarray:
        """(3, 3) columns: scanner RAS directions of scene x, y, z."""
        t = np.radians(self.tilt_degrees)
        return np.array([[-1, 0, 0], [0, -np.cos(t), -np.sin(t)], [0, -np.sin(t), np.cos(t)]])

    def scene_to_ras(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) scanner RAS mm of (N, 3) scene x, y, z."""
        return np.atleast_2d(points) @ self.axes_ras.T

    def pixel_axis(self) -> np.ndarray:
        """(M,) offset of pixel centers from the image center, mm."""
        return (np.arange(self.matrix) - (self.matrix - 1) / 2) * self.spacing_mm

    def volume(self, hu: np.ndarray, **fields: object) -> CTVolume:
        """The CTVolume of rendered slices hu (K, M, M), with exact per-slice origins."""
        first = self.pixel_axis()[0]
        corner = np.stack([self.centers_mm[:, 1] + first, self.centers_mm[:, 0] + first, self.positions_mm], axis=1)
        axes = self.axes_ras
        return CTVolume(
            np.asarray(hu, dtype=np.float32),
            axes[:, 0] * self.spacing_mm,
            axes[:, 1] * self.spacing_mm,
            self.scene_to_ras(corner),
            np.asarray(self.thickness_mm, dtype=float),
            **fields,  # type: ignore[arg-type]
        )

    def profile_weights(self, grid: Grid) -> np.ndarray:
        """(K, Z) box slice profile: the share of each fine layer in each slice; rows sum to 1."""
        z = grid.axes()[0]
        low = np.maximum(z[None] - grid.step_mm[0] / 2, (self.positions_mm - self.thickness_mm / 2)[:, None])
        high = np.minimum(z[None] + grid.step_mm[0] / 2, (self.positions_mm + self.thickness_mm / 2)[:, None])
        weights = np.clip(high - low, 0, None)
        total = weights.sum(axis=1, keepdims=True)
        nearest = np.abs(z[None] - self.positions_mm[:, None]).argmin(1)[:, None] == np.arange(len(z))[None]
        return np.where(total > 0, weights / np.maximum(total, 1e-6), nearest).astype(np.float32)

    def render(self, field: np.ndarray, grid: Grid, fill: float = 0.0) -> np.ndarray:
        """(K, M, M) slices of `field` on `grid`: averaged over the slice profile and the in-plane point spread."""
        profile = self.profile_weights(grid)
        pixels = self.pixel_axis()
        slices = np.empty((len(self.positions_mm), self.matrix, self.matrix), dtype=np.float32)
        for k, (weights, center) in enumerate(zip(profile, self.centers_mm, strict=True)):
            used = np.flatnonzero(weights)
            slab = np.tensordot(weights[used], field[used[0] : used[-1] + 1], axes=1) - np.float32(fill)
            rows = self._plane_weights(pixels + center[0], grid.start_mm[1], grid.step_mm[1], grid.shape[1])
            columns = self._plane_weights(pixels + center[1], grid.start_mm[2], grid.step_mm[2], grid.shape[2])
            slices[k] = rows @ slab @ columns.T + np.float32(fill)
        return slices

    def _plane_weights(self, targets: np.ndarray, start: float, step: float, count: int) -> np.ndarray:
        """(M, count) weights of a Gaussian point spread around each pixel; zero outside the grid."""
        nodes = start + step * np.arange(count)
        sigma = max(self.psf_mm / 2.355, 0.45 * step, 0.4 * self.spacing_mm)
        weights = np.exp(-0.5 * ((targets[:, None] - nodes[None]) / sigma) ** 2)
        weights[weights < 1e-3] = 0.0
        # Weights must sum to 1 exactly inside the grid: a percent of the air-to-tissue step is 10 HU.
        total, reach = weights.sum(axis=1, keepdims=True), np.sqrt(2 * np.pi) * sigma / step
        return (weights / np.where(total > 0.6 * reach, total, reach)).astype(np.float32)


@dataclass(eq=False)
class Scene:
    """Tissue on a fine grid. `hu` is None where the slices come from a real scan and only tissue maps are known.

    tissue, region: uint8 (Z, Y, X). head: (3, 4) affine from scene (x, y, z, 1) to head coordinates. bone: bool of a
    box, where a real scan shows bone that `tissue`, of its nearest voxels, takes for brain.
    """

    grid: Grid
    tissue: np.ndarray
    region: np.ndarray
    head: np.ndarray
    hu: np.ndarray | None = None
    gravity_yz: tuple[float, float] = (1.0, 0.0)
    notes: dict[str, object] = field(default_factory=dict)
    midline: Midline | None = None  # before any push; None where the slices miss it
    bone: Callable[[tuple[slice, slice, slice]], np.ndarray] | None = None

    def to_head(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) head coordinates of (N, 3) scene points."""
        return np.atleast_2d(points) @ self.head[:, :3].T + self.head[:, 3]

    def from_head(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) scene points of (N, 3) head coordinates."""
        return (np.atleast_2d(points) - self.head[:, 3]) @ np.linalg.inv(self.head[:, :3]).T

    def region_at(self, point: np.ndarray) -> int:
        """Region code at scene point (x, y, z)."""
        index = [
            int(
                np.clip(round((point[2 - a] - self.grid.start_mm[a]) / self.grid.step_mm[a]), 0, self.grid.shape[a] - 1)
            )
            for a in range(3)
        ]
        return int(self.region[index[0], index[1], index[2]])

    def bone_share(self, box: tuple[slice, slice, slice], alpha: np.ndarray) -> float:
        """Share of matter with fractions `alpha` of the voxels of `box` that lies in bone of a real scan."""
        if self.bone is None:
            return 0.0
        held = bounding_box(alpha > 0)  # the box is several times larger, and sampling the scan there takes long
        inner = [slice(part.start + side.start, part.start + side.stop) for part, side in zip(box, held, strict=True)]
        return float(alpha[held][self.bone((inner[0], inner[1], inner[2]))].sum() / alpha.sum())

    def box_grid(self, box: tuple[slice, slice, slice]) -> Grid:
        """The part of the grid that `box` selects."""
        starts = [s + d * part.start for s, d, part in zip(self.grid.start_mm, self.grid.step_mm, box, strict=True)]
        counts = [part.stop - part.start for part in box]
        return Grid((starts[0], starts[1], starts[2]), self.grid.step_mm, (counts[0], counts[1], counts[2]))

    def box(self, center: np.ndarray, half_mm: float) -> tuple[tuple[slice, slice, slice], Grid]:
        """Index slices of the part within `half_mm` of scene point `center` (x, y, z), and its grid."""
        parts, starts, counts = [], [], []
        for axis, value in enumerate(center[::-1]):
            start, step, count = self.grid.start_mm[axis], self.grid.step_mm[axis], self.grid.shape[axis]
            low = int(np.clip(np.floor((value - half_mm - start) / step), 0, count - 2))
            high = int(np.clip(np.ceil((value + half_mm - start) / step), low + 1, count - 1)) + 1
            parts.append(slice(low, high))
            starts.append(start + step * low)
            counts.append(high - low)
        return (parts[0], parts[1], parts[2]), Grid(
            (starts[0], starts[1], starts[2]), self.grid.step_mm, (counts[0], counts[1], counts[2])
        )


class Paint:
    """What is laid over a scene: slices become base * keep + add, so that partial volume is exact for any base."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.keep = np.ones(grid.shape, dtype=np.float32)
        self.add = np.zeros(grid.shape, dtype=np.float32)
        self.blood = np.zeros(grid.shape, dtype=np.float32)  # intraparenchymal fraction
        self.ivh = np.zeros(grid.shape, dtype=np.float32)
        self.edema = np.zeros(grid.shape, dtype=np.float32)

    def cover(self, box: tuple[slice, slice, slice], alpha: np.ndarray, hu: np.ndarray | float) -> None:
        """Replace the fraction `alpha` of the voxels of `box` with matter of `hu`; labels below it are covered too."""
        rest = 1 - alpha
        self.keep[box] *= rest
        self.add[box] = self.add[box] * rest + alpha * hu
        for label in (self.blood, self.ivh, self.edema):
            label[box] *= rest

    def shift(self, box: tuple[slice, slice, slice], delta: np.ndarray) -> None:
        """Add `delta` HU to the voxels of `box`."""
        self.add[box] += delta


def resample(field: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """`field` on `source` linearly interpolated on `target`."""
    return apply_separable(field, source.weights_to(target))
