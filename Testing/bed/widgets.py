"""Stand-ins for the qMRML, qSlicer and CTK widgets of our panel, with the names that PythonQt shows and no others."""

from __future__ import annotations

import sys
from typing import Any

import shiboken6
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from Testing.bed import pythonqt

_TYPES = {str: "QString", bool: bool, int: int, float: float, list: "QStringList"}
HEADER_PIXELS = 24


def qt_properties(**specification: tuple) -> dict[str, Any]:
    """name=(type, default[, signal]) as Qt properties; a change calls the widget's `_changed(name)`."""
    members: dict[str, Any] = {}
    for name, (kind, default, *signal) in specification.items():

        def getter(self: Any, name: str = name, default: Any = default) -> Any:
            return self.__dict__.get("_value_" + name, default)

        def setter(self: Any, value: Any, name: str = name, kind: type = kind, signal: list = signal) -> None:
            value = tuple(value) if kind is list else value
            if value == getattr(self, name):
                return
            self.__dict__["_value_" + name] = value
            if hasattr(self, "_changed"):
                self._changed(name)
            if signal:
                getattr(self, signal[0]).emit(value)

        members[name] = Property(_TYPES[kind], getter, setter)
    return members


class SceneWidget:
    """What MRML widgets share: a scene, and `_refresh` on its events."""

    _scene: Any = None
    _tags: tuple = ()

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        for owner, tag in self._tags:
            owner.RemoveObserver(tag)
        self._tags = ()
        self._scene = scene
        if scene is not None and hasattr(self, "_refresh"):
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
            self._tags = tuple((scene, scene.AddObserver(event, self._on_scene)) for event in events)
            self._refresh()
        if hasattr(self, "mrmlSceneChanged"):
            self.mrmlSceneChanged.emit(scene)

    def _on_scene(self, *_arguments: Any) -> None:
        if shiboken6.isValid(self):
            self._refresh()

    def mrmlScene(self) -> Any:
        return self._scene


class qMRMLWidget(SceneWidget, QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)


class qSlicerScriptedLoadableModuleWidget(SceneWidget, QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.setLayout(QtWidgets.QVBoxLayout())


class ctkCollapsibleButton(QtWidgets.QWidget):
    contentsCollapsed = Signal(bool)
    locals().update(qt_properties(text=(str, ""), collapsed=(bool, False, "contentsCollapsed")))

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.setContentsMargins(0, HEADER_PIXELS, 0, 0)
        self.setMinimumHeight(HEADER_PIXELS)

    def _changed(self, name: str) -> None:
        if name == "collapsed":
            self.setMaximumHeight(HEADER_PIXELS if self.collapsed else 16777215)
            self._show_children()
        self.update()

    def _show_children(self) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget) and not child.property("keepHidden"):
                child.setVisible(not self.collapsed)

    def showEvent(self, event: Any) -> None:
        if self.collapsed:
            self._show_children()
        super().showEvent(event)

    def mousePressEvent(self, event: Any) -> None:
        if event.position().y() < HEADER_PIXELS:
            self.collapsed = not self.collapsed

    def paintEvent(self, _event: Any) -> None:
        painter = QtGui.QPainter(self)
        style = QtWidgets.QStyle
        bevel = QtWidgets.QStyleOptionButton()
        bevel.rect = QtCore.QRect(0, 0, self.width, HEADER_PIXELS)
        bevel.state = style.State_Enabled | style.State_Raised
        self.style().drawControl(style.CE_PushButtonBevel, bevel, painter, self)
        area = QtCore.QRect(22, 0, self.width - 26, HEADER_PIXELS)
        painter.drawText(area, int(QtCore.Qt.AlignVCenter | QtCore.Qt.AlignLeft), self.text)
        arrow = QtWidgets.QStyleOption()
        arrow.rect = QtCore.QRect(6, 6, 12, 12)
        arrow.state = style.State_Enabled
        kind = style.PE_IndicatorArrowRight if self.collapsed else style.PE_IndicatorArrowDown
        self.style().drawPrimitive(kind, arrow, painter, self)


class ctkSliderWidget(QtWidgets.QWidget):
    valueChanged = Signal(float)
    locals().update(
        qt_properties(
            value=(float, 0.0, "valueChanged"), minimum=(float, 0.0), maximum=(float, 99.0), singleStep=(float, 1.0),
            decimals=(int, 2),
        )
    )  # fmt: skip

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._spin = QtWidgets.QSlider(QtCore.Qt.Horizontal), QtWidgets.QDoubleSpinBox()
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin)
        self._busy = False
        self._changed("maximum")
        self._slider.valueChanged.connect(lambda steps: self._take(self.minimum + steps * self.singleStep))
        self._spin.valueChanged.connect(self._take)

    def _take(self, value: float) -> None:
        if not self._busy:
            self.value = round(float(value), 10)

    def _changed(self, _name: str) -> None:
        self._busy = True
        self._spin.decimals, self._spin.singleStep = self.decimals, self.singleStep
        self._spin.setRange(self.minimum, self.maximum)
        self._slider.setRange(0, round((self.maximum - self.minimum) / self.singleStep))
        value = min(max(self.value, self.minimum), self.maximum)
        self.__dict__["_value_value"] = value
        self._spin.value = value
        self._slider.value = round((value - self.minimum) / self.singleStep)
        self._busy = False


