"""The garbage collector within and after a block of imports."""

from __future__ import annotations

import gc

import pytest

from ICHAnalysisLib.quick_imports import collector_paused


def test_the_collector_rests_within_and_runs_after_also_where_the_block_fails():
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), collector_paused():
        raise ImportError("no such library")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
