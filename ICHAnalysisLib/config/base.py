"""Frozen dataclasses to plain dictionaries and back; unknown keys are errors, so a typo never passes silently."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ICHAnalysisLib.errors import UsageError

T = TypeVar("T")


def to_dict(value: Any) -> Any:
    """A configuration as JSON-ready values (tuples become lists, enums their values)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_dict(item) for key, item in value.items()}
    return value


def from_dict(cls: type[T], data: dict[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from `data`; missing keys take the dataclass's own defaults.

    Raises UsageError on an unknown key or a value of the wrong kind, naming the path to it.
    """
    where = where or cls.__name__
    if not isinstance(data, dict):
        raise UsageError(f"{where}: expected a mapping, got {data!r}.")
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - names)
    if unknown:
        raise UsageError(f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(sorted(names))}.")
    hints = get_type_hints(cls)
    values = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise UsageError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type `hint`."""
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        for option in (arg for arg in get_args(hint) if arg is not type(None)):
            try:
                return _convert(option, value, where)
            except UsageError:
                continue
        raise UsageError(f"{where}: {value!r} is none of {hint}.")
    if origin is typing.Literal:
        if value not in get_args(hint):
            raise UsageError(f"{where}: {value!r} is not one of {', '.join(map(str, get_args(hint)))}.")
        return value
    if origin in (tuple, list):
        return _convert_sequence(hint, origin, value, where)
    if origin is dict:
        return {str(key): _convert(get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise UsageError(f"{where}: {value!r} is not of type {hint.__name__}.")
    return value


def _convert_sequence(hint: Any, origin: Any, value: Any, where: str) -> Any:
    """A list or tuple of annotated items."""
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{where}: expected a list, got {value!r}.")
    args = get_args(hint)
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise UsageError(f"{where}: expected {len(args)} values, got {len(value)}.")
        items = [_convert(arg, item, f"{where}[{n}]") for n, (arg, item) in enumerate(zip(args, value, strict=True))]
    else:
        items = [_convert(args[0] if args else Any, item, f"{where}[{n}]") for n, item in enumerate(value)]
    return origin(items)
