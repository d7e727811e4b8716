"""What a worker does with one case: analyze, write the files, give back a row. Arrays stay in the worker."""

from __future__ import annotations

import hashlib
import logging
import time
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisLib.batch_cases import Case
from ICHAnalysisLib.batch_store import BatchStore
from ICHAnalysisLib.config.batch import BatchOptions
from ICHAnalysisLib.errors import ICHAnalysisError
from ICHAnalysisLib.outputs.atomic import write_text
from ICHAnalysisLib.outputs.quiet import no_quoting_warnings
from ICHAnalysisLib.outputs.redact import without_names
from ICHAnalysisLib.outputs.rows import COLUMNS, analysis_row
from ICHAnalysisLib.quick_imports import collector_paused

logger = logging.getLogger(__name__)

#: A case, its folder and the options to an answer; the files are written on the way.
Analyzer = Callable[[Case, Path, BatchOptions], Analysis]

#: Patient IDs of archives without names: whole collections share one, so it tells no patient from another.
_NOBODY = {"", "0", "000000", "anon", "anonymous", "anonymized", "anonymised", "na", "n/a", "none", "unknown"}

_models: dict[tuple[str | None, str], Any] = {}


def analyze_case(case: Case, folder: Path, options: BatchOptions) -> Analysis:
    """The default analyzer: reads the scan, asks the networks (kept between cases) and writes the files."""
    from dataclasses import replace

    with collector_paused():
        from ICHAnalysisLib.analyze import analyze_scan
        from ICHAnalysisLib.clinical import ClinicalRecord
        from ICHAnalysisLib.predict import Models

    if _is_dask_worker():
        import torch

        torch.set_num_threads(1)  # cases run side by side, so more would only get in each other's way
    key = (options.analyze.weights, options.analyze.device)
    if key not in _models:
        _models[key] = Models.load(*key)
    analysis, _ = analyze_scan(
        case.scan,
        folder,
        clinical=ClinicalRecord.from_dict(case.clinical) if case.clinical else None,
        series=case.series,
        models=_models[key],
        options=replace(options.analyze, case_id=case.case_id),
        outputs=options.outputs,
    )
    return analysis


def run_case(
    case: Case, store_folder: str, options: BatchOptions, mark: str, analyzer: Analyzer = analyze_case
) -> dict[str, Any]:
    """The row of one case, written to the store too; never raises for what is wrong with the case itself.

    The attempt is counted on disk first, so that a case which brings its process down is seen by the next one. A row
    that stands there already is given back: its case was done, and only the message about it was lost.
    """
    store = BatchStore(store_folder)
    stored = store.read(case)
    if stored is not None and stored["private"].get("fingerprint") == mark:
        return stored["row"]
    attempt = store.begin(case)
    if attempt > options.attempts:
        row, private = died_row(case, attempt - 1), {}
    else:
        row = _answer(case, store, options, analyzer) | {"attempts": attempt}
        private = who_and_when(case, store.salt())
    store.write(case, row, {"fingerprint": mark, **private})
    return row


def _answer(case: Case, store: BatchStore, options: BatchOptions, analyzer: Analyzer) -> dict[str, Any]:
    """The row of one attempt, by whatever end it comes to."""
    folder = store.case_folder(case)
    start = time.perf_counter()
    try:
        with no_quoting_warnings():
            row = analysis_row(analyzer(case, folder, options))
    except KeyboardInterrupt:
        store.forget(case)  # the user stopped it; that is not the fault of the case
        raise
    except ICHAnalysisError as error:
        row = failed_row(str(error))
    except Exception as error:  # one broken case must not stop the night
        logger.warning("%s failed: %s", case.case_id, type(error).__name__)
        write_text(folder / "error.txt", traceback.format_exc(), private=True)
        row = failed_row(f"Unexpected {type(error).__name__}; error.txt in the folder of the case has the details.")
    return row | {
        "case_id": case.case_id,
        "message": without_names(str(row["message"] or ""), case.scan),
        "seconds": round(time.perf_counter() - start, 2),
        "report": f"cases/{case.slug}/report.html" if (folder / "report.html").is_file() else "",
    }


def failed_row(message: str) -> dict[str, Any]:
    """The row of a case without an answer."""
    return dict.fromkeys(COLUMNS) | {"status": "failed", "message": message}


def died_row(case: Case, attempts: int) -> dict[str, Any]:
    """The row of a case that brought its process down too often."""
    message = f"The process ended {attempts} times while it worked on this case, perhaps for lack of memory."
    return failed_row(message) | {"case_id": case.case_id, "attempts": attempts, "message": message}


def who_and_when(case: Case, salt: str) -> dict[str, Any]:
    """{"patient": keyed hash, "acquired_h": hours} from the table or the DICOM header; empty where unknown."""
    if case.patient:
        return {"patient": _keyed(case.patient, salt), "acquired_h": case.acquired_h}
    file = _first_dicom(Path(case.scan))
    if file is None:
        return {}
    import pydicom

    tags = ["PatientID", "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime",
            "StudyDate", "StudyTime"]  # fmt: skip
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
    except Exception:  # growth is an extra; the reader has already said what is wrong with the file
        return {}
    patient, moment = str(header.get("PatientID") or "").strip(), _moment(header)
    if patient.casefold() in _NOBODY or moment is None:
        return {}
    return {"patient": _keyed(patient, salt), "acquired_h": moment.timestamp() / 3600}


def _keyed(patient: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}|{patient}".encode()).hexdigest()[:16]


def _first_dicom(scan: Path) -> Path | None:
    """Some DICOM file of the scan, None for other formats."""
    if scan.is_file():
        return scan if scan.suffix.lower() in (".dcm", "") else None
    return next((file for file in sorted(scan.rglob("*")) if file.is_file() and file.name != "DICOMDIR"), None)


def _moment(header: Any) -> datetime | None:
    """When the scan was made, None where the header does not say."""
    text = str(header.get("AcquisitionDateTime") or "")
    for kind in ("Acquisition", "Content", "Study"):
        if not text and header.get(f"{kind}Date"):
            text = f"{header.get(f'{kind}Date')}{header.get(f'{kind}Time') or ''}"
    digits = text.split(".")[0].split("+")[0]
    for form in ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d"):
        try:
            return datetime.strptime(digits, form)
        except ValueError:
            continue
    return None


def _is_dask_worker() -> bool:
    """True in a task of a Dask worker, False in the main process, which has the machine to itself."""
    import sys

    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True
