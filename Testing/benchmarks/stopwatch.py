"""Time and memory of an action or of a command: medians, by the clock."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Lap:
    """Median seconds by the clock, its spread, and how many runs it comes from; peak_mib of a process where known."""

    seconds: float
    lowest: float
    highest: float
    runs: int
    peak_mib: float | None = None


def repeated(action: Callable[[], object], runs: int, warm_up: int = 1) -> Lap:
    """An action timed `runs` times after `warm_up` runs that do not count."""
    for _ in range(warm_up):
        action()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return Lap(statistics.median(times), min(times), max(times), runs)


def command(arguments: Sequence[str], runs: int, threads: int, bytecode: Path) -> Lap:
    """`python -m ...` in a fresh process, imports included; the peak is the largest resident size of any run.

    A first run that does not count leaves the modules compiled in `bytecode`, as an installation does.
    Raises RuntimeError with the command's own words where it fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    times, peak = [], 0
    for _ in range(runs + 1):
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = process.stderr.read() if process.stderr is not None else ""
        _, status, used = os.wait4(process.pid, 0)
        times.append(time.perf_counter() - start)
        if os.waitstatus_to_exitcode(status) != 0:
            raise RuntimeError(f"{' '.join(arguments)} failed: {said.strip().splitlines()[-1:]}")
        peak = max(peak, used.ru_maxrss if sys.platform != "darwin" else used.ru_maxrss // 1024)
    return Lap(statistics.median(times[1:]), min(times[1:]), max(times[1:]), runs, peak / 1024)
