"""Importing large libraries without the garbage collector in between."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
