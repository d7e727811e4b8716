"""Several scans in one scene: each keeps its results, and they come back with the scan, also from a saved scene."""

from __future__ import annotations

import heads
import numpy as np
import pytest

from Testing.bed import boot


def mask_of(widget):
    from ICHAnalysisPanel.segments import read_labels

    parameters = widget.panel.parameters
    return read_labels(parameters.outputSegmentation, parameters.inputVolume).whole()


def shown(segmentation) -> bool:
    return segmentation.GetDisplayNode().GetSegmentVisibility("ICHAnalysis_ICH")


@pytest.fixture
def two(slicer, widget, analyze):
    """A first scan and its follow-up, analyzed one after the other; the second is chosen."""
    first = heads.add_head(slicer, "First")
    second = heads.add_head(slicer, "Second", center=(12, 30, 24), radii=(2.5, 4, 4))
    analyze(first)
    before = mask_of(widget), widget.panel.results.analysis.volumes_ml["segmentation"]
    analyze(second)
    return first, second, before


def test_two_volumes_in_turn(slicer, widget, two):
    first, second, (mask, volume_ml) = two
    results = widget.panel.results
    assert results.is_of(second) and not results.is_of(first)
    assert results.analysis.volumes_ml["segmentation"] < volume_ml
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert [shown(node) for node in segmentations] == [False, True]
    assert not widget.ui.undoButton.enabled or len(results._undo) == 1
    widget.ui.inputSelector.setCurrentNode(first)
    assert results.is_of(first)
    assert results.analysis.volumes_ml["segmentation"] == volume_ml
    assert np.array_equal(mask_of(widget), mask)
    assert [shown(node) for node in segmentations] == [True, False]
    table = widget.panel.parameters.resultTable
    assert table.GetTable().GetValueByName(0, "mL").ToDouble() == pytest.approx(volume_ml, abs=1e-3)
    assert widget.ui.resultTable.mrmlTableNode() is table
    assert widget.panel.parameters.chart.GetNthPlotSeriesNode(0).GetTableNode() is widget.panel.parameters.sliceTable


def test_results_of_the_other_scan_are_saved_with_the_scene(slicer, widget, two, tmp_path):
    _first, _second, (mask, volume_ml) = two
    boot.save_scene(tmp_path / "scene.mrb")
    boot.load_scene(tmp_path / "scene.mrb")
    widget.initializeParameterNode()
    assert widget.panel.parameters.inputVolume.GetName() == "Second"
    widget.ui.inputSelector.setCurrentNode(slicer.util.getNode("First"))
    assert widget.panel.results.analysis.volumes_ml["segmentation"] == volume_ml
    assert np.array_equal(mask_of(widget), mask)


def test_other_segments_of_the_scan_left_stay_in_the_views(slicer, widget, analyze):
    first, second = heads.add_head(slicer, "First"), heads.add_head(slicer, "Second")
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "By hand")
    own.CreateDefaultDisplayNodes()
    own.GetSegmentation().AddEmptySegment("user", "User's", [0, 1, 0])
    widget.ui.inputSelector.setCurrentNode(first)
    widget.panel.parameters.outputSegmentation = own
    analyze(first)
    widget.ui.inputSelector.setCurrentNode(second)
    assert widget.panel.parameters.outputSegmentation is None
    assert not shown(own)
    assert own.GetDisplayNode().GetSegmentVisibility("user")


def test_results_name_their_scan_where_none_is_chosen(slicer, widget, analyze):
    analyze(heads.add_head(slicer, "First"))
    widget.ui.inputSelector.setCurrentNode(None)
    assert "These are the results of First." in widget.ui.resultLabel.text


def test_a_chosen_scan_is_shown_in_the_views(slicer, widget):
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    first, second = heads.add_head(slicer, "First"), heads.add_head(slicer, "Second")
    widget.ui.inputSelector.setCurrentNode(first)  # as a loaded scene does
    assert composite.GetBackgroundVolumeID() is None
    widget.ui.inputSelector.setCurrentNode(second)
    widget.ui.inputSelector.nodeActivated.emit(second)  # as a user does
    assert composite.GetBackgroundVolumeID() == second.GetID()
    slicer.mrmlScene.RemoveNode(composite)
