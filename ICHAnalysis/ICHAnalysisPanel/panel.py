"""The panel: what the widgets do together. One run at a time; MRML and Qt on the main thread only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import qt
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisLib.config.analyze import AnalyzeOptions, PostprocessConfig
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.findings import Finding
from ICHAnalysisPanel import dependencies, result_nodes, segments, words
from ICHAnalysisPanel.clinical_form import ClinicalForm
from ICHAnalysisPanel.prompt_nodes import box_from_segment, check_inside
from ICHAnalysisPanel.prompt_section import PromptSection
from ICHAnalysisPanel.reference_box import ReferenceBox
from ICHAnalysisPanel.result_section import ResultSection
from ICHAnalysisPanel.run import Listener, Request, Run, State
from ICHAnalysisPanel.sample_data import DemoMaker
from ICHAnalysisPanel.scan_section import ScanSection
from ICHAnalysisPanel.session import Outcome
from ICHAnalysisPanel.volume_nodes import FileLookUp, database_file

CHANGE_MS = 400


class Panel(VTKObservationMixin):
    """Binds the widgets of ICHAnalysis.ui to a run and its results."""

    def __init__(self, ui: Any, analyzer: str | None = None, look_up: FileLookUp = database_file) -> None:
        VTKObservationMixin.__init__(self)
        self.ui = ui
        self.ensure_dependencies: Callable[[], None] = dependencies.ensure
        self.parameters: Any = None
        self._tag: Any = None
        self._steps: deque[Callable[[], None]] = deque()
        self._rerun_wanted = False
        self._asked: Any = None
        self._failure = ""
        self._clinical_kept = False
        self.form = ClinicalForm(ui)
        self.scan = ScanSection(ui, look_up, self._inspect)
        self.prompts = PromptSection(ui, self._on_prompt_change)
        self.results = ResultSection(ui, self._on_mask_edited, self.scan.sentences)
        self.reference = ReferenceBox(ui, self.results.update_table)
        listener = Listener(
            self._on_progress, self._on_findings, self.scan.unread, self._on_preview, self._on_done,
            self._on_measured, self._on_failed,
        )  # fmt: skip
        self.run = Run(listener, analyzer)
        self.demo = DemoMaker(self._on_demo, lambda message: self._on_demo(None, message))
        self._change_timer = _timer(CHANGE_MS, self._after_change)
        self._edit_timer = _timer(CHANGE_MS, self._after_edit)
        self._connect()

    def _connect(self) -> None:
        ui = self.ui
        ui.applyButton.connect("clicked()", self.on_apply)
        ui.undoButton.connect("clicked()", self.undo)
        ui.segmentBoxButton.connect("clicked()", self.on_box_from_segment)
        ui.browseButton.connect("clicked()", self.on_browse)
        ui.layoutButton.connect("clicked()", self.results.show_layout)
        ui.editButton.connect("clicked()", self.results.edit_mask)
        ui.demoButton.connect("clicked()", self.on_demo)
        ui.inputSelector.connect("nodeActivated(vtkMRMLNode*)", self._on_scan_chosen)
        for widget, signal in self.form.widgets:
            widget.connect(signal, self._on_form_change)

    # Scene and parameter node

    def attach(self, parameters: Any) -> None:
        """Follow a parameter node; None when the scene closes."""
        now, before = (one.parameterNode if one is not None else None for one in (parameters, self.parameters))
        if now is before and now is not None:
            return
        self.run.close()
        self.demo.close()
        self._show_demo()
        self._steps.clear()
        self._change_timer.stop()
        self._edit_timer.stop()
        if self.parameters is not None:
            self.parameters.disconnectGui(self._tag)
        self.removeObservers()
        self.parameters = parameters
        self.prompts.attach(parameters)
        self.results.attach(parameters)
        self._failure = ""
        self.scan.close()
        if parameters is not None:
            widgets = [one for one in vars(self.ui).values() if one.property("SlicerParameterName")]
            self._tag = parameters.connectParametersToGui({one.property("SlicerParameterName"): one for one in widgets})
            self.form.restore(parameters.parameterNode)
            self._clinical_kept = parameters.storeClinical
            self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
            self._asked = self._question()  # what a loaded scene holds was asked before
        self._on_parameters()

    def close(self) -> None:
        """The module goes away."""
        self.attach(None)

    def _on_parameters(self, _caller: Any = None, _event: Any = None) -> None:
        self.reference.fill(self.parameters)
        self._keep_clinical()
        self._look_at_input()
        self.update()

    def _keep_clinical(self) -> None:
        """Clinical values go out of the scene as soon as the user no longer wants them there."""
        parameters = self.parameters
        if parameters is None or parameters.storeClinical == self._clinical_kept:
            return
        self._clinical_kept = parameters.storeClinical
        self.form.store(parameters.parameterNode, parameters.storeClinical)
        if not parameters.storeClinical:
            self.results.forget_clinical()

    # What can be done now

    def problem(self) -> str:
        """Why Apply cannot be pressed, "" where it can."""
        if self.parameters is None:
            return _("Choose a head CT under Input volume.")
        problem = self.scan.problem(self.parameters.acceptQuestions) or self.form.problem()
        if problem or self.scan.source is None:
            return problem
        try:
            prompts = self.prompts.read()
            check_inside(prompts, self.scan.source.geometry, [roi.GetName() for roi in self.prompts.boxes()])
            segments.check_fits(self.parameters.outputSegmentation, self.parameters.inputVolume)
        except UsageError as error:
            return str(error)
        return ""

    def update(self) -> None:
        """Show what can be pressed, and why not."""
        ui = self.ui
        is_running = self.run.state is State.RUNNING
        problem = "" if is_running else self.problem()
        ui.applyButton.text = _("Cancel") if is_running else _("Apply")
        ui.applyButton.enabled = is_running or not problem
        ready = _("Analyze the scan. Nothing leaves this computer.")
        ui.applyButton.toolTip = _("Stop the analysis.") if is_running else problem or ready
        ui.progressBar.visible = is_running
        ui.undoButton.enabled = self.results.can_undo and not is_running
        if not is_running:
            remedy = self.scan.remedy
            reason = words.error_html(problem, remedy=remedy) if problem and remedy else problem
            ui.stageLabel.text = self._failure or reason or self._ready()
        self.results.update()

    def _ready(self) -> str:
        """What Apply would do now."""
        if not self.results.is_of(self.parameters.inputVolume):
            return _("Ready.")
        return _("Done. Correct the outline by boxes, by points or by hand; Apply analyzes the scan again.")

    def _look_at_input(self) -> None:
        """Read the chosen node again where it changed; a run on another scan is stopped."""
        changed, is_left = self.scan.look(self.parameters.inputVolume if self.parameters is not None else None)
        if not changed:
            return
        self._failure = ""
        if self.run.state is State.RUNNING:
            self.run.cancel()
            self.results.drop_preview()
        if is_left:
            self._steps.clear()  # they would write the other scan's results onto this one
            self.results.forget_undo()
            if self.parameters is not None:
                self.parameters.acceptQuestions = False  # it was said of the other scan
        self.results.follow(self.parameters.inputVolume if self.parameters is not None else None)

    def _inspect(self) -> None:
        """Have the voxels checked while the user goes on."""
        if self.scan.source is not None and self.run.state is State.IDLE and not self._steps:
            self.run.inspect(self.scan.source, self.scan.key)

    # Apply, Cancel and what follows

    def on_apply(self) -> None:
        """Start, or cancel what is running."""
        if self.run.state is State.RUNNING:
            self.run.cancel()
            self.results.drop_preview()
            self.log(_("Cancelled."))
            self.update()
            return
        self._failure = ""
        try:
            self.ensure_dependencies()
        except Exception as error:  # whatever pip or the PyTorch extension raises is told in words
            self._on_failed(str(error), type(error).__name__, "", ())
            return
        if self.scan.is_bent:
            self.parameters.inputVolume = self.scan.harden(self.parameters.inputVolume)
        self.start()

    def start(self, slice_in_view: int | None = None) -> None:
        """Send the scan and its prompts to the worker."""
        self._look_at_input()
        problem = self.problem()
        if problem:
            self.update()
            return
        self.results.before_run(self.prompts.snapshot())
        self.form.store(self.parameters.parameterNode, self.parameters.storeClinical)
        request = Request(self.prompts.read(), self.form.record(), self.form.text, self.options(), slice_in_view)
        self._rerun_wanted = False
        self._asked = self._question()
        self.ui.progressBar.value = 0
        self.run.analyze(self.scan.source, self.scan.key, request)
        self.update()

    def _question(self) -> Any:
        """What the user has asked for; the same question is not run twice by itself."""
        return (self.prompts.snapshot(), self.form.values(), self.form.text)

    def options(self) -> AnalyzeOptions:
        """The options of the Advanced section."""
        parameters = self.parameters
        return AnalyzeOptions(
            postprocess=replace(PostprocessConfig(), mask_threshold=float(parameters.maskThreshold)),
            heatmap=parameters.heatmapWanted,
            intervals=parameters.intervalsWanted,
            simulated_prognosis=parameters.simulatedPrognosis,
            accept=parameters.acceptQuestions,
            device=parameters.device,
            weights=parameters.weightsFolder or None,
        )

    def undo(self) -> None:
        """The mask, the numbers and the prompts before the last run."""
        snapshot = self.results.undo(self.scan.source)
        if snapshot is not None:
            self.prompts.restore(snapshot)
        self._asked = self._question()
        self._change_timer.stop()
        self.update()

    def log(self, message: str) -> None:
        """A line in the log; never clinical text."""
        self.ui.logText.appendPlainText(message)

    # Events of the worker

    def _on_progress(self, fraction: float, message: str) -> None:
        self.ui.progressBar.value = round(100 * fraction)
        self.ui.stageLabel.text = message
        self.log(f"{100 * fraction:3.0f} %  {message}")

    def _on_findings(self, findings: tuple[Finding, ...]) -> None:
        self.scan.found(findings)
        self.update()

    def _on_preview(self, k: int, labels: np.ndarray) -> None:
        self.results.preview(k, labels)

    def _on_done(self, outcome: Outcome) -> None:
        """Results enter the scene in steps, one a turn of the event loop."""
        self._steps.extend(self.results.steps(outcome, self.scan.source))
        self.ui.stageLabel.text = _("Showing the results")
        self._next_step()

    def _next_step(self) -> None:
        if self.parameters is None or self.parameters.inputVolume is None:
            self._steps.clear()
            return
        if self._steps:
            self._steps.popleft()()
        if self._steps:
            qt.QTimer.singleShot(0, self._next_step)
            return
        self.log(_("Done."))
        self._failure = ""
        self.update()
        if self._rerun_wanted:
            self._after_change()

    def _on_measured(self, analysis: Analysis) -> None:
        self._steps.extend(self.results.measured_steps(analysis, self.scan.source))
        self._next_step()

    def _on_failed(self, message: str, kind: str, detail: str, findings: tuple[Finding, ...]) -> None:
        self.results.drop_preview()
        if findings:
            self.scan.found(findings)
            message = self.scan.problem(self.parameters.acceptQuestions) or message
        self._failure = words.error_html(message, kind)
        self.log(f"{kind}: {message}")
        if detail:
            self.log(detail)
        self.update()

    # Changes by the user

    def _on_form_change(self, *_arguments: Any) -> None:
        if self.parameters is not None:
            if self.parameters.storeClinical:
                self.form.store(self.parameters.parameterNode, True)
            self.update()
            self._change_timer.start()

    def _on_scan_chosen(self, node: Any) -> None:
        """Show the scan that the user chose, so that boxes and points are drawn on it."""
        if node is not None and not self.results.is_of(node):
            result_nodes.show_scan(node)

    def _on_prompt_change(self) -> None:
        self._change_timer.start()

    def _after_change(self) -> None:
        """Prompts rest for a moment: run again where the user wants that and the scan was analyzed before."""
        if self.parameters is None:
            return
        self.update()
        if not self.parameters.updateOnChange or not self.results.is_of(self.parameters.inputVolume) or self.problem():
            return
        if self._question() == self._asked:
            return
        if self._steps:
            self._rerun_wanted = True
            return
        self.start(self.results.slice_in_view())

    def _on_mask_edited(self) -> None:
        if self.run.state is State.IDLE and not self._steps:
            self._edit_timer.start()

    def _after_edit(self) -> None:
        """The user edited the outline: numbers follow it."""
        source = self.scan.source
        if self.parameters is None or source is None or self.run.state is State.RUNNING:
            return
        analysis, mask = self.results.edited()
        if analysis is not None and not self.form.problem():
            self.run.measure(source, self.scan.key, analysis, mask, self.form.record())
            self.update()

    def on_box_from_segment(self) -> None:
        """A box around the reference segment."""
        reference = self.results.reference()
        if reference is None:
            self.ui.stageLabel.text = _("Choose a reference segmentation and a segment under Outputs first.")
            return
        try:
            self.prompts.use(box_from_segment(*reference))
        except UsageError as error:
            self.ui.stageLabel.text = str(error)

    def on_browse(self) -> None:
        """Choose a folder of weights."""
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of weights"), self.parameters.weightsFolder)
        if folder:
            self.parameters.weightsFolder = folder

    def on_demo(self) -> None:
        """Make the simulated scan."""
        self.demo.start()
        self._show_demo()

    def _show_demo(self) -> None:
        making, ready = _("Making the simulated demo scan..."), _("Load the simulated demo scan")
        self.ui.demoButton.enabled = not self.demo.is_running
        self.ui.demoButton.text = making if self.demo.is_running else ready

    def _on_demo(self, node: Any | None, message: str = "") -> None:
        """The simulated scan is there, or could not be made."""
        self._show_demo()
        if node is None:
            self._on_failed(_("The demo scan could not be made: {reason}").format(reason=message), "Demo", "", ())
        elif self.parameters is not None:
            result_nodes.show_scan(node)
            self.parameters.inputVolume = node


def _timer(milliseconds: int, function: Callable[[], None]) -> Any:
    timer = qt.QTimer()
    timer.setInterval(milliseconds)
    timer.setSingleShot(True)
    timer.connect("timeout()", function)
    return timer
