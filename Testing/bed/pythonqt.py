"""PySide6 behind a look-alike of PythonQt, as scripted modules see Qt in Slicer.

What differs from PySide6 and modules rely on: every Qt property is a plain attribute and wins over a getter of the
same name; signals are connected by signature text; one flat module `qt`; a slot's exception is printed and not
raised. Exceptions of slots and modal dialogs are recorded, so that a test can fail on them.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import sys
import traceback
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import shiboken6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

#: Tracebacks of exceptions that slots, timers and observers of nodes raised.
slot_errors: list[str] = []
#: (class, title, text) of modal dialogs that came up.
dialogs: list[tuple[str, str, str]] = []
#: Widget classes of .ui files beyond Qt's own, by name; filled by `widgets.register`.
custom_widgets: dict[str, type] = {}

#: Answers files and folders of QFileDialog, by function name.
file_answers: dict[str, str] = {}

_MODULES = (QtCore, QtGui, QtWidgets)
_OVERRIDES = {"sizeHint", "minimumSizeHint", "duration"}  # virtual getters: an attribute would be taken for an override
_SINGLE_ARGUMENT = {"QString": "QString", "int": "int", "bool": "bool", "double": "double"}
_connections: dict[tuple, list[tuple]] = {}


class _Property:
    """A Qt property as a data descriptor; on the class itself, the method of the same name."""

    def __init__(self, name: str, getter: Any, setter: Any, method: Any, is_bool: bool) -> None:
        self.name, self.getter, self.setter, self.method, self.is_bool = name, getter, setter, method, is_bool

    def __get__(self, owner: Any, cls: type | None = None) -> Any:
        if owner is None:
            if self.method is None:
                raise AttributeError(self.name)
            return self.method
        value = self.getter(owner) if self.getter else owner.property(self.name)
        return tuple(value) if isinstance(value, list) else value  # PythonQt gives string lists as tuples

    def __set__(self, owner: Any, value: Any) -> None:
        value = bool(value) if self.is_bool else value
        if self.setter:
            self.setter(owner, value)
        else:
            owner.setProperty(self.name, value)


def build() -> types.ModuleType:
    """Make the application, patch the classes, and publish the modules `qt` and `ctk`; returns `qt`."""
    _spare_constants()
    arguments = [*sys.argv[:1], "-platform", os.environ["QT_QPA_PLATFORM"]]
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(arguments)
    qt = types.ModuleType("qt", "PySide6 as PythonQt shows Qt")
    qt.application = application
    _patch_properties()
    _patch_objects()
    _patch_dialogs()
    _record_printed()
    for module in _MODULES:
        for name in dir(module):
            if not name.startswith("_"):
                setattr(qt, name, getattr(module, name))
    qt.QUiLoader = UiLoader
    sys.modules["qt"] = qt
    ctk = types.ModuleType("ctk", "stand-ins for CTK widgets")
    sys.modules["ctk"] = ctk
    return qt


def _spare_constants() -> None:
    """Give None, True and False references to lose: PySide6 6.12 drops one at each call that returns nothing or a bool,
    which ends a Python before 3.12 (where they became immortal) in a fatal error. A slow machine, which waits in more
    calls, loses more than a million in a run; so the counts are raised by more than any run can lose."""
    if sys.version_info < (3, 12):
        for constant in (None, True, False):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40


def _record_printed() -> None:
    """Record what Qt's timers and VTK's observers print of an exception, which nobody can catch behind C++."""
    plain = sys.excepthook

    def hook(kind: Any, error: Any, trace: Any) -> None:
        slot_errors.append("".join(traceback.format_exception(kind, error, trace)))
        plain(kind, error, trace)

    sys.excepthook = hook


def _patch_properties() -> None:
    """Make every Qt property of every class a plain attribute."""
    members = [getattr(module, name) for module in _MODULES for name in dir(module)]
    classes = {cls for cls in members if inspect.isclass(cls) and hasattr(cls, "staticMetaObject")}
    for cls in sorted(classes, key=lambda one: -len(one.__mro__)):  # derived first: they must still see plain methods
        meta = cls.staticMetaObject
        for index in range(meta.propertyOffset(), meta.propertyCount()):
            qt_property = meta.property(index)
            name = qt_property.name()
            if name in _OVERRIDES or name.startswith("_") or (name, cls.__name__) == ("singleShot", "QTimer"):
                continue
            capital = name[0].upper() + name[1:]
            getters = (getattr(cls, found, None) for found in (name, "is" + capital, "has" + capital))
            getter = next((found for found in getters if callable(found)), None)
            setter = getattr(cls, "set" + capital, None)
            is_bool = qt_property.typeName() == "bool"
            setattr(cls, name, _Property(name, getter, setter, getattr(cls, name, None), is_bool))


def _patch_objects() -> None:
    """Give QObject PythonQt's connect and disconnect by text, `name`, and dynamic properties as attributes."""
    base = QtCore.QObject
    plain_getattribute = base.__getattribute__

    def getattribute(self: Any, name: str) -> Any:
        if name == "connect":
            return types.MethodType(connect, self)
        if name == "disconnect":
            return types.MethodType(disconnect, self)
        try:
            return plain_getattribute(self, name)
        except AttributeError:
            known = () if name.startswith("_") else plain_getattribute(self, "dynamicPropertyNames")()
            if name.encode() in [bytes(one) for one in known]:
                return plain_getattribute(self, "property")(name)
            raise

    base.__getattribute__ = getattribute
    base.name = _Property(
        "name", lambda self: self.objectName, lambda self, value: self.setObjectName(value), None, False
    )
    base.className = lambda self: type(self).__name__


