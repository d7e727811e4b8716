"""What was found about a scan: a stable code, a level, a sentence for a clinician, and a remedy."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(str, enum.Enum):
    """How far a finding reaches."""

    BLOCK = "BLOCK"  # no numbers are given
    ASK = "ASK"  # the user confirms; --yes accepts, a batch skips with the reason
    FIX = "FIX"  # mended, and said
    NOTE = "NOTE"  # said


@dataclass(frozen=True)
class Finding:
    """One finding. `hazard` is its number in the table of hazards, 0 where it has none."""

    code: str
    level: Level
    message: str
    remedy: str = ""
    hazard: int = 0

    def to_dict(self) -> dict:
        """The finding as it stands in analysis.json."""
        return {
            "code": self.code,
            "level": self.level.value,
            "message": self.message,
            "remedy": self.remedy,
            "hazard": self.hazard,
        }

    @classmethod
    def from_dict(cls, data: dict) -> Finding:
        """The inverse of `to_dict`."""
        return cls(**{**data, "level": Level(data["level"])})
