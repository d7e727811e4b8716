"""Physiological calcifications of the procedural head: pineal gland, choroid plexus, falx and basal ganglia."""

from __future__ import annotations

from ICHAnalysisLib.simulate.anatomy import Canvas
from ICHAnalysisLib.simulate.fields import ellipsoid
from ICHAnalysisLib.simulate.scene import OUTSIDE


def paint_calcium(canvas: Canvas) -> None:
    """Paint the calcifications that were drawn for this head."""
    painters = {"pineal": _pineal, "choroid": _choroid, "falx": _falx, "basal_ganglia": _basal_ganglia}
    for name in canvas.anatomy.calcium:
        if name in painters:
            painters[name](canvas)


def _spot(canvas: Canvas, center: tuple[float, float, float], radii: tuple[float, float, float], hu: float) -> None:
    """One calcified ellipsoid."""
    low = [c - 2 * r - 3 for c, r in zip(center, radii, strict=True)]
    high = [c + 2 * r + 3 for c, r in zip(center, radii, strict=True)]
    canvas.shape(low, high, lambda p: ellipsoid(p, center, radii), hu, tissue=OUTSIDE)


def _pineal(canvas: Canvas) -> None:
    size = canvas.rng.uniform(1.4, 3.2)
    _spot(canvas, (0.0, -28.0, 2.0), (size, size, size), canvas.rng.uniform(130, 500))


def _choroid(canvas: Canvas) -> None:
    rng = canvas.rng
    for sign in (1, -1):
        center = (sign * rng.uniform(20, 25), rng.uniform(-40, -34), rng.uniform(5, 12))
        size = rng.uniform(1.5, 4.0)
        _spot(canvas, center, (0.6 * size, 1.3 * size, size), rng.uniform(110, 450))


def _falx(canvas: Canvas) -> None:
    rng = canvas.rng
    size = rng.uniform(2, 6)
    _spot(canvas, (0.0, rng.uniform(-30, 55), rng.uniform(40, 55)), (1.3, size, size), rng.uniform(150, 600))


def _basal_ganglia(canvas: Canvas) -> None:
    for sign in (1, -1):
        size = canvas.rng.uniform(1.2, 3.5)
        _spot(canvas, (sign * 20.0, 2.0, 1.0), (size, 1.6 * size, 1.2 * size), canvas.rng.uniform(80, 260))
