"""overview.png: the key slices with their outlines, the ABC lines, a scale, the numbers and what this is not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ICHAnalysisLib.analysis import LABEL_ICH, LABEL_IVH, PROGNOSIS_CAVEAT, RESEARCH_USE, Analysis
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.atomic import write_bytes
from ICHAnalysisLib.outputs.display import DisplayFrame, gray, key_slices, outlines
from ICHAnalysisLib.outputs.words import (
    headline,
    interval_text,
    is_positive,
    is_simulated,
    lead_sentence,
    number,
    percent,
    place_text,
    prognosis_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ICH_COLOR, IVH_COLOR, LINE_COLORS = "#ff5d3a", "#3cc8ff", ("#ffd84a", "#9be36b")
BACKGROUND, INK, MUTED, WARN = "#10151b", "#f2f5f7", "#9fb0bf", "#ffb65c"
_SLICES, _COLUMNS, _DPI = 6, 3, 100
_COMPRESSION = 3  # of PNG: half the time of the usual 6 for a file of the same size


def write_overview(analysis: Analysis, labels: np.ndarray, volume: CTVolume, path: Path) -> Path:
    """Write overview.png; labels are (K, J, I), 1 ICH and 2 IVH."""
    return write_bytes(path, png_bytes(overview_figure(analysis, labels, volume)))


def png_bytes(figure: Figure) -> bytes:
    """A figure as PNG without metadata that changes from run to run."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": _COMPRESSION}}
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor=figure.get_facecolor(), **options)
    return buffer.getvalue()


