"""One analysis in the worker at a time, seen from the panel: what is sent, what comes back, and the state between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import qt

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisLib.clinical import ClinicalRecord
from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.findings import Finding
from ICHAnalysisLib.prompts import Prompts
from ICHAnalysisPanel.scan_source import ScanSource
from ICHAnalysisPanel.session import LabelBox, Outcome
from ICHAnalysisPanel.worker import Worker

POLL_MS = 40


class State(Enum):
    """What the run is doing."""

    IDLE = "idle"
    RUNNING = "running"


@dataclass(frozen=True)
class Request:
    """What the user wants analyzed."""

    prompts: Prompts
    clinical: ClinicalRecord | None
    text: str | None
    options: AnalyzeOptions
    slice_in_view: int | None = None

    def to_command(self) -> dict[str, Any]:
        """JSON-ready values for the worker."""
        return {
            "boxes": [[box.ras_min, box.ras_max] for box in self.prompts.boxes],
            "points": [[point.ras, point.positive] for point in self.prompts.points],
            "clinical": self.clinical.to_dict() if self.clinical is not None else None,
            "text": self.text,
            "options": to_dict(self.options),
            "slice": self.slice_in_view,
        }


@dataclass(frozen=True)
class Listener:
    """Whom to tell, always on the main thread."""

    progress: Callable[[float, str], None]
    findings: Callable[[tuple[Finding, ...]], None]
    unread: Callable[[], None]  # the voxels could not be checked ahead of Apply
    preview: Callable[[int, np.ndarray], None]
    done: Callable[[Outcome], None]
    measured: Callable[[Analysis], None]
    failed: Callable[[str, str, str, tuple[Finding, ...]], None]  # message, kind, detail, findings


class Run:
    """Owns the worker. Its scan stays open, so that changed prompts cost the networks' last part alone."""

    def __init__(self, listener: Listener, analyzer: str | None = None) -> None:
        self.state = State.IDLE
        self.listener = listener
        self.analyzer = analyzer
        self.environment: dict[str, str] = {}
        self._worker: Worker | None = None
        self._opened: Any = None
        self._awaited = 0
        self._opening = 0
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.poll)

    def analyze(self, source: ScanSource, key: Any, request: Request) -> None:
        """Start, or replace what is under way. key: changes whenever the scan's voxels or geometry do."""
        self._open(source, key)
        self._awaited = self._worker.send("analyze", **request.to_command())
        self._start_polling()

    def inspect(self, source: ScanSource, key: Any) -> None:
        """Read and check the scan ahead of `analyze`; the listener is told what was found."""
        self._open(source, key)
        self._timer.start()

    @property
    def is_busy(self) -> bool:
        """True while the worker has something to say."""
        return self.state is State.RUNNING or self._opening > 0

    def measure(
        self, source: ScanSource, key: Any, analysis: Analysis, mask: LabelBox, clinical: ClinicalRecord | None
    ) -> None:
        """Follow an edited label map."""
        self._open(source, key)
        path = self._worker.save("edited", mask.labels)
        values = clinical.to_dict() if clinical is not None else None
        start = list(mask.start)
        self._awaited = self._worker.send(
            "measure", analysis=analysis.to_dict(), labels=path, start=start, clinical=values
        )
        self._start_polling()

    def cancel(self) -> None:
        """Stop at once: the worker is ended, its partial results go with it."""
        self.close()

    def close(self) -> None:
        """End the worker."""
        self._timer.stop()
        self.state = State.IDLE
        self._opened = None
        self._opening = 0
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def poll(self) -> None:
        """Take what the worker has said; called by the timer."""
        if self._worker is None:
            return
        for event in self._worker.poll():
            self._take(event)
            if self._worker is None:
                return
        if not self.is_busy:
            self._timer.stop()

    def _open(self, source: ScanSource, key: Any) -> None:
        if self._worker is not None and not self._worker.is_alive:
            self.close()
        if self._worker is None:
            self._worker = Worker(self.analyzer, self.environment)
        if key != self._opened:
            self._opening = self._worker.open(source)
            self._opened = key

    def _start_polling(self) -> None:
        self.state = State.RUNNING
        self._timer.start()

    def _take(self, event: dict[str, Any]) -> None:
        kind, is_awaited = event["kind"], event["id"] == self._awaited
        is_opening = event["id"] == self._opening > 0
        self._opening = 0 if is_opening else self._opening
        if kind == "opened" and is_opening:
            self.listener.findings(_findings(event))
        elif kind == "error" and is_opening and self.state is State.IDLE:
            self._tell_unread(_findings(event))
        elif kind == "progress" and is_awaited:
            self.listener.progress(event["fraction"], event["message"])
        elif kind == "preview" and is_awaited:
            self.listener.preview(event["k"], np.load(event["labels"]))
        elif kind == "done" and is_awaited:
            self.state = State.IDLE
            self.listener.done(_outcome(event))
        elif kind == "measured" and is_awaited:
            self.state = State.IDLE
            self.listener.measured(Analysis.from_dict(event["analysis"]))
        elif kind == "error" and self._awaited:
            self._fail(event["message"], event["type"], event["detail"], _findings(event))
        elif kind == "died" and self.state is State.IDLE:
            self.close()  # Apply starts another
            self.listener.unread()
        elif kind == "died":
            message = f"The worker process ended unexpectedly: {event['message']}"
            self._fail(message, "Died", "", ())

    def _tell_unread(self, findings: tuple[Finding, ...]) -> None:
        """What was seen of a scan that cannot be read; an unexpected error is told when Apply meets it again."""
        if findings:
            self.listener.findings(findings)
        else:
            self.listener.unread()

    def _fail(self, message: str, kind: str, detail: str, findings: tuple[Finding, ...]) -> None:
        """An error ends the run; after one of reading the scan, the scan counts as not open."""
        self.state = State.IDLE
        self._opened = None
        self._awaited = 0
        if kind == "Died":
            self.close()
        self.listener.failed(message, kind, detail, findings)


def _findings(event: dict[str, Any]) -> tuple[Finding, ...]:
    return tuple(Finding.from_dict(item) for item in event["findings"])


def _outcome(event: dict[str, Any]) -> Outcome:
    probability = np.array([np.nan if value is None else value for value in event["probability"]])
    heatmap = np.load(event["heatmap"], mmap_mode="r") if event["heatmap"] else None
    mask = LabelBox(np.load(event["labels"]), tuple(event["start"]), tuple(event["shape"]))
    return Outcome(Analysis.from_dict(event["analysis"]), mask, heatmap, probability)
