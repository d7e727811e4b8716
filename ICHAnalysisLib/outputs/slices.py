"""The slices of a report as inline pictures: gray image, heatmap layer, outlines and ABC lines as SVG paths."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from ICHAnalysisLib.analysis import LABEL_ICH, LABEL_IVH, Analysis
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.display import DisplayFrame, gray, outlines

_HEAT_LEVELS = 24
_HEAT_FLOOR = 0.08


@dataclass(frozen=True)
class SliceCell:
    """One slice of the report. Paths are SVG path data in mm of the picture, whose size is width x height mm."""

    number: int
    height_mm: float  # position along the slice normal
    width: float
    height: float
    image: str
    heat: str
    ich: str
    ivh: str
    lines: tuple[dict, ...]
    blood_ml: float
    ivh_ml: float
    probability: float | None


def slice_cells(
    analysis: Analysis,
    labels: np.ndarray,
    heatmap: np.ndarray | None,
    volume: CTVolume,
    ks: list[int],
    pixels: int,
) -> list[SliceCell]:
    """The cells of slices `ks`; pictures are at most `pixels` wide or high."""
    frame = DisplayFrame.of(volume)
    return [_cell(analysis, labels, heatmap, volume, frame, k, pixels) for k in ks]


def _cell(
    analysis: Analysis, labels: np.ndarray, heatmap: np.ndarray | None, volume: CTVolume, frame: DisplayFrame,
    k: int, pixels: int,
) -> SliceCell:  # fmt: skip
    width, height = frame.size_mm
    scale = pixels / max(width, height)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    slices = analysis.presence.slices if analysis.presence is not None else ()
    return SliceCell(
        number=k + 1,
        height_mm=float(volume.positions_mm[k]),
        width=round(width, 2),
        height=round(height, 2),
        image=_jpeg(gray(frame.image(volume.hu[k])), size),
        heat=_heat_png(frame.image(heatmap[k]), size) if heatmap is not None else "",
        ich=_path(labels[k] == LABEL_ICH, frame),
        ivh=_path(labels[k] == LABEL_IVH, frame),
        lines=_diameters(analysis, volume, frame, k),
        blood_ml=float(np.count_nonzero(labels[k] == LABEL_ICH) * volume.voxel_volumes_ml[k]),
        ivh_ml=float(np.count_nonzero(labels[k] == LABEL_IVH) * volume.voxel_volumes_ml[k]),
        probability=slices[k] if len(slices) == volume.shape[0] else None,
    )


def _path(mask: np.ndarray, frame: DisplayFrame) -> str:
    """SVG path data of the outlines of a mask."""
    parts = []
    for line in outlines(mask, frame):
        points = [f"{x:.1f} {y:.1f}" for x, y in (line + 0.5) * np.array(frame.pixel_mm)]
        parts.append("M" + "L".join(points) + "Z")
    return "".join(parts)


def _diameters(analysis: Analysis, volume: CTVolume, frame: DisplayFrame, k: int) -> tuple[dict, ...]:
    """The ABC lines that lie on slice k."""
    lines = []
    for lesion in analysis.abc2_lines:
        for name in ("a", "b"):
            ends = lesion.get(f"{name}_line_ras_mm")
            if lesion.get("index_slice") != k or ends is None:
                continue
            ij = volume.ras_to_ijk_points(np.asarray(ends, dtype=float))[:, :2]
            (x1, y1), (x2, y2) = (frame.xy(ij) + 0.5) * np.array(frame.pixel_mm)
            text = f"{name.upper()} {lesion[f'{name}_cm']:.1f} cm"
            lines.append({"name": name, "x1": x1, "y1": y1, "x2": x2, "y2": y2, "text": text})
    return tuple(lines)


def _jpeg(picture: np.ndarray, size: tuple[int, int]) -> str:
    """A gray picture as a data URI, resized so that its pixels are square."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BILINEAR)
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _heat_png(heat: np.ndarray, size: tuple[int, int]) -> str:
    """A heatmap layer as a small transparent PNG data URI; "" where the slice is cold."""
    from matplotlib import colormaps
    from PIL import Image

    values = np.clip(np.nan_to_num(heat), 0.0, 1.0).astype(np.float32)
    if float(values.max(initial=0.0)) < _HEAT_FLOOR:
        return ""
    small = Image.fromarray(values).resize((max(8, size[0] // 3), max(8, size[1] // 3)), Image.Resampling.BILINEAR)
    levels = np.rint(np.asarray(small) * (_HEAT_LEVELS - 1)).astype(np.uint8)
    colors = (colormaps["inferno"](np.linspace(0.25, 0.95, _HEAT_LEVELS))[:, :3] * 255).astype(np.uint8)
    image = Image.fromarray(levels)
    image.putpalette(colors.tobytes())
    alphas = np.clip(np.linspace(0, 1.3, _HEAT_LEVELS), 0, 1) * 150
    alphas[: int(np.ceil(_HEAT_FLOOR * _HEAT_LEVELS))] = 0
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, transparency=bytes(alphas.astype(np.uint8)))
    return data_uri(buffer.getvalue(), "image/png")


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
