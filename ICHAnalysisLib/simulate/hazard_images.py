"""Makers of hazardous NIfTI files from a known scan, each with its truth mask on the same grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.ct.images import load_spatial
from ICHAnalysisLib.simulate.hazard_scans import Bench, MadeScan
from ICHAnalysisLib.simulate.rescan import KnownScan


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray, oriented: bool = True) -> None:
    """An array (K, J, I), or (T, K, J, I), as NIfTI. oriented: False leaves out every direction."""
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.moveaxis(array, 0, -1) if array.ndim == 4 else array
    data = np.swapaxes(data, 0, 2)
    image = nib.Nifti1Image(data, affine)
    code = 1 if oriented else 0
    image.set_sform(affine if oriented else None, code)
    try:
        image.set_qform(affine if oriented else None, code if _rigid(affine) else 0)
    except np.linalg.LinAlgError:
        image.set_qform(None, 0)
    if not oriented:
        image.header.set_zooms([*np.linalg.norm(affine[:3, :3], axis=0), *([1.0] if array.ndim == 4 else [])])
    image.header["descrip"] = b"SIMULATED"
    nib.save(image, path)


def write_nrrd(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """An array (K, J, I) as uncompressed NRRD with its matrix as it is, whatever the angles of its axes."""
    depth, rows, columns = array.shape
    vectors = [f"({','.join(f'{value:.9g}' for value in affine[:3, axis])})" for axis in range(4)]
    lines = [
        "NRRD0004", "content: SIMULATED", "type: short", "dimension: 3", "space: right-anterior-superior",
        f"sizes: {columns} {rows} {depth}", f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain", "endian: little", "encoding: raw", f"space origin: {vectors[3]}", "", "",
    ]  # fmt: skip
    path.write_bytes("\n".join(lines).encode() + np.rint(array).astype("<i2").tobytes())


def _rigid(affine: np.ndarray) -> bool:
    """True where the axes are at right angles."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-4))


def _write(
    bench: Bench, folder: Path, scan: KnownScan | None = None, hu: np.ndarray | None = None, **options: Any
) -> MadeScan:
    """scan.nii.gz and, in a folder of its own, the truth."""
    scan = scan or bench.usual
    affine = options.pop("affine", scan.volume.ijk_to_ras)
    mask = options.pop("mask", scan.labels)
    values = scan.volume.hu if hu is None else hu
    write_nifti(folder / "scan.nii.gz", np.asarray(values), affine, **options)
    write_nifti(folder / "truth" / "mask.nii.gz", mask.astype(np.uint8), affine, **options)
    return MadeScan(
        folder / "scan.nii.gz",
        truth_ml=bench.known.truth_ml,
        centroid_ras=bench.known.centroid_ras,
        mask_path=folder / "truth" / "mask.nii.gz",
    )


def sheared(bench: Bench, folder: Path) -> MadeScan:
    """A tilted stack as converters leave it: a matrix whose axes are not at right angles."""
    return _write(bench, folder, bench.again(tilt_degrees=20.0))


def sheared_in_plane(bench: Bench, folder: Path) -> MadeScan:
    """Rows pushed aside within every slice."""
    return _write(bench, folder, bench.again(shear_degrees=12.0))


def sheared_nrrd(bench: Bench, folder: Path) -> MadeScan:
    """The tilted stack as NRRD, whose directions may have any angle."""
    scan = bench.again(tilt_degrees=20.0)
    made = _write(bench, folder, scan)
    made.path.unlink()
    write_nrrd(folder / "scan.nrrd", scan.volume.hu, scan.volume.ijk_to_ras)
    return replace(made, path=folder / "scan.nrrd")


def gray_levels(bench: Bench, folder: Path) -> MadeScan:
    return _write(bench, folder, hu=np.clip(bench.usual.volume.hu / 80.0 * 255.0, 0, 255).round())


def unit_range(bench: Bench, folder: Path) -> MadeScan:
    return _write(bench, folder, hu=np.clip(bench.usual.volume.hu / 80.0, 0, 1))


def clipped(bench: Bench, folder: Path) -> MadeScan:
    return _write(bench, folder, hu=np.clip(bench.usual.volume.hu, 0, 80))


def shifted(bench: Bench, folder: Path) -> MadeScan:
    return _write(bench, folder, hu=bench.usual.volume.hu + 1024.0)


