"""The script for the application, in the bed: its checks pass here too, but for those of the application itself."""

from __future__ import annotations

import in_slicer
import pytest


@pytest.mark.parametrize("function", [one for one in in_slicer.checks if not one.needs_application])
def test_check_passes_in_the_bed(slicer, widget, monkeypatch, function):
    monkeypatch.setattr(
        slicer.util, "selectModule", lambda name: widget.enter() if name == "ICHAnalysis" else widget.exit()
    )
    function()


def test_few_checks_need_the_application():
    names = {one.__name__ for one in in_slicer.checks if one.needs_application}
    assert len(names) == 5 and len(in_slicer.checks) == 16
