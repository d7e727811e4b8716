"""Importing large libraries without the garbage collector in between, and without what is not used of them."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"


@contextmanager
def collector_paused() -> Iterator[None]:
    """Switch cyclic garbage collection off within the block, and on again where it was on.

    Modules live as long as the process. The collector walks through all that were imported so far again and again,
    which is a tenth of the time that torch and its companions take to import.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def compiler_put_off() -> Iterator[None]:
    """Keep torchvision and timm, imported within the block, from importing torch's compiler, two fifths of the time.

    torchvision asks it one question when RoI align is called, timm tells it to pass over a few functions. Within the
    block a stand-in answers for it that asks the compiler itself as soon as it is really wanted; afterwards nothing is
    left of it but those two put-off calls. Where the compiler was imported before, nothing changes.
    """
    import torch

    if _COMPILER in sys.modules:
        yield
        return
    parts = {name: _StandIn(name) for name in (_COMPILER, f"{_COMPILER}.utils")}
    parts[f"{_COMPILER}.utils"].__dict__["is_compile_supported"] = _is_compile_supported
    disable = torch.compiler.disable
    sys.modules.update(parts)
    torch.compiler.disable = _passed_over(disable)
    try:
        yield
    finally:
        torch.compiler.disable = disable
        _remove_stand_ins()


class _StandIn(ModuleType):
    """A module that makes way for the one it stands for when anything else is asked of it."""

    def __getattr__(self, name: str) -> Any:
        asks_for_submodule = name == "__path__" and self.__name__ == _COMPILER
        if name.startswith("__") and not asks_for_submodule:  # who looks through all modules wants none in particular
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _remove_stand_ins() -> None:
    for name, module in list(sys.modules.items()):
        if isinstance(module, _StandIn):
            del sys.modules[name]


def _is_compile_supported(device_type: Any) -> Any:
    """The compiler's own answer, when somebody asks."""
    return importlib.import_module(f"{_COMPILER}.utils").is_compile_supported(device_type)


def _passed_over(disable: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compiler.disable` that does its work when the decorated function is first called."""

    def put_off(fn: Callable[..., Any] | None = None, *options: Any, **named: Any) -> Any:
        if fn is None or isinstance(fn, type):
            return disable(fn, *options, **named)
        disabled: list[Callable[..., Any]] = []

        @wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not disabled:
                disabled.append(disable(fn, *options, **named))
            return disabled[0](*args, **kwargs)

        return call

    return put_off
