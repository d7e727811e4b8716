"""Fixtures for every test."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans, from ICH_SHARED_DATA or beside the repository; skips where absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ICH_SHARED_DATA", default))
    if not (folder / "head_ct_ge").is_dir():
        pytest.skip(f"no real scans at {folder} (set ICH_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def bench():
    """A coarse known head with a bleed and its usual 5 mm scan, from which scans of any kind are made in a moment."""
    from ICHAnalysisLib.simulate.hazard_scans import Bench
    from ICHAnalysisLib.simulate.rescan import phantom

    return Bench.of(phantom(step_mm=2.5), pixel_mm=2.6)


def pytest_unconfigure() -> None:
    """A process that a failed test left behind must not hold up the end: Python would wait for it."""
    for process in multiprocessing.active_children():
        process.kill()
