"""Slice and 3-D views rendered off screen with Slicer's displayable managers, for pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import vtk
from vtk.util import numpy_support

SLICE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
)
THREE_D_MANAGERS = ("vtkMRMLSegmentationsDisplayableManager3D", "vtkMRMLMarkupsDisplayableManager")


class SliceView:
    """One slice view of the scene."""

    def __init__(self, name: str, orientation: str, size: tuple[int, int] = (420, 420)) -> None:
        import slicer

        self.window, self.renderer = _window(size)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        _register(factory, SLICE_MANAGERS)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        self.group.Initialize(factory, self.renderer)
        application = slicer.app.applicationLogic()
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application)
        application.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(slicer.mrmlScene)
        # The layout may have made the singleton already; AddSliceNode would give another that is in no scene.
        scene = slicer.mrmlScene
        self.node = scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        if self.node is None:
            self.node = scene.AddNewNodeByClass("vtkMRMLSliceNode", name)
            self.node.SetLayoutName(name)
            self.node.SetSingletonTag(name)
        self.logic.SetSliceNode(self.node)
        self.node.SetOrientation(orientation)
        self.group.SetMRMLDisplayableNode(self.node)
        self.logic.ResizeSliceNode(*size)
        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.actor = vtk.vtkActor2D()
        self.actor.SetMapper(self.mapper)
        self.actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self.actor)

    def save(self, path: Path) -> Path:
        """Render to a PNG."""
        self.mapper.SetInputConnection(self.logic.GetImageDataConnection())
        return _save(self.window, path)


class ThreeDView:
    """The 3-D view of the scene, seen from the front right."""

    def __init__(self, size: tuple[int, int] = (420, 420)) -> None:
        import slicer

        self.window, self.renderer = _window(size)
        self.renderer.SetBackground(0.75, 0.76, 0.9)
        self.renderer.SetBackground2(0.46, 0.47, 0.71)
        self.renderer.GradientBackgroundOn()
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        _register(factory, THREE_D_MANAGERS)
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLViewNode", "View1")
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        self.group.Initialize(factory, self.renderer)
        self.group.SetMRMLDisplayableNode(self.node)

    def save(self, path: Path) -> Path:
        """Render to a PNG."""
        self.renderer.ResetCamera()
        camera = self.renderer.GetActiveCamera()
        center = np.array(camera.GetFocalPoint())
        camera.SetPosition(*(center + np.array([0.7, 1.6, 0.6]) * camera.GetDistance() * 0.6))
        camera.SetViewUp(0, 0, 1)
        self.renderer.ResetCamera()
        self.renderer.ResetCameraClippingRange()
        return _save(self.window, path)


def _window(size: tuple[int, int]) -> tuple[Any, Any]:
    renderer = vtk.vtkRenderer()
    window = vtk.vtkRenderWindow()
    window.ShowWindowOff()
    window.SetOffScreenRendering(1)
    window.SetSize(*size)
    window.AddRenderer(renderer)
    interactor = vtk.vtkRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
    interactor.Initialize()
    return window, renderer


def _register(factory: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)


def _save(window: Any, path: Path) -> Path:
    window.Render()
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputConnection(grab.GetOutputPort())
    writer.Write()
    values = numpy_support.vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars())
    if values.min() == values.max():
        raise RuntimeError(f"{path.name}: the view stayed empty")
    return path
