"""The result part of the panel: what of an outcome stands in the scene, undo, previews and edits of the mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisPanel import abc_nodes, layout, result_nodes, result_tables, scan_results, segments, words
from ICHAnalysisPanel.logic import output_segmentation
from ICHAnalysisPanel.scan_source import ScanSource
from ICHAnalysisPanel.session import LabelBox, Outcome

UNDO_STEPS = 10


@dataclass(frozen=True)
class UndoStep:
    """Our segments, the numbers and the prompts as they were before a run."""

    images: dict[str, Any]
    analysis_text: str
    prompts: dict[str, Any]


class ResultSection(VTKObservationMixin):
    """Writes outcomes into the scene and shows them; never touches segments that are not ours."""

    def __init__(self, ui: Any, on_edited: Callable[[], None], shown_findings: Callable[[], set[str]]) -> None:
        VTKObservationMixin.__init__(self)
        self.ui = ui
        self._on_edited = on_edited
        self._shown_findings = shown_findings
        self._parameters: Any = None
        self._undo: list[UndoStep] = []
        self._pending: UndoStep | None = None
        self._last_prompts: dict[str, Any] = {"boxes": {}, "points": {}}
        self._is_writing = False
        self._has_preview = False
        self._known_mask: LabelBox | None = None
        self._lines_wanted: bool | None = None
        ui.resultTable.setMRMLScene(slicer.mrmlScene)

    def attach(self, parameters: Any) -> None:
        """Follow a parameter node; None stops."""
        self.removeObservers()
        self._parameters = parameters
        self.forget_undo()
        self._observe_mask()
        self._lines_wanted = parameters.linesWanted if parameters is not None else None
        self.ui.resultTable.setMRMLTableNode(parameters.resultTable if parameters is not None else None)

    @property
    def analysis(self) -> Analysis | None:
        """The analysis that the scene holds."""
        text = self._parameters.analysisJson if self._parameters is not None else ""
        return Analysis.from_json(text) if text else None

    @property
    def can_undo(self) -> bool:
        """True where there is a run to undo."""
        return bool(self._undo)

    def is_of(self, volume: Any) -> bool:
        """True where the scene's analysis belongs to the volume."""
        if self._parameters is None or volume is None or not self._parameters.analysisJson:
            return False
        return self._parameters.parameterNode.GetNodeReferenceID(scan_results.VOLUME_ROLE) == volume.GetID()

    def reference(self) -> tuple[Any, str] | None:
        """The reference segmentation and its segment, where both are there."""
        node = self._parameters.referenceSegmentation if self._parameters is not None else None
        if node is None or node.GetSegmentation().GetNumberOfSegments() == 0:
            return None
        segment_id = self._parameters.referenceSegment
        if node.GetSegmentation().GetSegment(segment_id) is None:
            segment_id = node.GetSegmentation().GetNthSegmentID(0)
        return node, segment_id

    def update(self) -> None:
        """Show the outcome and what can be done with it."""
        analysis = self.analysis
        self.ui.resultLabel.text = self._outcome_text(analysis)
        self.ui.resultTable.visible = analysis is not None
        self.ui.layoutButton.enabled = analysis is not None
        segmentation = self._parameters.outputSegmentation if self._parameters is not None else None
        self.ui.editButton.enabled = segmentation is not None
        table = self._parameters.resultTable if self._parameters is not None else None
        if self.ui.resultTable.mrmlTableNode() is not table:
            self.ui.resultTable.setMRMLTableNode(table)
        if self._parameters is not None and self._parameters.linesWanted != self._lines_wanted:
            self._lines_wanted = self._parameters.linesWanted
            if analysis is not None:
                self._write_lines(analysis)

    def _outcome_text(self, analysis: Analysis | None) -> str:
        """The answer, and of which scan where that is not the chosen one."""
        if analysis is None:
            return _("No analysis yet.")
        text = words.outcome_html(analysis, self._shown_findings())
        if self.is_of(self._parameters.inputVolume):
            return text
        scan = self._parameters.parameterNode.GetNodeReference(scan_results.VOLUME_ROLE)
        name = scan.GetName() if scan is not None else _("a scan that is no longer in the scene")
        return words.quiet_html(_("These are the results of {name}.").format(name=name)) + text

    def follow(self, volume: Any | None) -> None:
        """Another scan was chosen: its own results come back, those of the scan before stay in the scene, hidden."""
        parameters = self._parameters
        if parameters is None or volume is None or self.is_of(volume):
            return
        with _Writing(self):
            if parameters.analysisJson:
                scan_results.put_away(parameters)
                abc_nodes.remove_lines()
            self.forget_undo()
            if scan_results.bring_back(parameters, volume):
                self._known_mask = segments.read_labels(parameters.outputSegmentation, volume)
                self._write_lines(self.analysis)
                result_nodes.show_overlay(volume, parameters.heatmap)
        self._observe_mask()

    def forget_clinical(self) -> None:
        """Take the clinical values behind the scores out of what the scene keeps."""
        analysis = self.analysis
        if analysis is not None:
            self._keep(scan_results.without_clinical(analysis))

    # A run

    def before_run(self, prompts: dict[str, Any]) -> None:
        """Keep what the run is about to replace."""
        segmentation = self._parameters.outputSegmentation
        images = segments.take(segmentation) if segmentation is not None else {}
        self._pending = UndoStep(images, self._parameters.analysisJson, self._last_prompts)
        self._last_prompts = prompts

    def preview(self, k: int, labels: np.ndarray) -> None:
        """Show one slice ahead of the rest."""
        with _Writing(self):
            self._has_preview = True
            segments.write_slice(self._segmentation(), self._parameters.inputVolume, labels, k)

    def drop_preview(self) -> None:
        """Put back what the preview of a cancelled or failed run replaced."""
        step, self._pending = self._pending, None
        if step is not None:
            self._last_prompts = step.prompts
        segmentation = self._parameters.outputSegmentation if self._parameters is not None else None
        if self._has_preview and step is not None and segmentation is not None:
            with _Writing(self):
                segments.put_back(
                    segmentation, step.images or dict.fromkeys(kind.segment_id for kind in segments.KINDS)
                )
        self._has_preview = False

    def steps(self, outcome: Outcome, source: ScanSource) -> list[Callable[[], None]]:
        """The writing of an outcome in short steps."""
        return [
            lambda: self._write_mask(outcome),
            self._make_surface,
            lambda: self._write_tables(outcome, source),
            lambda: self._write_heatmap(outcome),
            lambda: self._show(outcome),
        ]

    def _segmentation(self) -> Any:
        parameters = self._parameters
        parameters.outputSegmentation = output_segmentation(parameters.outputSegmentation, parameters.inputVolume)
        return parameters.outputSegmentation

    def _write_mask(self, outcome: Outcome) -> None:
        parameters = self._parameters
        with _Writing(self):
            segments.write_labels(self._segmentation(), parameters.inputVolume, outcome.mask)
        self._has_preview = False
        self._known_mask = outcome.mask
        if self._pending is not None:
            self._undo = [*self._undo, self._pending][-UNDO_STEPS:]
            self._pending = None
        parameters.parameterNode.SetNodeReferenceID(scan_results.VOLUME_ROLE, parameters.inputVolume.GetID())
        self._keep(outcome.analysis)
        self._observe_mask()

    def _make_surface(self) -> None:
        with _Writing(self):
            self._parameters.outputSegmentation.CreateClosedSurfaceRepresentation()

    def _write_tables(self, outcome: Outcome, source: ScanSource) -> None:
        parameters, scan = self._parameters, self._parameters.inputVolume.GetName()
        parameters.sliceTable = result_tables.write_slice_table(
            parameters.sliceTable, outcome.slice_probability, outcome.mask, source.geometry, scan
        )
        parameters.chart = result_tables.write_slice_plot(parameters.chart, parameters.sliceTable, scan)
        self.update_table()

    def _write_heatmap(self, outcome: Outcome) -> None:
        parameters = self._parameters
        if outcome.heatmap is not None:
            parameters.heatmap = result_nodes.write_heatmap(parameters.heatmap, parameters.inputVolume, outcome.heatmap)
        elif parameters.heatmap is not None:
            slicer.mrmlScene.RemoveNode(parameters.heatmap)

    def _show(self, outcome: Outcome) -> None:
        with _Writing(self):
            self._show_in_views(outcome)

    def _show_in_views(self, outcome: Outcome) -> None:
        parameters = self._parameters
        self._write_labels_and_lines(outcome.analysis)
        result_nodes.show_overlay(parameters.inputVolume, parameters.heatmap)
        if not self.can_undo or len(self._undo) == 1:  # the first answer; later ones leave the views where they are
            result_nodes.show_lesion(outcome.analysis)

    def _write_labels_and_lines(self, analysis: Analysis) -> None:
        parameters = self._parameters
        scan = parameters.inputVolume.GetName()
        parameters.lesionLabels = result_nodes.write_lesion_labels(parameters.lesionLabels, analysis, scan)
        self._write_lines(analysis)

    def _write_lines(self, analysis: Analysis) -> None:
        if self._parameters.linesWanted:
            abc_nodes.write_lines(analysis, self._parameters.inputVolume)
        else:
            abc_nodes.remove_lines()

    def update_table(self) -> None:
        """Write the volume table again, as after another reference or an edit."""
        parameters, analysis = self._parameters, self.analysis
        if analysis is None:
            return
        with _Writing(self):
            rows = result_tables.volume_rows(analysis, parameters.outputSegmentation, self.reference())
        scan = parameters.parameterNode.GetNodeReference(scan_results.VOLUME_ROLE)
        name = scan.GetName() if scan is not None else ""
        parameters.resultTable = result_tables.write_volume_table(parameters.resultTable, rows, name)
        self.ui.resultTable.resizeColumnsToContents()

    def _keep(self, analysis: Analysis) -> None:
        """The analysis as the scene keeps it: without the clinical values behind the scores, unless asked for."""
        if not self._parameters.storeClinical:
            analysis = scan_results.without_clinical(analysis)
        self._parameters.analysisJson = scan_results.to_text(analysis)

    # Undo

    def forget_undo(self) -> None:
        """Another scan or scene: nothing to undo."""
        self._undo, self._pending, self._known_mask = [], None, None
        self._last_prompts = {"boxes": {}, "points": {}}

    def undo(self, source: ScanSource | None) -> dict[str, Any] | None:
        """Go back by one run; returns the prompts of that time."""
        if not self._undo:
            return None
        step = self._undo.pop()
        parameters = self._parameters
        if parameters.outputSegmentation is not None:
            with _Writing(self):
                segments.put_back(
                    parameters.outputSegmentation,
                    step.images or dict.fromkeys(kind.segment_id for kind in segments.KINDS),
                )
            self._known_mask = segments.read_labels(parameters.outputSegmentation, parameters.inputVolume)
        parameters.analysisJson = step.analysis_text
        self._last_prompts = step.prompts
        analysis = self.analysis
        if analysis is None:
            self._clear()
            return None  # the prompts of the first run stay: there were none before
        self.update_table()
        self._write_slices(source)
        self._write_labels_and_lines(analysis)
        return step.prompts

    def _clear(self) -> None:
        """Nothing is known of the scan any more: empty tables and labels, no attention map, no lines."""
        parameters = self._parameters
        for table in (parameters.resultTable, parameters.sliceTable):
            if table is not None:
                result_tables.fill_table(table, {})
        if parameters.lesionLabels is not None:
            parameters.lesionLabels.RemoveAllControlPoints()
        if parameters.heatmap is not None:
            slicer.mrmlScene.RemoveNode(parameters.heatmap)
        abc_nodes.remove_lines()

    # Edits by hand

    def edited(self) -> tuple[Analysis | None, LabelBox | None]:
        """The analysis and the mask as the user left it; (None, None) where there is nothing to follow."""
        parameters = self._parameters
        if not self.is_of(parameters.inputVolume) or parameters.outputSegmentation is None:
            return None, None
        mask = segments.read_labels(parameters.outputSegmentation, parameters.inputVolume)
        if self._known_mask is not None and mask.is_same(self._known_mask):
            return None, None
        self._known_mask = mask
        return self.analysis, mask

    def measured_steps(self, analysis: Analysis, source: ScanSource) -> list[Callable[[], None]]:
        """The showing of the edited mask's numbers in short steps."""
        return [self._make_surface, lambda: self._take_measured(analysis, source)]

    def _take_measured(self, analysis: Analysis, source: ScanSource) -> None:
        self._keep(analysis)
        self.update_table()
        self._write_labels_and_lines(analysis)
        self._write_slices(source)

    def _write_slices(self, source: ScanSource | None) -> None:
        """The outline of each slice after an edit or an undo; the probabilities stay, they do not rest on it."""
        table, mask = self._parameters.sliceTable, self._known_mask
        if table is None or mask is None or source is None or table.GetNumberOfRows() != mask.shape[0]:
            return
        probability = slicer.util.arrayFromTableColumn(table, "Probability").copy()
        result_tables.write_slice_table(table, probability, mask, source.geometry)

    def edit_mask(self) -> None:
        """Open Segment Editor on our segmentation."""
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(self._parameters.outputSegmentation)
        editor.setSourceVolumeNode(self._parameters.inputVolume)
        editor.setCurrentSegmentID(segments.ICH.segment_id)

    def show_layout(self) -> None:
        """Slices, 3-D, table and plot side by side."""
        layout.show(self._parameters.resultTable, self._parameters.chart)

    def slice_in_view(self) -> int | None:
        """The node's slice that the axial view shows, None where it shows none."""
        parameters = self._parameters
        volume = parameters.inputVolume
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if node.GetName() == "Red":
                matrix = node.GetSliceToRAS()
                center = np.array([[matrix.GetElement(axis, 3) for axis in range(3)]])
                return slice_at(volume, center)
        return None

    def _observe_mask(self) -> None:
        self.removeObservers(self._on_mask)
        segmentation = self._parameters.outputSegmentation if self._parameters is not None else None
        if segmentation is not None:
            event = slicer.vtkSegmentation.SourceRepresentationModified
            self.addObserver(segmentation.GetSegmentation(), event, self._on_mask)

    def _on_mask(self, _caller: Any = None, _event: Any = None) -> None:
        if not self._is_writing and self._parameters is not None and self._parameters.analysisJson:
            self._on_edited()


def slice_at(volume: Any, ras: np.ndarray) -> int | None:
    """Index of the volume's slice at a point (1, 3) of its own RAS, None outside."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(matrix)
    k = round(float((slicer.util.arrayFromVTKMatrix(matrix) @ np.append(ras[0], 1.0))[2]))
    return k if 0 <= k < volume.GetImageData().GetDimensions()[2] else None


class _Writing:
    """While it lasts, changes of the mask are ours and no edits."""

    def __init__(self, section: ResultSection) -> None:
        self._section = section

    def __enter__(self) -> None:
        self._section._is_writing = True

    def __exit__(self, *_error: Any) -> None:
        self._section._is_writing = False