def lost_slope(bench: Bench, folder: Path) -> MadeScan:
    """Four fifths of every value: a slope that a conversion lost."""
    return _write(bench, folder, hu=bench.usual.volume.hu * 0.8)


def two_orientations(bench: Bench, folder: Path) -> MadeScan:
    """The quaternion turned by half a circle against the matrix, as a careless reorientation leaves it."""
    return _with_quaternion(bench, folder, [-1.0, -1.0, 1.0])


def two_voxel_sizes(bench: Bench, folder: Path) -> MadeScan:
    """The header's own slice step half of the matrix's."""
    return _with_quaternion(bench, folder, [1.0, 1.0, 0.5])


def _with_quaternion(bench: Bench, folder: Path, factors: list[float]) -> MadeScan:
    import nibabel as nib

    made = _write(bench, folder)
    image = load_spatial(made.path)
    values, matrix = np.asarray(image.dataobj), image.affine
    other = nib.Nifti1Image(values, matrix, image.header)
    other.set_sform(matrix, 1)
    other.set_qform(matrix @ np.diag([*factors, 1.0]), 1)
    nib.save(other, made.path)
    return made


def mr_image(bench: Bench, folder: Path) -> MadeScan:
    """T1-like: no signal in air and bone, brain at some hundreds."""
    hu = bench.usual.volume.hu
    return _write(bench, folder, hu=np.where((hu > -40) & (hu < 300), 300.0 + 6.0 * hu, 5.0))


def flipped(bench: Bench, folder: Path) -> MadeScan:
    """Rows and columns stored the other way round, with the matrix that says so."""
    volume = bench.usual.volume
    affine = volume.ijk_to_ras.copy()
    for axis, size in ((0, volume.shape[2]), (1, volume.shape[1])):
        affine[:3, 3] += affine[:3, axis] * (size - 1)
        affine[:3, axis] *= -1.0
    return _write(bench, folder, hu=volume.hu[:, ::-1, ::-1], affine=affine, mask=bench.usual.labels[:, ::-1, ::-1])


def other_axes(bench: Bench, folder: Path) -> MadeScan:
    """The axial slices stored along the first axis."""
    affine = bench.usual.volume.ijk_to_ras[:, [2, 0, 1, 3]]
    turn = (1, 2, 0)  # new (K, J, I) from the old axes J, I, K
    return _write(
        bench,
        folder,
        hu=bench.usual.volume.hu.transpose(turn),
        affine=affine,
        mask=bench.usual.labels.transpose(turn),
    )


def no_direction(bench: Bench, folder: Path) -> MadeScan:
    made = _write(bench, folder, oriented=False)
    return replace(made, centroid_ras=np.full(3, np.nan))


def time_series(bench: Bench, folder: Path) -> MadeScan:
    hu = bench.usual.volume.hu
    return _write(bench, folder, hu=np.stack([hu, hu + 5.0, hu + 9.0]))


def some_nan(bench: Bench, folder: Path) -> MadeScan:
    hu = bench.usual.volume.hu.copy()
    hu.flat[:: hu.size // 50] = np.nan
    return _write(bench, folder, hu=hu)


def many_nan(bench: Bench, folder: Path) -> MadeScan:
    hu = bench.usual.volume.hu.copy()
    hu[:, ::6] = np.inf
    return _write(bench, folder, hu=hu)


def mask_other_grid(bench: Bench, folder: Path) -> MadeScan:
    """The mask was drawn on another scan of the same head, 3 mm upright."""
    made = _write(bench, folder)
    fine = bench.again(heights_mm=3.0)
    write_nifti(folder / "truth" / "mask.nii.gz", fine.labels, fine.volume.ijk_to_ras)
    return made


def mask_elsewhere(bench: Bench, folder: Path) -> MadeScan:
    made = _write(bench, folder)
    affine = bench.usual.volume.ijk_to_ras.copy()
    affine[:3, 3] += 500.0
    write_nifti(folder / "truth" / "mask.nii.gz", bench.usual.labels, affine)
    return made


def mask_255(bench: Bench, folder: Path) -> MadeScan:
    return _write(bench, folder, mask=bench.usual.labels * np.uint8(255))


def mask_classes(bench: Bench, folder: Path) -> MadeScan:
    """Classes 1 and 2 and a 7 that nobody explained."""
    labels = bench.usual.labels.copy()
    labels[0, :3, :3], labels[0, 5:7, :3] = 2, 7
    return _write(bench, folder, mask=labels)
