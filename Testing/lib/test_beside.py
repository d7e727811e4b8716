"""Work beside the caller's: in other threads, or at once where the process keeps to one."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from ICHAnalysisLib.beside import beside, keeps_to_one_thread


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_where_the_work_is_done(threads: int) -> None:
    here = threading.get_ident()
    with beside(2) as submit:
        there = submit(threading.get_ident)
        total = submit(sum, (1, 2), start=4)
    assert keeps_to_one_thread() == (threads == 1)
    assert (there.result() == here) == (threads == 1)
    assert total.result() == 7


def test_an_error_waits_for_who_asks(threads: int) -> None:
    with beside(1) as submit:
        failed = submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result()
