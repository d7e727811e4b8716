"""The head without its holder.

Two rules: `remove_holder` (three-dimensional, the default) and `paper_head_mask` (the 2-D morphology of paper 002,
section 2.2.1: binarize, erode with a disk, zero the edge columns, flood fill). Arrays are (K, J, I), HU.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.morphology import dilate, erode, opening

#: HU of everything outside the head.
OUTSIDE_HU = -1024.0
#: Skin and fat are denser than this, padding foam and cloth are not (HU).
HEAD_THRESHOLD_HU = -300.0

_COARSE_MM = 2.0  # pixel of the grid on which the morphology runs
_OPENING_MM = 6.0  # half the width of the bridges that are cut: holder walls, not necks
_REGROW_MM = 30.0  # how far ears and the nose may reach out of the opened head
_WALL_MM = 34.0  # thin and straight over this length: a holder's wall, longer than an ear's cut
_SHELL_MM = 38.0  # longer than what of a nose or an ear stands out on one slice
_LATERAL = 0.85  # of the head's half width: walls stand farther out than the nose
_WALL_ANGLES = (-20.0, -10.0, 0.0, 10.0, 20.0)  # degrees from the column direction


def remove_holder(hu: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """HU with everything outside the head set to -1024, and the mask of the head.

    hu: (K, J, I). spacing_mm: (column, row, slice) spacing in mm, I, J, K order, as `CTVolume.spacing_mm`.
    Returns float32 (K, J, I) and bool (K, J, I). The threshold is -300 HU (decision V15); a scan whose darkest value
    lies above it was clipped, so there the head is what exceeds that value. Where no head stands out (a uniform or
    phantom scan, or a crop without background) the scan comes back unchanged with a mask that is true everywhere.
    """
    hu = np.asarray(hu, dtype=np.float32)
    mask = head_without_holder(hu, spacing_mm)
    return np.where(mask, hu, np.float32(OUTSIDE_HU)), mask


def head_without_holder(hu: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """The mask of `remove_holder` alone: bool (K, J, I)."""
    threshold = _threshold(hu)
    solid = hu > threshold
    rows, columns = _steps(spacing_mm)
    pixel_mm = (spacing_mm[1] * rows, spacing_mm[0] * columns)
    coarse = _coarse_head(solid[:, ::rows, ::columns], pixel_mm, has_walls=threshold == HEAD_THRESHOLD_HU)
    if not coarse.any():
        return np.ones(hu.shape, dtype=bool)
    # Two coarse pixels of margin catch the skin; inside, closed air (sinuses) belongs to the head.
    disk = _disk(1, 1)[None]
    near = _enlarge(dilate(coarse, disk), rows, columns, hu.shape)
    near &= solid
    near |= _enlarge(erode(coarse, disk), rows, columns, hu.shape)
    return near


def paper_head_mask(image: np.ndarray, threshold: float, radius: int = 5, edge_columns: int = 10) -> np.ndarray:
    """(J, I) bool head of a slice as in paper 002: binarize, erode with a disk, zero the edge columns, flood fill.

    image: (J, I) any gray values; `threshold` in the same unit; `radius` of the disk and `edge_columns` in pixels. The
    paper gives no numbers. After the erosion the largest region is kept and grown back by the same disk, else the head
    would lose a rim; the flood runs from the image's border, and what it does not reach is filled.
    """
    binary = np.asarray(image) > threshold
    eroded = ndimage.binary_erosion(binary, _disk(radius, radius))
    eroded[:, :edge_columns] = False
    eroded[:, eroded.shape[1] - edge_columns :] = False
    grown = ndimage.binary_dilation(_largest(eroded), _disk(radius, radius))
    return ndimage.binary_fill_holes(grown & binary)


def _threshold(hu: np.ndarray) -> float:
    """-300 HU, or just above the darkest value where the scan was clipped above that."""
    lowest = float(hu.min())
    return HEAD_THRESHOLD_HU if lowest < HEAD_THRESHOLD_HU else lowest + 2.0


def _steps(spacing_mm: tuple[float, ...]) -> tuple[int, int]:
    """(rows, columns) to skip for a grid of about 2 mm."""
    return max(1, round(_COARSE_MM / spacing_mm[1])), max(1, round(_COARSE_MM / spacing_mm[0]))


def _coarse_head(solid: np.ndarray, pixel_mm: tuple[float, float], has_walls: bool) -> np.ndarray:
    """(K, J, I) bool head on the coarse grid: opened, the largest 3-D component, its thin parts regrown, filled.

    has_walls: False where clipping hid the holder, and thin skin would pass for its walls.
    """
    element = _disk(max(1, round(_OPENING_MM / pixel_mm[0])), max(1, round(_OPENING_MM / pixel_mm[1])))[None]
    grown = _disk(1, 1)[None]
    walls = _walls(solid, element, pixel_mm) if has_walls else np.zeros_like(solid)
    body = _fill(solid & ~dilate(walls, grown))
    opened = opening(body, element)
    core = _largest(opened)
    if not core.any():
        return core
    foreign = (opened & ~core) | _shells(body, core, pixel_mm)
    allowed = core | (body & ~dilate(foreign, grown))
    cross = ndimage.generate_binary_structure(3, 1)
    cross[[0, 2]] = False  # in plane: what leaves the head grows back, but never up a wall from slice to slice
    reach = max(1, round(_REGROW_MM / max(pixel_mm)))
    return _fill(ndimage.binary_dilation(core, cross, iterations=reach, mask=allowed))


def _walls(solid: np.ndarray, element: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    """(K, J, I) bool thin, straight, upright pieces at the sides: walls of a holder that an ear may touch."""
    walls = np.zeros_like(solid)
    opened = opening(solid, element)
    columns_of_head = np.nonzero(_largest(opened))[2]
    if columns_of_head.size == 0:
        return walls
    left, right = np.percentile(columns_of_head, (2.0, 98.0))
    column = np.arange(solid.shape[2])
    lateral = np.abs(column - (left + right) / 2) > _LATERAL * (right - left) / 2
    thin = solid & ~opened & lateral
    thick = dilate(thin, np.ones((1, 3, 3), dtype=bool))  # a wall seen in steps stays straight
    reach = np.linspace(-_WALL_MM / 2, _WALL_MM / 2, 65)
    for angle in np.radians(_WALL_ANGLES):
        rows = np.round(reach * np.cos(angle) / pixel_mm[0]).astype(int)
        columns = np.round(reach * np.sin(angle) / pixel_mm[1]).astype(int)
        line = np.zeros((2 * rows.max() + 1, 2 * abs(columns).max() + 1), dtype=bool)
        line[rows + rows.max(), columns + abs(columns).max()] = True
        walls |= opening(thick, line[None])
    return walls & thin


def _shells(body: np.ndarray, core: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    """(K, J, I) bool pieces beyond the core's convex hull that are longer than a nose or an ear: a cup that touches."""
    beyond = np.zeros_like(body)
    for k in np.flatnonzero((body & ~core).any(axis=(1, 2)) & core.any(axis=(1, 2))):
        beyond[k] = body[k] & ~convex_hull(core[k])
    pieces, _ = ndimage.label(beyond, np.ones((3, 3, 3), dtype=bool))
    long = set()
    for plane in pieces:
        for n, box in enumerate(ndimage.find_objects(plane), start=1):
            if box and np.hypot(*((b.stop - b.start) * mm for b, mm in zip(box, pixel_mm, strict=True))) > _SHELL_MM:
                long.add(n)
    return np.isin(pieces, sorted(long))


