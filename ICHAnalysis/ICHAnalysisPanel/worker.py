"""The application's side of the worker process: start, send, poll, stop. Touches no MRML node."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ICHAnalysisPanel.scan_source import ScanSource

#: Longest stretch of copying voxels on the main thread at once.
COPY_SECONDS = 0.03
STOP_SECONDS = 2.0


class Worker:
    """A child process and the folder it shares with us; the folder goes when it is stopped."""

    def __init__(self, analyzer: str | None = None, environment: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ICHAnalysis-"))
        self._position = 0
        self._number = 0
        self._copy: Iterator[None] | None = None
        self._later: list[dict[str, Any]] = []
        arguments = [python_executable(), str(Path(__file__).with_name("worker_process.py")), str(self.folder)]
        arguments += [analyzer] if analyzer else []
        self._log = open(self.folder / "log.txt", "wb")  # noqa: SIM115 - handed to the child
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            **_hidden_window(),
        )

    @property
    def is_alive(self) -> bool:
        """True while the child runs."""
        return self._process.poll() is None

    def open(self, source: ScanSource) -> int:
        """Send a scan: its files by name, or its voxels through the folder, slice by slice in `poll`."""
        self._number += 1
        if source.files:
            self._post({"id": self._number, "command": "open", "source": source.to_dict()})
        else:
            self._copy = self._copying(source, self._number)
        return self._number

    def send(self, command: str, **values: Any) -> int:
        """Send a command; it waits until the voxels of `open` are over. Returns its number."""
        self._number += 1
        self._post({"id": self._number, "command": command, **values})
        return self._number

    def save(self, name: str, array: np.ndarray) -> str:
        """Write an array into the shared folder; returns its path."""
        path = self.folder / f"{name}.npy"
        np.save(path, array)
        return str(path)

    def poll(self) -> list[dict[str, Any]]:
        """New events. Copies voxels for at most COPY_SECONDS, so that the interface stays alive."""
        self._copy_some()
        path = self.folder / "events.jsonl"
        events = []
        if path.exists():
            with open(path, "rb") as stream:
                stream.seek(self._position)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break  # still being written
                    self._position += len(line)
                    events.append(json.loads(line))
        if not self.is_alive and not any(event["kind"] == "died" for event in events):
            events.append({"id": self._number, "kind": "died", "message": self._last_words()})
        return events

    def stop(self) -> None:
        """End the child and remove the folder."""
        self._copy, self._later = None, []
        if self.is_alive:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        for stream in (self._process.stdin, self._log):
            with contextlib.suppress(OSError):
                stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _post(self, command: dict[str, Any]) -> None:
        if self._copy is not None:
            self._later.append(command)
            return
        with contextlib.suppress(OSError):  # a dead child is told of by `poll`
            self._process.stdin.write((json.dumps(command) + "\n").encode())
            self._process.stdin.flush()

    def _copying(self, source: ScanSource, number: int) -> Iterator[None]:
        voxels = source.voxels
        dtype = np.int16 if voxels.dtype == np.int16 else np.float32
        path = self.folder / f"voxels{number}.npy"
        copy = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=voxels.shape)
        for k in range(len(voxels)):
            copy[k] = voxels[k]
            yield
        del copy
        self._copy = None
        sent = replace(source, voxels=str(path)).to_dict()
        self._post({"id": number, "command": "open", "source": sent})
        waiting, self._later = self._later, []
        for command in waiting:
            self._post(command)

    def _copy_some(self) -> None:
        until = time.perf_counter() + COPY_SECONDS
        while self._copy is not None and time.perf_counter() < until:
            next(self._copy, None)

    def _last_words(self) -> str:
        self._log.flush()
        lines = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with status {self._process.returncode}"


def python_executable() -> str:
    """Slicer's Python with its environment; outside Slicer, this Python."""
    return shutil.which("PythonSlicer") or sys.executable


def _hidden_window() -> dict[str, Any]:
    """Options that keep a console window from opening on Windows."""
    return {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
