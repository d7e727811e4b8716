"""Start Slicer's libraries as the application does: scene, application logic, module logics, `slicer.app`."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from Testing.bed import pythonqt

LOGICS = {
    "Units": "vtkSlicerUnitsLogic", "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Tables": "vtkSlicerTablesLogic", "Models": "vtkSlicerModelsLogic", "Transforms": "vtkSlicerTransformLogic",
    "Markups": "vtkSlicerMarkupsLogic", "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Plots": "vtkSlicerPlotsLogic",
}  # fmt: skip

#: Below the lowest widget of a picture.
MARGIN_PIXELS = 30
_booted: Any = None


class Module:
    """slicer.modules.<name>."""

    def __init__(self, name: str, logic: Any = None, path: str = "") -> None:
        self.name, self.path, self._logic = name, path, logic

    def logic(self) -> Any:
        return self._logic

    def widgetRepresentation(self) -> Any:
        """The C++ widget, whose self() is the scripted one."""
        import slicer

        return types.SimpleNamespace(self=lambda: getattr(slicer.modules, f"{self.name}Widget"))


class LayoutManager:
    """The layout node of the real layout logic; views are made by `views.py` when a picture is wanted."""

    def __init__(self, logic: Any) -> None:
        self._logic = logic

    def layoutLogic(self) -> Any:
        return self._logic

    def setLayout(self, number: int) -> None:
        self._logic.GetLayoutNode().SetViewArrangement(number)

    def sliceViewNames(self) -> tuple[str, ...]:
        return ()

    def mrmlSliceLogics(self) -> Any:
        """The logics of the views that `views.py` made."""
        return boot().app.applicationLogic().GetSliceLogics()

    threeDViewCount = 0


def boot() -> Any:
    """The `slicer` module, ready; once a process."""
    global _booted
    if _booted is not None:
        return _booted
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    qt = pythonqt.build()
    import slicer
    import vtk

    output = vtk.vtkOutputWindow()
    output.SetDisplayModeToAlwaysStdErr()
    vtk.vtkOutputWindow.SetInstance(output)
    for name in ("modules", "moduleNames"):
        module = types.ModuleType("slicer." + name)
        sys.modules["slicer." + name] = module
        setattr(slicer, name, module)
    sys.modules["vtkSegmentationCorePython"] = importlib.import_module("slicer_core.vtkSegmentationCore")
    from Testing.bed import scripted, widgets

    widgets.register()
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    folder = tempfile.mkdtemp(prefix="slicer_bed_")
    slicer.app = _application(qt, folder)
    _start_logics(slicer, vtk, scene, folder)
    scripted.install()
    slicer.util.mainWindow = lambda verbose=True: None
    _booted = slicer
    return slicer


def _application(qt: Any, folder: str) -> Any:
    """`slicer.app` with what modules and slicer.util ask of it."""

    class Application(qt.QObject):
        startupCompleted = qt.Signal()
        applicationName = "Slicer"
        applicationVersion = "5.12.4"
        majorVersion, minorVersion = 5, 12
        temporaryPath = folder
        testing = True

        def __init__(self) -> None:
            super().__init__()
            self._settings = qt.QSettings(os.path.join(folder, "Slicer.ini"), qt.QSettings.IniFormat)
            self.logic: Any = None
            self.layouts: Any = None

        def applicationLogic(self) -> Any:
            return self.logic

        def layoutManager(self) -> Any:
            return self.layouts

        def userSettings(self) -> Any:
            return self._settings

        def processEvents(self) -> None:
            qt.application.processEvents()

        def setOverrideCursor(self, cursor: Any) -> None:
            qt.application.setOverrideCursor(cursor)

        def restoreOverrideCursor(self) -> None:
            qt.application.restoreOverrideCursor()

        def testingEnabled(self) -> bool:
            return self.testing

    return Application()


def _start_logics(slicer: Any, vtk: Any, scene: Any, folder: str) -> None:
    """Application logic first, then the scene's default nodes, then every module logic."""
    logic = slicer.vtkSlicerApplicationLogic()
    slicer.app.logic = logic
    logic.SetMRMLScene(scene)
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    for factory in (
        slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
        slicer.vtkMRMLSliceViewDisplayableManagerFactory,
    ):
        factory.GetInstance().SetMRMLApplicationLogic(logic)
    cache = slicer.vtkCacheManager()
    cache.SetRemoteCacheDirectory(os.path.join(folder, "cache"))
    cache.SetMRMLScene(scene)
    scene.SetCacheManager(cache)
    exchange = slicer.vtkDataIOManager()
    exchange.SetCacheManager(cache)
    scene.SetDataIOManager(exchange)
    for setter in (logic.SetHomeDirectory, logic.SetTemporaryPath):
        setter(folder)
    colors = _add_logic(slicer, "Colors", "vtkSlicerColorLogic", logic, scene)
    colors.AddDefaultColorNodes()
    logic.SetColorLogic(colors)
    for name, class_name in LOGICS.items():
        _add_logic(slicer, name, class_name, logic, scene)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    layout = slicer.vtkMRMLLayoutLogic()
    layout.SetMRMLScene(scene)
    slicer.app.layouts = LayoutManager(layout)


