"""The lines of ABC/2: where they lie, what they measure, and that they come, follow and go."""

from __future__ import annotations

import heads
import numpy as np
import pytest

FULL = np.array(heads.SPACING)


def lines_by_name(slicer):
    """Name to (length mm, end points (2, 3)) of our lines."""
    from ICHAnalysisPanel.abc_nodes import find_lines

    return {
        node.GetName(): (node.GetLineLengthWorld(), slicer.util.arrayFromMarkupsControlPoints(node, world=True))
        for node in find_lines()
    }


def box_analysis(volume, labels):
    """The analysis of a label map without any network."""
    from ICHAnalysisLib.analysis import Analysis, AnalysisArrays
    from ICHAnalysisLib.analyze import measure_labels

    return measure_labels(Analysis("ok"), AnalysisArrays(labels), volume)


def test_lines_of_a_box_have_its_sizes(slicer):
    """A box of 10 x 4 pixels on 3 slices: A is its diagonal, C three slice heights, both through its center."""
    from ICHAnalysisLib.ct.volume import CTVolume
    from ICHAnalysisPanel.abc_lines import with_height_lines
    from ICHAnalysisPanel.abc_nodes import write_lines

    volume = CTVolume.from_affine(heads.head_array().astype(np.float32), heads.affine())
    labels = np.zeros(heads.SHAPE, np.uint8)
    labels[8:11, 30:34, 20:30] = 1
    analysis = with_height_lines(box_analysis(volume, labels), labels, volume)
    node = heads.add_head(slicer)
    write_lines(analysis, node)
    lines = lines_by_name(slicer)
    assert set(lines) == {"A", "B", "C"}
    diagonal = np.hypot(10 * 3.2, 4 * 3.2)
    assert lines["A"][0] == pytest.approx(diagonal, abs=0.02)
    assert lines["C"][0] == pytest.approx(15.0, abs=0.02)
    centers = {name: ends.mean(axis=0) for name, (_length, ends) in lines.items()}
    center = (heads.affine() @ [24.5, 31.5, 9, 1])[:3]
    assert np.allclose(centers["A"], center, atol=0.02)
    assert centers["C"][2] == pytest.approx(center[2], abs=0.02)
    assert np.ptp(lines["C"][1][:, :2], axis=0).max() < 0.02
    product = lines["A"][0] * lines["B"][0] * lines["C"][0] / 2000
    assert product == pytest.approx(analysis.volumes_ml["abc2"], rel=2e-3)
    write_lines(analysis, node)
    assert len(lines_by_name(slicer)) == 3


def test_height_of_a_tilted_stack_runs_along_its_normal(slicer):
    from ICHAnalysisLib.ct.volume import CTVolume
    from ICHAnalysisPanel.abc_lines import KEY, with_height_lines

    depth = heads.SHAPE[0]
    angle = np.radians(20)
    origins = np.outer(np.arange(depth), [0, 0, 5.0])
    row = 3.2 * np.array([0, -np.cos(angle), np.sin(angle)])
    volume = CTVolume(
        heads.head_array().astype(np.float32), np.array([-3.2, 0, 0]), row, origins, np.full(depth, 5.0), (), {}
    )
    labels = np.zeros(heads.SHAPE, np.uint8)
    labels[8:12, 30:34, 20:30] = 1
    labels[20, 50:52, 20:22] = 1
    first, second = with_height_lines(box_analysis(volume, labels), labels, volume).abc2_lines
    ends = np.array(first[KEY])
    along = ends[1] - ends[0]
    assert np.linalg.norm(along) == pytest.approx(4 * 5 * np.cos(angle), abs=0.02)
    assert abs(along @ volume.normal_ras) == pytest.approx(np.linalg.norm(along), abs=0.02)
    assert np.linalg.norm(np.subtract(*second[KEY])) == pytest.approx(5 * np.cos(angle), abs=0.02)


def test_lines_come_follow_the_edit_and_go(slicer, widget, waiter, analyze):
    import vtk

    from ICHAnalysisPanel.abc_nodes import FOLDER_NAME, find_lines
    from ICHAnalysisPanel.segments import ICH, read_labels

    analyze(heads.add_head(slicer))
    parameters = widget.panel.parameters
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    folders = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in find_lines()}
    assert [hierarchy.GetItemName(folder) for folder in folders] == [FOLDER_NAME]
    before = lines_by_name(slicer)
    assert set(before) == {"A", "B", "C"}
    mask = read_labels(parameters.outputSegmentation, parameters.inputVolume).whole() == 1
    mask[: mask.shape[0] // 2] = False
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), parameters.outputSegmentation, ICH.segment_id, parameters.inputVolume
    )
    waiter.until(lambda: widget.panel.results.analysis.mode == "edited")
    after = lines_by_name(slicer)
    slices = np.count_nonzero(mask.any(axis=(1, 2)))
    assert after["C"][0] == pytest.approx(slices * FULL[2], abs=0.02)
    assert after["C"][0] < before["C"][0]
    widget.ui.linesBox.checked = False
    assert find_lines() == []
    widget.ui.linesBox.checked = True
    assert lines_by_name(slicer)["C"][0] == after["C"][0]
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), children, True)
    names = [hierarchy.GetItemName(children.GetId(n)) for n in range(children.GetNumberOfIds())]
    assert names.count(FOLDER_NAME) == 1
