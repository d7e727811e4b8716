"""report.html: one self-contained page, escaped, without network access and, by default, without identifiers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisLib.analysis import LABEL_ICH, NEGATIVE_CAVEAT, PROGNOSIS_CAVEAT, Analysis, AnalysisArrays
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.atomic import write_text
from ICHAnalysisLib.outputs.display import DisplayFrame, key_slices
from ICHAnalysisLib.outputs.facts import detail_rows
from ICHAnalysisLib.outputs.page import render_page
from ICHAnalysisLib.outputs.pictures import draw_slice_curve, number_lines, png_bytes
from ICHAnalysisLib.outputs.slices import SliceCell, data_uri, slice_cells
from ICHAnalysisLib.outputs.surface import Views, head_views
from ICHAnalysisLib.outputs.words import (
    MODE_NAMES,
    NETWORK_NAMES,
    headline,
    is_positive,
    is_simulated,
    lead_sentence,
    number,
    percent,
    prognosis_rows,
    volume_rows,
)

#: (most slices, picture size in pixels): more slices, smaller pictures, so that a page stays a few MB.
_SIZES = ((40, 448), (120, 320), (10**6, 224))
_KEY_PIXELS = 640


def write_report(
    analysis: Analysis,
    arrays: AnalysisArrays | None,
    volume: CTVolume | None,
    path: Path,
    identifiers: dict[str, str] | None = None,
) -> Path:
    """Write report.html. With `identifiers` (label -> value) they stand on the page and the file gets mode 0600."""
    return write_text(path, report_html(analysis, arrays, volume, identifiers), private=bool(identifiers))


def report_html(
    analysis: Analysis,
    arrays: AnalysisArrays | None = None,
    volume: CTVolume | None = None,
    identifiers: dict[str, str] | None = None,
    views: Views | None = None,
) -> str:
    """The page as text. Without arrays or volume it holds words alone, as for a blocked scan.

    views: the 3-D views of these labels where another thread draws them already.
    """
    context = _words(analysis, identifiers)
    if arrays is None or volume is None:
        context |= _no_pictures()
    else:
        context |= _pictures(analysis, arrays, volume, views)
    return render_page("report", context)


def _words(analysis: Analysis, identifiers: dict[str, str] | None) -> dict[str, Any]:
    """Everything on the page that is text."""
    weights = [
        {"network": NETWORK_NAMES.get(item.network, item.network), "name": item.name, "sha256": item.sha256,
         "trained_on": item.trained_on}
        for item in analysis.weights
    ]  # fmt: skip
    blocked = analysis.status == "blocked"
    return {
        "analysis": analysis,
        "headline": headline(analysis),
        "lead": lead_sentence(analysis),
        "simulated": is_simulated(analysis),
        "positive": is_positive(analysis),
        "mode": MODE_NAMES.get(analysis.mode, analysis.mode),
        "identifiers": list((identifiers or {}).items()),
        "numbers": [] if blocked else number_lines(analysis),
        "prognosis": prognosis_rows(analysis),
        "weights": weights,
        "volumes": volume_rows(analysis),
        "details": detail_rows(analysis),
        "negative_caveat": "" if blocked else NEGATIVE_CAVEAT.split(". ", 1)[1],
        "prognosis_caveat": PROGNOSIS_CAVEAT,
    }


def _pictures(
    analysis: Analysis, arrays: AnalysisArrays, volume: CTVolume, views: Views | None = None
) -> dict[str, Any]:
    """Slices, views and the curve."""
    labels = arrays.labels
    depth = volume.shape[0]
    pixels = next(size for most, size in _SIZES if depth <= most)
    keys = key_slices(labels, 3, volume.hu)
    every = slice_cells(analysis, labels, arrays.heatmap, volume, list(range(depth)), pixels)
    key_cells = slice_cells(analysis, labels, None, volume, keys, _KEY_PIXELS)
    curve = _curve(analysis, labels, volume)
    drawn = views.result() if views is not None else head_views(labels, volume)
    return {
        "marks": DisplayFrame.of(volume).marks,
        "key_slices": [_captioned(cell) for cell in key_cells],
        "slices": [_captioned(cell) for cell in every],
        "first_slice": _main_slice(labels, keys) + 1,
        "has_heat": any(cell.heat for cell in every),
        "views": [(view, _picture_uri(picture)) for view, picture in drawn],
        "curve": curve,
    }


def _main_slice(labels: np.ndarray, keys: list[int]) -> int:
    """The slice with the largest ICH area, else the middle one of `keys`."""
    areas = np.count_nonzero(labels == LABEL_ICH, axis=(1, 2))
    return int(np.argmax(areas)) if areas.any() else keys[len(keys) // 2]


def _no_pictures() -> dict[str, Any]:
    """The page of a scan whose voxels were not read."""
    return {"marks": ("", ""), "key_slices": [], "slices": [], "first_slice": 1, "has_heat": False, "views": [],
            "curve": ""}  # fmt: skip


def _captioned(cell: SliceCell) -> dict[str, Any]:
    """A slice with its sentence."""
    parts = [f"Slice {cell.number}"]
    if cell.probability is not None:
        parts.append(f"probability {percent(cell.probability)}")
    if cell.blood_ml:
        parts.append(f"ICH {number(cell.blood_ml, 'mL')}")
    if cell.ivh_ml:
        parts.append(f"IVH {number(cell.ivh_ml, 'mL')}")
    return {"cell": cell, "caption": ", ".join(parts)}


def _picture_uri(picture: np.ndarray) -> str:
    """An RGB picture as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=88, optimize=True)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _curve(analysis: Analysis, labels: np.ndarray, volume: CTVolume) -> str:
    """The slice curve on white; "" where there is nothing to draw."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not np.any(labels) and not (analysis.presence and analysis.presence.slices):
        return ""
    figure = Figure(figsize=(10, 2.6), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.06, 0.22, 0.88, 0.72))
    draw_slice_curve(axes, analysis, labels, volume, ink="#34424f")
    return data_uri(png_bytes(figure), "image/png")
