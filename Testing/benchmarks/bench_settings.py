"""What every benchmark is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Bench:
    """folder: where scans and results go; runs: of which the median counts; threads: of torch.

    shared: what one benchmark leaves for the next, such as the warm analysis' time for the ratios to peers.
    """

    folder: Path
    runs: int = 5
    threads: int = 2
    slices: int = 32
    matrix: int = 512
    batch_cases: int = 40
    shared: dict[str, float] = field(default_factory=dict)
