"""Volume nodes as scans: transforms, tilted DICOM series, and results back on the node's voxels."""

from __future__ import annotations

import heads
import numpy as np
import pytest
import vtk
from acquisitions import add_head_stack, add_series, add_tilted


def linear_transform(slicer, matrix):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def bend(slicer, node):
    """Make the grid transform above a node bend its slices, smoothly."""
    transform = node.GetParentTransformNode()
    displacements = slicer.util.arrayFromGridTransform(transform)
    depth = len(displacements)
    displacements[:, 1, 1, 2] += 12.0 * np.sin(np.linspace(0, np.pi, depth))
    slicer.util.arrayFromGridTransformModified(transform)


def test_plain_node_keeps_its_matrix(slicer):
    from ICHAnalysisPanel.volume_nodes import read_node

    source = read_node(heads.add_head(slicer))
    assert np.allclose(source.geometry.ijk_to_ras, heads.affine())
    assert source.notes == ()


def test_linear_transform_is_taken_into_account(slicer):
    from ICHAnalysisPanel.volume_nodes import read_node

    node = heads.add_head(slicer)
    moved = np.eye(4)
    moved[:3, :3] = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
    moved[:3, 3] = [5, -7, 11]
    node.SetAndObserveTransformNodeID(linear_transform(slicer, moved).GetID())
    source = read_node(node)
    assert np.allclose(source.geometry.ijk_to_ras, moved @ heads.affine(), atol=1e-6)
    assert [note.code for note in source.notes] == ["transform_applied"]


def test_tilt_in_a_grid_transform_is_seen_and_measured_true(slicer):
    """The node's own grid counts 5 mm a slice along its normal; truly the slices lie 5 cos(20) mm apart."""
    from ICHAnalysisPanel.scan_source import load_volume
    from ICHAnalysisPanel.volume_nodes import read_node

    node, origins, column, row = add_tilted(slicer)
    source = read_node(node)
    assert np.allclose(source.origins, origins, atol=1e-3)
    assert np.allclose(source.column_step, column, atol=1e-4)
    assert np.allclose(source.row_step, row, atol=1e-4)
    volume = load_volume(source)
    assert abs(volume.tilt_degrees - 20.0) < 0.01
    assert "gantry_tilt" in [finding.code for finding in volume.findings]
    assert abs(volume.slice_heights_mm[5] - 5.0 * np.cos(np.radians(20))) < 1e-3


def test_slicers_labelmap_volume_is_too_large_on_a_tilted_grid(slicer):
    from ICHAnalysisPanel import segments
    from ICHAnalysisPanel.scan_source import load_volume
    from ICHAnalysisPanel.session import LabelBox
    from ICHAnalysisPanel.volume_nodes import read_node

    node, *_rest = add_tilted(slicer)
    labels = ((heads.head_array() > 55) & (heads.head_array() < 90)).astype(np.uint8)
    segmentation = segments.new_segmentation(node)
    segments.write_labels(segmentation, node, LabelBox.of(labels))
    true_ml = load_volume(read_node(node)).mask_volume_ml(labels == 1)
    slicer_ml = segments.labelmap_volume_ml(segmentation, segments.ICH.segment_id)
    assert abs(slicer_ml / true_ml - 1 / np.cos(np.radians(20))) < 1e-3
    assert segmentation.GetTransformNodeID() == node.GetTransformNodeID()


def test_uneven_stack_without_its_files_keeps_its_true_slices(slicer):
    """The files are gone from the database: the transform that Slicer put above the node knows the slices still."""
    from ICHAnalysisPanel.scan_source import load_volume
    from ICHAnalysisPanel.volume_nodes import UIDS_ATTRIBUTE, read_node

    steps = np.where(np.arange(heads.SHAPE[0] - 1) < 12, 2.5, 5.0)
    positions = np.concatenate([[0.0], np.cumsum(steps)])
    origins = np.array([90.0, 110.0, -60.0]) + np.outer(positions, [0, 0, 1.0])
    node, _column, _row = add_head_stack(slicer, origins, name="Uneven")
    node.SetAttribute(UIDS_ATTRIBUTE, " ".join(f"1.2.{k}" for k in range(heads.SHAPE[0])))
    source = read_node(node, lambda _uid: None)
    assert np.allclose(source.origins, origins, atol=1e-3)
    assert [note.code for note in source.notes] == ["dicom_files_missing", "transform_applied"]
    assert "the transform that Slicer put above it" in source.notes[0].message
    volume = load_volume(source)
    assert np.allclose(np.abs(volume.steps_mm), steps, atol=1e-3)


