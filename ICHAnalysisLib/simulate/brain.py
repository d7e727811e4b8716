"""The brain of the procedural head: folded cortex, white matter, ventricles, nuclei, cisterns, falx and tentorium."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.simulate.anatomy import COARSE_MM, Canvas, Points
from ICHAnalysisLib.simulate.fields import capsule_chain, ellipsoid, ramp, smooth_noise
from ICHAnalysisLib.simulate.regions import below_tentorium, region_of, tentorium_height
from ICHAnalysisLib.simulate.scene import BARRIER, CSF, GREY, VENTRICLE, WHITE


def paint_brain(canvas: Canvas) -> None:
    """Fill the cranial cavity: CSF, cerebrum, cerebellum and stem, ventricles, nuclei, dura, calcium, old infarcts."""
    coarse = _coarse_fields(canvas)
    _paint_cerebrum(canvas, coarse)
    _paint_ventricles(canvas)
    _paint_nuclei(canvas)
    _paint_dura(canvas)


def _coarse_fields(canvas: Canvas) -> dict[str, np.ndarray]:
    """Coarse signed distances: brain surface, fissures and cisterns, folds, cerebellar folia; and region codes."""
    a, p = canvas.anatomy, canvas.points
    x, y, z = p
    gap = 0.8 + 3.2 * a.atrophy
    surface = canvas.cavity + gap
    low = below_tentorium(x, y, z)
    tent = z - tentorium_height(x, y)
    stem = _stem(p)
    slack = 0.8 + 1.6 * a.atrophy
    leaf = np.clip(0.8 * canvas.noise(6.0) - 0.6, 0, 2) * (0.5 + 1.5 * a.atrophy)
    cerebellum = np.maximum(np.maximum(canvas.cavity + slack, tent + 0.9), -(_stem_front(p)))
    cerebellum = np.maximum(cerebellum, leaf - 0.25 * np.clip(-cerebellum, 0, 12))
    cerebrum = np.maximum(surface, np.where(y < -14 - 0.12 * np.abs(x), 0.9 - tent, -50.0))
    cisterns = _cisterns(canvas)
    cerebellum = np.maximum(cerebellum, -ellipsoid(p, (0, -54, -68), (9, 9, 10)))
    cerebrum = np.maximum(cerebrum, -cisterns)
    whole = np.minimum(np.minimum(cerebrum, cerebellum), stem)
    folds = _fold_noise(canvas)
    return {
        "whole": whole,
        "low": np.where(np.minimum(cerebellum, stem) < cerebrum, 1.0, 0.0).astype(np.float32) * np.where(z < 0, 1, 0),
        "folds": folds,
        "depth": -surface,
        "region": np.where(low, 3, region_of(x, y, z)).astype(np.uint8),
    }


def _stem(p: Points) -> np.ndarray:
    """Midbrain, pons and medulla."""
    chain = capsule_chain(p, np.array([[0, -12.0, -8], [0, -12, -20]]), [15, 13], (0.85, 1.1, 1.0))
    pons = ellipsoid(p, (0, -13, -34), (16, 12, 13))
    medulla = capsule_chain(
        p, np.array([[0, -18.0, -45], [0, -23, -66], [0, -26, -110], [0, -32, -180]]), [8, 7, 6, 5.5]
    )
    peduncle = ellipsoid((np.abs(p[0]), p[1], p[2]), (15, -24, -36), (9, 10, 8))
    return np.minimum(np.minimum(chain, pons), np.minimum(medulla, peduncle))


def _stem_front(p: Points) -> np.ndarray:
    """Space of the stem and the cisterns around it, where no cerebellum lies (negative inside)."""
    x, y, z = p
    front = -24.0 + 8.0 * np.clip((np.abs(x) - 13) / 6, 0, 1) - np.clip((z + 30) * 0.15, -2, 2)
    return np.where(y > front, -(y - front), front - y).astype(np.float32)


def _cisterns(canvas: Canvas) -> np.ndarray:
    """CSF spaces of the base, the Sylvian fissures and the interhemispheric fissure (negative inside)."""
    p, atrophy = canvas.points, canvas.anatomy.atrophy
    bend, breadth = 2.2 * canvas.noise(13.0), 1 + 0.55 * canvas.noise(11.0)
    x, y, z = p[0] + 0.4 * bend, p[1] + bend, p[2] + 1.6 * bend
    q = (x, y, z)
    across = np.abs(x)
    wide = (0.45 + 0.8 * atrophy) * breadth
    suprasellar = ellipsoid(q, (0, 8, -20), (11, 9, 7))
    crescent = np.abs(_stem_only_mid(p)) - np.clip(0.9 * wide + 0.4 * (across > 9), 0.2, 3)
    ambient = np.maximum(crescent, np.maximum(z + 6, -32 - z))
    quad = ellipsoid(q, (0, -31, -5), (8, 4, 7))
    prepontine = ellipsoid(q, (0, -1, -34), (15, 4.5, 16))
    magna = ellipsoid(q, (0, -54, -66), (11, 10, 8))
    sylvian = _sylvian(q, wide)
    fissure = np.maximum(np.abs(p[0]) - np.clip(0.8 + 0.5 * wide * (y > 15) + 0.4 * wide, 0.7, 4), _callosum_top(y) - z)
    fissure = np.maximum(fissure, np.where((y > -55) | (z > 12), -50.0, 3.0))
    front = np.maximum(np.abs(p[0]) - 0.9 * wide, np.maximum(22 - y, z - 12))
    parts = [suprasellar, ambient, quad, prepontine, magna, sylvian, fissure, front]
    return np.minimum.reduce(parts).astype(np.float32)


def _stem_only_mid(p: Points) -> np.ndarray:
    return capsule_chain(p, np.array([[0, -12.0, -8], [0, -12, -20]]), [16.5, 14.5], (0.85, 1.1, 1.0))


def _callosum_top(y: np.ndarray) -> np.ndarray:
    """Head z of the top of the corpus callosum over y."""
    return 27.0 - 0.0085 * (y + 4.0) ** 2


def _sylvian(p: Points, wide: np.ndarray) -> np.ndarray:
    """The Sylvian fissure: a bent sheet from the surface to the insula, and the cleft over the insula."""
    x, y, z = p
    across = np.abs(x)
    line = -7.0 - 0.42 * (y - 15)
    opening = np.clip(1.0 * wide + 0.09 * np.clip(y, 0, 20) - 0.02 * np.clip(-y, 0, 30), 0, 4)
    sheet = np.maximum(np.abs(z - line) - opening, np.maximum(38 - across, np.abs(y) - 26))
    bow = 41.0 - 0.012 * (y - 2) ** 2 - 0.012 * (z - 2) ** 2
    insula = np.maximum(
        np.abs(across - bow) - np.clip(1.1 * wide, 0, 3), np.maximum(np.abs(y - 4) - 19, np.abs(z - 1) - 12)
    )
    return np.minimum(sheet, insula)


def _fold_noise(canvas: Canvas) -> np.ndarray:
    """Signed distance (mm, about) to the sheets of the sulci: the zero set of noise that varies little with depth."""
    a = canvas.anatomy
    smooth = ndimage.gaussian_filter(canvas.cavity, 1.5)
    normal = np.gradient(smooth, COARSE_MM)
    length = np.sqrt(sum(g * g for g in normal)) + 1e-3
    depth = np.clip(-canvas.cavity, -5.0, 30.0)
    z, y, x = np.meshgrid(*canvas.coarse.axes(), indexing="ij", sparse=True)
    # Slide each point most of the way to the surface, so that sulci run inward from it.
    slide = 0.6 * depth / length
    lattice = smooth_noise(canvas.rng, (100, 100, 100), (3.0, 3.0, 3.0), a.fold_mm)
    index = [(c + slide * g + 150.0) / 3.0 for c, g in zip((z, y, x), normal, strict=True)]
    noise = ndimage.map_coordinates(lattice, index, order=1, mode="nearest").astype(np.float32)
    slope = np.sqrt(sum(g * g for g in np.gradient(noise, COARSE_MM)))
    slope = ndimage.gaussian_filter(slope, 1.0)
    return noise / np.maximum(slope, 0.6 * float(slope.mean()))


def _paint_cerebrum(canvas: Canvas, coarse: dict[str, np.ndarray]) -> None:
    """CSF, grey and white matter with folds on the whole fine grid."""
    a = canvas.anatomy
    inner = canvas.inner
    whole = canvas.raise_up(coarse["whole"])
    folds = np.abs(canvas.raise_up(coarse["folds"]))
    low = canvas.raise_up(coarse["low"])
    depth = np.maximum(canvas.raise_up(coarse["depth"]), 0)
    reach = 12.0 + 5.0 * canvas.raise_up(canvas.noise(14.0))
    width = (0.65 + 1.15 * a.atrophy) * np.clip(1.2 - depth / np.maximum(reach, 4.0), -1, 1)
    width -= 3.0 * low
    sulcus = folds - width
    brain = np.maximum(whole, -sulcus)
    ribbon = np.minimum(-whole, folds + np.clip(0.6 * (depth - reach - 2), 0, 60))
    texture = canvas.raise_up(canvas.noise(6.0))
    grey = np.clip(0.5 + (3.1 + 0.5 * texture - ribbon) / 1.2, 0, 1)
    folia = canvas.raise_up(_folia(canvas))
    grey = np.where(low > 0.5, np.clip(folia, 0, 1), grey)
    pale = canvas.raise_up(_pale_white(canvas))
    drift = canvas.raise_up(1.7 * canvas.noise(28.0))
    matter = a.white_hu - pale + grey * (a.grey_hu - a.white_hu + pale) + 0.7 * texture + drift
    content = a.csf_hu + ramp(brain, 1.2) * (matter - a.csf_hu)
    inside = ramp(inner, 1.1)
    canvas.hu += inside * (content - canvas.hu)
    within = inner < 0
    canvas.tissue[within] = CSF
    matter_in = within & (brain < 0)
    canvas.tissue[matter_in] = WHITE
    canvas.tissue[matter_in & (grey > 0.5)] = GREY
    region = coarse["region"][np.ix_(*canvas.coarse.nearest_to(canvas.grid))]
    canvas.region[within] = region[within]


def _folia(canvas: Canvas) -> np.ndarray:
    """Grey fraction of cerebellum and stem: thin leaves around a white core, mixed grey and white in the stem."""
    x, y, z = canvas.points
    core = ellipsoid((np.abs(x), y, z), (19, -48, -37), (15, 13, 9))
    leaves = 0.62 + 0.3 * np.sin(1.15 * (z + 0.35 * y) + 2.0 * canvas.noise(14.0)) + 0.2 * canvas.noise(4.0)
    cerebellum = np.clip(0.5 + (core + 2.5 * canvas.noise(9.0)) / 7.0, 0.05, 1) * leaves
    return np.where(y > -26, 0.42 + 0.12 * canvas.noise(8.0), cerebellum).astype(np.float32)


def _pale_white(canvas: Canvas) -> np.ndarray:
    """HU by which leukoaraiosis darkens white matter around the ventricles."""
    a, (x, y, z) = canvas.anatomy, canvas.points
    near = ellipsoid((np.abs(x), y, z), (18, -2, 18), (14, 46, 12))
    cloud = np.clip(0.6 - near / 10.0 + 0.5 * canvas.noise(12.0), 0, 1)
    return (cloud * 9.0 * a.leukoaraiosis).astype(np.float32)


def _paint_ventricles(canvas: Canvas) -> None:
    """Lateral ventricles with their horns, third, aqueduct and fourth."""
    a = canvas.anatomy
    size = (0.88 + 0.9 * a.atrophy) * a.ventricle_size
    at, horns = a.trigone_mm, a.horn_size
    far = max(map(abs, a.lateral_shift_mm)) + 4.0 * max(horns - 1.0, 0.0)
    for sign in (1.0, -1.0):
        s = size * (1 + sign * a.ventricle_asymmetry)
        body = np.array(
            [[5 + 2 * s, 33, 4], [8 + 2 * s, 20, 12], [9 + 2 * s, 2, 19], [min(13 + 2 * s, at), -18, 19], [at, -36, 10]]
        )
        back = np.array([[at, -36, 10], [at + 1, -46, 4], [19, -60, 2]])
        horn = np.array([[at, -36, 10], [30, -30, -6], [32, -14, -17], [29, -2, -19]])

        def lateral(p: Points, s: float = s, sign: float = sign, body=body, back=back, horn=horn) -> np.ndarray:
            q = (sign * p[0], p[1] - a.lateral_shift_mm[0], p[2] - a.lateral_shift_mm[1])
            main = capsule_chain(q, body, [2.6 * s, 3.6 * s, 3.8 * s, 4.0 * s, 5.0 * s], (1.2, 1.0, 0.62))
            occipital = capsule_chain(q, back, [5.0 * s, 3.4 * s * horns, 1.2 * s * horns])
            temporal = capsule_chain(q, horn, [4.4 * s, 2.2 * s * horns, 1.8 * s * horns, 1.5 * s * horns])
            return np.minimum(main, np.minimum(occipital, temporal))

        low, high = (-2 - far, -66 - far, -26 - far), (46 + far, 44 + far, 36 + far)
        if sign < 0:
            low, high = (-high[0], *low[1:]), (-low[0], *high[1:])
        canvas.shape(low, high, lateral, a.csf_hu, tissue=VENTRICLE)
    third = (1.0 + 2.6 * a.atrophy) * a.third_size
    canvas.shape(
        (-10, -26, -16),
        (10, 12, 14),
        lambda p: np.maximum(np.abs(p[0]) - third, ellipsoid(p, (0, -8, -1), (12, 16, 11))),
        a.csf_hu,
        tissue=VENTRICLE,
    )
    canvas.shape(
        (-4, -34, -34),
        (4, -18, -2),
        lambda p: capsule_chain(p, np.array([[0, -22.0, -6], [0, -28, -26]]), [1.0, 1.2]),
        a.csf_hu,
        tissue=VENTRICLE,
    )
    fourth = size * a.fourth_size
    canvas.shape(
        (-16, -46, -54),
        (16, -20, -20),
        lambda p: ellipsoid(p, (0, -31, -36), (8.0 * fourth**0.5, 5.0 * fourth, 12), (12, 0, 0)),
        a.csf_hu,
        tissue=VENTRICLE,
    )
    canvas.shape(
        (-2, 2, 0),
        (2, 36, 22),
        lambda p: np.maximum(np.abs(p[0]) - 0.9, ellipsoid(p, (0, 16, 9), (30, 18, 9))),
        a.white_hu,
        tissue=WHITE,
    )
    if a.cavum_mm > 0:
        canvas.shape(
            (-10, -46, 0),
            (10, 36, 30),
            lambda p: capsule_chain(p, np.array([[0, 26.0, 12], [0, -4, 17], [0, -30, 12]]), [a.cavum_mm] * 3),
            a.csf_hu,
            tissue=VENTRICLE,
        )


def _paint_nuclei(canvas: Canvas) -> None:
    """Caudate, lentiform nucleus and thalamus, a little brighter than white matter."""
    a = canvas.anatomy
    hu = a.grey_hu - 0.8
    size = 0.75 + 0.95 * a.atrophy

    def free(box: tuple[slice, slice, slice]) -> np.ndarray:
        return np.isin(canvas.tissue[box], (WHITE, GREY)).astype(np.float32)

    shift = 3.0 * size
    canvas.mirrored(
        (4, 2, -6),
        (30, 36, 26),
        lambda p: ellipsoid(p, (11 + shift, 20, 7), (5.5, 10, 9), (0, 0, -12)),
        hu,
        tissue=GREY,
        within=free,
        width_mm=2.0,
    )
    canvas.mirrored(
        (12, -22, -16),
        (42, 30, 22),
        lambda p: ellipsoid(p, (27, 3, 1), (7.5, 19, 11), (0, 0, -10)),
        hu,
        tissue=GREY,
        within=free,
        width_mm=2.5,
    )
    canvas.mirrored(
        (0, -36, -8),
        (26, 6, 24),
        lambda p: ellipsoid(p, (10.5, -14, 6), (7.5, 13.5, 9.5), (0, 0, 22)),
        hu - 1.0,
        tissue=GREY,
        within=free,
        width_mm=2.5,
    )
    for center, radii in (((0, -13, -33), (11, 8, 10)), ((0, -14, -14), (12, 8, 8))):
        canvas.shape(
            (-16, -26, -48),
            (16, 0, -4),
            partial(ellipsoid, center=center, radii=radii),
            0.5 * (a.grey_hu + a.white_hu),
            within=free,
            width_mm=3.0,
        )


def _paint_dura(canvas: Canvas) -> None:
    """Falx and tentorium."""
    a = canvas.anatomy
    hu = min(a.sinus_hu - 6, 52.0)
    inner = canvas.inner
    found = canvas.near((-4, -100, -14), (4, 90, 90))
    if found is not None:
        box, (x, y, z) = found
        lower = np.maximum(
            _callosum_top(y) + np.clip(8 - 0.15 * (60 - y), -2, 16), np.where(y < -40, -4 - 0.1 * (y + 40), -99)
        )
        alpha = ramp(np.maximum(np.abs(x) - 0.45, lower - z), 1.2) * (inner[box] < 0.5)
        canvas.lay(box, alpha, hu)
        canvas.tissue[box][alpha > 0.3] = BARRIER
    found = canvas.near((-72, -95, -46), (72, -12, 2))
    if found is not None:
        box, (x, y, z) = found
        notch = np.hypot(x / 19.0, (y + 14) / 26.0) - 1
        sheet = np.maximum(np.abs(z - tentorium_height(x, y)) - 0.5, np.maximum(-notch * 15, y + 20 + 0.1 * np.abs(x)))
        alpha = ramp(sheet, 1.3) * (inner[box] < 0.5)
        canvas.lay(box, alpha, hu - 3)
        canvas.tissue[box][alpha > 0.3] = BARRIER
