"""Randomized tissue: density of the clot, edema, gray and white matter, and dense things that are not hemorrhage.

Inserted structures never change a label: calcification, dense cortex, falx, sinus, subdural and subarachnoid blood
and tissue outside the skull are background, and a network must learn so.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from scipy import ndimage

from Training.data.cache import EDEMA, ICH, IVH
from Training.data.fields import blur, coordinates, ellipse, enlarge, smooth_field, strip
from Training.data.regions import FACTOR, find_regions

_BRAIN_HU = 33.0
_DENSER_HU = 6.0  # than brain: part of a clot's density, at a noise that is blurred away


class Scene:
    """One stack while it is varied: image (N, H, W) float32 HU, labels uint8, and lazily its regions.

    zoom: pixels per 0.9 mm, so that sizes given in pixels of a 0.9 mm image keep their millimeters.
    angle: degrees by which the geometry turned the head.
    """

    def __init__(
        self,
        image: torch.Tensor,
        labels: torch.Tensor,
        rng: np.random.Generator,
        strength: float = 1.0,
        zoom: float = 1.0,
        angle: float = 0.0,
    ) -> None:
        self.image, self.labels, self.rng = image, labels, rng
        self.strength, self.zoom, self.angle = strength, zoom, angle
        self.blood = (labels == ICH) | (labels == IVH)
        self.has_blood = bool(self.blood.any())
        self.share = 1.0  # of the whole picture's width that this scene shows

    def happens(self, probability: float) -> bool:
        """True with this probability times the strength."""
        return bool(self.rng.random() < min(1.0, probability * self.strength))

    @cached_property
    def regions(self) -> list:
        """Coarse regions of each slice, from the image as it is when first asked."""
        return [find_regions(plane) for plane in self.image.numpy()]

    @cached_property
    def inside(self) -> torch.Tensor:
        """Soft (N, H, W): inside the skull."""
        return enlarge(np.stack([r.inside for r in self.regions]), self.image.shape)

    @cached_property
    def depth(self) -> torch.Tensor:
        """(N, H, W) distance from the inner table of the skull in pixels of 0.9 mm; 0 outside."""
        depths = [ndimage.distance_transform_edt(r.inside) for r in self.regions]
        return enlarge(np.stack(depths) * FACTOR / self.zoom, self.image.shape)

    @cached_property
    def outside(self) -> torch.Tensor:
        """(N, H, W) distance from the head into the air in pixels of 0.9 mm; 0 in the head."""
        depths = [ndimage.distance_transform_edt(~r.head) if r.head.any() else r.head + 1e3 for r in self.regions]
        return enlarge(np.stack(depths) * FACTOR / self.zoom, self.image.shape)

    def around_blood(self, margin: float) -> Scene:
        """The part of the scene within `margin` pixels of 0.9 mm of labeled blood: views, changed in place."""
        edge = int(np.ceil(margin * self.zoom))
        rows, columns = (torch.nonzero(self.blood.any(dim=0).any(dim=axis)) for axis in (1, 0))
        window = (
            slice(None),
            slice(max(0, int(rows.min()) - edge), int(rows.max()) + edge + 1),
            slice(max(0, int(columns.min()) - edge), int(columns.max()) + edge + 1),
        )
        part = Scene(self.image[window], self.labels[window], self.rng, self.strength, self.zoom, self.angle)
        part.__dict__["inside"] = self.inside[window]
        part.share = part.image.shape[-1] / self.image.shape[-1]
        return part

    def field(self, cells: float, slices: int = 1) -> torch.Tensor:
        """(slices, H, W) smooth field with `cells` knots across the whole picture."""
        return smooth_field(self.rng, (slices, *self.image.shape[1:]), cells * self.share)

    def random_slice(self) -> int:
        """A random slice; of three, more often the middle one, whose answer is asked for."""
        count = len(self.image)
        return 1 if count == 3 and self.rng.random() < 0.6 else int(self.rng.integers(count))

    def random_inside(self, n: int, least_depth: float = 0.0) -> np.ndarray | None:
        """A random (row, column) inside the skull of slice n, at least so many pixels from the bone."""
        cells = np.argwhere(self.regions[n].inside & (self.depth[n].numpy()[::FACTOR, ::FACTOR] >= least_depth))
        if len(cells) == 0:
            return None
        return (cells[self.rng.integers(len(cells))] + self.rng.random(2)) * FACTOR


def vary(scene: Scene) -> torch.Tensor:
    """All tissue changes, in the order in which they lie in the head."""
    if scene.has_blood:
        part = scene.around_blood(margin=28.0)
        _clot_density(part, brain_hu(scene))
        _edema(part)
    _gray_white(scene)
    for probability, insert in (
        (0.35, _calcifications),
        (0.08, _basal_ganglia_calcification),
        (0.30, _strips),
        (0.20, _sinus),
        (0.12, _subdural),
        (0.10, _subarachnoid),
        (0.20, _dense_rim),
        (0.12, _hypodense),
        (0.30, _tissue_outside),
        (0.30, _scalp_density),
        (0.12, _holder),
    ):
        if scene.happens(probability):
            insert(scene)
    return scene.image


def brain_hu(scene: Scene) -> float:
    """Mean HU of unlabeled brain."""
    image = scene.image
    brain = (scene.inside > 0.5) & (scene.labels == 0) & (image > 15) & (image < 50)
    return float(image[brain].mean()) if int(brain.sum()) > 50 else _BRAIN_HU


def _clot_density(scene: Scene, base: float) -> None:
    """Another density of ICH and of IVH, sometimes two densities, a fluid level or a blurred margin.

    base: HU of the brain around; what exceeds it is scaled.
    """
    rng, image = scene.rng, scene.image
    for value in (ICH, IVH):
        mask = scene.labels == value
        if not bool(mask.any()) or not scene.happens(0.75):
            continue
        mean = float(image[mask].mean())
        if mean - base < 4:
            continue
        wanted = rng.uniform(42, 60) if rng.random() < 0.35 else rng.uniform(52, 85)
        gain = float(np.clip((max(wanted, base + 7) - base) / (mean - base), 0.25, 2.6))
        # Softly beyond the label, so that partial volume stays one.
        soft = (1.6 * blur(mask.float(), 1.1 * scene.zoom)).clamp(max=1.0)
        soft = torch.maximum(soft, _partly_filled(scene, soft, base))
        image += soft * (gain * _two_densities(scene) - 1) * (image - base).clamp(min=0)
        if rng.random() < 0.35:
            image += soft * rng.uniform(0.5, 5.0) * scene.field(rng.uniform(20, 70), image.shape[0])
    if scene.happens(0.2):
        near = (1.5 * blur(scene.blood.float(), 2.0 * scene.zoom)).clamp(max=1.0)
        image += near * (blur(image, rng.uniform(0.6, 1.6) * scene.zoom) - image)


def _partly_filled(scene: Scene, soft: torch.Tensor, base: float) -> torch.Tensor:
    """Weights (N, H, W) of dense pixels over or under a clot, which fills less than half of their slice: they take its
    density along, or a slice would contradict its neighbor."""
    if len(soft) == 1:
        return torch.zeros_like(soft)
    nothing = torch.zeros_like(soft[:1])
    beside = torch.maximum(torch.cat([soft[1:], nothing]), torch.cat([nothing, soft[:-1]]))
    return beside * torch.sigmoid((blur(scene.image, scene.zoom) - base - _DENSER_HU) / 1.5)


def _two_densities(scene: Scene) -> torch.Tensor:
    """Factor of the clot's excess, broadcasting to (N, H, W): 1, darker zones (swirl, blend, black hole) or a level."""
    rng, shape = scene.rng, scene.image.shape
    if scene.happens(0.22):
        zone = torch.sigmoid(rng.uniform(3, 9) * (scene.field(rng.uniform(6, 30)) - 0.5))
        return 1 - zone * rng.uniform(0.25, 0.75)
    if scene.happens(0.07):
        rows = torch.nonzero(scene.blood.any(dim=0).any(dim=1))
        level = rng.uniform(float(rows.min()), float(rows.max()) + 1)
        y, _ = coordinates(shape)
        return 1 - torch.sigmoid((level - y) / 1.2) * rng.uniform(0.3, 0.8)
    return torch.ones((1, 1, 1))


