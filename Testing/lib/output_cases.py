"""Small made-up heads and answers for the tests of outputs."""

from __future__ import annotations

import numpy as np

from ICHAnalysisLib.analysis import Analysis, Interval, Lesion, Location, Presence, Prognosis, WeightsInfo
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.findings import Finding, Level

SHAPE = (10, 44, 40)  # K, J, I
PIXEL_MM = 4.0


def upright_volume(step_mm: float = 5.0, **fields) -> CTVolume:
    """A regular axial head as DICOM stores it: columns toward the left, rows toward the back."""
    affine = np.array(
        [[-PIXEL_MM, 0, 0, 78.0], [0, -PIXEL_MM, 0, 86.0], [0, 0, step_mm, -20.0], [0, 0, 0, 1.0]], dtype=float
    )
    return CTVolume.from_affine(head_hu(), affine, **fields)


def tilted_volume(tilt_degrees: float = 18.5, flipped: bool = False, **fields) -> CTVolume:
    """A tilted stack with uneven steps along the table; `flipped` stores it from the top down, mirrored in plane."""
    angle = np.radians(tilt_degrees)
    column = np.array([-PIXEL_MM, 0.0, 0.0])
    row = PIXEL_MM * np.array([0.0, -np.cos(angle), np.sin(angle)])
    table = np.concatenate([[0.0], np.cumsum([4.0, 4.0, 2.0, 4.0, 4.0, 7.0, 7.0, 7.0, 7.0])])
    lift = (SHAPE[1] - 1) / 2 * row[2]  # keeps the middle of the head where an upright stack has it
    origins = np.stack([np.full(10, 78.0), np.full(10, 86.0), table - 22.0 - lift], axis=1)
    thickness = np.array([4.0] * 6 + [7.0] * 4)
    hu = head_hu()
    if flipped:
        origins = (origins + (SHAPE[2] - 1) * column)[::-1].copy()
        column, hu, thickness = -column, hu[::-1, :, ::-1].copy(), thickness[::-1].copy()
    return CTVolume(hu, column, row, origins, thickness, **fields)


def head_hu() -> np.ndarray:
    """(K, J, I) HU: air, a skull ring and brain inside."""
    _, rows, columns = SHAPE
    y, x = np.mgrid[:rows, :columns]
    radius = np.hypot((y - (rows - 1) / 2) / 19.0, (x - (columns - 1) / 2) / 16.0)
    plane = np.where(radius < 0.88, 32.0, np.where(radius < 1.0, 900.0, -1000.0)).astype(np.float32)
    return np.repeat(plane[None], SHAPE[0], axis=0)


def bleed_labels(volume: CTVolume, center_ras: np.ndarray, radius_mm: float = 14.0) -> np.ndarray:
    """uint8 (K, J, I): ICH within a ball about a RAS point, by the true place of every voxel."""
    index = np.indices(volume.shape)[::-1].reshape(3, -1).T
    distance = np.linalg.norm(volume.ijk_to_ras_points(index) - center_ras, axis=1)
    return (distance <= radius_mm).reshape(volume.shape).astype(np.uint8)


def positive_analysis(volume: CTVolume, labels: np.ndarray, case_id: str = "case-1", **fields) -> Analysis:
    """An answer with every part filled in; numbers follow from the labels."""
    areas = np.count_nonzero(labels == 1, axis=(1, 2))
    k = int(np.argmax(areas))
    ks = np.flatnonzero(areas)
    js, is_ = np.nonzero(labels[k] == 1)
    a = volume.ijk_to_ras_points([[is_.mean(), js.min(), k], [is_.mean(), js.max(), k]])
    b = volume.ijk_to_ras_points([[is_.min(), js.mean(), k], [is_.max(), js.mean(), k]])
    sizes = [float(np.linalg.norm(ends[1] - ends[0]) / 10) for ends in (a, b)]
    height = float(volume.slice_heights_mm[ks].sum() / 10)
    volume_ml = volume.mask_volume_ml(labels == 1)
    center = tuple(float(value) for value in (a[0] + a[1]) / 2)
    values = {
        "status": "ok",
        "findings": (Finding("tilt", Level.FIX, "The gantry was tilted.", "", 1),),
        "input": {"kind": "dicom", "shape": list(volume.shape), "spacing_mm": list(volume.spacing_mm)},
        "presence": Presence(0.97, True, tuple(float(min(0.99, area / 40)) for area in areas), 0.5, "top slices"),
        "location": Location("deep", "left", {"deep": 0.9, "lobar": 0.1, "subtentorial": 0.0}, "DTViT"),
        "lesions": (Lesion(volume_ml, center, (*center, *center), (int(ks[0]), int(ks[-1])), 63.0),),
        "volumes_ml": {
            "segmentation": volume_ml,
            "ivh": volume.mask_volume_ml(labels == 2),
            "network": 12.5,
            "abc2": sizes[0] * sizes[1] * height / 2,
        },
        "intervals": {"segmentation": Interval(volume_ml, volume_ml * 0.9, volume_ml * 1.1, "mL", "by simulation")},
        "abc2_lines": (
            {"a_cm": sizes[0], "b_cm": sizes[1], "c_cm": height, "index_slice": k, "a_line_ras_mm": a.tolist(),
             "b_line_ras_mm": b.tolist()},
        ),
        "prognosis": {
            "ich_score": Prognosis(0.13, "death within 30 days", "Hemphill 2001", score=1, items={"IVH": True}),
            "scan_network": Prognosis(None, "death", "", reason="Not given for a real scan."),
        },
        "weights": (WeightsInfo("dtvit", "dtvit_compact", "ab" * 32, "simulated scans"),),
        "timings_s": {"read": 0.5},
        "version": "0.1.0",
        "case_id": case_id,
    }  # fmt: skip
    return Analysis(**{**values, **fields})


def negative_analysis(**fields) -> Analysis:
    """An answer without hemorrhage."""
    values = {
        "status": "ok",
        "presence": Presence(0.03, False, (), 0.5),
        "volumes_ml": {"segmentation": 0.0},
        "version": "0.1.0",
    }
    return Analysis(**{**values, **fields})
