"""How a scan becomes a network's input. Stored with the weights; training, command line and module share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ICHAnalysisLib.errors import UsageError

#: Hemorrhage locations in the order of every probability vector (spec decision V1).
LOCATIONS: tuple[str, ...] = ("deep", "lobar", "subtentorial")


@dataclass(frozen=True)
class HUWindow:
    """A Hounsfield window, mapped linearly to [0, 1] and clipped."""

    center: float = 40.0
    width: float = 80.0

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise UsageError(f"HU window: width {self.width} must be above 0.")

    @property
    def lower(self) -> float:
        """HU that maps to 0."""
        return self.center - self.width / 2

    @property
    def upper(self) -> float:
        """HU that maps to 1."""
        return self.center + self.width / 2


BRAIN = HUWindow(40.0, 80.0)  # [0, 80]
SUBDURAL = HUWindow(80.0, 200.0)  # [-20, 180]
BONE_ISH = HUWindow(100.0, 400.0)  # [-100, 300]
HEMORRHAGE = HUWindow(75.0, 70.0)  # [40, 110], paper 003
SOFT_TISSUE = HUWindow(50.0, 100.0)  # [0, 100], beside it (decision R3)


@dataclass(frozen=True)
class PreprocessConfig:
    """Preprocessing of one network.

    In plane the acquired slices are resampled to `spacing_mm` and cut or padded to `size` pixels around the head
    (`layout` "physical"), or the head's bounding box is stretched to `size` ("stretch", paper 003), or its square
    hull is scaled to `size` ("square", papers 000 and 002).
    Scan networks also set `depth` and `slice_spacing_mm`. Slice networks may see the slices below and above too, in the
    `neighbor_windows`: what a thick slice holds in part, and what runs on like a vessel or the falx, shows there.
    """

    spacing_mm: float = 0.9
    size: int = 256
    windows: tuple[HUWindow, ...] = (BRAIN, SUBDURAL, BONE_ISH)
    neighbor_windows: tuple[HUWindow, ...] = ()  # of the slice below, then of the one above, as further channels
    layout: Literal["physical", "stretch", "square"] = "physical"
    slab_mm: float = 5.0  # series thinner than 2.5 mm are averaged to slabs of this height
    remove_holder: bool = True
    depth: int | None = None  # slices of a scan network's input; None for slice networks
    slice_spacing_mm: float = 5.0  # distance of those slices
    bone_hu: float | None = None  # what is denser, and its rim, is 0 HU before the windows; else bone looks like blood

    def __post_init__(self) -> None:
        if self.spacing_mm <= 0 or self.size < 8 or self.slice_spacing_mm <= 0:
            raise UsageError(
                f"Preprocessing: spacing {self.spacing_mm} mm, size {self.size} and slice spacing "
                f"{self.slice_spacing_mm} mm must be positive, and the size at least 8."
            )
        if not self.windows:
            raise UsageError("Preprocessing: at least one HU window is needed.")
        if self.neighbor_windows and self.depth is not None:
            raise UsageError(
                "Preprocessing: neighbor_windows are for slice networks; with a depth all slices are seen."
            )

    @property
    def channels(self) -> int:
        """Channels of a network's input."""
        return len(self.windows) + 2 * len(self.neighbor_windows)