def _signal(sender: Any, signature: str) -> tuple[Any, int]:
    """The signal named by its signature, and how many arguments the signature has."""
    name, _, rest = signature.partition("(")
    arguments = [part.strip() for part in rest.rstrip(")").split(",") if part.strip()]
    signal = getattr(sender, name.strip(), None)
    if not hasattr(signal, "connect"):
        raise ValueError(f"no such signal {type(sender).__name__}::{signature}")
    try:
        if len(arguments) == 1 and arguments[0] in _SINGLE_ARGUMENT:
            signal = signal[_SINGLE_ARGUMENT[arguments[0]]]
    except (KeyError, IndexError, TypeError):
        pass  # no overloads
    return signal, len(arguments)


def _accepted(function: Callable) -> int | None:
    """How many positional arguments a callable takes; None for any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return None
    return sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters)


def connect(sender: Any, signature: str, receiver: Any, slot: str | None = None) -> bool:
    """`sender.connect("clicked(bool)", function)` or `(signature, object, "slot(bool)")`."""
    signal, given = _signal(sender, signature)
    function = receiver
    if slot is not None:
        function = getattr(receiver, slot.partition("(")[0])
        function = getattr(function, "emit", function)
    accepted = _accepted(function)
    limit = given if accepted is None else min(given, accepted)

    def call(*values: Any) -> Any:
        try:
            return function(*values[:limit])
        except Exception:  # as PythonQt: printed, not carried into C++
            slot_errors.append(traceback.format_exc())
            traceback.print_exc()

    signal.connect(call)
    key = (shiboken6.getCppPointer(sender)[0], signature.partition("(")[0])
    _connections.setdefault(key, []).append((receiver, signal, call))
    return True


def disconnect(sender: Any, signature: str, receiver: Any = None) -> bool:
    """The inverse of `connect`; without a receiver, of all of them."""
    entries = _connections.get((shiboken6.getCppPointer(sender)[0], signature.partition("(")[0]), [])
    found = [entry for entry in entries if receiver is None or entry[0] == receiver]
    for entry in found:
        entry[1].disconnect(entry[2])
        entries.remove(entry)
    return bool(found)


def _patch_dialogs() -> None:
    """Record modal dialogs and answer them with Cancel: nobody is here to press a button."""

    def executed(self: Any) -> int:
        text = self.text if isinstance(self, QtWidgets.QMessageBox) else ""
        dialogs.append((type(self).__name__, self.windowTitle, text))
        return 0

    for cls in (QtWidgets.QDialog, QtWidgets.QMessageBox):
        cls.exec = cls.exec_ = executed

    def asked(kind: str) -> Callable:
        def ask(_parent: Any = None, title: str = "", text: str = "", *_rest: Any) -> Any:
            dialogs.append((f"QMessageBox.{kind}", title, text))
            return QtWidgets.QMessageBox.No

        return ask

    for kind in ("question", "information", "warning", "critical"):
        setattr(QtWidgets.QMessageBox, kind, staticmethod(asked(kind)))

    def chosen(kind: str) -> Callable:
        def choose(*_arguments: Any) -> str:
            if kind not in file_answers:
                dialogs.append((f"QFileDialog.{kind}", "", ""))
            return file_answers.get(kind, "")

        return choose

    for kind in ("getOpenFileName", "getSaveFileName", "getExistingDirectory"):
        setattr(QtWidgets.QFileDialog, kind, staticmethod(chosen(kind)))


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files with the stand-in widgets; raises KeyError for a class the bed does not know."""

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        if class_name in custom_widgets:
            widget = custom_widgets[class_name](parent)
            widget.setObjectName(name)
            self._kept.append(widget)
            return widget
        if class_name not in self.availableWidgets() and class_name != "Line":
            raise KeyError(f"the bed has no widget {class_name}")
        return super().createWidget(class_name, parent, name)

    def load(self, device: Any, parent: Any = None) -> Any:
        if not device.isOpen():
            device.open(QtCore.QIODevice.ReadOnly)
        root = ElementTree.fromstring(bytes(device.readAll()))
        self._kept: list[Any] = []
        connections = [
            [one.findtext(tag) for tag in ("sender", "signal", "receiver", "slot")] for one in root.iter("connection")
        ]
        for part in root.findall("connections"):
            root.remove(part)
        buffer = QtCore.QBuffer()
        buffer.setData(QtCore.QByteArray(ElementTree.tostring(root)))
        buffer.open(QtCore.QIODevice.ReadOnly)
        widget = super().load(buffer, parent)
        widget._kept_alive = self._kept
        by_name = {one.objectName: one for one in [widget, *widget.findChildren(QtCore.QObject)] if one.objectName}
        for sender, signature, receiver, slot in connections:
            connect(by_name[sender], signature, by_name[receiver], slot)
        return widget
