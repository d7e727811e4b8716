"""The midline of a simulated head and how far the hemorrhage pushed it: the truth of the midline shift.

The midline runs straight from where the falx meets the skull in front to where it does behind, in the plane of the
septum pellucidum. Points are scene (x, y, z) mm, x toward the patient's left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ICHAnalysisLib.simulate.anatomy import Canvas
from ICHAnalysisLib.simulate.fields import linear_weights
from ICHAnalysisLib.simulate.push import Push
from ICHAnalysisLib.simulate.scene import Scene

#: The middle of the septum pellucidum, between the frontal horns in front of the foramen of Monro (head mm).
SEPTUM_MM = (0.0, 16.0, 9.0)


@dataclass(frozen=True, eq=False)
class Midline:
    """Scene points (3,): the septum pellucidum before anything pushes it, and the midline's ends in its plane."""

    septum: np.ndarray
    front: np.ndarray
    back: np.ndarray

    def shift_mm(self, push: Push | None) -> float:
        """Distance of the pushed septum from the line between the ends, mm; positive toward the patient's right."""
        along = (self.front - self.back)[:2]
        offset = (pushed(self.septum, push) - self.back)[:2]
        return float((along[1] * offset[0] - along[0] * offset[1]) / np.linalg.norm(along))


def painted_midline(canvas: Canvas) -> Midline | None:
    """The midline of a painted head from its own deformed coordinates; None where the slices do not hold the septum."""
    start, step = np.array(canvas.coarse.start_mm[::-1]), np.array(canvas.coarse.step_mm[::-1])
    point = np.linalg.solve(canvas.head[:, :3], np.array(SEPTUM_MM) - canvas.head[:, 3])
    for _ in range(12):  # the deformation is small and smooth
        off = np.array([_sampled(p, (point - start) / step) for p in canvas.points]) - SEPTUM_MM
        point = point - np.linalg.solve(canvas.head[:, :3], off)
    z = canvas.grid.axes()[0]
    if not z[0] <= point[2] <= z[-1]:
        return None
    plane = linear_weights(point[2:], start[2], step[2], canvas.coarse.shape[0])[0]
    across, cavity = (np.tensordot(plane, field, axes=1) for field in (canvas.points[0], canvas.cavity))
    _, rows, columns = canvas.coarse.axes()
    middle = np.array([np.interp(0.0, line[::-1], columns[::-1]) for line in across])  # head x falls with scene x
    inside = np.array([np.interp(m, columns, line) for m, line in zip(middle, cavity, strict=True)]) < 0
    held = np.flatnonzero(inside)
    if not len(held):
        return None
    front, back = (np.array([middle[n], rows[n], point[2]]) for n in (held[0], held[-1]))
    return Midline(point, front, back)


def assumed_midline(scene: Scene) -> Midline | None:
    """The midline of a real head, straight through its own septum, from its rough head coordinates: no shift yet."""
    septum, front, back = scene.from_head(np.array([SEPTUM_MM, (0.0, 70.0, 9.0), (0.0, -70.0, 9.0)]))
    z = scene.grid.axes()[0]
    return Midline(septum, front, back) if z[0] <= septum[2] <= z[-1] else None


def pushed(point: np.ndarray, push: Push | None) -> np.ndarray:
    """Where matter at a scene point comes to lie."""
    if push is None:
        return point
    moved = point.astype(float)
    for _ in range(30):  # the field says where matter came from; find the place it came to
        dy, dx = push.on_plane(float(point[2]), moved[1:2], moved[:1])
        moved = point - np.array([dx[0, 0], dy[0, 0], 0.0])
    return moved


def _sampled(field: np.ndarray, index_xyz: np.ndarray) -> float:
    """A coarse field at one place, linearly interpolated."""
    weights = [linear_weights(np.array([i]), 0.0, 1.0, n)[0] for i, n in zip(index_xyz[::-1], field.shape, strict=True)]
    return float(np.einsum("zyx,z,y,x->", field, *weights))
