"""Small heads for the bed: a skull, brain, and a bleed of known voxels, as volume nodes."""

from __future__ import annotations

import numpy as np

SPACING = (3.2, 3.2, 5.0)
SHAPE = (28, 72, 60)


def head_array(shape=SHAPE, center=(14, 40, 34), radii=(3.2, 6, 5)) -> np.ndarray:
    """int16 HU (K, J, I): ellipsoidal head with an ellipsoidal bleed of 65 HU."""
    k, j, i = np.indices(shape).astype(float)
    middle = [(size - 1) / 2 for size in shape]
    half = [0.56 * shape[0], 0.42 * shape[1], 0.40 * shape[2]]
    far = np.sqrt(sum(((axis - m) / h) ** 2 for axis, m, h in zip((k, j, i), middle, half)))
    noise = np.random.default_rng(5).normal(0, 2.0, shape)
    hu = np.full(shape, -1000.0)
    hu[far < 1.0] = 20 + noise[far < 1.0]
    hu[far < 0.94] = 1100
    hu[far < 0.86] = 34 + noise[far < 0.86]
    ventricle = ((k - middle[0]) / 3) ** 2 + ((j - middle[1]) / 5) ** 2 + ((i - middle[2] + 3) / 2) ** 2 < 1
    hu[ventricle] = 8
    bleed = sum(((axis - c) / r) ** 2 for axis, c, r in zip((k, j, i), center, radii)) < 1
    hu[bleed] = 65 + noise[bleed] / 2
    return np.round(hu).astype(np.int16)


def affine(spacing=SPACING, shape=SHAPE) -> np.ndarray:
    """(4, 4) IJK to RAS as axial DICOM has it: I to the left, J to posterior, K upward, centered."""
    directions = np.diag([-spacing[0], -spacing[1], spacing[2]])
    matrix = np.eye(4)
    matrix[:3, :3] = directions
    matrix[:3, 3] = -directions @ ((np.array(shape[::-1]) - 1) / 2)
    return matrix


def add_head(slicer, name="Head CT", **options):
    """A volume node with the head."""
    return slicer.util.addVolumeFromArray(head_array(**options), ijkToRAS=affine(), name=name)


def write_head(path, **options):
    """The head as a NIfTI file."""
    import nibabel

    matrix = affine()
    nibabel.save(nibabel.Nifti1Image(head_array(**options).transpose(2, 1, 0), matrix), path)
    return path
