"""Skin, fat, muscle, skull, face, sinuses and neck of the procedural head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.simulate.anatomy import Canvas, Points
from ICHAnalysisLib.simulate.fields import capsule_chain, ellipsoid, ramp, smooth_noise
from ICHAnalysisLib.simulate.scene import OUTSIDE

# Height of the floor of the cranial cavity (head mm): orbital roofs, middle fossa, petrous ridge, posterior fossa.
FLOOR = np.array(
    [
        # |x|, y, z
        (0, 75, -6), (0, 55, -18), (15, 60, -16), (30, 60, -9), (30, 40, -9), (45, 55, -8), (55, 45, -10), (0, 35, -17),
        (15, 35, -13), (22, 30, -16), (40, 30, -36), (55, 25, -34), (25, 18, -38), (40, 10, -44), (55, 5, -42),
        (0, 20, -20), (0, 10, -24), (12, 10, -24), (25, 5, -40), (40, -5, -42), (60, -10, -38), (0, 2, -24),
        (0, -6, -44),
        (14, -6, -36), (22, -9, -26), (35, -15, -24), (48, -22, -21), (60, -26, -16), (12, -14, -55), (25, -22, -46),
        (38, -30, -42), (52, -36, -36), (62, -40, -26), (0, -20, -95), (8, -24, -95), (0, -34, -95), (22, -35, -66),
        (35, -45, -60), (50, -50, -46), (0, -52, -72), (20, -60, -66), (40, -65, -50), (0, -75, -58), (20, -80, -46),
        (0, -90, -34), (40, -85, -30), (66, -60, -20), (72, 0, -30), (70, 30, -25), (60, 60, 0), (0, 95, 10),
        (40, 85, 5),
    ],
    dtype=float,
)  # fmt: skip


# Muscles of the face and neck on the right: center, radii (head mm).
MUSCLES = (
    ((54, 20, -74), (8, 19, 30)),
    ((30, 20, -50), (15, 14, 11)),
    ((36, 16, -74), (8, 12, 22)),
    ((62, -28, -82), (8, 15, 40)),
    ((9, 6, -84), (9, 7, 40)),
    ((22, 34, -92), (12, 18, 18)),
)


def floor_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Head z (mm) of the cavity's floor over x, y."""
    step = 3.0
    gx, gy = np.meshgrid(np.arange(0, 91, step), np.arange(-120, 121, step), indexing="xy")
    squared = (gx[..., None] - FLOOR[:, 0]) ** 2 + (gy[..., None] - FLOOR[:, 1]) ** 2
    weights = 1.0 / (squared + 6.0) ** 2
    table = (weights @ FLOOR[:, 2]) / weights.sum(-1)
    return ndimage.map_coordinates(
        table.astype(np.float32), [(y + 120) / step, np.abs(x) / step], order=1, mode="nearest"
    ).astype(np.float32)


def cranium(p: Points) -> np.ndarray:
    """Signed distance (mm, about) to the inner table of the vault: an egg, wider behind, with upright walls below."""
    x, y, z = p
    wide = 68.0 * (1 - 0.09 * np.clip(y / 86.0, -0.6, 1.2))
    up = np.where(z > 0, z / 75.0, z / 120.0)
    power = 2.25
    radius = (np.abs(x) / wide) ** power + (np.abs(y + 1.0) / 86.0) ** power + np.abs(up) ** power
    radius = radius ** (1 / power)
    return ((radius - 1.0) * 74.0).astype(np.float32)


def paint_outer(canvas: Canvas) -> None:
    """Everything outside the brain: sets canvas.cavity (coarse) and paints body, bone and air on the fine grid."""
    a, p = canvas.anatomy, canvas.points
    x, y, z = p
    vault = cranium(p)
    floor = floor_height(x, y) - z
    cavity = np.maximum(vault, 0.8 * floor)
    cavity = ndimage.gaussian_filter(cavity, 0.8)
    canvas.cavity = cavity
    thick = a.skull_mm * (1 + 0.22 * canvas.noise(30.0) + 0.25 * np.clip(-y / 80, -0.3, 1) * (np.abs(x) < 30))
    thick = np.clip(thick, 3.0, 14.0)
    temporal = np.exp(-(((y - 22) / 24) ** 2)) * np.clip((25 - z) / 30, 0, 1) * np.clip((np.abs(x) - 35) / 15, 0, 1)
    scalp = a.scalp_mm * (1 + 0.12 * canvas.noise(30.0)) + 7 * temporal
    skin = np.minimum(vault - thick - scalp, _face_and_neck(p))
    skin += 0.6 * canvas.noise(20.0)
    _paint_soft(canvas, skin, scalp, temporal)
    _paint_face_bones(canvas)
    _paint_skull(canvas, cavity, vault, thick)
    _paint_air(canvas)
    _paint_spine(canvas)


