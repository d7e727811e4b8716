"""New clots in slices without any: every visit of a clean slice can show a bleed of another place, size and shape.

A pool holds a few hundred simulated lesions; a network that sees each of them a hundred times learns their shapes by
heart. The inserted clots are cruder (one slice and what its neighbors show of them, no mass effect) and take the
densities, edema and margins of `augment_tissue` afterwards, as the simulated ones do.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy import ndimage

from Training.data.augment_tissue import Scene, brain_hu
from Training.data.cache import ICH
from Training.data.fields import blur, coordinates, ellipse

#: Semi-axes in pixels of 0.9 mm, drawn evenly in their logarithm: areas of about 0.3 to 25 cm2.
_RADII = (3.0, 30.0)
_LEAST_BRAIN_MM2 = 2500.0
_FEWEST_PX = 10
_GRAIN_HU = 20.0
#: Least distance from the bone, pixels of 0.9 mm: nearer to it only the place tells blood from sinus and subdural.
_CENTER_DEPTH, _MARGIN_DEPTH = 7.0, 2.5
#: Between neighbors a clot may end in this slice, which holds this share of its height; below half it has no label.
_ENDING, _END_SHARE = 0.3, (0.25, 0.9)
#: How often a neighbor shows the clot at all, how much smaller or larger, and what share of its height.
_GOES_ON, _NEIGHBOR_SIZE, _NEIGHBOR_SHARE = 0.75, (0.35, 1.1), (0.25, 1.0)


def insert_clot(scene: Scene, n: int = 0) -> bool:
    """Draw one clot into slice n of a scene, in part into the slices beside it; image and labels change in place.

    Returns False, with nothing changed, where the slice holds too little brain or the clot came out too small.
    """
    if float((scene.inside[n] > 0.5).sum()) * (0.9 / scene.zoom) ** 2 < _LEAST_BRAIN_MM2:
        return False
    shape = _shape(scene, n)
    if shape is None or int((shape >= 0.5).sum()) < _FEWEST_PX:
        return False
    rng, image = scene.rng, scene.image
    soft = _through_slices(shape, n, scene)
    labels = soft >= 0.5
    density = max(rng.uniform(45, 80), brain_hu(scene) + 8)
    # The noise of the scan goes on through the clot; calcifications that it covers do not.
    grain = (image - blur(image, 1.5 * scene.zoom)).clamp(-_GRAIN_HU, _GRAIN_HU)
    image += soft * (density + grain - image)
    scene.labels[labels] = ICH
    scene.blood |= labels
    scene.has_blood = scene.has_blood or bool(labels.any())  # an end of it alone has no label
    return True


def _through_slices(shape: torch.Tensor, n: int, scene: Scene) -> torch.Tensor:
    """Soft (N, H, W): the clot's `shape` (H, W) in slice n, larger, smaller, fainter or not at all beside it."""
    rng = scene.rng
    soft = torch.zeros_like(scene.image)
    soft[n] = shape
    beside = [k for k in (n - 1, n + 1) if 0 <= k < len(soft)]
    if not beside:
        return soft
    ends = rng.random() < _ENDING
    if ends:
        soft[n] *= rng.uniform(*_END_SHARE)
    whole = int(rng.choice(beside)) if ends else -1  # where a clot that ends here goes on in full
    for k in beside:
        if k == whole or rng.random() < _GOES_ON * (not ends):
            share = 1.0 if k == whole else rng.uniform(*_NEIGHBOR_SHARE)
            size = max(1.0, rng.uniform(*_NEIGHBOR_SIZE)) if k == whole else rng.uniform(*_NEIGHBOR_SIZE)
            soft[k] = share * _resized(shape, size) * (scene.inside[k] > 0.5)
    return soft


def _resized(shape: torch.Tensor, size: float) -> torch.Tensor:
    """(H, W) enlarged by `size` about its centroid."""
    height, width = shape.shape
    y, x = coordinates(shape.shape)
    total = shape.sum()
    row, column = float((shape * y).sum() / total), float((shape * x).sum() / total)
    rows = (y.expand(height, width) - row) / size + row
    columns = (x.expand(height, width) - column) / size + column
    grid = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], dim=-1)
    return F.grid_sample(shape[None, None], grid[None], mode="bilinear", align_corners=True)[0, 0]


def _shape(scene: Scene, n: int) -> torch.Tensor | None:
    """Soft (H, W) clot in [0, 1]: a warped ellipse inside the skull of slice n, one connected piece."""
    rng = scene.rng
    center = scene.random_inside(n, least_depth=_CENTER_DEPTH)
    if center is None:
        return None
    radius = float(np.exp(rng.uniform(*np.log(_RADII)))) * scene.zoom
    radii = (radius * rng.uniform(0.75, 1.3), radius * rng.uniform(0.45, 1.0))
    body = ellipse(scene.image.shape, tuple(center), radii, rng.uniform(0, np.pi), edge=0.35 * min(radii))
    # Irregular margins: a field of the clot's own scale moves the outline in and out.
    cells = scene.image.shape[-1] / radius * rng.uniform(0.8, 2.5)
    rough = torch.sigmoid(6 * (body - 0.5) + rng.uniform(0.2, 1.6) * scene.field(cells)[0])
    inside = scene.inside[n] * (scene.depth[n] > _MARGIN_DEPTH)
    mask = (rough * inside >= 0.5).numpy()
    pieces, _ = ndimage.label(mask)
    row, column = (int(np.clip(round(float(c)), 0, side - 1)) for c, side in zip(center, mask.shape, strict=True))
    piece = pieces[row, column]
    if piece == 0:
        return None
    whole = torch.from_numpy((pieces == piece).astype(np.float32))[None]
    return blur(whole, rng.uniform(0.4, 1.3) * scene.zoom)[0]