def test_bent_slices_are_hardened_on_a_copy(slicer):
    """Blood stands in the copy where the transform put it in the world, and the node itself stays as it is."""
    from ICHAnalysisPanel.scan_source import load_volume
    from ICHAnalysisPanel.volume_nodes import BentSlicesError, read_node, straight

    node, *_rest = add_tilted(slicer)
    assert straight(node) is node
    bend(slicer, node)
    with pytest.raises(BentSlicesError, match="Harden the transform on a copy"):
        read_node(node)
    transform_id = node.GetTransformNodeID()
    copy = straight(node)
    assert copy is not node and copy.GetTransformNodeID() is None
    assert node.GetTransformNodeID() == transform_id
    assert np.array_equal(slicer.util.arrayFromVolume(node), heads.head_array())
    volume = load_volume(read_node(copy))
    assert "transform_hardened" in [finding.code for finding in volume.findings]
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    checked = 0
    for k, j, i in ((14, 40, 34), (13, 38, 33), (15, 42, 35), (14, 43, 32), (6, 36, 30)):
        place, world = matrix.MultiplyPoint((i, j, k, 1))[:3], [0.0, 0.0, 0.0]
        node.TransformPointToWorld(place, world)
        found = np.rint(volume.ras_to_ijk_points(np.array(world))[0]).astype(int)
        assert volume.hu[found[2], found[1], found[0]] == pytest.approx(heads.head_array()[k, j, i], abs=9)
        checked += 1
    assert checked == 5


def test_hardened_tilted_grid_measures_the_true_volume(slicer):
    """Resampling puts the voxels in their true places: on the copy, voxels times spacing need no cosine."""
    from ICHAnalysisPanel.scan_source import load_volume
    from ICHAnalysisPanel.volume_nodes import hardened_copy, read_node

    node, *_rest = add_tilted(slicer)
    inside = (heads.head_array() > 55) & (heads.head_array() < 90)
    true_ml = load_volume(read_node(node)).mask_volume_ml(inside)
    node_ml = inside.sum() * np.prod(node.GetSpacing()) / 1000
    slicer.util.updateVolumeFromArray(node, (inside * 1000).astype(np.int16))
    copy = hardened_copy(node)
    copy_ml = slicer.util.arrayFromVolume(copy).sum() / 1000 * np.prod(copy.GetSpacing()) / 1000
    assert node_ml / true_ml == pytest.approx(1 / np.cos(np.radians(20)), abs=1e-3)
    assert copy_ml / true_ml == pytest.approx(1.0, abs=0.01)


def test_hardened_copy_leaves_the_node_alone(slicer):
    from ICHAnalysisPanel.volume_nodes import hardened_copy, read_node

    node = heads.add_head(slicer)
    moved = np.eye(4)
    moved[:3, 3] = [5, -7, 11]
    transform = linear_transform(slicer, moved)
    node.SetAndObserveTransformNodeID(transform.GetID())
    copy = hardened_copy(node)
    assert copy.GetParentTransformNode() is None
    assert node.GetTransformNodeID() == transform.GetID()
    assert np.allclose(read_node(copy).geometry.ijk_to_ras, read_node(node).geometry.ijk_to_ras)


def test_real_series_is_reread_from_its_files(slicer, shared_data):
    """head_ct_ge, tilted and uneven, as Slicer's DICOM plugin leaves it; the look-up of the database injected."""
    from ICHAnalysisPanel.scan_source import load_volume, on_node
    from ICHAnalysisPanel.volume_nodes import read_node

    node, expected, files = add_series(slicer, shared_data / "head_ct_ge")
    source = read_node(node, files.get)
    assert source.files == tuple(files[instance.sop_instance_uid] for instance in expected.instances)
    volume = load_volume(source)
    assert np.allclose(volume.slice_origins_ras, expected.slice_origins_ras)
    codes = [finding.code for finding in volume.findings]
    assert set(codes) == {"padding", "gantry_tilt", "uneven_spacing", "calcification", "dicom_reread"}
    labels = np.zeros(volume.shape, np.uint8)
    labels[3] = 1
    assert on_node(labels, volume, source)[3].all()


