"""Draw the icons: `python Testing/module/make_icons.py`. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

ROOT = Path(__file__).parents[2]
NIGHT, BONE, BRAIN, FLUID, BLOOD, LINE = "#14283c", "#f2efe6", "#8b98a6", "#3d4c5c", "#d8432b", "#ffd166"


def closed_curve(points: np.ndarray) -> Curve:
    """A smooth closed curve through (N, 2) points."""
    count = 200
    ends = np.vstack([points, points[:1]])
    angle = np.linspace(0, 2 * np.pi, len(ends))
    fine = np.linspace(0, 2 * np.pi, count)
    from scipy.interpolate import CubicSpline

    return Curve(CubicSpline(angle, ends, bc_type="periodic")(fine), closed=True)


def draw(axes) -> None:
    """An axial head with a deep bleed and its measured diameters, on a unit square."""
    axes.add_patch(
        FancyBboxPatch((0.04, 0.04), 0.92, 0.92, boxstyle="round,pad=0,rounding_size=0.2", fc=NIGHT, ec="none")
    )
    axes.add_patch(Ellipse((0.5, 0.5), 0.66, 0.82, fc=BONE, ec="none"))
    axes.add_patch(Ellipse((0.5, 0.5), 0.57, 0.73, fc=BRAIN, ec="none"))
    axes.plot([0.5, 0.5], [0.16, 0.84], color=FLUID, lw=1.2, alpha=0.7, solid_capstyle="round")
    for side in (-1, 1):
        horn = np.array([[0.03, 0.16], [0.075, 0.12], [0.05, 0.02], [0.09, -0.12], [0.045, -0.1], [0.02, 0.04]])
        axes.add_patch(PathPatch(closed_curve(np.array([0.5, 0.5]) + horn * [side, 1]), fc=FLUID, ec="none"))
    bleed = np.array([[0.0, 0.115], [0.075, 0.07], [0.085, -0.03], [0.03, -0.12], [-0.055, -0.09], [-0.075, 0.03]])
    axes.add_patch(PathPatch(closed_curve(np.array([0.655, 0.505]) + bleed), fc=BLOOD, ec="white", lw=1.4))
    axes.plot([0.63, 0.685], [0.405, 0.6], color=LINE, lw=1.6, solid_capstyle="round")
    axes.plot([0.588, 0.732], [0.525, 0.485], color=LINE, lw=1.6, solid_capstyle="round")


def save(path: Path, size: tuple[int, int], title: str = "") -> None:
    """The drawing as a PNG of `size` pixels with a transparent background, and a title below where there is room."""
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100)
    FigureCanvasAgg(figure)
    share = size[0] / size[1]
    axes = figure.add_axes((0, 1 - share, 1, share))
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.axis("off")
    draw(axes)
    if title:
        figure.text(0.5, (1 - share) / 2, title, ha="center", va="center", fontsize=11, color="#14283c")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True)


if __name__ == "__main__":
    icons = ROOT / "ICHAnalysis" / "Resources" / "Icons"
    save(ROOT / "ICHAnalysis.png", (128, 128))
    save(icons / "ICHAnalysis.png", (128, 128))
    save(icons / "SimulatedHemorrhageCT.png", (260, 280), "Simulated hemorrhage CT")