def _edema(scene: Scene) -> None:
    """A darker rim about the clot, or a known one made fainter."""
    rng, image = scene.rng, scene.image
    tissue = torch.sigmoid((image - 14) / 3) * torch.sigmoid((48 - image) / 3) * scene.inside
    if scene.happens(0.35):
        width = rng.uniform(1.5, 9) * scene.zoom
        ring = (2 * blur(scene.blood.float(), width)).clamp(max=1.0)
        wave = (1 + 0.4 * scene.field(8)).clamp(0.1, 2)
        image -= ring * wave * tissue * (~scene.blood) * rng.uniform(2, 13)
    known = scene.labels == EDEMA
    if bool(known.any()) and scene.happens(0.3):
        image += blur(known.float(), 1.0) * tissue * rng.uniform(2, 9)


def _gray_white(scene: Scene) -> None:
    """Other HU of CSF, white and gray matter, and another contrast and offset of everything, by one smooth curve."""
    if not scene.happens(0.85):
        return
    rng, image = scene.rng, scene.image
    knots = np.array([-1100.0, -120, -40, 5, 27, 38, 60, 90, 300, 4000])
    sds = np.array([0.0, 8, 10, 3.5, 2.5, 2.5, 2.5, 4, 10, 0])
    change = rng.normal(0, 1, len(knots)) * sds * rng.uniform(0, 1)
    gain = np.exp(rng.normal(0, 0.07)) if rng.random() < 0.6 else 1.0
    gain = float(np.clip(gain, 0.85, 1.15))
    offset = float(np.clip(rng.normal(0, 2.2), -6, 6))
    change += np.where(np.abs(knots) <= 300, (gain - 1) * (np.clip(knots, -120, 120) - 30) + offset, 0.0)
    if rng.random() < 0.3:  # gamma of the brain window
        x = np.clip(knots / 80, 0, 1)
        change += 80 * (x ** float(np.exp(rng.normal(0, 0.12))) - x)
    values = np.arange(-1100, 401)
    table = torch.from_numpy(np.interp(values, knots, change).astype(np.float32))
    index = (image + 1100.5).clamp(0, len(values) - 1).to(torch.int64)
    image += table[index]


