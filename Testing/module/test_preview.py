"""The slice in view ahead of the rest, with the shipped networks."""

from __future__ import annotations

import heads
import numpy as np
import pytest
from waiting import wait_done


@pytest.fixture
def networks(widget):
    """The panel with the library's own analysis in its worker."""
    from ICHAnalysisLib.weights.registry import weights_path

    for name in ("ich_scnet", "dtvit", "volume_net"):
        if not weights_path(name, None).exists():
            pytest.skip(f"no shipped weights of {name}")
    widget.panel.run.analyzer = None
    return widget


def test_a_point_outlines_the_slice_in_view_first(slicer, networks, waiter, analyze):
    """The slice comes before the answer, stands in the scene alone at first, and is the answer's own."""
    import vtk

    from ICHAnalysisPanel.run import State
    from ICHAnalysisPanel.segments import read_labels

    panel = networks.panel
    node = heads.add_head(slicer)
    panel.parameters.heatmapWanted = False
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    analyze(node)
    before = read_labels(panel.parameters.outputSegmentation, node).whole()
    k, j, i = 12, 30, 24  # brain, no blood
    assert before[k, j, i] == 0
    place = (heads.affine() @ [i, j, k, 1])[:3]
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):  # a layout may have made its own before
        view.JumpSliceByCentering(*place)
    assert panel.results.slice_in_view() == k
    seen = []
    told = panel.run.listener.preview

    def preview(slice_k, labels):
        told(slice_k, labels)
        state = read_labels(panel.parameters.outputSegmentation, node).whole()
        seen.append((slice_k, labels, state, panel.run.state))

    object.__setattr__(panel.run.listener, "preview", preview)
    panel.parameters.positivePoints.AddControlPointWorld(vtk.vtkVector3d(*place))
    waiter.until(lambda: panel.run.state is State.RUNNING)
    wait_done(networks, waiter)
    ((slice_k, labels, state, run_state),) = seen
    assert (slice_k, run_state) == (k, State.RUNNING)
    assert labels[j, i] == 1
    assert np.array_equal(state[k], labels)
    rest = np.arange(heads.SHAPE[0]) != k
    assert np.array_equal(state[rest], before[rest])
    after = read_labels(panel.parameters.outputSegmentation, node).whole()
    assert np.array_equal(after[k] == 1, labels == 1)
