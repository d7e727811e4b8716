"""Work in threads beside the caller's, where the process may use more than one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

Submit = Callable[..., "Future[Any]"]


@contextmanager
def beside(threads: int) -> Iterator[Submit]:
    """A function that hands calls to up to `threads` threads and returns their futures; leaving the block waits.

    Worth it for work that leaves the interpreter free: networks, zlib, most of numpy and scipy. A process that keeps
    to one thread, as the workers of a batch do, gets every call done at once: a second thread of its own would take
    the core of another worker.
    """
    if keeps_to_one_thread():
        yield _done_at_once
        return
    with ThreadPoolExecutor(threads) as pool:
        yield pool.submit


def keeps_to_one_thread() -> bool:
    """Whether the networks of this process were given one thread."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.get_num_threads() == 1


def _done_at_once(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(work(*args, **kwargs))
    except Exception as error:  # raised where the result is asked for, as by a thread
        future.set_exception(error)
    return future