def overview_figure(analysis: Analysis, labels: np.ndarray, volume: CTVolume) -> Figure:
    """The overview as a matplotlib figure of 1600 x 1000 pixels (drawn without a display)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 10), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    frame = DisplayFrame.of(volume)
    _draw_slices(figure, analysis, labels, volume, frame)
    _draw_curve(figure, analysis, labels, volume)
    _draw_numbers(figure, analysis, 0.712)
    _draw_footer(figure, analysis)
    return figure


def _draw_slices(figure: Figure, analysis: Analysis, labels: np.ndarray, volume: CTVolume, frame: DisplayFrame) -> None:
    """Two rows of three slices, with a scale on the first."""
    left, width, gap, top = 0.012, 0.222, 0.006, 0.988
    height = min(0.395, width * 1.6 * frame.size_mm[1] / frame.size_mm[0])
    for n, k in enumerate(key_slices(labels, _SLICES, volume.hu)):
        row, column = divmod(n, _COLUMNS)
        box = (left + column * (width + gap), top - height - row * (height + gap * 1.6), width, height)
        axes = figure.add_axes(box, facecolor="black")
        draw_slice(axes, analysis, labels, volume, frame, k)
        if n == 0:
            draw_scale(axes, frame)


def _draw_curve(figure: Figure, analysis: Analysis, labels: np.ndarray, volume: CTVolume) -> None:
    """Blood of each slice as bars in mL, and the probability of each slice as a line."""
    axes = figure.add_axes((0.045, 0.098, 0.605, 0.075), facecolor=BACKGROUND)
    draw_slice_curve(axes, analysis, labels, volume, ink=MUTED)


def draw_slice(
    axes: Axes, analysis: Analysis, labels: np.ndarray, volume: CTVolume, frame: DisplayFrame, k: int
) -> None:
    """One slice with outlines, ABC lines, its number and side marks."""
    axes.set_axis_off()
    width, height = frame.size_mm
    picture = gray(frame.image(volume.hu[k]))
    extent = (0.0, width, height, 0.0)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="bilinear", aspect="equal")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    for label, color in ((LABEL_ICH, ICH_COLOR), (LABEL_IVH, IVH_COLOR)):
        for line in outlines(labels[k] == label, frame):
            xy = _to_mm(line, frame)
            axes.plot(xy[:, 0], xy[:, 1], color=color, linewidth=1.6, solid_joinstyle="round")
    for lesion in analysis.abc2_lines:
        if lesion.get("index_slice") == k:
            _draw_diameters(axes, lesion, volume, frame)
    style: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 11, "color": INK, "va": "top"}
    axes.text(0.02, 0.98, f"slice {k + 1} / {volume.shape[0]}", ha="left", **style)
    for x, mark, align in ((0.02, frame.marks[0], "left"), (0.98, frame.marks[1], "right")):
        if mark:
            box = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 1.5}
            axes.text(x, 0.53, mark, ha=align, fontweight="bold", bbox=box, **{**style, "fontsize": 14})


def _to_mm(xy: np.ndarray, frame: DisplayFrame) -> np.ndarray:
    """Picture coordinates in pixels (centers at whole numbers) to mm of the axes."""
    return (xy + 0.5) * np.array(frame.pixel_mm)


def _draw_diameters(axes: Axes, lesion: dict[str, Any], volume: CTVolume, frame: DisplayFrame) -> None:
    """Lines A and B of one lesion, their lengths in cm at the lower left."""
    for n, (name, color) in enumerate(zip(("a", "b"), LINE_COLORS, strict=True)):
        ends = lesion.get(f"{name}_line_ras_mm")
        if ends is None:
            continue
        ij = volume.ras_to_ijk_points(np.asarray(ends, dtype=float))[:, :2]
        xy = _to_mm(frame.xy(ij), frame)
        axes.plot(xy[:, 0], xy[:, 1], color=color, linewidth=1.6, marker="+", markersize=8)
        text = f"{name.upper()} {lesion[f'{name}_cm']:.1f} cm"
        place: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 11, "fontweight": "bold", "va": "bottom"}
        axes.text(0.02 + 0.24 * n, 0.02, text, color=color, **place)


def draw_slice_curve(axes: Axes, analysis: Analysis, labels: np.ndarray, volume: CTVolume, ink: str) -> None:
    """Blood of each slice (bars, mL) and its probability of hemorrhage (line, 0 to 1) over the slice number.

    Without blood the line stands alone.
    """
    numbers = np.arange(1, volume.shape[0] + 1)
    ich = np.count_nonzero(labels == LABEL_ICH, axis=(1, 2)) * volume.voxel_volumes_ml
    ivh = np.count_nonzero(labels == LABEL_IVH, axis=(1, 2)) * volume.voxel_volumes_ml
    axes.bar(numbers, ich, color=ICH_COLOR, width=0.8)
    axes.bar(numbers, ivh, bottom=ich, color=IVH_COLOR, width=0.8)
    axes.set_ylim(0, max(1.0, float(np.max(ich + ivh)) * 1.15))
    axes.set_xlim(0.3, volume.shape[0] + 0.7)
    blood = bool(np.any(labels))
    axes.set_ylabel("mL" if blood else "", color=ink, fontsize=9)
    axes.yaxis.set_visible(blood)
    what = "blood (bars) and probability of hemorrhage (line, 0 to 1)" if blood else "probability of hemorrhage, 0 to 1"
    axes.set_xlabel(f"slice: {what}", color=ink, fontsize=9)
    slices = analysis.presence.slices if analysis.presence is not None else ()
    twin = axes.twinx()
    twin.set_ylim(0, 1)
    if len(slices) == volume.shape[0]:
        values = [np.nan if value is None else value for value in slices]
        twin.plot(numbers, values, color=ink, linewidth=1.4, marker=".", markersize=4)
    for each in (axes, twin):
        each.tick_params(colors=ink, labelsize=8, length=2)
        for spine in each.spines.values():
            spine.set_visible(False)


def draw_scale(axes: Axes, frame: DisplayFrame, length_mm: float = 50.0) -> None:
    """A scale bar in the lower right corner."""
    width, height = frame.size_mm
    x, y = width * 0.96, height * 0.95
    axes.plot([x - length_mm, x], [y, y], color=INK, linewidth=3, solid_capstyle="butt")
    box = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 1.5}
    place = (x - length_mm / 2, y - height * 0.015)
    axes.text(*place, f"{length_mm:.0f} mm", color=INK, fontsize=10, ha="center", bbox=box)


def _draw_numbers(figure: Figure, analysis: Analysis, left: float) -> None:
    """The column of numbers at the right."""
    y = 0.965
    y = _block(figure, left, y, [headline(analysis)], size=19, color=INK, weight="bold", width=27)
    y = _block(figure, left, y - 0.006, [lead_sentence(analysis)], size=11.5, color=MUTED, width=48)
    y -= 0.012
    lines = number_lines(analysis)
    gap = 0.010 if len(lines) < 10 else 0.002  # all of them fit
    for label, value, note in lines:
        figure.text(left, y, label, fontsize=10.5, color=MUTED, va="top")
        y = _block(figure, left, y - 0.020, [value], size=14.5, color=INK, weight="bold", width=36)
        if note:
            y = _block(figure, left, y + 0.004, [note], size=10, color=MUTED, width=56, most=2)
        y -= gap
    if any(row["given"] for row in prognosis_rows(analysis)):
        y = _block(figure, left, y, [PROGNOSIS_CAVEAT], size=10.5, color=WARN, width=54)
    levels = [finding for finding in analysis.findings if finding.level.value != "NOTE"]
    count = f"{len(analysis.findings)} finding{'' if len(analysis.findings) == 1 else 's'} about the scan"
    texts = [f"{count}; see the report."] if analysis.findings else []
    texts += [f"{finding.level.value}: {finding.message}" for finding in levels]
    for text in texts:
        if y < 0.115:
            break
        y = _block(figure, left, y - 0.006, [text], size=9.5, color=MUTED, width=60, most=3)
    _draw_legend(figure, analysis, left)


def number_lines(analysis: Analysis) -> list[tuple[str, str, str]]:
    """(label, value, note) of the numbers that stand first, the same in the overview and the capture."""
    lines: list[tuple[str, str, str]] = []
    volumes = analysis.volumes_ml
    if analysis.presence is not None:
        note = f"counts as found from {percent(analysis.presence.threshold)} on"
        lines.append(("Probability of intraparenchymal hemorrhage", percent(analysis.presence.probability), note))
    if is_positive(analysis):
        if volumes.get("segmentation") is not None:
            note = interval_text(analysis.intervals.get("segmentation"))
            lines.append(("ICH volume, from the outline", number(volumes["segmentation"], "mL"), note))
        if place_text(analysis):
            lines.append(("Location", place_text(analysis), ""))
        if volumes.get("ivh"):
            lines.append(("Intraventricular blood", number(volumes["ivh"], "mL"), ""))
        if volumes.get("abc2") is not None:
            lines.append(("ABC/2", number(volumes["abc2"], "mL"), _abc_text(analysis)))
        if volumes.get("network") is not None:
            note = interval_text(analysis.intervals.get("network"))
            lines.append(("Volume network, whole scan", number(volumes["network"], "mL"), note))
    for row in prognosis_rows(analysis):
        if row["given"]:
            note = f"{row['value']} {row['event']}".strip() if row["score"] else row["event"]
            lines.append((row["name"], row["score"] or row["value"], "; ".join(filter(None, (note, row["note"])))))
    return lines


def _abc_text(analysis: Analysis) -> str:
    """A, B and C of the largest lesion."""
    sizes = [item for item in analysis.abc2_lines if all(f"{name}_cm" in item for name in "abc")]
    if not sizes:
        return ""
    first = max(sizes, key=lambda item: item["a_cm"] * item["b_cm"] * item["c_cm"])
    text = " x ".join(f"{name.upper()} {first[f'{name}_cm']:.1f}" for name in "abc") + " cm"
    return text + (", the largest of several" if len(sizes) > 1 else "")


def _draw_legend(figure: Figure, analysis: Analysis, left: float) -> None:
    """What the colors mean."""
    if not is_positive(analysis):
        return
    entries = [(ICH_COLOR, "ICH"), (IVH_COLOR, "IVH"), (LINE_COLORS[0], "A"), (LINE_COLORS[1], "B")]
    for n, (color, text) in enumerate(entries):
        figure.text(left + 0.05 * n, 0.075, "▬ ", color=color, fontsize=13, va="center")
        figure.text(left + 0.05 * n + 0.014, 0.075, text, color=INK, fontsize=10.5, va="center")


def _draw_footer(figure: Figure, analysis: Analysis) -> None:
    """The line that stands on every picture, and the stamp of a simulated scan."""
    version = f"ICHAnalysis {analysis.version}".strip()
    figure.text(0.012, 0.03, RESEARCH_USE, color=WARN, fontsize=13, fontweight="bold", va="center")
    figure.text(0.988, 0.03, version, color=MUTED, fontsize=10, va="center", ha="right")
    if is_simulated(analysis):
        box = {"facecolor": BACKGROUND, "edgecolor": WARN, "linewidth": 1.5, "pad": 5}
        figure.text(
            0.68, 0.03, "SIMULATED", color=WARN, fontsize=15, fontweight="bold", va="center", ha="right", bbox=box
        )


def _block(
    figure: Figure, x: float, y: float, texts: list[str], *, size: float, color: str, width: int,
    weight: str = "normal", most: int = 6,
) -> float:  # fmt: skip
    """Wrapped text from the top down; returns where the next line may start. Math markup stays plain text."""
    import textwrap

    for text in texts:
        lines = textwrap.wrap(text, width) or ([""] if text else [])
        if len(lines) > most:
            lines = [*lines[: most - 1], lines[most - 1][: width - 2].rpartition(" ")[0] + " …"]
        for line in lines:
            figure.text(x, y, line, fontsize=size, color=color, fontweight=weight, va="top", parse_math=False)
            y -= size * 1.42 / 72 / figure.get_figheight()
    return y
