"""The layout that shows everything of an analysis: slices, 3-D view, table and plot."""

from __future__ import annotations

from typing import Any

import slicer

LAYOUT = 5117
_SLICE = (
    '<item><view class="vtkMRMLSliceNode" singletontag="{name}"><property name="orientation" action="default">'
    '{orientation}</property><property name="viewlabel" action="default">{letter}</property>'
    '<property name="viewcolor" action="default">{color}</property></view></item>'
)
_RED, _YELLOW, _GREEN = (
    _SLICE.format(name=name, orientation=orientation, letter=name[0], color=color)
    for name, orientation, color in (
        ("Red", "Axial", "#F34A33"), ("Yellow", "Sagittal", "#EDD54C"), ("Green", "Coronal", "#6EB04B"),
    )
)  # fmt: skip
_THREE_D = (
    '<item><view class="vtkMRMLViewNode" singletontag="1"><property name="viewlabel" action="default">1</property>'
    "</view></item>"
)
_TABLE = (
    '<item><view class="vtkMRMLTableViewNode" singletontag="TableView1"><property name="viewlabel" action="default">T'
    "</property></view></item>"
)
_PLOT = (
    '<item><view class="vtkMRMLPlotViewNode" singletontag="PlotView1"><property name="viewlabel" action="default">P'
    "</property></view></item>"
)


def description() -> str:
    """Axial large and 3-D above; sagittal, coronal, table and plot below."""
    above = f'<item splitSize="600"><layout type="horizontal" split="true">{_RED}{_THREE_D}</layout></item>'
    below = (
        f'<item splitSize="400"><layout type="horizontal" split="true">{_YELLOW}{_GREEN}{_TABLE}{_PLOT}</layout></item>'
    )
    return f'<layout type="vertical" split="true">{above}{below}</layout>'


def register() -> None:
    """Make our layout known, also to scenes that were saved with it; nothing where there is no main window."""
    manager = slicer.app.layoutManager()
    node = manager.layoutLogic().GetLayoutNode() if manager is not None else None
    if node is not None and not node.IsLayoutDescription(LAYOUT):
        node.AddLayoutDescription(LAYOUT, description())


def show(table: Any | None, chart: Any | None) -> None:
    """Switch to our layout, with the table and the chart in it; nothing where there is no main window."""
    manager = slicer.app.layoutManager()
    if manager is None:
        return
    register()
    manager.setLayout(LAYOUT)
    logic = slicer.app.applicationLogic()
    selection = logic.GetSelectionNode()
    if table is not None:
        selection.SetActiveTableID(table.GetID())
        logic.PropagateTableSelection()
    if chart is not None:
        selection.SetActivePlotChartID(chart.GetID())
        logic.PropagatePlotChartSelection()
