"""Analyzers for the tests of batches: fast, importable by worker processes, with the faults of real nights."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
from output_cases import bleed_labels, negative_analysis, positive_analysis, upright_volume

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisLib.batch_cases import Case
from ICHAnalysisLib.config.batch import BatchOptions
from ICHAnalysisLib.errors import InputBlockedError
from ICHAnalysisLib.outputs.atomic import write_text


def read_and_answer(case: Case, folder: Path, options: BatchOptions) -> Analysis:
    """Answer from a small JSON "scan" {"ml": ...}; a corrupt one is blocked as the readers do it. Logs each run."""
    with open(Path(case.scan).parent / "runs.log", "a", encoding="utf-8") as log:
        log.write(f"{case.case_id}\n")
    try:
        wanted = json.loads(Path(case.scan).read_text(encoding="utf-8"))["ml"]
    except (json.JSONDecodeError, KeyError) as error:
        raise InputBlockedError(f"{Path(case.scan).name} cannot be decoded.") from error
    time.sleep(0.02)
    volume = upright_volume()
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]), 10.0)
    analysis = positive_analysis(volume, labels, case_id=case.case_id, volumes_ml={"segmentation": float(wanted)})
    write_text(folder / "report.html", f"<p>{case.slug}</p>")
    return analysis


def kill_on_seventeen(case: Case, folder: Path, options: BatchOptions) -> Analysis:
    """As above, but the whole process dies the first time it meets case 17."""
    marker = Path(case.scan).parent / "killed"
    if case.case_id == "case-17" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return read_and_answer(case, folder, options)


def die_on_bad(case: Case, folder: Path, options: BatchOptions) -> Analysis:
    """The process dies whenever it meets the case "bad", and once at the case "weak"."""
    marker = Path(case.scan).parent / f"{case.case_id}.died"
    if case.case_id == "bad" or (case.case_id == "weak" and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return read_and_answer(case, folder, options)


def raise_unexpectedly(case: Case, folder: Path, options: BatchOptions) -> Analysis:
    """A bug: its text names the scan."""
    raise KeyError(f"no slice in {case.scan}")


def answer_where(case: Case, folder: Path, options: BatchOptions) -> Analysis:
    """Say in the message which worker answered."""
    from distributed import get_worker

    time.sleep(0.3)
    return negative_analysis(message=f"worker {get_worker().name}")
