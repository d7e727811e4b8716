"""The bed itself: what goes wrong behind C++ is recorded, so that tests fail on it."""

from __future__ import annotations

from Testing.bed import pythonqt


def test_errors_of_slots_timers_and_observers_are_recorded(slicer, waiter):
    import qt
    import vtk

    def fail(*_arguments):
        raise ValueError("seen")

    button = qt.QPushButton()
    button.connect("clicked()", fail)
    button.click()
    assert len(pythonqt.slot_errors) == 1
    qt.QTimer.singleShot(0, fail)
    waiter.until(lambda: len(pythonqt.slot_errors) == 2, seconds=60)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, fail)
    node.Modified()
    assert len(pythonqt.slot_errors) == 3
    assert all("ValueError: seen" in text for text in pythonqt.slot_errors)
    pythonqt.slot_errors.clear()


def test_dialogs_are_recorded_and_declined(slicer):
    import qt

    assert qt.QMessageBox.question(None, "ICHAnalysis", "Install?") == qt.QMessageBox.No
    assert [(title, text) for _kind, title, text in pythonqt.dialogs] == [("ICHAnalysis", "Install?")]
    pythonqt.dialogs.clear()
