"""The worker: a child process that analyzes while the application stays responsive.

`python worker_process.py FOLDER [ANALYZER]`. Commands come as JSON lines on standard input; events go as JSON lines
to FOLDER/events.jsonl, arrays as .npy files beside it. A newer `analyze` or a `cancel` stops the one under way.
"""

from __future__ import annotations

import _thread
import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np


class Server:
    """Answers commands one after another."""

    def __init__(self, folder: Path, analyzer: str | None) -> None:
        self.folder = folder
        self.analyzer = analyzer
        self.commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self.newest = 0
        self.is_batch = False
        self.session: Any = None
        self.outcome: Any = None
        self.events = open(folder / "events.jsonl", "a", encoding="utf-8")  # noqa: SIM115 - open as long as the process

    def listen(self) -> None:
        """Read commands until the parent goes away; runs in its own thread."""
        for line in sys.stdin:
            command = json.loads(line)
            self.newest = max(self.newest, command["id"])
            self.commands.put(command)
            if self.is_batch and command["command"] == "cancel":
                _thread.interrupt_main()  # as Ctrl+C would: the case under way takes its attempt back
        os._exit(0)

    def run(self) -> None:
        """Answer until the end."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=self.listen, daemon=True).start()
        self.say(0, "ready")
        while True:
            command = self.commands.get()
            try:
                getattr(self, "do_" + command["command"])(command)
            except Exception as error:  # every failure becomes an event with a sentence for the user
                self.report(command["id"], error)

    def say(self, number: int, kind: str, **values: Any) -> None:
        """Write one event."""
        self.events.write(json.dumps({"id": number, "kind": kind, **values}, allow_nan=False) + "\n")
        self.events.flush()

    def report(self, number: int, error: Exception) -> None:
        """An error as an event: expected ones as their sentence, others with the traceback for the log."""
        from ICHAnalysisLib.errors import CancelledError, ICHAnalysisError

        if isinstance(error, CancelledError):
            self.say(number, "cancelled")
            return
        findings = [finding.to_dict() for finding in getattr(error, "findings", ())]
        detail = "" if isinstance(error, ICHAnalysisError) else traceback.format_exc()
        self.say(number, "error", type=type(error).__name__, message=str(error), findings=findings, detail=detail)

    def do_open(self, command: dict[str, Any]) -> None:
        """Read and check a scan; the networks of the scan before are kept."""
        from ICHAnalysisPanel.scan_source import ScanSource
        from ICHAnalysisPanel.session import DEFAULT_ANALYZER, Session

        networks = self.session.networks if self.session is not None else None
        self.session = Session(ScanSource.from_dict(command["source"]), self.analyzer or DEFAULT_ANALYZER, networks)
        findings = [finding.to_dict() for finding in self.session.inspect()]
        self.say(command["id"], "opened", findings=findings)

    def do_analyze(self, command: dict[str, Any]) -> None:
        """Analyze the open scan."""
        from ICHAnalysisLib.clinical import ClinicalRecord
        from ICHAnalysisLib.config.analyze import AnalyzeOptions
        from ICHAnalysisLib.config.base import from_dict
        from ICHAnalysisLib.errors import CancelledError
        from ICHAnalysisLib.prompts import Box, Point, Prompts

        number = command["id"]

        def progress(fraction: float, message: str) -> None:
            if self.newest > number:
                raise CancelledError("A newer request replaces this one.")
            self.say(number, "progress", fraction=float(fraction), message=message)

        boxes = tuple(Box(tuple(low), tuple(high)) for low, high in command["boxes"])
        points = tuple(Point(tuple(ras), positive) for ras, positive in command["points"])
        clinical = ClinicalRecord.from_dict(command["clinical"]) if command["clinical"] else None
        options = from_dict(AnalyzeOptions, command["options"])

        def preview(k: int, labels: np.ndarray) -> None:
            self.say(number, "preview", k=k, labels=self.save(f"preview{number}", labels))

        outcome = self.session.analyze(
            Prompts(boxes, points), clinical, command["text"] or None, options, progress, command.get("slice"), preview
        )
        self.outcome = outcome
        self.done(number, outcome.analysis, outcome)

    def do_measure(self, command: dict[str, Any]) -> None:
        """Follow an edited label map."""
        from ICHAnalysisLib.analysis import Analysis
        from ICHAnalysisLib.clinical import ClinicalRecord
        from ICHAnalysisPanel.session import LabelBox

        clinical = ClinicalRecord.from_dict(command["clinical"]) if command["clinical"] else None
        mask = LabelBox(np.load(command["labels"]), tuple(command["start"]), self.session.source.shape)
        analysis = self.session.measure(Analysis.from_dict(command["analysis"]), mask, clinical)
        self.say(command["id"], "measured", analysis=analysis.to_dict())

    def do_batch(self, command: dict[str, Any]) -> None:
        """Analyze every scan of a folder or CSV, telling of each case; stopped by `cancel`."""
        from ICHAnalysisLib.batch import run_batch
        from ICHAnalysisLib.batch_cases import find_cases
        from ICHAnalysisLib.batch_task import analyze_case
        from ICHAnalysisLib.config.analyze import AnalyzeOptions
        from ICHAnalysisLib.config.base import from_dict
        from ICHAnalysisLib.config.batch import BatchOptions

        number, folder = command["id"], Path(command["folder"])

        def case_done(done: int, total: int, row: dict[str, Any]) -> None:
            self.say(number, "case", done=done, total=total, case_id=row["case_id"], status=row["status"])

        options = BatchOptions(analyze=from_dict(AnalyzeOptions, command["options"]))
        analyzer = imported(self.analyzer) if self.analyzer else analyze_case
        try:
            self.is_batch = True
            result = run_batch(find_cases(command["source"], skip=folder), folder, options, case_done, analyzer)
        except KeyboardInterrupt:
            return  # the command that caused it is answered next
        finally:
            self.is_batch = False
        self.say(number, "batched", rows=result.rows, resumed=result.resumed)

    def do_demo(self, command: dict[str, Any]) -> None:
        """Make the simulated demo scan: int16 HU and its matrix."""
        from ICHAnalysisLib.commands.demo import demo_case

        volume = demo_case().volume
        voxels = self.save("demo", np.round(np.clip(volume.hu, -32768, 32767)).astype(np.int16))
        self.say(command["id"], "demo", voxels=voxels, ijk_to_ras=volume.ijk_to_ras.tolist())

    def do_cancel(self, command: dict[str, Any]) -> None:
        """Nothing more to do: the number of the command has stopped what was under way."""
        self.say(command["id"], "cancelled")

    def done(self, number: int, analysis: Any, outcome: Any) -> None:
        """The answer: numbers in the event, arrays in files."""
        probability = [None if np.isnan(value) else float(value) for value in outcome.slice_probability]
        heatmap = None if outcome.heatmap is None else self.save(f"heatmap{number}", outcome.heatmap)
        self.say(
            number,
            "done",
            analysis=analysis.to_dict(),
            labels=self.save(f"labels{number}", outcome.mask.labels),
            start=list(outcome.mask.start),
            shape=list(outcome.mask.shape),
            heatmap=heatmap,
            probability=probability,
        )

    def save(self, name: str, array: np.ndarray) -> str:
        """Write an array; returns its path."""
        path = self.folder / f"{name}.npy"
        np.save(path, np.ascontiguousarray(array))
        return str(path)


def imported(name: str) -> Any:
    """A function by "module:name"."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


if __name__ == "__main__":
    here = Path(__file__).resolve()
    for folder in (here.parents[1], here.parents[2]):
        if str(folder) not in sys.path:
            sys.path.insert(1, str(folder))
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here.parent]
    Server(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None).run()
