"""Many scans: one process or a Dask cluster, a row a case, resumable after a kill."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ICHAnalysisLib.batch_cases import Case
from ICHAnalysisLib.batch_store import FINAL, BatchStore, fingerprint
from ICHAnalysisLib.batch_task import Analyzer, analyze_case, died_row, run_case
from ICHAnalysisLib.config.batch import BatchOptions
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.growth import COLUMNS as GROWTH_COLUMNS
from ICHAnalysisLib.growth import growth_rows
from ICHAnalysisLib.outputs.tables import write_csv

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

_BYSTANDER_FAILURES = 10
#: One thread a worker. In place of Dask's own setting, which also makes malloc give memory back at every chance:
#: networks on a CPU then spend as long on page faults as on the work, and two workers were no faster than one.
_WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}
_CONNECT_S = 15.0
_CHECK_S, _MOST_SILENT_CHECKS = 10.0, 6

#: Called after each case with (cases done, cases in all, its row).
CaseProgress = Callable[[int, int, dict[str, Any]], None]


@dataclass(frozen=True)
class BatchResult:
    """rows: of all cases, in their order; resumed: how many stood there already; growth: rows of growth.csv."""

    rows: list[dict[str, Any]]
    resumed: int
    growth: list[dict[str, Any]]

    def count(self, status: str) -> int:
        """How many cases ended with a status: ok, blocked or failed."""
        return sum(row["status"] == status for row in self.rows)


def run_batch(
    cases: Sequence[Case],
    out: str | Path,
    options: BatchOptions | None = None,
    progress: CaseProgress | None = None,
    analyzer: Analyzer = analyze_case,
) -> BatchResult:
    """Analyze every case that has no row yet, then write cases.csv, growth.csv and summary.html.

    `analyzer` must be importable by the workers. Raises UsageError where Dask is needed and missing, or two cases
    would share a folder.
    """
    options = options or BatchOptions()
    _check_slugs(cases)
    store = BatchStore(out)
    store.write_sources(cases)
    store.salt()  # made here once, before workers could race for it
    marks = {case.case_id: fingerprint(case, _settings(options)) for case in cases}
    waiting = _waiting(cases, store, marks, options)
    done = len(cases) - len(waiting)
    resumed = done
    rows = _results(waiting, store, marks, options, analyzer)
    for row in rows:
        done += 1
        if progress is not None:
            progress(done, len(cases), row)
        if done == len(cases):
            break
        if done % max(1, len(cases) // 50) == 0:
            store.write_tables(cases)
    with ThreadPoolExecutor(1) as beside:  # worker processes take seconds to close; the page takes as long
        closing = beside.submit(rows.close)
        result = _finish(cases, store, resumed)
        closing.result()
    return result


def _finish(cases: Sequence[Case], store: BatchStore, resumed: int) -> BatchResult:
    """The tables and the page over all rows."""
    from ICHAnalysisLib.outputs.summary_page import write_summary_page

    rows = store.write_tables(cases)
    growth = growth_rows(stored for case in cases if (stored := store.read(case)) is not None)
    write_csv(store.folder / "growth.csv", growth, GROWTH_COLUMNS)
    write_summary_page(rows, growth, store.folder / "summary.html")
    return BatchResult(rows, resumed, growth)


def _check_slugs(cases: Sequence[Case]) -> None:
    """Two cases must not write to one folder, also where upper and lower case are one."""
    seen: dict[str, str] = {}
    for case in cases:
        other = seen.setdefault(case.slug.casefold(), case.case_id)
        if other != case.case_id:
            raise UsageError("Two case ids differ in upper and lower case only; rename one of them.")
    if len(seen) != len(cases):
        raise UsageError("A case id stands twice in the list.")


def _settings(options: BatchOptions) -> dict[str, Any]:
    """What of the options changes a result or its files; where it is computed and sent does not."""
    analyze, outputs = asdict(options.analyze), asdict(options.outputs)
    analyze.pop("device", None)
    outputs.pop("send", None)
    return {"analyze": analyze, "outputs": outputs}


def _waiting(cases: Sequence[Case], store: BatchStore, marks: dict[str, str], options: BatchOptions) -> list[Case]:
    """The cases without a final row of the same input and options."""
    waiting = []
    for case in cases:
        stored = store.read(case)
        final = (
            stored is not None
            and stored["row"].get("status") in FINAL
            and stored["private"].get("fingerprint") == marks[case.case_id]
        )
        if final and stored is not None and options.retry_failed and stored["row"]["status"] != "ok":
            store.forget(case)
            final = False
        if not final:
            waiting.append(case)
    return waiting


def _results(
    waiting: Sequence[Case], store: BatchStore, marks: dict[str, str], options: BatchOptions, analyzer: Analyzer
) -> Generator[dict[str, Any], None, None]:
    """Rows as they come, from this process or from a cluster; each is in the store already."""
    if not waiting:
        return
    workers = min(_affordable(options), len(waiting))
    if workers == 1 and options.scheduler is None:
        for case in waiting:
            yield run_case(case, str(store.folder), options, marks[case.case_id], analyzer)
        return
    with _client(options, workers) as client:
        yield from _from_cluster(client, waiting, store, marks, options, analyzer)


def _affordable(options: BatchOptions) -> int:
    """As many workers as wanted, but no more than the free memory holds."""
    from ICHAnalysisLib.ct.memory import free_memory_bytes

    room = free_memory_bytes() / (options.worker_memory_gb * 1e9)
    workers = int(max(1, min(options.workers, room)))
    if workers < options.workers:
        logger.warning("The free memory holds %d workers; %d were asked for.", workers, options.workers)
    return workers


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Dask tells of every connection; its errors alone are the user's business."""
    dask_logger = logging.getLogger("distributed")
    level = dask_logger.level
    dask_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        dask_logger.setLevel(level)