def convex_hull(mask: np.ndarray) -> np.ndarray:
    """(J, I) bool pixels whose centers lie in the convex hull of the true pixels' centers, its border included."""
    hull = np.zeros(mask.shape, dtype=bool)
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return hull
    columns = np.arange(mask.shape[1])
    left = mask[rows].argmax(axis=1)
    right = columns[-1] - mask[rows][:, ::-1].argmax(axis=1)
    at = np.arange(rows[0], rows[-1] + 1)
    first = np.interp(at, *_envelope(rows, left))[:, None]
    last = -np.interp(at, *_envelope(rows, -right))[:, None]
    hull[at] = (columns >= first - 1e-9) & (columns <= last + 1e-9)
    return hull


def _envelope(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners (x, y) of the largest convex function below the points, x ascending (Andrew's monotone chain, 1979)."""
    corners: list[tuple[int, int]] = []
    for point in zip(x.tolist(), y.tolist()):
        while len(corners) > 1 and _turns_down(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    return np.array(corners).T


def _turns_down(first: tuple[int, int], middle: tuple[int, int], last: tuple[int, int]) -> bool:
    """True where the middle point lies on or above the line from first to last."""
    rise, run = middle[1] - first[1], middle[0] - first[0]
    return rise * (last[0] - first[0]) >= (last[1] - first[1]) * run


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected component of `mask`; all false where it is empty."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _fill(mask: np.ndarray) -> np.ndarray:
    """Each slice of (K, J, I) with its enclosed holes filled."""
    return np.stack([ndimage.binary_fill_holes(slice_) for slice_ in mask])


def _disk(rows: int, columns: int) -> np.ndarray:
    """An elliptic 2-D structuring element of the given half-axes in pixels."""
    y, x = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    return (y / (rows + 0.25)) ** 2 + (x / (columns + 0.25)) ** 2 <= 1.0


def _enlarge(coarse: np.ndarray, rows: int, columns: int, shape: tuple[int, ...]) -> np.ndarray:
    """Nearest-neighbor enlargement of the coarse mask to (K, J, I), centered on the pixels it was taken from."""
    j = np.minimum((np.arange(shape[1]) + rows // 2) // rows, coarse.shape[1] - 1)
    i = np.minimum((np.arange(shape[2]) + columns // 2) // columns, coarse.shape[2] - 1)
    return coarse[:, :, i][:, j]