class qMRMLNodeComboBox(SceneWidget, QtWidgets.QWidget):
    currentNodeChanged = Signal(object)
    nodeActivated = Signal(object)  # chosen by the user
    locals().update(
        qt_properties(
            nodeTypes=(list, ()), addEnabled=(bool, True), removeEnabled=(bool, True), renameEnabled=(bool, False),
            editEnabled=(bool, False), noneEnabled=(bool, False), noneDisplay=(str, ""), baseName=(str, ""),
            showChildNodeTypes=(bool, True), selectNodeUponCreation=(bool, True),
        )
    )  # fmt: skip

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = QtWidgets.QComboBox()
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        layout.addWidget(self._combo)
        self._ids: list[str | None] = []
        self._current: str | None = None
        self._busy = False
        self._combo.currentIndexChanged.connect(self._on_index)
        self._combo.activated.connect(lambda _index: self.nodeActivated.emit(self.currentNode()))

    def _changed(self, _name: str) -> None:
        self._refresh()

    def _accepts(self, node: Any) -> bool:
        if node.GetHideFromEditors():
            return False
        if self.showChildNodeTypes:
            return any(node.IsA(kind) for kind in self.nodeTypes)
        return node.GetClassName() in self.nodeTypes

    def _refresh(self) -> None:
        scene = self._scene
        everything = [] if scene is None else [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
        nodes = [node for node in everything if self._accepts(node)]
        self._busy = True
        self._combo.clear()
        self._ids = []
        if self.noneEnabled or not nodes:
            self._combo.addItem(self.noneDisplay or "None")
            self._ids.append(None)
        for node in nodes:
            self._combo.addItem(node.GetName())
            self._ids.append(node.GetID())
        wanted = self._current if self._current in self._ids else None
        self._combo.setCurrentIndex(self._ids.index(wanted) if wanted in self._ids else -1)
        self._busy = False
        self._select(wanted)

    def _on_index(self, index: int) -> None:
        if not self._busy and 0 <= index < len(self._ids):
            self._select(self._ids[index])

    def _select(self, node_id: str | None) -> None:
        if node_id != self._current:
            self._current = node_id
            self.currentNodeChanged.emit(self.currentNode())

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self._current) if self._scene is not None and self._current else None

    def setCurrentNode(self, node: Any) -> None:
        node_id = node.GetID() if node is not None else None
        if node_id is not None and node_id not in self._ids:
            return
        self._busy = True
        self._combo.setCurrentIndex(self._ids.index(node_id) if node_id in self._ids else -1)
        self._busy = False
        self._select(node_id)


class qMRMLTableView(SceneWidget, QtWidgets.QTableWidget):
    _node: Any = None
    _tag: Any = None

    def setMRMLTableNode(self, node: Any) -> None:
        if self._node is not None:
            self._node.RemoveObserver(self._tag)
        self._node = node
        if node is not None:
            self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._fill())
        self._fill()

    def mrmlTableNode(self) -> Any:
        return self._node

    def _fill(self) -> None:
        table = self._node.GetTable() if self._node is not None else None
        rows, columns = (table.GetNumberOfRows(), table.GetNumberOfColumns()) if table else (0, 0)
        self.setRowCount(rows)
        self.setColumnCount(columns)
        self.verticalHeader().setVisible(False)
        for column in range(columns):
            name = table.GetColumnName(column)
            self.setHorizontalHeaderItem(column, QtWidgets.QTableWidgetItem(name))
            for row in range(rows):
                self.setItem(row, column, QtWidgets.QTableWidgetItem(table.GetValue(row, column).ToString()))
        self.resizeColumnsToContents()


class qSlicerMarkupsPlaceWidget(SceneWidget, QtWidgets.QWidget):
    """Place button of a markups node; drives the scene's real interaction and selection nodes."""

    activeMarkupsPlaceModeChanged = Signal(bool)
    ForcePlaceSingleMarkup, ForcePlaceMultipleMarkups = 1, 2
    locals().update(
        qt_properties(
            buttonsVisible=(bool, True), deleteAllControlPointsOptionVisible=(bool, True), placeMultipleMarkups=(int, 0)
        )
    )

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._place = QtWidgets.QToolButton()
        self._place.setText("place")
        self._place.setCheckable(True)
        layout.addWidget(self._place)
        self._node: Any = None
        self._enabled = False
        self._place.toggled.connect(lambda on: setattr(self, "placeModeEnabled", on))

    def setCurrentNode(self, node: Any) -> None:
        self._node = node

    def currentNode(self) -> Any:
        return self._node

    @property
    def placeModeEnabled(self) -> bool:
        return self._enabled

    @placeModeEnabled.setter
    def placeModeEnabled(self, on: bool) -> None:
        import slicer

        if bool(on) == self._enabled or self._node is None:
            return
        self._enabled = bool(on)
        selection = slicer.app.applicationLogic().GetSelectionNode()
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        if on:
            selection.SetReferenceActivePlaceNodeClassName(self._node.GetClassName())
            selection.SetActivePlaceNodeID(self._node.GetID())
            interaction.SetPlaceModePersistence(self.placeMultipleMarkups == self.ForcePlaceMultipleMarkups)
            interaction.SetCurrentInteractionMode(interaction.Place)
        else:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        self._place.setChecked(bool(on))
        self.activeMarkupsPlaceModeChanged.emit(bool(on))


def register() -> None:
    """Publish the widgets in `slicer`, `ctk` and the .ui loader."""
    import slicer

    for name, cls in list(globals().items()):
        if (
            isinstance(cls, type)
            and issubclass(cls, QtWidgets.QWidget)
            and name.startswith(("qMRML", "qSlicer", "ctk"))
        ):
            setattr(sys.modules["ctk"] if name.startswith("ctk") else slicer, name, cls)
            pythonqt.custom_widgets[name] = cls
