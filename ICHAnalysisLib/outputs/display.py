"""How a slice is shown: patient's right on the left, front up, brain window, cut to the head, square pixels in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ICHAnalysisLib.analysis import LABEL_ICH
from ICHAnalysisLib.config.preprocess import BRAIN, HUWindow
from ICHAnalysisLib.ct.volume import CTVolume

_BODY_HU = -300.0
_MARGIN_MM = 5.0


@dataclass(frozen=True)
class DisplayFrame:
    """The way from a slice array (J, I) to the shown picture (rows, columns).

    transpose, flip_x, flip_y: applied in this order. crop: (row0, row1, column0, column1) after them.
    pixel_mm: (width, height) of a shown pixel. marks: what lies at the left and right border, "" where unknown.
    """

    transpose: bool
    flip_x: bool
    flip_y: bool
    crop: tuple[int, int, int, int]
    full_shape: tuple[int, int]
    pixel_mm: tuple[float, float]
    marks: tuple[str, str]

    @classmethod
    def of(cls, volume: CTVolume) -> DisplayFrame:
        """The frame of a volume; slices may be axial, coronal or sagittal."""
        across, down, marks = _screen_axes(volume)
        transpose = abs(float(volume.column_step_ras @ across)) < abs(float(volume.row_step_ras @ across))
        x_step = volume.row_step_ras if transpose else volume.column_step_ras
        y_step = volume.column_step_ras if transpose else volume.row_step_ras
        _, rows, columns = volume.shape
        shape = (columns, rows) if transpose else (rows, columns)
        pixel = (float(np.linalg.norm(x_step)), float(np.linalg.norm(y_step)))
        frame = cls(
            transpose, bool(x_step @ across < 0), bool(y_step @ down < 0), (0, shape[0], 0, shape[1]), shape, pixel,
            marks if volume.side_known else ("", ""),
        )  # fmt: skip
        return _cropped(frame, volume)

    def image(self, array_ji: np.ndarray) -> np.ndarray:
        """A (J, I) slice as shown, (rows, columns)."""
        shown = array_ji.T if self.transpose else array_ji
        shown = shown[:, ::-1] if self.flip_x else shown
        shown = shown[::-1] if self.flip_y else shown
        row0, row1, column0, column1 = self.crop
        return shown[row0:row1, column0:column1]

    def xy(self, ij: np.ndarray) -> np.ndarray:
        """(N, 2) picture coordinates (x, y) in shown pixels of (N, 2) indices (i, j)."""
        points = np.atleast_2d(np.asarray(ij, dtype=float))
        x, y = (points[:, 1], points[:, 0]) if self.transpose else (points[:, 0], points[:, 1])
        x = self.full_shape[1] - 1 - x if self.flip_x else x
        y = self.full_shape[0] - 1 - y if self.flip_y else y
        return np.stack([x - self.crop[2], y - self.crop[0]], axis=1)

    @property
    def size_mm(self) -> tuple[float, float]:
        """(width, height) of the shown part in mm."""
        row0, row1, column0, column1 = self.crop
        return (column1 - column0) * self.pixel_mm[0], (row1 - row0) * self.pixel_mm[1]


def _screen_axes(volume: CTVolume) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """RAS directions that point to the right and down on the screen, and the marks of the left and right border."""
    axis = int(np.argmax(np.abs(volume.normal_ras)))
    if axis == 0:
        return np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, -1.0]), ("A", "P")
    down = np.array([0.0, -1.0, 0.0]) if axis == 2 else np.array([0.0, 0.0, -1.0])
    return np.array([-1.0, 0.0, 0.0]), down, ("R", "L")


def _cropped(frame: DisplayFrame, volume: CTVolume) -> DisplayFrame:
    """The frame cut to everything denser than air, with a margin; uncut where that is nearly all or nothing."""
    body = frame.image(np.max(volume.hu, axis=0) > _BODY_HU)
    rows = np.flatnonzero(np.count_nonzero(body, axis=1) > 0.02 * body.shape[1])
    columns = np.flatnonzero(np.count_nonzero(body, axis=0) > 0.02 * body.shape[0])
    if rows.size < 8 or columns.size < 8:
        return frame
    margin_x, margin_y = (round(_MARGIN_MM / step) for step in frame.pixel_mm)
    crop = (
        max(0, int(rows[0]) - margin_y),
        min(frame.full_shape[0], int(rows[-1]) + 1 + margin_y),
        max(0, int(columns[0]) - margin_x),
        min(frame.full_shape[1], int(columns[-1]) + 1 + margin_x),
    )
    return DisplayFrame(
        frame.transpose, frame.flip_x, frame.flip_y, crop, frame.full_shape, frame.pixel_mm, frame.marks
    )


def gray(hu: np.ndarray, window: HUWindow = BRAIN) -> np.ndarray:
    """HU to uint8 gray levels through a window; non-finite values are black."""
    scaled = (np.nan_to_num(hu, nan=-1024.0) - window.lower) / window.width
    return np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)


def outlines(mask_ji: np.ndarray, frame: DisplayFrame) -> list[np.ndarray]:
    """Closed outlines of a (J, I) mask as (N, 2) picture coordinates in shown pixels."""
    from skimage.measure import find_contours

    if not mask_ji.any():
        return []
    padded = np.pad(mask_ji.astype(np.float32), 1)
    lines = []
    for line in find_contours(padded, 0.5):
        thin = _simplified(line) - 1
        if len(thin) > 2:
            lines.append(frame.xy(thin[:, ::-1]))
    return lines


def _simplified(line: np.ndarray) -> np.ndarray:
    """(N, 2) polyline without the points that lie within 0.3 pixels of the line through their neighbors.

    By matplotlib, which draws anyway: scikit-image's `approximate_polygon` brings scipy.signal along, a second of every
    fresh process.
    """
    from matplotlib.path import Path

    path = Path(line)
    path.should_simplify, path.simplify_threshold = True, 0.3
    kept = path.cleaned(simplify=True)
    return np.asarray(kept.vertices)[kept.codes != Path.STOP]


def key_slices(labels: np.ndarray, count: int, hu: np.ndarray | None = None) -> list[int]:
    """Up to `count` slice indices worth showing, in ascending order.

    With blood: spread over its extent (and its neighbors where it is small), the slice with the largest ICH area
    included. Without: spread over the slices that hold brain.
    """
    depth = len(labels)
    count = min(count, depth)
    areas = np.count_nonzero(labels == LABEL_ICH, axis=(1, 2))
    present = np.flatnonzero(np.any(labels > 0, axis=(1, 2)))
    if present.size:
        low, high = int(present[0]), int(present[-1])
        while high - low + 1 < count:
            low, high = max(0, low - 1), min(depth - 1, high + 1)
    else:
        brain = np.count_nonzero((hu > 0) & (hu < 80), axis=(1, 2)) if hu is not None else np.ones(depth)
        enough = np.flatnonzero(brain > 0.4 * max(1.0, float(np.max(brain))))
        low, high = int(enough[0]), int(enough[-1])
    # Slices from within the extent say more than its two ends.
    places = np.linspace(low, high, count + 2)[1:-1] if high - low + 1 >= count + 2 else np.linspace(low, high, count)
    chosen = np.unique(np.rint(places).astype(int))
    if areas.any():
        largest = int(np.argmax(areas))
        chosen[np.argmin(np.abs(chosen - largest))] = largest
    return [int(k) for k in np.unique(chosen)]
