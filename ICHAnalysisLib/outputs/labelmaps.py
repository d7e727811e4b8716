"""Label maps and the heatmap as NIfTI files: on the acquired slices one for one, and upright in their true place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.outputs.atomic import atomic_path
from ICHAnalysisLib.outputs.upright import labels_on_grid, upright_grid

#: Largest cosine between two axes that a NIfTI header may show and ITK still reads.
_LARGEST_SHEAR = 1e-4


def has_exact_header(volume: CTVolume) -> bool:
    """True where one rigid header describes every voxel, so that the scan's own affine is kept to the digit."""
    axes = volume.ijk_to_ras[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    shear = max(abs(float(axes[:, a] @ axes[:, b])) for a, b in ((0, 1), (0, 2), (1, 2)))
    return volume.is_even and shear <= _LARGEST_SHEAR


def header_affine(volume: CTVolume) -> np.ndarray:
    """(4, 4) IJK-to-RAS matrix for a file on the acquired slices.

    The scan's own where that is exact; otherwise rigid: the in-plane axes, the normal with the mean step along it,
    and the stack placed so that the mean of the slice centers is true.
    """
    if has_exact_header(volume):
        return volume.ijk_to_ras.copy()
    depth, rows, columns = volume.shape
    affine = np.eye(4)
    column = volume.column_step_ras
    row = volume.row_step_ras - column * (volume.row_step_ras @ column) / (column @ column)
    affine[:3, 0] = column
    affine[:3, 1] = row * np.linalg.norm(volume.row_step_ras) / np.linalg.norm(row)
    step = float(np.mean(volume.steps_mm)) if depth > 1 else float(volume.slice_thickness_mm[0])
    affine[:3, 2] = volume.normal_ras * step
    half = np.array([(columns - 1) / 2, (rows - 1) / 2])
    centers = volume.slice_origins_ras + half[0] * volume.column_step_ras + half[1] * volume.row_step_ras
    middle = np.array([half[0], half[1], (depth - 1) / 2])
    affine[:3, 3] = centers.mean(axis=0) - affine[:3, :3] @ middle
    return affine


def header_finding(volume: CTVolume) -> Finding | None:
    """What a reader of segmentation.nii.gz must know; None where its header is exact."""
    if has_exact_header(volume):
        return None
    reasons = []
    if volume.tilt_degrees > 0.5:
        reasons.append(f"tilted by {volume.tilt_degrees:.1f} degrees")
    if not volume.is_even:
        reasons.append("unevenly spaced")
    if volume.shear_degrees > 0.5:
        reasons.append(f"sheared by {volume.shear_degrees:.1f} degrees")
    shape = " and ".join(reasons) or "not quite at right angles"
    error = float(np.max(header_errors_mm(volume)))
    return Finding(
        "rigid_header",
        Level.FIX,
        f"The slices are {shape}, which no NIfTI header can hold: in segmentation.nii.gz each plane is an acquired "
        f"slice, but its stated place is up to {error:.1f} mm off.",
        "Use segmentation_ras.nii.gz where position matters; the true positions stand in analysis.json.",
        hazard=1 if volume.tilt_degrees > 0.5 else 2 if volume.is_even else 5,
    )


def header_errors_mm(volume: CTVolume) -> np.ndarray:
    """(K,) largest distance between the true corners of each slice and where `header_affine` puts them, mm."""
    depth, rows, columns = volume.shape
    affine = header_affine(volume)
    i, j, k = np.meshgrid([0, columns - 1], [0, rows - 1], np.arange(depth), indexing="ij")
    index = np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1)
    stated = index @ affine[:3, :3].T + affine[:3, 3]
    apart = np.linalg.norm(stated - volume.ijk_to_ras_points(index), axis=1)
    return apart.reshape(4, depth).max(axis=0)


def write_labels(labels: np.ndarray, volume: CTVolume, path: Path) -> Path:
    """Write labels uint8 (K, J, I) on the acquired slices."""
    return _write_nifti(np.asarray(labels, dtype=np.uint8), header_affine(volume), path, "ICH=1 IVH=2")


def write_labels_ras(labels: np.ndarray, volume: CTVolume, path: Path) -> Path:
    """Write labels uint8 (K, J, I) on the upright regular grid through the true positions."""
    grid = upright_grid(volume)
    return _write_nifti(labels_on_grid(labels, volume, grid), grid.affine, path, "ICH=1 IVH=2, upright grid")


def write_heatmap(heatmap: np.ndarray, volume: CTVolume, path: Path) -> Path:
    """Write model attention in [0, 1], (K, J, I), on the acquired slices in steps of 1/255."""
    scaled = np.rint(np.clip(np.nan_to_num(heatmap), 0.0, 1.0) * 255).astype(np.uint8)
    return _write_nifti(scaled, header_affine(volume), path, "model attention", slope=1 / 255)


def read_array(path: Path, volume: CTVolume) -> np.ndarray:
    """Read a label map or heatmap written for this scan: float32 (K, J, I). UsageError where the grids differ."""
    import nibabel

    if not Path(path).is_file():
        raise UsageError(f"{path}: no such file.")
    image: Any = nibabel.load(path)
    array = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)
    same = array.shape == volume.shape and np.allclose(image.affine, header_affine(volume), atol=1e-2)
    if not same:
        raise UsageError(f"{Path(path).name} does not lie on the slices of this scan: it belongs to another series.")
    return array


def _write_nifti(array_kji: np.ndarray, affine: np.ndarray, path: Path, note: str, slope: float | None = None) -> Path:
    """One compressed NIfTI file with equal sform and qform in scanner space."""
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(array_kji.transpose(2, 1, 0)), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"ICHAnalysis {note}, research use only".encode()[:79]
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    with atomic_path(path) as temporary:
        nibabel.save(image, str(temporary))
    return Path(path)