@contextmanager
def _client(options: BatchOptions, workers: int) -> Iterator[Client]:
    """A client of the given scheduler, or of a cluster of worker processes on this machine, closed at the end."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise UsageError("Several workers need Dask: pip install 'ich-analysis[batch]'.") from error
    with _quiet_dask():  # after the import, which sets levels of its own
        if options.scheduler is not None:
            try:
                client = Client(options.scheduler, timeout=_CONNECT_S, set_as_default=False)
            except (OSError, TimeoutError) as error:
                raise UsageError(f"No Dask scheduler answers at {options.scheduler}.") from error
            with client:
                yield client
            return
        settings = {
            # Dask also blames tasks that only waited on a dying worker; who really ran is counted in the store.
            "distributed.scheduler.allowed-failures": options.attempts + _BYSTANDER_FAILURES,
            "distributed.worker.daemon": False,
            "distributed.admin.large-graph-warning-threshold": "1GB",
            "distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT,
            "distributed.worker.profile.enabled": False,  # stops the task a hundred times a second to look at it
        }
        with dask.config.set(settings):
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1",
                dashboard_address="127.0.0.1:0", silence_logs=logging.ERROR,
            )  # fmt: skip
            with cluster, Client(cluster, set_as_default=False) as client:
                logger.info("Dashboard: %s", client.dashboard_link)
                yield client


def _from_cluster(
    client: Client,
    waiting: Sequence[Case],
    store: BatchStore,
    marks: dict[str, str],
    options: BatchOptions,
    analyzer: Analyzer,
) -> Iterator[dict[str, Any]]:
    """Keep every worker busy with one case and none queued, so that a dying worker takes one case along at most.

    Workers that join a running scheduler later get cases too. Where the workers of this machine are gone and do not
    come back, the rest runs in this process.
    """
    folder = str(store.folder.resolve())
    cases = iter(waiting)
    running: dict[str, tuple[Any, Case]] = {}
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    silent = 0
    while True:
        width = max(1, sum(client.nthreads().values()))
        while len(running) < width and (case := next(cases, None)) is not None:
            mark = marks[case.case_id]
            key = f"ich-{case.slug}-{mark[:8]}"
            future = client.submit(run_case, case, folder, options, mark, analyzer, pure=False, key=key)
            running[key] = (future, case)
            future.add_done_callback(ended.put)
        if not running:
            return
        try:
            future, case = running.pop(str(ended.get(timeout=_CHECK_S).key))
        except queue.Empty:
            silent = 0 if client.nthreads() else silent + 1
            if options.scheduler is not None and silent == 1:
                logger.warning("The scheduler at %s has no workers; waiting for some.", options.scheduler)
            if silent < _MOST_SILENT_CHECKS or options.scheduler is not None:
                continue
            logger.warning("The worker processes are gone; the remaining cases run one after the other.")
            client.cancel([future for future, _ in running.values()])
            for left in [*(case for _, case in running.values()), *cases]:
                yield run_case(left, folder, options, marks[left.case_id], analyzer)
            return
        except KeyboardInterrupt:
            for _, interrupted in running.values():
                store.forget_attempts(interrupted)
            raise
        silent = 0
        yield _row_of(future, case, store, marks[case.case_id], options)


def _row_of(future: Any, case: Case, store: BatchStore, mark: str, options: BatchOptions) -> dict[str, Any]:
    """The row that a worker wrote; asked of the worker itself only where the disk does not show it yet.

    Raises UsageError where the cluster is lost, or its workers lack this package.
    """
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    stored = store.read(case)
    if stored is not None and stored["private"].get("fingerprint") == mark:
        return stored["row"]
    try:
        return future.result()
    except KilledWorker:
        row = died_row(case, options.attempts)
        store.write(case, row, {"fingerprint": mark})
        return row
    except CancelledError as error:
        raise UsageError("The Dask scheduler is gone. The rows so far stand; run the same command to go on.") from error
    except ImportError as error:
        raise UsageError(
            f"A worker lacks a package ({error}). Install the same ich-analysis on every machine of the cluster."
        ) from error
