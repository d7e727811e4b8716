"""The part of `slicer.parameterNodeWrapper` that our module uses, with Slicer's own text form in the node.

Kinds: bool, int, float, str, and references to MRML nodes; annotations Default, WithinRange and Choice.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any


@dataclass
class Default:
    value: Any


@dataclass
class WithinRange:
    minimum: float
    maximum: float

    def validate(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


@dataclass
class Choice:
    choices: tuple

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}, is {value}")


class Codec:
    """Reads and writes one value under its name in a vtkMRMLScriptedModuleNode."""

    def __init__(self, name: str, declared: Any, default: Any) -> None:
        import slicer

        self.name = name
        annotated = typing.get_origin(declared) is typing.Annotated
        self.type = typing.get_args(declared)[0] if annotated else declared
        self.notes = typing.get_args(declared)[1:] if annotated else ()
        self.is_node = isinstance(self.type, type) and issubclass(self.type, slicer.vtkMRMLNode)
        if not self.is_node and self.type not in (bool, int, float, str):
            raise RuntimeError(f"{name}: unsupported parameter type {self.type}")
        chosen = [note.value for note in self.notes if isinstance(note, Default)]
        choices = [note.choices[0] for note in self.notes if isinstance(note, Choice)]
        fallback = None if self.is_node else (choices or [self.type()])[0]
        self.default = default if default is not None else chosen[0] if chosen else fallback

    def is_in(self, node: Any) -> bool:
        return node.HasParameter(self.name)

    def read(self, node: Any) -> Any:
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        return text == "True" if self.type is bool else self.type(text)

    def write(self, node: Any, value: Any) -> None:
        if self.is_node:
            if value is not None and not isinstance(value, self.type):
                raise ValueError(f"{self.name}: expected {self.type}, got {value!r}")
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        if self.type is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, self.type):
            raise TypeError(f"{self.name}: expected {self.type}, got {value!r}")
        for note in self.notes:
            if hasattr(note, "validate"):
                note.validate(value)
        node.SetParameter(self.name, str(value))


class _Binding:
    """Keeps one widget and one parameter the same."""

    def __init__(self, wrapper: Any, codec: Codec, widget: Any) -> None:
        self.wrapper, self.codec, self.widget, self.busy = wrapper, codec, widget, False
        kind = type(widget).__name__
        signals = {
            "QCheckBox": "toggled", "QSpinBox": "valueChanged", "ctkSliderWidget": "valueChanged",
            "QLineEdit": "textChanged", "QComboBox": "currentIndexChanged", "qMRMLNodeComboBox": "currentNodeChanged",
        }  # fmt: skip
        for note in codec.notes:
            if isinstance(note, WithinRange):
                widget.minimum, widget.maximum = note.minimum, note.maximum
            if isinstance(note, Choice):
                widget.clear()
                widget.addItems([str(choice) for choice in note.choices])
        self.kind = kind
        self.show()
        self.signal = getattr(widget, signals[kind])
        self.signal.connect(self.take)

    def take(self, *_arguments: Any) -> None:
        if self.busy:
            return
        widget = self.widget
        value = {
            "QCheckBox": lambda: widget.checked, "QLineEdit": lambda: widget.text,
            "QComboBox": lambda: widget.currentText, "qMRMLNodeComboBox": lambda: widget.currentNode(),
        }.get(self.kind, lambda: widget.value)()  # fmt: skip
        setattr(self.wrapper, self.codec.name, value)

    def show(self) -> None:
        self.busy = True
        value, widget = getattr(self.wrapper, self.codec.name), self.widget
        if self.kind == "qMRMLNodeComboBox":
            widget.setCurrentNode(value)
        elif self.kind == "QCheckBox":
            widget.checked = value
        elif self.kind == "QComboBox":
            widget.setCurrentIndex(widget.findText(str(value)))
        elif self.kind == "QLineEdit":
            if widget.text != value:
                widget.text = value
        else:
            widget.value = value
        self.busy = False


def parameterNodeWrapper(cls: type) -> type:
    """The decorator: typed attributes that live in a MRML node."""
    hints = typing.get_type_hints(cls, include_extras=True)
    codecs = {name: Codec(name, declared, cls.__dict__.get(name)) for name, declared in hints.items()}

    def initialize(self: Any, parameter_node: Any) -> None:
        import slicer

        self.parameterNode = parameter_node
        self._bindings = {}
        with slicer.util.NodeModify(parameter_node):
            for codec in codecs.values():
                if not codec.is_in(parameter_node):
                    codec.write(parameter_node, codec.default)

    def attribute(codec: Codec) -> property:
        def write(self: Any, value: Any) -> None:
            import slicer

            with slicer.util.NodeModify(self.parameterNode):
                codec.write(self.parameterNode, value)

        return property(lambda self: codec.read(self.parameterNode), write)

    def connect_gui(self: Any, mapping: dict[str, Any]) -> int:
        import vtk

        bindings = [_Binding(self, codecs[name], widget) for name, widget in mapping.items()]

        def refresh(*_arguments: Any) -> None:
            for binding in bindings:
                binding.show()

        tag = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, refresh)
        self._bindings[tag] = bindings
        return tag

    def disconnect_gui(self: Any, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)
        for binding in self._bindings.pop(tag, ()):
            binding.signal.disconnect(binding.take)

    cls.__init__, cls.connectParametersToGui, cls.disconnectGui = initialize, connect_gui, disconnect_gui
    cls.AddObserver = lambda self, *arguments: self.parameterNode.AddObserver(*arguments)
    cls.RemoveObserver = lambda self, *arguments: self.parameterNode.RemoveObserver(*arguments)
    for name, codec in codecs.items():
        setattr(cls, name, attribute(codec))
    return cls
