"""The batch part of the panel: a folder of scans in a process of its own, its rows, and their agreement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisPanel import batch_nodes, layout, words
from ICHAnalysisPanel.worker import Worker

POLL_MS = 100
#: A cancelled case has this long to take its attempt back before the process is ended.
CANCEL_SECONDS = 15.0


class BatchSection:
    """Runs one batch at a time. Its folders are kept out of the scene: their names may be patients'."""

    def __init__(self, ui: Any, options: Callable[[], AnalyzeOptions], ensure: Callable[[], None]) -> None:
        self.ui = ui
        self.analyzer: str | None = None
        self.environment: dict[str, str] = {}
        self.rows: list[dict[str, Any]] = []
        self._options = options
        self._ensure = ensure
        self._parameters: Any = None
        self._worker: Worker | None = None
        self._cancelled_at: float | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.poll)
        ui.batchButton.connect("clicked()", self.on_run)
        ui.agreementButton.connect("clicked()", self.on_agreement)
        ui.batchSourceButton.connect("clicked()", lambda: self._browse(ui.batchSourceEdit))
        ui.batchFolderButton.connect("clicked()", lambda: self._browse(ui.batchFolderEdit))
        ui.referenceFileButton.connect("clicked()", self.on_browse_file)
        for edit in (ui.batchSourceEdit, ui.batchFolderEdit, ui.referenceFileEdit):
            edit.connect("textChanged(QString)", self.update)
        self._fill_measures(list(batch_nodes.METHODS))
        self.update()

    def attach(self, parameters: Any) -> None:
        """Follow a parameter node; a batch under way goes on, it needs no scene."""
        self._parameters = parameters

    def close(self) -> None:
        """End the worker."""
        self._timer.stop()
        self._cancelled_at = None
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    @property
    def is_running(self) -> bool:
        """True while a batch runs."""
        return self._worker is not None

    def problem(self) -> str:
        """Why no batch can start, "" where it can."""
        source, folder = self.ui.batchSourceEdit.text.strip(), self.ui.batchFolderEdit.text.strip()
        if not source or not Path(source).exists():
            return _("Choose a folder of scans, or a CSV file with the columns case_id and image.")
        if not folder:
            return _("Choose a folder for the results.")
        if Path(folder).resolve() == Path(source).resolve():
            return _("Choose another folder for the results than that of the scans.")
        return ""

    def update(self, _text: str = "") -> None:
        """Show what can be pressed, and why not."""
        ui, problem = self.ui, "" if self.is_running else self.problem()
        ui.batchButton.text = _("Cancel batch") if self.is_running else _("Run batch")
        ui.batchButton.enabled = self._cancelled_at is None and not problem
        ui.batchButton.toolTip = problem or _("One row a scan; a second run into the same folder goes on.")
        folder = ui.batchFolderEdit.text.strip()
        ui.agreementButton.enabled = bool(folder) and (Path(folder) / "cases.csv").is_file()

    # Run and cancel

    def on_run(self) -> None:
        """Start, or cancel what is running."""
        if self._worker is not None:
            self._cancelled_at = time.monotonic()
            self._worker.send("cancel")
            self._say(_("Cancelling: the case under way will be done again."))
            self.update()
            return
        try:
            self._ensure()
        except Exception as error:  # whatever pip or the PyTorch extension raises is told in words
            self._say(words.error_html(str(error), type(error).__name__))
            return
        options = replace(self._options(), accept=False)  # nobody is there to answer: such cases are left with a reason
        self._worker = Worker(self.analyzer, self.environment)
        source, folder = self.ui.batchSourceEdit.text.strip(), self.ui.batchFolderEdit.text.strip()
        self._worker.send("batch", source=source, folder=folder, options=to_dict(options))
        self._say(_("Looking for scans"))
        self.ui.batchProgress.value = 0
        self._timer.start()
        self.update()

    def poll(self) -> None:
        """Take what the worker has said; called by the timer."""
        for event in self._worker.poll() if self._worker is not None else ():
            self._take(event)
        if self._cancelled_at is not None and time.monotonic() - self._cancelled_at > CANCEL_SECONDS:
            self._end(_("Cancelled."))

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "case" and self._cancelled_at is None:
            self.ui.batchProgress.value = round(100 * event["done"] / event["total"])
            self._say(f"{event['done']} of {event['total']}: {event['case_id']} {event['status']}")
        elif kind == "batched":
            self.rows = event["rows"]
            self._show_rows(event["resumed"])
        elif kind == "cancelled" or (kind == "died" and self._cancelled_at is not None):
            self._end(_("Cancelled. Run it again to go on where it stopped."))
        elif kind == "error":
            self._end(words.error_html(event["message"], event["type"]))
        elif kind == "died" and self._worker is not None:
            self._end(words.error_html(_("The batch ended unexpectedly: {reason}").format(reason=event["message"])))

    def _end(self, message: str) -> None:
        self.close()
        self._say(message)
        self.update()

    def _show_rows(self, resumed: int) -> None:
        ok = sum(row["status"] == "ok" for row in self.rows)
        text = _("{count} cases: {ok} analyzed, {bad} blocked or failed, {resumed} from an earlier run.")
        self._end(text.format(count=len(self.rows), ok=ok, bad=len(self.rows) - ok, resumed=resumed))
        self.ui.batchProgress.value = 100
        if self._parameters is not None:
            self._parameters.batchTable = batch_nodes.write_case_table(self._parameters.batchTable, self.rows)
            layout.show(self._parameters.batchTable, None)

    # Agreement

    def on_agreement(self) -> None:
        """Bland-Altman and scatter plots of the chosen measures."""
        ui = self.ui
        try:
            rows = batch_nodes.read_rows(ui.batchFolderEdit.text.strip())
            volumes = batch_nodes.volumes_of(rows, ui.referenceFileEdit.text.strip() or None)
            self._fill_measures(list(volumes.volumes_ml))
            found = batch_nodes.show_agreement(volumes, ui.methodBox.currentText, ui.batchReferenceBox.currentText)
        except (UsageError, OSError) as error:
            self._say(words.error_html(str(error)))
            return
        self._say(found.sentence())
        layout.show(found.bland_altman_table, found.bland_altman)

    def _fill_measures(self, names: list[str]) -> None:
        """Offer measures; columns of the reference file come last and are chosen as the reference once."""
        ui = self.ui
        if [ui.methodBox.itemText(n) for n in range(ui.methodBox.count)] == names:
            return
        before = ui.methodBox.count
        for box, chosen in ((ui.methodBox, 0), (ui.batchReferenceBox, 2)):
            current = box.currentText
            box.clear()
            box.addItems(names)
            box.setCurrentIndex(names.index(current) if current in names else chosen)
        if 0 < before < len(names):
            ui.batchReferenceBox.setCurrentIndex(before)

    def _browse(self, edit: Any) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder"), edit.text)
        if folder:
            edit.text = folder

    def on_browse_file(self) -> None:
        """Choose a table of reference volumes."""
        file = qt.QFileDialog.getOpenFileName(None, _("Volumes by case_id"), "", "CSV (*.csv)")
        if file:
            self.ui.referenceFileEdit.text = file

    def _say(self, message: str) -> None:
        self.ui.batchLabel.text = message
