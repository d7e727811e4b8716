"""A small anatomical model in ellipsoids, and MINC files of it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from scipy.io import netcdf_file

from ICHAnalysisLib.simulate.tissue_head import CLASSES

NAMES = list(CLASSES)
START = (-72.0, -126.0, -90.0)  # z, y, x of the first voxel, mm: as BrainWeb's
SHAPE = (159, 217, 181)


def egg(center: tuple[float, float, float], half: tuple[float, float, float]) -> np.ndarray:
    """bool (Z, Y, X) on a 1 mm grid that runs up, forward and to the right; center and half axes as x, y, z."""
    z, y, x = np.meshgrid(*[s + np.arange(n) for s, n in zip(START, SHAPE, strict=True)], indexing="ij", sparse=True)
    scaled = ((p - c) / h for p, c, h in zip((x, y, z), center, half, strict=True))
    return sum(v * v for v in scaled) < 1


def model() -> np.ndarray:
    """uint8 labels (Z, Y, X): scalp, skull, fluid, grey, white and a pair of ventricles, in ellipsoids."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for name, grown in (("skin", 14), ("skull", 8), ("csf", 2), ("grey", 0), ("white", -6)):
        labels[egg((0, -14, 2), (67 + grown, 84 + grown, 62 + grown))] = NAMES.index(name)
    for side in (-1, 1):
        labels[egg((12 * side, -16, 12), (6, 30, 7))] = NAMES.index("csf")
    return labels


def write_minc(path: Path, labels: np.ndarray) -> Path:
    """A MINC 1 file of 1 mm, as BrainWeb's are written, gzipped."""
    plain = path.with_suffix("")
    with netcdf_file(plain, "w") as file:
        for name, length, start in zip(("zspace", "yspace", "xspace"), labels.shape, START, strict=True):
            file.createDimension(name, length)
            axis = file.createVariable(name, "i", ())
            axis.start, axis.step, axis.spacing = start, 1.0, b"regular__"
        image = file.createVariable("image", "b", ("zspace", "yspace", "xspace"))
        image.signtype, image.valid_range = b"unsigned", np.array([0.0, 255.0])
        image[:] = labels.view(np.int8)
        for name, value in (("image-max", 255.0), ("image-min", 0.0)):
            limit = file.createVariable(name, "d", ("zspace",))
            limit[:] = value
    path.write_bytes(gzip.compress(plain.read_bytes(), 1))
    return path