def _calcifications(scene: Scene) -> None:
    """Small bright blobs: pineal gland, choroid plexus, falx, vessel walls; some in mirrored pairs."""
    rng = scene.rng
    for _ in range(int(rng.integers(1, 5))):
        n = scene.random_slice()
        center = scene.random_inside(n, 6.0)
        if center is None:
            continue
        peak = float(np.exp(rng.uniform(np.log(70), np.log(500))))
        radii = np.exp(rng.uniform(np.log(0.7), np.log(3.2), 2)) * scene.zoom
        for point in (center, _mirrored(scene, n, center))[: 2 if rng.random() < 0.35 else 1]:
            blob = ellipse(scene.image.shape, tuple(point), tuple(radii), rng.uniform(0, np.pi), 0.6)
            _raise(scene, n, blob, peak)
            beside = n + (1 if rng.random() < 0.5 else -1)
            if 0 <= beside < len(scene.image) and rng.random() < 0.4:  # it reaches into the next slice
                _raise(scene, beside, blob * rng.uniform(0.1, 0.9), peak)


def _mirrored(scene: Scene, n: int, point: np.ndarray) -> np.ndarray:
    """The point on the other side of the head, about the centroid of what lies inside the skull."""
    middle = np.argwhere(scene.regions[n].inside).mean(axis=0) * FACTOR
    angle = np.radians(scene.angle)
    axis = np.array([np.cos(angle), -np.sin(angle)])  # the midline, (row, column)
    offset = point - middle
    return middle + 2 * (offset @ axis) * axis - offset + scene.rng.normal(0, 1.5, 2)


