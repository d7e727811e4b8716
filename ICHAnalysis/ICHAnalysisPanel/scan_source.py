"""A scan as it travels to the worker: the files to reread, or the voxels of a node with the true place of each slice.

Knows neither Slicer nor Qt: the worker process imports it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ICHAnalysisLib.findings import Finding, Level

if TYPE_CHECKING:
    from ICHAnalysisLib.ct.volume import CTVolume


@dataclass(frozen=True, eq=False)
class ScanSource:
    """Where the voxels of a volume node come from.

    shape: (K, J, I) of the node. origins (K, 3), column_step (3,), row_step (3,): RAS mm of the node's slices.
    files: DICOM files to reread, in the node's slice order, empty for a node without them; instance_uids: theirs.
    voxels: int16 or float32 (K, J, I), or the path of an .npy file with them; None where `files` are reread.
    notes: what was found while reading the node. simulated: the node says that it holds a simulated scan.
    """

    shape: tuple[int, int, int]
    origins: np.ndarray
    column_step: np.ndarray
    row_step: np.ndarray
    files: tuple[str, ...] = ()
    instance_uids: tuple[str, ...] = ()
    voxels: np.ndarray | str | None = None
    notes: tuple[Finding, ...] = ()
    simulated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; voxels must be a path by then."""
        return {
            "shape": list(self.shape),
            "origins": self.origins.tolist(),
            "column_step": self.column_step.tolist(),
            "row_step": self.row_step.tolist(),
            "files": list(self.files),
            "instance_uids": list(self.instance_uids),
            "voxels": self.voxels,
            "notes": [note.to_dict() for note in self.notes],
            "simulated": self.simulated,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ScanSource:
        """The inverse of `to_dict`."""
        return cls(
            tuple(data["shape"]),
            np.asarray(data["origins"], float),
            np.asarray(data["column_step"], float),
            np.asarray(data["row_step"], float),
            tuple(data["files"]),
            tuple(data["instance_uids"]),
            data["voxels"],
            tuple(Finding.from_dict(note) for note in data["notes"]),
            data["simulated"],
        )

    @property
    def geometry(self) -> CTVolume:
        """The node's slices without their voxels, for points between voxels and RAS."""
        return self._volume(np.broadcast_to(np.float32(0), self.shape))

    def _volume(self, hu: np.ndarray) -> CTVolume:
        from ICHAnalysisLib.ct.volume import CTVolume

        normal = np.cross(self.column_step, self.row_step)
        steps = np.abs(np.diff(self.origins @ (normal / np.linalg.norm(normal))))
        thickness = float(np.median(steps)) if len(steps) else 5.0
        source = {"kind": "slicer_node", "simulated": True} if self.simulated else {"kind": "slicer_node"}
        return CTVolume(
            hu, self.column_step, self.row_step, self.origins, np.full(len(hu), thickness), self.notes, source
        )


def load_volume(source: ScanSource) -> CTVolume:
    """The checked scan with all its findings; blocks and questions are findings here, not errors.

    Raises InputBlockedError where the files cannot be read as a CT at all.
    """
    from ICHAnalysisLib.ct.checks import check_pixels

    if source.files:
        return reread(source)
    voxels = np.load(source.voxels, mmap_mode="r") if isinstance(source.voxels, str) else source.voxels
    return check_pixels(source._volume(np.asarray(voxels, np.float32)))


def reread(source: ScanSource) -> CTVolume:
    """The scan from its DICOM files, with the slice positions that the files state."""
    from ICHAnalysisLib.ct.readers import inspect_scan

    with tempfile.TemporaryDirectory(prefix="ich-") as folder:
        for number, file in enumerate(source.files):
            _link(Path(file), Path(folder) / f"{number:05d}.dcm")
        volume = inspect_scan(folder)
    return replace(volume, findings=(*volume.findings, *source.notes))


def _link(file: Path, target: Path) -> None:
    """The file under another name: a link where the system allows one, else a copy."""
    for make in (os.symlink, os.link, shutil.copyfile):
        try:
            make(file, target)
            return
        except OSError:
            continue
    raise OSError(f"{file.name} can neither be linked nor copied to {target.parent}.")


def on_node(array: np.ndarray, volume: CTVolume, source: ScanSource) -> np.ndarray:
    """An array on the analyzed slices (K', J', I') carried to the node's voxels (K, J, I), nearest voxel.

    Slices are matched by their DICOM instance, else by their position; a node slice that was not analyzed is 0.
    """
    if not source.files:
        return array
    depth, rows, columns = source.shape
    order = node_slices(volume, source)
    if array.shape[1:] != (rows, columns):
        factor_rows, factor_columns = -(-rows // array.shape[1]), -(-columns // array.shape[2])
        array = array.repeat(factor_rows, axis=1).repeat(factor_columns, axis=2)[:, :rows, :columns]
        missing = ((0, 0), (0, rows - array.shape[1]), (0, columns - array.shape[2]))
        array = np.pad(array, missing)
    out = np.zeros(source.shape, array.dtype)
    for k in range(depth):
        if order[k] >= 0:
            out[k] = array[order[k]]
    return out


def from_node(array: np.ndarray, volume: CTVolume, source: ScanSource) -> np.ndarray:
    """The inverse of `on_node` for a label map: node voxels to the analyzed slices (nearest)."""
    if not source.files:
        return array
    order = node_slices(volume, source)
    rows, columns = volume.shape[1:]
    step_rows, step_columns = max(1, source.shape[1] // rows), max(1, source.shape[2] // columns)
    reduced = array[:, ::step_rows, ::step_columns][:, :rows, :columns]
    out = np.zeros(volume.shape, array.dtype)
    for k, analyzed in enumerate(order):
        if analyzed >= 0:
            out[analyzed] = reduced[k]
    return out


def node_slices(volume: CTVolume, source: ScanSource) -> np.ndarray:
    """(K,) index of the analyzed slice for each node slice, -1 for none."""
    if not source.files:
        return np.arange(source.shape[0])
    uids = [instance.sop_instance_uid for instance in volume.instances]
    if len(source.instance_uids) == source.shape[0] and len(set(uids)) == len(uids) == volume.shape[0]:
        where = {uid: k for k, uid in enumerate(uids)}
        if sum(uid in where for uid in source.instance_uids) >= source.shape[0] // 2:
            order = np.array([where.get(uid, -1) for uid in source.instance_uids])
            return order if _along(order, source, volume) else order[::-1]
    positions = source.origins @ volume.normal_ras
    distance = np.abs(positions[:, None] - volume.positions_mm[None])
    nearest = distance.argmin(axis=1)
    return np.where(distance.min(axis=1) <= volume.slice_heights_mm[nearest], nearest, -1)


def _along(order: np.ndarray, source: ScanSource, volume: CTVolume) -> bool:
    """True where the node's slices run the way that the order of its instances says (the attribute is unordered)."""
    known = np.flatnonzero(order >= 0)
    if len(known) < 2:
        return True
    first, last = known[0], known[-1]
    node_way = (source.origins[last] - source.origins[first]) @ volume.normal_ras
    return bool((volume.positions_mm[order[last]] - volume.positions_mm[order[first]]) * node_way > 0)


def note(code: str, message: str, remedy: str = "None needed.", level: Level = Level.FIX, hazard: int = 0) -> Finding:
    """A finding about the node itself."""
    return Finding(code, level, message, remedy, hazard)
