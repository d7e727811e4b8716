"""Nodes that the user deletes under the panel: nothing fails, and the next Apply makes them anew."""

from __future__ import annotations

import heads
import pytest


@pytest.mark.parametrize(
    "name", ["outputSegmentation", "resultTable", "sliceTable", "chart", "heatmap", "lesionLabels", "inputVolume"]
)
def test_a_deleted_result_comes_back_with_apply(slicer, widget, analyze, name):
    node = heads.add_head(slicer)
    analyze(node)
    parameters = widget.panel.parameters
    slicer.mrmlScene.RemoveNode(getattr(parameters, name))
    slicer.app.processEvents()
    assert getattr(parameters, name) is None
    if name != "inputVolume":
        widget.ui.undoButton.click()
    analyze(node if name != "inputVolume" else heads.add_head(slicer))
    assert getattr(parameters, name) is not None
    assert parameters.resultTable.GetNumberOfRows() > 4
    series = parameters.chart.GetNthPlotSeriesNode(0)
    assert series.GetTableNode() is parameters.sliceTable


def test_a_deleted_point_list_is_made_anew(slicer, widget):
    widget.ui.inputSelector.setCurrentNode(heads.add_head(slicer))
    for name, place in (("positivePoints", "positivePlace"), ("negativePoints", "negativePlace")):
        slicer.mrmlScene.RemoveNode(getattr(widget.panel.parameters, name))
        slicer.app.processEvents()
        points = getattr(widget.panel.parameters, name)
        assert points is not None
        assert getattr(widget.ui, place).currentNode() is points
        points.AddControlPoint(0, 0, 0)
        assert len(widget.panel.prompts.read().points) == 1 + (name == "negativePoints")
    assert [point.positive for point in widget.panel.prompts.read().points] == [True, False]


def test_a_deleted_box_is_no_prompt_any_more(slicer, widget):
    from ICHAnalysisPanel.prompt_nodes import add_box

    widget.ui.inputSelector.setCurrentNode(heads.add_head(slicer))
    box = add_box("Box", (0, 0, 0), (20, 20, 20))
    widget.panel.prompts.use(box)
    assert widget.ui.boxList.count == 1
    slicer.mrmlScene.RemoveNode(box)
    slicer.app.processEvents()
    assert widget.ui.boxList.count == 0
    assert widget.panel.prompts.read().empty
