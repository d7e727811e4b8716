"""Slicer's base classes of scripted modules and its small Python modules, as far as our module uses them."""

from __future__ import annotations

import os
import sys
import types
import unittest
from typing import Any

import slicer

from Testing.bed import parameter_node

#: What `slicer.packaging.pip_ensure` was asked for.
installs: list[list[str]] = []
#: (category, name, options) of sample data that was registered.
sample_data: list[dict[str, Any]] = []


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, name: str) -> str:
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", name)

    def setup(self) -> None:
        pass


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)

    def delayDisplay(self, _message: str, *_arguments: Any) -> None:
        slicer.app.processEvents()


class _SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataSource(**options: Any) -> None:
        """Slicer needs lists of one length; it fills in the optional ones."""
        lengths = {len(options[name]) for name in ("uris", "fileNames", "nodeNames")}
        if len(lengths) != 1:
            raise ValueError("All fields of sample data source must have the same length")
        sample_data.append(options)


def _get_module_logic(module: Any) -> Any:
    """As slicer.util.getModuleLogic finds it for a scripted module: the logic of its widget."""
    return getattr(slicer.modules, f"{module}Widget").logic


def _pip_ensure(requirements: list, **_options: Any) -> None:
    installs.append([str(one) for one in requirements])


def _load_requirements(path: str) -> list[str]:
    with open(path, encoding="utf-8") as stream:
        lines = [line.split("#")[0].strip() for line in stream]
    return [line for line in lines if line and not line.startswith("-")]


def install() -> None:
    """Publish the modules under the names Slicer gives them."""

    def publish(name: str, **members: Any) -> None:
        module = types.ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module
        if name.startswith("slicer."):
            setattr(slicer, name.partition(".")[2], module)

    publish("slicer.i18n", tr=lambda text: text, translate=lambda _context, text: text)
    bases = (
        ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic, ScriptedLoadableModuleTest,
    )  # fmt: skip
    publish(
        "slicer.ScriptedLoadableModule", **{base.__name__: base for base in bases}, __all__=[b.__name__ for b in bases]
    )
    names = ("parameterNodeWrapper", "Default", "WithinRange", "Choice")
    publish("slicer.parameterNodeWrapper", **{name: getattr(parameter_node, name) for name in names})
    publish(
        "slicer.packaging",
        pip_ensure=_pip_ensure,
        load_requirements=_load_requirements,
        pip_check=lambda _requirements: True,
    )
    slicer.util.getModuleLogic = _get_module_logic
    publish("SampleData", SampleDataLogic=_SampleDataLogic)