def _face_and_neck(p: Points) -> np.ndarray:
    """Signed distance to face, nose, ears and neck."""
    x, y, z = p
    face = ellipsoid(p, (0, 40, -60), (69, 59, 78))
    nose = ellipsoid(p, (0, 94, -52), (13, 16, 17))
    neck = capsule_chain(p, np.array([[0, -24, -50], [0, -28, -95], [0, -34, -170]]), [66, 60, 56], (1.0, 1.0, 1.0))
    ears = ellipsoid((np.abs(x), y, z), (79, -18, -32), (3.5, 13, 24), (0, 0, -25))
    return np.minimum(np.minimum(face, neck), np.minimum(nose, ears))


def _paint_soft(canvas: Canvas, skin: np.ndarray, scalp: np.ndarray, temporal: np.ndarray) -> None:
    """Skin, fat under it, muscle deeper with fat planes between."""
    a = canvas.anatomy
    fine_skin = canvas.raise_up(skin)
    planes = canvas.raise_up(_fat_planes(canvas, skin))
    streaky = canvas.raise_up(canvas.noise(5.0))
    fat_mm = canvas.raise_up(
        np.where(canvas.points[2] > -15, 0.85 * scalp - 6 * temporal, 4.0 + 3.0 * np.abs(canvas.noise(30.0)))
    )
    hu = a.fat_hu + np.clip(0.5 + planes, 0, 1) * (a.muscle_hu - a.fat_hu + 5 * streaky) + 8 * streaky
    hu = np.where(fine_skin > -fat_mm, a.fat_hu + 12 * np.abs(streaky), hu)
    hu = np.where(fine_skin > -1.8, 25.0, hu).astype(np.float32)
    canvas.hu += ramp(fine_skin, 1.2) * (hu - canvas.hu)


def _fat_planes(canvas: Canvas, skin: np.ndarray) -> np.ndarray:
    """Above 0.5 muscle, below -0.5 fat: muscle in layers behind, mostly fat between single muscles in the face."""
    x, y, z = canvas.points
    depth = -skin + 3.5 * canvas.noise(24.0)
    layer = np.abs((depth / 9.5) % 1.0 - 0.5) * 9.5 - 0.7 - 0.7 * canvas.noise(12.0)
    bundle = np.abs(canvas.noise(13.0)) * 7 - 0.4
    behind = np.minimum(layer, bundle)
    face = 1.6 * canvas.noise(9.0) + 0.9
    muscles = np.minimum.reduce([ellipsoid((np.abs(x), y, z), *m) for m in MUSCLES])
    face = np.where(muscles < 1.5, np.where(muscles < 0, 2.0, -2.0), face)
    blend = np.clip((y + 8) / 8.0, 0, 1)
    return ((1 - blend) * behind + blend * face).astype(np.float32)


def _paint_skull(canvas: Canvas, cavity: np.ndarray, vault: np.ndarray, thick: np.ndarray) -> None:
    """The vault with diploe, and the base."""
    a = canvas.anatomy
    inner = canvas.raise_up(cavity)
    outer = canvas.raise_up(np.maximum(vault - thick, cavity - np.where(canvas.points[2] < 0, thick * 0.8, thick)))
    shell = ramp(outer, 1.1) * ramp(-inner, 1.1)
    depth = np.minimum(inner, -outer)
    spongy = np.clip((depth - 1.4) / 1.0, 0, 1)
    texture = canvas.raise_up(canvas.noise(5.0))
    bone = a.bone_hu - spongy * (a.bone_hu - 620 - 130 * texture)
    canvas.hu += shell * (bone - canvas.hu)
    canvas.inner = inner


