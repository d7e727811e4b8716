"""Figure 1 of paper 002: a scan with its head holder, and without it by both rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.holder import HEAD_THRESHOLD_HU, OUTSIDE_HU, paper_head_mask, remove_holder
from Training.papers.drawing import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIMULATED_SEEDS = (5, 6)
_SHOWN_HU = (-400.0, 300.0)  # wide enough for foam and plastic
_DISK_MM, _EDGE_MM = 4.0, 10.0  # of the paper's rule, whose numbers the paper leaves open


@dataclass(frozen=True, eq=False)
class Held:
    """A scan with a holder. head: bool (K, J, I) without one, where it is known."""

    name: str
    volume: CTVolume
    head: np.ndarray | None = None


def draw_holder_removal(folders: Sequence[Path], overrides: Sequence[str]) -> Figure:
    """Original, the 3-D rule and the paper's rule on the slice that loses most; of each `scan=PATH` of the overrides,
    else of two simulated heads with the overlap (Dice of the whole head) beside them. No run is needed."""
    paths = [item.removeprefix("scan=") for item in overrides if item.startswith("scan=")]
    scans = [_read(path, n) for n, path in enumerate(paths, start=1)] or [_simulated(seed) for seed in _SIMULATED_SEEDS]
    figure, axes = panels(len(scans), 3, 3.2, 3.5)
    for row, held in zip(axes, scans, strict=True):
        mask = remove_holder(held.volume.hu, held.volume.spacing_mm)[1]
        k = int(np.count_nonzero((held.volume.hu > HEAD_THRESHOLD_HU) & ~mask, axis=(1, 2)).argmax())
        paper = np.stack([_paper_mask(plane, held.volume) for plane in held.volume.hu])
        pictures = (
            ("original", np.ones_like(mask)), ("3-D rule", mask), ("rule of paper 002", paper)
        )  # fmt: skip
        for axis, (title, kept) in zip(row, pictures, strict=True):
            shown = np.where(kept[k], held.volume.hu[k], OUTSIDE_HU)
            aspect = held.volume.spacing_mm[1] / held.volume.spacing_mm[0]
            axis.imshow(shown, cmap="gray", vmin=_SHOWN_HU[0], vmax=_SHOWN_HU[1], aspect=aspect)
            axis.set_title(f"{title}{_overlap(kept, held.head) if title != 'original' else ''}")
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"{held.name}, slice {k + 1}")
    return figure


def _read(path: str, number: int) -> Held:
    """A scan of the user's, named by its number: its path may name a patient."""
    from ICHAnalysisLib.ct.readers import read_scan

    return Held(f"scan {number}", read_scan(path, accept=True))


def _simulated(seed: int) -> Held:
    """A simulated head with a holder, and where it is without one."""
    from ICHAnalysisLib.simulate import AcquisitionSpec, CaseSpec, simulate_case

    held, free = (
        simulate_case(seed, CaseSpec(acquisition=AcquisitionSpec(holder=holder, storage="full"))).volume
        for holder in (True, False)
    )
    head = np.stack([ndimage.binary_fill_holes(plane) for plane in free.hu > HEAD_THRESHOLD_HU])
    return Held(f"SIMULATED {seed}", held, head)


def _paper_mask(plane: np.ndarray, volume: CTVolume) -> np.ndarray:
    """The paper's rule on one slice, its disk and edge in pixels of this scan."""
    column, row = volume.spacing_mm[:2]
    radius = max(1, round(_DISK_MM / float(np.mean((column, row)))))
    return paper_head_mask(plane, HEAD_THRESHOLD_HU, radius, max(1, round(_EDGE_MM / column)))


def _overlap(kept: np.ndarray, head: np.ndarray | None) -> str:
    """Dice with the true head, as text."""
    if head is None:
        return ""
    return f", Dice {2 * (kept & head).sum() / (kept.sum() + head.sum()):.3f}"
