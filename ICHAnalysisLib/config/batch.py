"""How a batch runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.config.outputs import OutputOptions
from ICHAnalysisLib.errors import UsageError


@dataclass(frozen=True)
class BatchOptions:
    """workers: processes on this machine; scheduler: address of a running Dask scheduler, in place of them.

    attempts: how often a case may bring its process down before it counts as failed. retry_failed: try cases again
    that ended blocked or failed in an earlier run. worker_memory_gb: what a worker needs; fewer are started where
    the memory does not hold all of them.
    """

    workers: int = 1
    scheduler: str | None = None
    attempts: int = 2
    retry_failed: bool = False
    worker_memory_gb: float = 2.5
    analyze: AnalyzeOptions = field(default_factory=AnalyzeOptions)
    outputs: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        if self.workers < 1 or self.attempts < 1:
            raise UsageError(f"Batch: {self.workers} workers and {self.attempts} attempts: both must be 1 or more.")
        if self.scheduler is not None and self.workers != 1:
            raise UsageError("Batch: give either --workers or --scheduler; a scheduler brings its own workers.")
