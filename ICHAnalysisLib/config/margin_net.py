"""Configuration of the margin net, which outlines what boxes hold, or what it sees without any. Not of the papers."""

from __future__ import annotations

from dataclasses import dataclass

from ICHAnalysisLib.config.preprocess import BRAIN, SUBDURAL, PreprocessConfig
from ICHAnalysisLib.errors import UsageError


@dataclass(frozen=True)
class MarginNetConfig:
    """A U-Net over the surroundings of boxes, at the pixels of the slice."""

    in_chans: int = 4  # HU windows of the slice, then of the one below and of the one above
    widths: tuple[int, ...] = (16, 32, 80, 128, 160)  # channels of its levels, each half as fine as the one before
    size: int = 128  # pixels of a crop; larger where a box needs more
    unboxed: bool = False  # it has also learned what to outline without a box

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or self.size % self.step:
            raise UsageError(
                f"Margin net: widths {self.widths} must be two or more, and size {self.size} a multiple of {self.step}."
            )

    @property
    def step(self) -> int:
        """Sides of a crop are multiples of this."""
        return int(2 ** (len(self.widths) - 1))


PRESETS: dict[str, MarginNetConfig] = {
    "compact": MarginNetConfig(unboxed=True),  # shipped
    "tiny": MarginNetConfig(widths=(4, 8), size=32),
}

#: What every preset sees of a slice; pixels and size are those of ICH-SCNet's stack.
PREPROCESS: dict[str, PreprocessConfig] = {
    "compact": PreprocessConfig(windows=(BRAIN, SUBDURAL), neighbor_windows=(BRAIN,)),
    "tiny": PreprocessConfig(windows=(BRAIN, SUBDURAL), neighbor_windows=(BRAIN,), spacing_mm=3.6, size=64),
}
