"""The bed, booted once; every test fails on a slot's exception or on a dialog it did not expect."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed (pip install '.[test]')")

from waiting import Waiter, wait_done

from Testing.bed import boot, pythonqt

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def slicer():
    module = boot.boot()
    boot.load_module(ROOT / "ICHAnalysis" / "ICHAnalysis.py")
    logging.getLogger().setLevel(logging.WARNING)
    return module


@pytest.fixture(autouse=True)
def clean_bed(request):
    """A closed scene before each test; no slot error and no dialog after it."""
    if "slicer" not in request.fixturenames:
        yield
        return
    slicer = request.getfixturevalue("slicer")
    slicer.mrmlScene.Clear(0)
    pythonqt.slot_errors.clear()
    pythonqt.dialogs.clear()
    pythonqt.file_answers.clear()
    yield
    assert pythonqt.slot_errors == []
    assert pythonqt.dialogs == []


@pytest.fixture
def widget(slicer):
    """The module's widget with the threshold in place of the networks, in a real worker process."""
    created = boot.create_widget("ICHAnalysis")
    created.panel.ensure_dependencies = lambda: None
    created.panel.run.analyzer = "threshold_analyzer:analyze"
    created.panel.run.environment = {"PYTHONPATH": str(Path(__file__).parent)}
    created.batch.analyzer = "threshold_analyzer:analyze_case"
    created.batch.environment = dict(created.panel.run.environment)
    yield created
    created.exit()
    created.cleanup()


@pytest.fixture
def waiter(slicer):
    return Waiter(slicer)


@pytest.fixture
def analyze(widget, waiter):
    """Choose a volume, press Apply, wait for the results."""

    def run(node) -> None:
        widget.ui.inputSelector.setCurrentNode(node)
        assert widget.ui.applyButton.enabled, widget.ui.applyButton.toolTip
        widget.ui.applyButton.click()
        wait_done(widget, waiter)

    return run