def _paint_face_bones(canvas: Canvas) -> None:
    """Petrous bones and mastoids, zygoma, jaw, walls of sinuses and orbits."""
    a = canvas.anatomy
    bone = 0.85 * a.bone_hu
    petrous = np.array([[13, 0, -38], [36, -17, -36], [58, -26, -36]], dtype=float)
    canvas.mirrored((0, -48, -60), (76, 16, -8), lambda p: capsule_chain(p, petrous, [7, 12, 13]), 1.15 * a.bone_hu)
    canvas.mirrored((40, -60, -75), (76, -8, -18), lambda p: ellipsoid(p, (59, -32, -44), (11, 17, 20)), bone)
    canvas.shape(
        (-18, -14, -70), (18, 40, -16), lambda p: ellipsoid(p, (0, 14, -36), (17, 20, 15), (25, 0, 0)), 0.6 * a.bone_hu
    )
    zygoma = np.array([[66, 2, -38], [66, 25, -40], [58, 50, -42], [42, 70, -46]], dtype=float)
    canvas.mirrored((30, -8, -60), (80, 80, -28), lambda p: capsule_chain(p, zygoma, [3, 3, 4, 6]), bone)
    jaw = np.array([[52, 2, -50], [50, 6, -85], [42, 40, -112], [22, 72, -116], [0, 80, -116]], dtype=float)
    canvas.mirrored((0, -12, -130), (64, 92, -44), lambda p: capsule_chain(p, jaw, [5, 5, 6, 6, 6]), bone)
    teeth = np.array([[34, 48, -96], [22, 72, -97], [0, 78, -97]], dtype=float)
    canvas.mirrored((0, 38, -108), (44, 90, -84), lambda p: capsule_chain(p, teeth, [5, 5, 5]), 1500.0)
    canvas.mirrored(
        (4, 34, -84), (50, 86, -34), lambda p: np.abs(ellipsoid(p, (26, 60, -58), (16, 19, 19))) - 0.6, bone
    )
    canvas.mirrored(
        (6, 26, -48),
        (58, 96, 2),
        lambda p: np.maximum(np.abs(_orbit(p)) - 0.8, p[1] - 74),
        bone,
        within=lambda b: canvas.hu[b] > -300,
    )
    canvas.shape(
        (-24, 28, -90),
        (24, 92, -30),
        lambda p: np.maximum(np.abs(p[0] - 0.02 * (p[2] + 60)) - 0.6, p[1] - 84),
        250.0,
        within=lambda b: canvas.hu[b] > -300,
    )


def _orbit(p: Points) -> np.ndarray:
    """Signed distance to the right orbit, a cone that narrows backward; open in front."""
    x, y, z = p
    narrow = np.clip((y - 26) / 40, 0.15, 1)
    axis_x = 15 + 17 * np.clip((y - 28) / 40, 0, 1)
    across = np.sqrt((x - axis_x) ** 2 + (z + 22) ** 2)
    return np.maximum(across - 17.0 * np.sqrt(narrow) + 0.02 * (y - 60) ** 2 * (y > 60), 26 - y)


def _paint_air(canvas: Canvas) -> None:
    """Orbits with eyes; sinuses, nose, ethmoid and mastoid cells, ear canals, throat."""
    a, rng = canvas.anatomy, canvas.rng
    canvas.mirrored(
        (6, 24, -44),
        (54, 90, 0),
        lambda p: np.maximum(_orbit(p), p[1] - 84) + 1.0,
        a.fat_hu,
        within=lambda b: canvas.hu[b] > -300,
    )
    canvas.mirrored((14, 56, -38), (48, 90, -6), lambda p: ellipsoid(p, (32, 68, -22), (12.3, 12.3, 12.3)), 45.0)
    canvas.mirrored((14, 56, -38), (48, 90, -6), lambda p: ellipsoid(p, (32, 68, -22), (11, 11, 11)), 8.0)
    canvas.mirrored((26, 78, -30), (38, 90, -14), lambda p: ellipsoid(p, (32, 76, -22), (4.5, 2.2, 4.5)), 75.0)
    nerve = np.array([[32, 57, -22], [24, 44, -21], [13, 26, -19]], dtype=float)
    canvas.mirrored((8, 22, -28), (40, 64, -14), lambda p: capsule_chain(p, nerve, [2.6, 2.2, 2.0]), 38.0)
    for dx, dz in ((11, 0), (-10, 0), (0, 10), (0, -10)):
        muscle = np.array([[32 + dx, 66, -22 + dz], [24 + 0.9 * dx, 46, -21 + 0.9 * dz], [15, 28, -20]], dtype=float)
        shape = partial(capsule_chain, nodes=muscle, radii=(1.8, 2.6, 1.5))
        canvas.mirrored((4, 22, -38), (52, 70, -8), shape, 52.0)
    size = 0.6 + 0.4 * a.pneumatization
    canvas.mirrored(
        (4, 34, -84), (50, 86, -34), lambda p: ellipsoid(p, (26, 60, -58), (15 * size, 18 * size, 18 * size)), -1000.0
    )
    canvas.shape(
        (-18, 8, -48), (18, 38, -18), lambda p: ellipsoid(p, (2, 24, -33), (12 * size, 10 * size, 9 * size)), -1000.0
    )
    canvas.mirrored(
        (0, 74, -16), (30, 100, 22), lambda p: ellipsoid(p, (11, 88, 0), (10 * size, 4, 12 * size)), -1000.0
    )
    canvas.mirrored((1, 34, -82), (14, 94, -42), lambda p: ellipsoid(p, (7, 62, -60), (5, 28, 17)), -1000.0)
    _cells(canvas, (-13, 30, -42), (13, 78, -16), lambda p: ellipsoid(p, (0, 54, -29), (13, 24, 12)), 4.5, 0.25)
    for low, high, x in (((42, -56, -68), (74, -14, -22), 58), ((-74, -56, -68), (-42, -14, -22), -58)):
        mastoid = partial(ellipsoid, center=(x, -32, -42), radii=(10, 15, 18))
        _cells(canvas, low, high, mastoid, 3.5, 1.0 - a.pneumatization)
    canal = np.array([[60, -12, -37], [88, -14, -37]], dtype=float)
    canvas.mirrored((40, -20, -46), (90, -4, -30), lambda p: capsule_chain(p, canal, [3, 4]), -1000.0)
    throat = np.array([[0, 22, -62], [0, 20, -85], [0, 8, -180]], dtype=float)
    canvas.shape(
        (-22, -6, -190), (22, 40, -52), lambda p: capsule_chain(p, throat, [9, 8, 9], (0.7, 1.2, 1.0)), -1000.0
    )
    canvas.shape(
        (-34, 20, -125),
        (34, 88, -78),
        lambda p: ellipsoid(p, (0, 48, -102), (27, 30, 17)),
        a.muscle_hu + rng.normal(4, 3),
    )