def _basal_ganglia_calcification(scene: Scene) -> None:
    """A pair of fainter, larger, cloudy calcifications deep in the brain."""
    rng = scene.rng
    n = scene.random_slice()
    center = scene.random_inside(n, 35.0)
    if center is None:
        return
    radii = rng.uniform(2.5, 6, 2) * scene.zoom
    texture = torch.sigmoid(2 + 2 * scene.field(60))[0]
    for point in (center, _mirrored(scene, n, center)):
        blob = ellipse(scene.image.shape, tuple(point), tuple(radii), rng.uniform(0, np.pi), 1.5)
        _raise(scene, n, blob * texture, rng.uniform(75, 180))


def _raise(scene: Scene, n: int, weight: torch.Tensor, hu: float) -> None:
    """Bring slice n toward `hu` with weight (H, W), upward only, and never where blood is labeled."""
    image = scene.image[n]
    image += (weight * ~scene.blood[n]) * (hu - image).clamp(min=0)


def _strips(scene: Scene) -> None:
    """Falx, tentorium and vessels: thin dense bars, one along the midline, others anywhere."""
    rng, shape = scene.rng, scene.image.shape
    hu = rng.uniform(42, 68)
    angle = np.radians(scene.angle + rng.normal(0, 3))
    along = np.array([np.cos(angle), -np.sin(angle)])
    for n in range(shape[0]):
        inside = scene.regions[n].inside
        if not inside.any():
            continue
        middle = np.argwhere(inside).mean(axis=0) * FACTOR
        half = np.sqrt(inside.sum() / np.pi) * FACTOR
        for sign in (-1, 1):
            start, end = middle + sign * half * 0.45 * along, middle + sign * half * 1.15 * along
            bar = strip(shape, start, end, rng.uniform(1.0, 3.2) * scene.zoom, rng.normal(0, 2))
            _raise(scene, n, bar * (scene.inside[n] > 0.4), hu)
    n = scene.random_slice()
    for _ in range(int(rng.integers(0, 3))):
        start, end = scene.random_inside(n), scene.random_inside(n)
        if start is None or end is None:
            return
        end = start + (end - start) * min(1.0, 60 * scene.zoom / (np.linalg.norm(end - start) + 1e-6))
        bar = strip(shape, start, end, rng.uniform(0.8, 2.8) * scene.zoom, rng.normal(0, 4))
        _raise(scene, n, bar * (scene.inside[n] > 0.4), rng.uniform(40, 66))


def _sinus(scene: Scene) -> None:
    """Dense venous sinuses and dural folds: blobs that touch the inner table."""
    rng, shape = scene.rng, scene.image.shape
    hu = rng.uniform(48, 78)
    for n in range(shape[0]):
        rim = np.argwhere(scene.regions[n].inside & (scene.depth[n].numpy()[::FACTOR, ::FACTOR] < 7))
        for _ in range(int(rng.integers(1, 3)) if len(rim) else 0):
            center = rim[rng.integers(len(rim))] * FACTOR + 2
            radii = rng.uniform(2.5, 7.5, 2) * scene.zoom
            _raise(scene, n, ellipse(shape, tuple(center), tuple(radii), rng.uniform(0, np.pi), 0.8), hu)


def _subdural(scene: Scene) -> None:
    """A crescent of blood along the inner table, acute to chronic; label-free on purpose."""
    rng, image = scene.rng, scene.image
    thickness = rng.uniform(2, 12) * (scene.field(3) - rng.uniform(-0.2, 0.8))
    band = torch.sigmoid((thickness - scene.depth) / 0.8) * scene.inside * (thickness > 1) * (image < 140)
    hu = rng.uniform(45, 80) if rng.random() < 0.75 else rng.uniform(8, 30)
    image += band * ~scene.blood * (hu - image)


