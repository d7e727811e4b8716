"""Configuration of the candidate net, a small classifier of what ICH-SCNet outlines. It is no network of the papers."""

from __future__ import annotations

from dataclasses import dataclass

from ICHAnalysisLib.config.preprocess import BONE_ISH, BRAIN, PreprocessConfig
from ICHAnalysisLib.errors import UsageError


@dataclass(frozen=True)
class CandidateNetConfig:
    """A candidate seen twice: near (the middle half of its crop) and wide (all of it, at half the resolution)."""

    in_chans: int = 2  # HU windows
    slices: int = 5  # of a crop, the candidate's largest in the middle; all are seen near, the middle three wide
    size: int = 128  # pixels of a crop
    width: int = 16  # channels of the first block; the others have two, three and four times as many
    hidden: int = 64
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.slices < 3 or self.slices % 2 == 0 or self.size % 16:
            raise UsageError(
                f"Candidate net: slices {self.slices} must be odd and at least 3, size {self.size} a multiple of 16."
            )


PRESETS: dict[str, CandidateNetConfig] = {
    "compact": CandidateNetConfig(),  # shipped; about 0.25 M parameters
    "tiny": CandidateNetConfig(size=32, width=4, hidden=8, dropout=0.0),
}

#: Windows of every preset, and the pixel size of a crop; `size` is that of the slices the crops come from.
PREPROCESS: dict[str, PreprocessConfig] = {
    "compact": PreprocessConfig(windows=(BRAIN, BONE_ISH)),
    "tiny": PreprocessConfig(windows=(BRAIN, BONE_ISH), spacing_mm=3.6, size=64),
}