def _cells(
    canvas: Canvas,
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    distance: Callable[[Points], np.ndarray],
    cell_mm: float,
    threshold: float,
) -> None:
    """Air cells between thin bony walls inside a shape."""
    found = canvas.near(low, high)
    if found is None:
        return
    box, points = found
    inside = ramp(distance(points), 1.5)
    noise = smooth_noise(canvas.rng, inside.shape, canvas.grid.step_mm, cell_mm)
    air = np.clip((noise - threshold + 0.5) * 1.6, 0, 1)
    canvas.lay(box, inside, 450 - 1450 * air)


def _paint_spine(canvas: Canvas) -> None:
    """Foramen magnum region: atlas, dens and the canal with the cord."""
    a = canvas.anatomy
    bone = 0.65 * a.bone_hu
    canvas.mirrored(
        (0, -52, -104),
        (48, 8, -72),
        lambda p: np.maximum(np.abs(np.hypot(p[0], p[1] + 22) - 21) - 4.5, np.abs(p[2] + 88) - 8),
        bone,
    )
    canvas.mirrored((14, -34, -106), (46, 2, -66), lambda p: ellipsoid(p, (27, -15, -85), (10, 12, 13)), bone)
    canvas.shape(
        (-9, -14, -140),
        (9, 6, -74),
        lambda p: capsule_chain(p, np.array([[0, -4.0, -80], [0, -5, -140]]), [6, 8]),
        bone,
    )
    canvas.shape(
        (-30, -56, -180),
        (30, 0, -104),
        lambda p: np.abs(capsule_chain(p, np.array([[0, -24.0, -104], [0, -30, -180]]), [16, 16])) - 3.0,
        bone,
    )


def paint_dense_vessels(canvas: Canvas) -> None:
    """Venous sinuses and the arteries of the base."""
    a = canvas.anatomy
    inner = canvas.inner
    found = canvas.near((-8, -100, -20), (8, 90, 90))
    if found is not None:
        box, (x, y, _) = found
        depth = -inner[box]
        width = np.clip(1.8 + (40 - y) / 35.0, 1.6, 4.8)
        alpha = ramp(np.abs(x) + np.abs(depth - 1.5) * 0.9 - width, 1.5)
        canvas.lay(box, alpha * (depth > -0.5), a.sinus_hu)
        canvas.tissue[box][(alpha > 0.5) & (depth > -0.5)] = OUTSIDE
    transverse = np.array([[0, -82, -12], [30, -76, -17], [56, -50, -22], [58, -38, -34], [46, -28, -52]], dtype=float)
    canvas.mirrored(
        (0, -92, -60),
        (72, -20, -4),
        lambda p: capsule_chain(p, transverse, [3.5, 3.5, 3.8, 4.0, 3.5]),
        a.sinus_hu,
        tissue=OUTSIDE,
        within=lambda b: inner[b] < 1.5,
    )
    artery = a.sinus_hu - 6
    canvas.shape(
        (-4, -14, -60),
        (4, 4, -18),
        lambda p: capsule_chain(p, np.array([[0, -4.0, -52], [0, -3, -36], [0, -2, -22]]), [1.6, 1.8, 1.6]),
        artery,
    )
    carotid = np.array([[11, 12, -30], [10, 10, -20], [18, 8, -17], [28, 9, -16], [38, 8, -13]], dtype=float)
    canvas.mirrored((4, 2, -36), (46, 18, -8), lambda p: capsule_chain(p, carotid, [2.4, 2.2, 1.6, 1.4, 1.1]), artery)