def test_real_series_through_the_panel(slicer, widget, analyze, shared_data):
    """What was found stands on the panel; Slicer's labelmap is off on this grid, and the table says why."""
    node, _read, files = add_series(slicer, shared_data / "head_ct_ge")
    widget.panel.scan.look_up = files.get
    analyze(node)
    text = widget.ui.findingsLabel.text
    for part in ("tilted by 18.5 degrees", "13 x 4.00, 1 x 1.08, 13 x 7.00 mm", "2 calcifications", "28 DICOM files"):
        assert part in text
    parameters = widget.panel.parameters
    assert parameters.outputSegmentation.GetTransformNodeID() == node.GetTransformNodeID()
    table = parameters.resultTable
    rows = {table.GetCellText(row, 0): row for row in range(table.GetNumberOfRows())}
    true_ml, slicer_ml = (
        table.GetTable().GetValueByName(rows[name], "mL").ToDouble() for name in ("Segmentation", "Slicer labelmap")
    )
    assert true_ml > 0 and abs(slicer_ml / true_ml - 1) > 0.01
    assert "tilt and uneven slices" in table.GetTable().GetValueByName(rows["Slicer labelmap"], "How").ToString()


def test_missing_files_are_said(slicer):
    from ICHAnalysisPanel.volume_nodes import UIDS_ATTRIBUTE, read_node

    node = heads.add_head(slicer)
    node.SetAttribute(UIDS_ATTRIBUTE, " ".join(f"1.2.{k}" for k in range(heads.SHAPE[0])))
    source = read_node(node, lambda _uid: None)
    assert source.files == ()
    assert [note.code for note in source.notes] == ["dicom_files_missing"]


def test_tilt_is_told_as_soon_as_the_volume_is_chosen(slicer, widget):
    node, *_rest = add_tilted(slicer)
    widget.panel.parameters.inputVolume = node
    assert "tilted by 20.0 degrees" in widget.ui.findingsLabel.text
    assert widget.ui.applyButton.enabled


def test_bent_volume_is_analyzed_on_a_copy_by_the_panel(slicer, widget, analyze):
    node, *_rest = add_tilted(slicer)
    bend(slicer, node)
    widget.panel.parameters.inputVolume = node
    assert "Apply hardens it on a copy" in widget.ui.findingsLabel.text
    analyze(node)
    parameters = widget.panel.parameters
    assert parameters.inputVolume.GetName() == "Tilted hardened"
    assert "interpolated" in widget.ui.findingsLabel.text
    assert parameters.outputSegmentation.GetTransformNodeID() is None
    assert widget.panel.results.analysis.volumes_ml["segmentation"] > 1


def test_voxel_findings_come_without_apply(slicer, widget, waiter):
    """Judged by the worker while the panel waits; Apply then needs no second reading."""
    from ICHAnalysisPanel.run import State

    widget.panel.parameters.inputVolume = heads.add_head(slicer)
    assert "Checking the voxels" in widget.ui.findingsLabel.text
    waiter.until(lambda: "Checking the voxels" not in widget.ui.findingsLabel.text)
    assert widget.panel.run.state is State.IDLE
    assert not widget.panel.run._timer.active
    assert widget.ui.applyButton.enabled
    opened = widget.panel.run._opened
    widget.ui.applyButton.click()
    assert widget.panel.run._opened == opened
    waiter.until(lambda: widget.panel.run.state is State.IDLE and not widget.panel._steps)
    assert widget.panel.results.analysis is not None


def test_blocked_scan_is_said_before_apply(slicer, widget, waiter):
    air = slicer.util.addVolumeFromArray(np.full((12, 40, 40), -1000, np.int16), ijkToRAS=heads.affine(), name="Air")
    widget.panel.parameters.inputVolume = air
    waiter.until(lambda: "Blocked" in widget.ui.findingsLabel.text)
    assert not widget.ui.applyButton.enabled
    assert widget.ui.applyButton.toolTip
    widget.panel.parameters.inputVolume = heads.add_head(slicer)
    assert widget.ui.applyButton.enabled


def test_what_was_accepted_for_one_scan_does_not_count_for_another(slicer, widget):
    from ICHAnalysisLib.findings import Finding, Level

    panel = widget.panel
    panel.parameters.inputVolume = heads.add_head(slicer, "First")
    panel._on_findings((Finding("side", Level.ASK, "Left or right is not known.", "Look at the markers."),))
    assert not widget.ui.applyButton.enabled
    assert "Read the questions" in widget.ui.applyButton.toolTip
    assert widget.ui.acceptBox.visible or not widget.parent.visible
    widget.ui.acceptBox.checked = True
    assert widget.ui.applyButton.enabled and panel.options().accept
    panel.parameters.inputVolume = heads.add_head(slicer, "Second")
    assert not panel.options().accept
    assert not widget.ui.acceptBox.checked
