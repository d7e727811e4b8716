"""New clots in slices without any: every visit of a clean slice can show a bleed of another place, size and shape.

A pool holds a few hundred simulated lesions; a network that sees each of them a hundred times learns their shapes by
heart. The inserted clots are cruder (one slice, no mass effect) and take the densities, edema and margins of
`augment_tissue` afterwards, as the simulated ones do.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from Training.data.augment_tissue import Scene, brain_hu
from Training.data.cache import ICH
from Training.data.fields import blur, ellipse

#: Semi-axes in pixels of 0.9 mm, drawn evenly in their logarithm: areas of about 0.3 to 25 cm2.
_RADII = (3.0, 30.0)
_LEAST_BRAIN_MM2 = 2500.0
_FEWEST_PX = 10
_GRAIN_HU = 20.0
#: Least distance from the bone, pixels of 0.9 mm: nearer to it only the place tells blood from sinus and subdural.
_CENTER_DEPTH, _MARGIN_DEPTH = 7.0, 2.5


def insert_clot(scene: Scene) -> bool:
    """Draw one clot, rarely with a satellite, into a scene of one slice; image and labels change in place.

    Returns False, with nothing changed, where the slice holds too little brain or the clot came out too small.
    """
    if len(scene.image) != 1:
        raise ValueError(f"A clot is drawn into one slice at a time, not into {len(scene.image)}.")
    if float((scene.inside > 0.5).sum()) * (0.9 / scene.zoom) ** 2 < _LEAST_BRAIN_MM2:
        return False
    soft = _shape(scene)
    if soft is None:
        return False
    rng, image = scene.rng, scene.image
    labels = soft >= 0.5
    if int(labels.sum()) < _FEWEST_PX:
        return False
    density = max(rng.uniform(45, 80), brain_hu(scene) + 8)
    # The noise of the scan goes on through the clot; calcifications that it covers do not.
    grain = (image - blur(image, 1.5 * scene.zoom)).clamp(-_GRAIN_HU, _GRAIN_HU)
    image += soft * (density + grain - image)
    scene.labels[labels] = ICH
    scene.blood |= labels
    scene.has_blood = True
    return True


def _shape(scene: Scene) -> torch.Tensor | None:
    """Soft (1, H, W) clot in [0, 1]: a warped ellipse inside the skull, one connected piece."""
    rng = scene.rng
    center = scene.random_inside(0, least_depth=_CENTER_DEPTH)
    if center is None:
        return None
    radius = float(np.exp(rng.uniform(*np.log(_RADII)))) * scene.zoom
    radii = (radius * rng.uniform(0.75, 1.3), radius * rng.uniform(0.45, 1.0))
    body = ellipse(scene.image.shape, tuple(center), radii, rng.uniform(0, np.pi), edge=0.35 * min(radii))[None]
    # Irregular margins: a field of the clot's own scale moves the outline in and out.
    cells = scene.image.shape[-1] / radius * rng.uniform(0.8, 2.5)
    rough = torch.sigmoid(6 * (body - 0.5) + rng.uniform(0.2, 1.6) * scene.field(cells))
    inside = scene.inside * (scene.depth > _MARGIN_DEPTH)
    mask = ((rough * inside)[0] >= 0.5).numpy()
    pieces, _ = ndimage.label(mask)
    row, column = (int(np.clip(round(float(c)), 0, side - 1)) for c, side in zip(center, mask.shape, strict=True))
    piece = pieces[row, column]
    if piece == 0:
        return None
    whole = torch.from_numpy((pieces == piece).astype(np.float32))[None]
    return blur(whole, rng.uniform(0.4, 1.3) * scene.zoom)