def _add_logic(slicer: Any, name: str, class_name: str, application_logic: Any, scene: Any) -> Any:
    logic = getattr(slicer, class_name)()
    logic.SetMRMLApplicationLogic(application_logic)
    logic.SetMRMLScene(scene)
    application_logic.SetModuleLogic(name, logic)
    setattr(slicer.modules, name.lower(), Module(name, logic))
    setattr(slicer.moduleNames, name, name)
    return logic


def load_module(path: Path) -> Any:
    """Import a scripted module's file and publish it, as the module factory does; returns the Python module."""
    slicer = boot()
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    python_module = importlib.import_module(name)
    module = Module(name, path=str(path))
    setattr(slicer.modules, name.lower(), module)
    setattr(slicer.moduleNames, name, name)
    setattr(slicer.modules, name + "Instance", getattr(python_module, name)(module))
    return python_module


def create_widget(name: str) -> Any:
    """The module's widget, set up and entered."""
    slicer = boot()
    representation = slicer.qSlicerScriptedLoadableModuleWidget()
    widget = getattr(sys.modules[name], name + "Widget")(representation)
    setattr(slicer.modules, name + "Widget", widget)
    representation.setMRMLScene(slicer.mrmlScene)
    widget.setup()
    widget.enter()
    return widget


def save_scene(path: Path) -> None:
    """Write the scene as a bundle (.mrb)."""
    scene = boot().mrmlScene
    scene.SetURL(str(path))
    scene.SetRootDirectory(str(path.parent))
    if not scene.WriteToMRB(str(path), None):
        raise RuntimeError(f"could not write {path}")


def load_scene(path: Path) -> None:
    """Close the scene and read a bundle."""
    scene = boot().mrmlScene
    scene.Clear(0)
    if not scene.ReadFromMRB(str(path), True):
        raise RuntimeError(f"could not read {path}")


def grab(widget: Any, path: Path, width: int = 460) -> Path:
    """A picture of the panel."""
    slicer = boot()
    panel = widget.parent
    panel.resize(width, 200)
    panel.show()
    for _ in range(5):
        slicer.app.processEvents()
    panel.resize(width, max(200, panel.sizeHint().height()))
    for _ in range(5):
        slicer.app.processEvents()
    shown = [one for one in panel.layout().itemAt(0).widget().children() if getattr(one, "visible", False)]
    picture = panel.grab()
    bottom = min(picture.height(), max(one.geometry.bottom() for one in shown) + MARGIN_PIXELS)
    picture.copy(0, 0, picture.width(), bottom).save(str(path))  # without the space that the spacer fills
    panel.hide()
    return path
