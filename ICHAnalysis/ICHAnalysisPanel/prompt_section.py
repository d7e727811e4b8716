"""The prompt part of the panel: a list of boxes to check, two point lists, prompts from a segment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ICHAnalysisLib.prompts import Prompts
from ICHAnalysisPanel import prompt_nodes

#: "1" on a ROI that is used as a box, "0" on one that is not; ROIs of others carry nothing.
BOX_ATTRIBUTE = "ICHAnalysis.box"
ID_ROLE = 0x0100  # Qt.UserRole


class PromptSection(VTKObservationMixin):
    """Keeps the widgets and the markups of the scene the same, and tells of every change."""

    def __init__(self, ui: Any, on_change: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self.ui = ui
        self._on_change = on_change
        self._parameters: Any = None
        self._silent = False
        ui.boxList.connect("itemChanged(QListWidgetItem*)", self._on_item_changed)
        ui.addBoxButton.connect("clicked()", self.draw_box)
        for place in (ui.positivePlace, ui.negativePlace):
            place.placeMultipleMarkups = slicer.qSlicerMarkupsPlaceWidget.ForcePlaceMultipleMarkups

    def attach(self, parameters: Any) -> None:
        """Follow the scene of a parameter node; None stops."""
        self.removeObservers()
        self._parameters = parameters
        if parameters is None:
            for place in (self.ui.positivePlace, self.ui.negativePlace):
                place.setCurrentNode(None)
            self.ui.boxList.clear()
            return
        for event in (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent):
            self.addObserver(slicer.mrmlScene, event, self._on_scene)
        self._make_points()
        self.refresh()

    def boxes(self) -> list[Any]:
        """ROI nodes that are used."""
        return [node for node in _rois() if node.GetAttribute(BOX_ATTRIBUTE) == "1"]

    def points(self) -> list[Any]:
        """The positive and the negative point list."""
        if self._parameters is None:
            return []
        return [node for node in (self._parameters.positivePoints, self._parameters.negativePoints) if node is not None]

    def read(self) -> Prompts:
        """The prompts. Raises UsageError for a box that is not drawn yet."""
        positive = [node for node in self.points() if node.GetAttribute(prompt_nodes.NEGATIVE_ATTRIBUTE) is None]
        negative = [node for node in self.points() if node not in positive]
        return prompt_nodes.read_prompts(self.boxes(), positive, negative)

    def draw_box(self) -> None:
        """A new box, drawn by the user's next clicks."""
        roi = prompt_nodes.add_box(_("Hemorrhage box"))
        self.use(roi)
        logic = slicer.modules.markups.logic()
        logic.SetActiveList(roi)
        logic.StartPlaceMode(False)

    def use(self, roi: Any) -> None:
        """Count a ROI among the boxes."""
        roi.SetAttribute(BOX_ATTRIBUTE, "1")
        self.refresh()
        self._on_change()

    def place(self, positive: bool) -> None:
        """Start or stop placing points."""
        place = self.ui.positivePlace if positive else self.ui.negativePlace
        place.placeModeEnabled = not place.placeModeEnabled

    def snapshot(self) -> dict[str, Any]:
        """Where the prompts stand now."""
        return prompt_nodes.snapshot([roi for roi in self.boxes() if prompt_nodes.is_drawn(roi)], self.points())

    def restore(self, taken: dict[str, Any]) -> None:
        """Put prompts back without telling of a change; boxes drawn since stay in the scene, unchecked."""
        self._silent = True
        try:
            for roi in _rois():
                if roi.GetID() in taken["boxes"]:
                    roi.SetAttribute(BOX_ATTRIBUTE, "1")
                elif roi.GetAttribute(BOX_ATTRIBUTE) == "1":
                    roi.SetAttribute(BOX_ATTRIBUTE, "0")
            prompt_nodes.restore(taken)
        finally:
            self._silent = False
        self.refresh()

    def refresh(self) -> None:
        """Show the scene's ROIs and count the points."""
        self._silent = True
        box_list = self.ui.boxList
        box_list.clear()
        for roi in _rois():
            item = qt.QListWidgetItem(roi.GetName())
            item.setData(ID_ROLE, roi.GetID())
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsSelectable)
            used = roi.GetAttribute(BOX_ATTRIBUTE) == "1"
            item.setCheckState(qt.Qt.Checked if used else qt.Qt.Unchecked)
            box_list.addItem(item)
            if not self.hasObserver(roi, vtk.vtkCommand.ModifiedEvent, self._on_markup):
                self.addObserver(roi, vtk.vtkCommand.ModifiedEvent, self._on_markup)
        box_list.visible = box_list.count > 0
        self.ui.promptHint.visible = box_list.count == 0
        self._silent = False
        self._count_points()

    def _make_points(self) -> None:
        """The two lists exist from the start, so that the place buttons work at the first press."""
        parameters = self._parameters
        prompt_nodes.remove_unused_points({parameters.positivePoints, parameters.negativePoints})
        if parameters.positivePoints is None:
            parameters.positivePoints = prompt_nodes.add_points(_("Hemorrhage points"), True)
        if parameters.negativePoints is None:
            parameters.negativePoints = prompt_nodes.add_points(_("Not hemorrhage points"), False)
        self.ui.positivePlace.setCurrentNode(parameters.positivePoints)
        self.ui.negativePlace.setCurrentNode(parameters.negativePoints)
        for node in self.points():
            for event in (
                slicer.vtkMRMLMarkupsNode.PointModifiedEvent,
                slicer.vtkMRMLMarkupsNode.PointPositionDefinedEvent,
                slicer.vtkMRMLMarkupsNode.PointRemovedEvent,
            ):
                if not self.hasObserver(node, event, self._on_markup):
                    self.addObserver(node, event, self._on_markup)

    def _count_points(self) -> None:
        counts = {False: 0, True: 0}
        for node in self.points():
            counts[node.GetAttribute(prompt_nodes.NEGATIVE_ATTRIBUTE) is None] += len(prompt_nodes.placed_points(node))
        self.ui.positiveLabel.text = _("Points on blood: {count}").format(count=counts[True])
        self.ui.negativeLabel.text = _("Points not on blood: {count}").format(count=counts[False])

    def _on_item_changed(self, item: Any) -> None:
        if self._silent:
            return
        roi = slicer.mrmlScene.GetNodeByID(item.data(ID_ROLE))
        if roi is not None:
            roi.SetAttribute(BOX_ATTRIBUTE, "1" if item.checkState() == qt.Qt.Checked else "0")
            self._on_change()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_scene(self, _caller: Any, _event: Any, node: Any) -> None:
        is_ours = node.IsA("vtkMRMLMarkupsFiducialNode") and node.GetAttribute(prompt_nodes.POINTS_ATTRIBUTE)
        if (node.IsA("vtkMRMLMarkupsROINode") or is_ours) and not slicer.mrmlScene.IsClosing():
            qt.QTimer.singleShot(0, self._refresh_later)

    def _refresh_later(self) -> None:
        if self._parameters is not None and not slicer.mrmlScene.IsClosing():
            self._make_points()  # the user may have deleted a list
            self.refresh()
            self._on_change()

    def _on_markup(self, _caller: Any = None, _event: Any = None) -> None:
        if not self._silent:
            self._count_points()
            self._on_change()


def _rois() -> list[Any]:
    return [node for node in slicer.util.getNodesByClass("vtkMRMLMarkupsROINode") if not node.GetHideFromEditors()]
