"""`CTVolume`: Hounsfield units and where every slice truly lies.

Axis order of arrays is (K, J, I): slice, row, column. Positions are mm in RAS (Right, Anterior, Superior positive).
A stack may be tilted (steps not along the slice normal) and uneven, so each slice carries its own origin; the
4 x 4 matrix is exact only where `is_regular`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.findings import Finding


@dataclass(frozen=True)
class InstanceRef:
    """The DICOM object behind one slice, for writers that refer to it; never part of analysis.json.

    path: the file, or the zip that holds `member`; frame: 0-based frame of a multi-frame object.
    """

    path: str
    member: str | None
    sop_class_uid: str
    sop_instance_uid: str
    frame: int = 0


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A stack of parallel CT slices.

    hu: float32 (K, J, I), Hounsfield units.
    column_step_ras: (3,) mm from column i to i + 1; row_step_ras: (3,) mm from row j to j + 1.
    slice_origins_ras: (K, 3) mm, the center of voxel (j=0, i=0) of each slice.
    slice_thickness_mm: (K,) nominal thickness, equal to the slice height where unknown.
    findings: what the readers and checks said so far.
    source: facts about the file, without identifiers (kind, series_number, kernel, manufacturer ...).
    side_known: False where the file gives no direction, so that no side may be stated.
    instances: the DICOM object of each slice (K of them), empty where the scan is no DICOM series.
    """

    hu: np.ndarray
    column_step_ras: np.ndarray
    row_step_ras: np.ndarray
    slice_origins_ras: np.ndarray
    slice_thickness_mm: np.ndarray
    findings: tuple[Finding, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    side_known: bool = True
    instances: tuple[InstanceRef, ...] = ()

    def __post_init__(self) -> None:
        if self.hu.ndim != 3:
            raise UsageError(f"A CT volume has three axes (K, J, I); this array has shape {self.hu.shape}.")
        if self.slice_origins_ras.shape != (self.hu.shape[0], 3):
            raise UsageError(f"{self.hu.shape[0]} slices need as many origins, got {self.slice_origins_ras.shape}.")
        if self.slice_thickness_mm.shape != (self.hu.shape[0],):
            raise UsageError(
                f"{self.hu.shape[0]} slices need as many thicknesses, got {self.slice_thickness_mm.shape}."
            )

    @classmethod
    def from_affine(
        cls,
        hu: np.ndarray,
        ijk_to_ras: np.ndarray,
        slice_thickness_mm: float | None = None,
        **fields: Any,
    ) -> CTVolume:
        """A regular stack from its 4 x 4 IJK-to-RAS matrix (I, J, K order of the index vector)."""
        affine = np.asarray(ijk_to_ras, dtype=float)
        depth = hu.shape[0]
        origins = affine[:3, 3] + np.arange(depth)[:, None] * affine[:3, 2]
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        normal /= np.linalg.norm(normal)
        step = abs(float(affine[:3, 2] @ normal))
        thickness = np.full(depth, step if slice_thickness_mm is None else float(slice_thickness_mm))
        return cls(
            np.asarray(hu, dtype=np.float32), affine[:3, 0].copy(), affine[:3, 1].copy(), origins, thickness, **fields
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, J, I)."""
        return self.hu.shape  # type: ignore[return-value]

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(column, row, mean perpendicular slice) spacing in mm, in I, J, K order."""
        return (
            float(np.linalg.norm(self.column_step_ras)),
            float(np.linalg.norm(self.row_step_ras)),
            float(np.mean(self.slice_heights_mm)) if self.shape[0] < 2 else float(np.mean(np.abs(self.steps_mm))),
        )

    @cached_property
    def normal_ras(self) -> np.ndarray:
        """(3,) unit normal of the slices, pointing the way k grows."""
        normal = np.cross(self.column_step_ras, self.row_step_ras)
        normal = normal / np.linalg.norm(normal)
        if self.shape[0] > 1 and (self.slice_origins_ras[-1] - self.slice_origins_ras[0]) @ normal < 0:
            normal = -normal
        return normal

    @cached_property
    def positions_mm(self) -> np.ndarray:
        """(K,) position of each slice along the normal, mm."""
        return self.slice_origins_ras @ self.normal_ras

    @cached_property
    def steps_mm(self) -> np.ndarray:
        """(K - 1,) perpendicular distance from each slice to the next, mm."""
        return np.diff(self.positions_mm)

    @cached_property
    def usual_steps_mm(self) -> np.ndarray:
        """(K - 1,) the step that slices as thick as each pair usually have: the median among such pairs, mm."""
        steps = np.abs(self.steps_mm)
        thinner = np.minimum(self.slice_thickness_mm[:-1], self.slice_thickness_mm[1:])
        return np.array([np.median(steps[np.isclose(thinner, own, rtol=0.02)]) for own in thinner])

    @cached_property
    def missing_after(self) -> np.ndarray:
        """Indices k with slices missing between k and k + 1 (hazard 3).

        A step counts where its free gap (the step less half of both thicknesses) exceeds half the thinner slice and
        the step is not the usual one of a stack that leaves gaps throughout.
        """
        if self.shape[0] < 4 or self.is_even:
            return np.zeros(0, dtype=int)
        thickness, steps = self.slice_thickness_mm, np.abs(self.steps_mm)
        free = steps - (thickness[:-1] + thickness[1:]) / 2
        hole = free > 0.5 * np.minimum(thickness[:-1], thickness[1:])
        return np.flatnonzero(hole & (steps > 1.25 * self.usual_steps_mm))

    @cached_property
    def slice_heights_mm(self) -> np.ndarray:
        """(K,) height that each slice stands for: half the step to each neighbor; ends add half their own thickness.

        Where slices are missing, the neighbors stand for half their usual step only: nothing is invented in the gap.
        """
        if self.shape[0] == 1:
            return np.asarray(self.slice_thickness_mm, dtype=float).copy()
        steps = np.abs(self.steps_mm)
        gaps = self.missing_after
        if len(gaps):
            steps[gaps] = self.usual_steps_mm[gaps]
        below = np.concatenate([[self.slice_thickness_mm[0]], steps])
        above = np.concatenate([steps, [self.slice_thickness_mm[-1]]])
        return (below + above) / 2

    @cached_property
    def voxel_area_mm2(self) -> float:
        """Area of a pixel, mm2."""
        return float(np.linalg.norm(np.cross(self.column_step_ras, self.row_step_ras)))

    @cached_property
    def voxel_volumes_ml(self) -> np.ndarray:
        """(K,) volume of one voxel of each slice, mL."""
        return self.voxel_area_mm2 * self.slice_heights_mm / 1000.0

    def mask_volume_ml(self, mask: np.ndarray) -> float:
        """Volume of a (K, J, I) boolean mask with true slice heights, mL (spec definition 3.2)."""
        return float(np.count_nonzero(mask, axis=(1, 2)) @ self.voxel_volumes_ml)

    @cached_property
    def tilt_degrees(self) -> float:
        """Angle between the slice normal and the line through the slice origins, degrees (hazard 1)."""
        if self.shape[0] < 2:
            return 0.0
        line = self.slice_origins_ras[-1] - self.slice_origins_ras[0]
        length = float(np.linalg.norm(line))
        if length < 1e-9:
            return 0.0
        cosine = abs(float(line @ self.normal_ras)) / length
        return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))

    @cached_property
    def shear_degrees(self) -> float:
        """By how much rows and columns miss a right angle, degrees (hazard 2); 0 for every DICOM slice."""
        across, down, _ = self.spacing_mm
        cosine = float(self.column_step_ras @ self.row_step_ras) / (across * down)
        return float(np.degrees(np.arcsin(np.clip(abs(cosine), 0.0, 1.0))))

    @cached_property
    def is_even(self) -> bool:
        """True where the steps vary by at most 1 % (hazard 5)."""
        if self.shape[0] < 3:
            return True
        steps = np.abs(self.steps_mm)
        return float(np.std(steps)) <= 0.01 * float(np.mean(steps))

    @property
    def is_regular(self) -> bool:
        """True where one rigid 4 x 4 matrix describes every voxel: even steps, tilt and shear below 0.5 degrees."""
        return self.is_even and max(self.tilt_degrees, self.shear_degrees) <= 0.5

    @cached_property
    def ijk_to_ras(self) -> np.ndarray:
        """(4, 4) matrix of (i, j, k, 1); the best straight line through the origins where steps are uneven."""
        affine = np.eye(4)
        affine[:3, 0] = self.column_step_ras
        affine[:3, 1] = self.row_step_ras
        depth = self.shape[0]
        if depth == 1:
            affine[:3, 2] = self.normal_ras * self.slice_thickness_mm[0]
            affine[:3, 3] = self.slice_origins_ras[0]
            return affine
        affine[:3, 2] = (self.slice_origins_ras[-1] - self.slice_origins_ras[0]) / (depth - 1)
        affine[:3, 3] = self.slice_origins_ras[0]
        return affine

    def ijk_to_ras_points(self, ijk: np.ndarray) -> np.ndarray:
        """(N, 3) RAS mm of (N, 3) continuous i, j, k indices, true on uneven stacks too."""
        ijk = np.atleast_2d(np.asarray(ijk, dtype=float))
        ks = np.arange(self.shape[0])
        slopes = self._extrapolated_origins(ijk[:, 2], ks)
        return slopes + ijk[:, :1] * self.column_step_ras + ijk[:, 1:2] * self.row_step_ras

    def _extrapolated_origins(self, k: np.ndarray, ks: np.ndarray) -> np.ndarray:
        """(N, 3) origin at fractional slice index k, straight between slices and beyond the ends."""
        if len(ks) == 1:
            return self.slice_origins_ras[0] + (k[:, None]) * self.normal_ras * self.slice_thickness_mm[0]
        low = np.clip(np.floor(k).astype(int), 0, len(ks) - 2)
        fraction = (k - low)[:, None]
        return self.slice_origins_ras[low] * (1 - fraction) + self.slice_origins_ras[low + 1] * fraction

    def ras_to_ijk_points(self, ras: np.ndarray) -> np.ndarray:
        """(N, 3) continuous i, j, k indices of (N, 3) RAS mm; the inverse of `ijk_to_ras_points`."""
        ras = np.atleast_2d(np.asarray(ras, dtype=float))
        ks = np.arange(self.shape[0], dtype=float)
        depth = ras @ self.normal_ras
        if len(ks) == 1:
            k = (depth - self.positions_mm[0]) / self.slice_thickness_mm[0]
        else:
            k = np.interp(depth, self.positions_mm, ks)
            first, last = self.steps_mm[0], self.steps_mm[-1]
            k = np.where(depth < self.positions_mm[0], (depth - self.positions_mm[0]) / first, k)
            k = np.where(depth > self.positions_mm[-1], ks[-1] + (depth - self.positions_mm[-1]) / last, k)
        offset = ras - self._extrapolated_origins(k, ks)
        plane = np.stack([self.column_step_ras, self.row_step_ras], axis=1)  # (3, 2)
        ij = offset @ np.linalg.pinv(plane).T
        return np.concatenate([ij, k[:, None]], axis=1)

    def with_findings(self, *findings: Finding) -> CTVolume:
        """The same volume with more findings."""
        return replace(self, findings=(*self.findings, *findings))
