"""NIfTI, NRRD and MetaImage files as CTVolume, in file order, true affine (hazards 2, 15, 24, 25, 26, 30, 35)."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ICHAnalysisLib.ct.geometry import SHEAR_DEGREES
from ICHAnalysisLib.ct.memory import block_means, check_memory, reducing_matrix, reduction
from ICHAnalysisLib.ct.sources import blocked, image_suffix
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import InputBlockedError
from ICHAnalysisLib.findings import Finding, Level

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

SCANNER_CODE, TEMPLATE_CODES = 1, (3, 4)  # NIfTI's codes of a space: scanner; Talairach, MNI 152
_UNITS_TO_MM = {"meter": 1000.0, "micron": 0.001}


def read_image(path: Path, frame: int | None = None, pixels: bool = True) -> CTVolume:
    """One image file. With `pixels` False only the geometry is read and `hu` is one zero, broadcast.

    frame: 1-based time point of a 4-D file.
    Raises: InputBlockedError for a damaged file, one without usable geometry, or one with several time points.
    """
    reader = _read_nifti if image_suffix(path.name) in (".nii", ".nii.gz", ".hdr", ".img") else _read_itk
    try:
        return reader(path, frame, pixels)
    except InputBlockedError:
        raise
    except MemoryError as error:
        raise blocked("huge", 29, f"{path.name} is too large for this computer's memory.", "Crop it first.") from error
    except Exception as error:  # every way in which a damaged file can fail is one sentence for the user
        reason = (str(error) or type(error).__name__).strip().splitlines()[-1][:200]
        message = f"{path.name} cannot be read: the file is damaged or not what its name says ({reason})."
        raise blocked("damaged_files", 30, message, "Export or copy it again.") from error


def load_spatial(path: str | Path, **options: Any) -> SpatialImage:
    """nibabel's image of a file that holds voxels and a matrix, pixels not yet read; options: those of `nibabel.load`.

    Raises: nibabel's ImageFileError for a damaged file and for one of another kind, such as surfaces.
    """
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import SpatialImage

    image = nib.load(path, **options)
    if not isinstance(image, SpatialImage):
        raise ImageFileError(f"{Path(path).name} holds no voxels but {type(image).__name__}")
    return image


def _read_nifti(path: Path, frame: int | None, pixels: bool) -> CTVolume:
    image = load_spatial(path)
    shape = tuple(int(size) for size in image.shape)
    if image.get_data_dtype().fields is not None or np.issubdtype(image.get_data_dtype(), np.complexfloating):
        raise blocked("not_hu", 15, f"{path.name} holds colors or complex numbers, not CT numbers.", "Give the CT.")
    volume_index = _time_point(path, shape, frame)
    factor, huge = reduction(math.prod(shape[:3]), path.name)
    affine, findings, side_known = _nifti_affine(image, path)
    data = np.broadcast_to(np.float32(0.0), shape[:3])
    if pixels:
        if factor > 1:  # a compressed file is read once from front to back, not from its start for every slice
            image = load_spatial(path, keep_file_open=True)
        data = _nifti_values(image, shape, volume_index, factor)
        affine = affine @ reducing_matrix(factor)
    hu = np.transpose(data, (2, 1, 0))
    description = {"kind": "nifti", "modality": "", "slices": shape[2], "data_type": str(image.get_data_dtype())}
    if b"simulated" in bytes(getattr(image.header, "structarr", {"descrip": b""})["descrip"]).lower():
        description["simulated"] = True
    return _from_matrix(hu, affine, path, description, (*findings, *huge), side_known)


def _nifti_values(image: Any, shape: tuple[int, ...], volume_index: int, factor: int) -> np.ndarray:
    """float32 (I, J, K) of one time point; read slice by slice and averaged in blocks where it is too large."""
    last = tuple(int(n) for n in np.unravel_index(volume_index, shape[3:])) if len(shape) > 3 else ()
    if factor == 1:
        index = (Ellipsis, *last)
        return np.asarray(image.dataobj[index] if last else image.dataobj, dtype=np.float32)
    out = np.empty((shape[0] // factor, shape[1] // factor, shape[2]), dtype=np.float32)
    for k in range(shape[2]):
        index = (slice(None), slice(None), k, *last)
        out[..., k] = block_means(np.asarray(image.dataobj[index]), factor)
    return out


def _time_point(path: Path, shape: tuple[int, ...], frame: int | None) -> int:
    """Index of the time point to read; blocks a file of several where none is named (hazard 26)."""
    if len(shape) < 3 or min(shape) < 1:
        raise blocked("damaged_files", 30, f"{path.name} is no stack of slices (shape {shape}).", "Give a 3-D scan.")
    count = math.prod(shape[3:])
    if count > 1 and frame is None:
        raise blocked(
            "time_series",
            26,
            f"{path.name} holds {count} volumes (a perfusion or 4-D series), not one scan.",
            f"Name the one to analyze, without contrast: --series 1 to --series {count}.",
        )
    if frame is not None and not 1 <= frame <= count:
        raise blocked("time_series", 26, f"{path.name} holds {count} volume(s), not {frame}.", "Name another.")
    return 0 if frame is None else frame - 1


def _nifti_affine(image: Any, path: Path) -> tuple[np.ndarray, tuple[Finding, ...], bool]:
    """RAS affine in mm, what was odd about it, and whether left and right are known (hazard 25)."""
    header, affine = image.header, np.array(image.affine, dtype=float)
    units = header.get_xyzt_units()[0] if hasattr(header, "get_xyzt_units") else "unknown"
    affine[:3] *= _UNITS_TO_MM.get(units, 1.0)
    if not hasattr(header, "get_sform"):
        return affine, (), False
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if sform == 0 and qform == 0:
        return affine, (), False
    findings, side_known = list(_voxel_size(image, affine, path)), True
    if sform in TEMPLATE_CODES and (qform != SCANNER_CODE or findings):
        message = f"{path.name} says that it was fitted to a template brain; volumes would be those of the template."
        findings.append(Finding("template_space", Level.ASK, message, "Use the scan as it was acquired.", 25))
    if sform > 0 and qform > 0:
        try:
            other = np.array(header.get_qform(), dtype=float)
        except Exception:  # a broken quaternion next to a usable matrix
            return affine, tuple(findings), True
        if np.linalg.det(other[:3, :3]) * np.linalg.det(affine[:3, :3]) < 0 or _angle(other, affine) > 45.0:
            message = f"The two orientations stored in {path.name} contradict each other, so no side can be stated."
            findings.append(Finding("orientation_conflict", Level.ASK, message, "Convert the DICOM images again.", 25))
            side_known = False
    return affine, tuple(findings), side_known


def _voxel_size(image: Any, affine: np.ndarray, path: Path) -> tuple[Finding, ...]:
    """A matrix whose voxels have another size than the header's own field of sizes: one of the two is wrong.

    The slice step of a tilted stack is written along the table or along the slices' normal; both are right.
    """
    stated = np.array(image.header.get_zooms()[:3], dtype=float)
    unit = _UNITS_TO_MM.get(image.header.get_xyzt_units()[0], 1.0)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    across = abs(float(affine[:3, 2] @ normal)) / max(float(np.linalg.norm(normal)), 1e-12)
    lowest = np.array([lengths[0], lengths[1], across])
    if not np.isfinite(lengths).all() or not np.isfinite(stated).all():
        return ()
    if ((stated * unit >= 0.98 * lowest) & (stated * unit <= 1.02 * lengths)).all():
        return ()
    sizes = [" x ".join(f"{size:.3g}" for size in sizes) for sizes in (lengths, stated * unit)]
    message = (
        f"{path.name} states two sizes of its voxels, {sizes[0]} mm (used) and {sizes[1]} mm: "
        "volumes may be wrong in this proportion."
    )
    return (Finding("voxel_size_conflict", Level.ASK, message, "Convert the DICOM images again.", 25),)


def _angle(first: np.ndarray, second: np.ndarray) -> float:
    """Largest angle between the axes of two affines, degrees."""
    one = first[:3, :3] / np.linalg.norm(first[:3, :3], axis=0)
    two = second[:3, :3] / np.linalg.norm(second[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip((one * two).sum(axis=0), -1, 1))).max())


def _read_itk(path: Path, frame: int | None, pixels: bool) -> CTVolume:
    import SimpleITK as sitk  # noqa: N813

    _refuse_outside_data(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "orthonormal" in str(error) or "determinant" in str(error).lower():
            message = f"{path.name} is sheared: its axes are not at right angles, and this format cannot be read so."
            raise blocked("sheared", 2, message, "Save it as NIfTI, or export the DICOM images.") from error
        raise
    size = reader.GetSize()
    if reader.GetNumberOfComponents() > 1 and len(size) == 3:
        size = (*size, reader.GetNumberOfComponents())
    index = _time_point(path, tuple(size), frame)
    check_memory(math.prod(int(n) for n in (size if pixels else size[:3])), path.name)
    direction = np.array(reader.GetDirection()).reshape(len(reader.GetSize()), -1)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    affine[:2] *= -1.0
    hu = np.broadcast_to(np.float32(0.0), (size[2], size[1], size[0]))
    if pixels:
        data = sitk.GetArrayFromImage(reader.Execute())
        if reader.GetNumberOfComponents() > 1:
            data = np.moveaxis(data, -1, 0)
        hu = data.reshape(-1, *hu.shape)[index].astype(np.float32)
    kind = "nrrd" if image_suffix(path.name) in (".nrrd", ".nhdr") else "metaimage"
    description = {"kind": kind, "modality": "", "slices": size[2], "data_type": reader.GetPixelIDValue()}
    description["data_type"] = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    return _from_matrix(hu, affine, path, description, (), True)


def _refuse_outside_data(path: Path) -> None:
    """A detached header (.mhd, .nhdr) may only name data files of its own folder, also in a list that follows."""
    if image_suffix(path.name) not in (".mhd", ".nhdr", ".mha", ".nrrd"):
        return
    with open(path, "rb") as stream:
        head = stream.read(16384).decode("latin-1")
    for name in _data_files(head):
        if name.startswith(("/", "\\", "~")) or ".." in name or re.match(r"[A-Za-z]:", name):
            message = f"{path.name} names a data file outside its own folder."
            raise blocked("outside_data", 30, message, "Keep header and data in one folder.")


def _data_files(head: str) -> list[str]:
    """The names in a header's data file field; after LIST every line that follows is one."""
    names: list[str] = []
    for found in re.finditer(r"^(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", head, re.M | re.I):
        names.append(found.group(1))
        if found.group(1).upper().startswith("LIST"):
            names += [line.strip() for line in head[found.end() :].splitlines()]
    return names