def _subarachnoid(scene: Scene) -> None:
    """Blood in sulci: dark pixels near the skull turn dense where a smooth field says so."""
    rng, image = scene.rng, scene.image
    fluid = torch.sigmoid((20 - image) / 3) * (image > -30)
    zone = torch.sigmoid(4 * (scene.field(4) - 0.3))
    near = (scene.depth > 0.5) * torch.sigmoid((18 - scene.depth) / 4)
    image += fluid * zone * near * (scene.inside > 0.5) * ~scene.blood * rng.uniform(25, 60)


def _dense_rim(scene: Scene) -> None:
    """Cortex that looks dense under the skull (cupping, partial volume)."""
    rng = scene.rng
    rim = torch.exp(-scene.depth / rng.uniform(3, 12)) * scene.inside * (scene.image < 140)
    wave = (1 + 0.5 * scene.field(6)).clamp(0, 2)
    scene.image += rim * wave * rng.uniform(3, 16)


def _hypodense(scene: Scene) -> None:
    """An infarct or leukoaraiosis: a dark zone in the brain."""
    rng, image = scene.rng, scene.image
    zone = torch.sigmoid(4 * (scene.field(rng.uniform(3, 7)) - rng.uniform(0.8, 1.6)))
    tissue = torch.sigmoid((image - 16) / 3) * torch.sigmoid((48 - image) / 3) * scene.inside
    image -= zone * tissue * ~scene.blood * rng.uniform(3, 14)


def _tissue_outside(scene: Scene) -> None:
    """Soft tissue in the air beside the head: thick scalp, neck, folded ear, a hand, cloth."""
    rng, image = scene.rng, scene.image
    air = image < -200
    hu = rng.uniform(-100, 75)
    texture = rng.uniform(2, 14) * smooth_field(rng, image.shape, rng.uniform(12, 60))
    if rng.random() < 0.6:
        thickness = rng.uniform(3, 16) * (scene.field(3) + rng.uniform(-0.8, 0.5))
        band = air & (scene.outside < thickness)
    else:
        center = rng.uniform(0.05, 0.95, 2) * np.array(image.shape[1:])
        radii = rng.uniform(10, 40, 2) * scene.zoom
        band = air & (ellipse(image.shape, tuple(center), tuple(radii), rng.uniform(0, np.pi)) > 0.5)
    image[band] = (hu + texture)[band]


def _scalp_density(scene: Scene) -> None:
    """Dense scalp, muscle and face: soft tissue outside the skull moves toward 50 to 80 HU, in places."""
    rng, image = scene.rng, scene.image
    soft = torch.sigmoid((image + 20) / 8) * torch.sigmoid((110 - image) / 8)
    away = torch.sigmoid((0.15 - scene.inside) * 20)
    zone = torch.sigmoid(3 * scene.field(rng.uniform(3, 20)) + rng.uniform(-1, 1.5))
    closed = torch.tensor([bool(r.inside.sum() > 60) for r in scene.regions])[:, None, None]
    lift = torch.where(closed, rng.uniform(40, 82) - image, torch.full_like(image, rng.uniform(0, 12)))
    image += soft * away * zone * ~scene.blood * lift.clamp(min=0) * rng.uniform(0.3, 1.0)


def _holder(scene: Scene) -> None:
    """What is left of a head holder: a thin curved wall in the air, with or without foam."""
    rng, shape = scene.rng, scene.image.shape
    height, width = shape[1:]
    row = rng.uniform(0.75, 0.98) * height
    start, end = np.array([row, rng.uniform(0, 0.35) * width]), np.array([row, rng.uniform(0.65, 1.0) * width])
    wall = strip(shape, start, end, rng.uniform(1.5, 5) * scene.zoom, rng.uniform(-0.25, 0.05) * height) > 0.4
    target = (scene.image < -300) & wall
    scene.image[target] = float(rng.uniform(-350, 250))