def _from_matrix(
    hu: np.ndarray, affine: np.ndarray, path: Path, source: dict, findings: tuple[Finding, ...], side_known: bool
) -> CTVolume:
    """A CTVolume from array and RAS affine, after checks that the matrix means anything."""
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.isfinite(affine).all() or lengths.min() < 1e-3 or lengths.max() > 100.0:
        raise blocked(
            "pixel_spacing_missing",
            38,
            f"{path.name} does not say how large its voxels are ({np.round(lengths, 4).tolist()} mm).",
            "Convert the DICOM images again.",
        )
    if abs(np.linalg.det(columns / lengths)) < 0.2:
        raise blocked("sheared", 2, f"The axes of {path.name} lie in one plane.", "Convert the DICOM images again.")
    hu, affine, reordered = _slices_first(hu, affine)
    volume = CTVolume.from_affine(hu, affine, source=source, side_known=side_known)
    volume = replace(volume, hu=hu) if hu.strides[0] == 0 else volume
    return volume.with_findings(*findings, *reordered, *_sheared(volume))


def _slices_first(hu: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[Finding, ...]]:
    """Axes exchanged where an axial stack was stored with its slices along I or J (hazard 25)."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axial = int(np.argmax(np.abs(affine[2, :3] / lengths)))
    if axial == 2 or lengths[axial] < 0.99 * lengths.max():
        return hu, affine, ()
    order = [axis for axis in range(3) if axis != axial] + [axial]  # the new I, J, K as old axes
    turned = np.transpose(hu, tuple(2 - axis for axis in reversed(order)))
    matrix = affine.copy()
    matrix[:3, :3] = affine[:3, order]
    message = "The file stores the axial slices along another axis; the axes were exchanged."
    return turned, matrix, (Finding("axes_exchanged", Level.FIX, message, "None needed.", 25),)


def _sheared(volume: CTVolume) -> tuple[Finding, ...]:
    """Hazard 2: axes that are not at right angles; the stack's own geometry takes them as they are."""
    columns = volume.ijk_to_ras[:3, :3] / np.linalg.norm(volume.ijk_to_ras[:3, :3], axis=0)
    cosines = [abs(float(columns[:, a] @ columns[:, b])) for a, b in ((0, 1), (0, 2), (1, 2))]
    angle = float(np.degrees(np.arcsin(np.clip(max(cosines), 0.0, 1.0))))
    if angle <= SHEAR_DEGREES:
        return ()
    message = (
        f"The axes of the file are not at right angles ({angle:.1f} degrees off); every voxel keeps its true place."
    )
    if volume.shear_degrees > SHEAR_DEGREES:
        message += " The networks read an upright copy."
    return (Finding("sheared", Level.FIX, message, "None needed.", 2),)
