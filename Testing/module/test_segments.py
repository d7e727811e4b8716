"""Results as nodes: coded segments that leave others alone, volumes, tables, plots, prompts and undo."""

from __future__ import annotations

import heads
import numpy as np
import pytest


def labels_of(center=(14, 40, 34)):
    array = heads.head_array(center=center)
    return ((array > 55) & (array < 90)).astype(np.uint8)


@pytest.fixture
def written(slicer):
    from ICHAnalysisPanel import segments
    from ICHAnalysisPanel.session import LabelBox

    node = heads.add_head(slicer)
    segmentation = segments.new_segmentation(node)
    segments.write_labels(segmentation, node, LabelBox.of(labels_of()))
    return node, segmentation


def test_labels_go_in_and_come_out(written):
    from ICHAnalysisPanel import segments

    node, segmentation = written
    assert np.array_equal(segments.read_labels(segmentation, node).whole(), labels_of())


def test_terminology_reference_geometry_and_color(slicer, written):
    node, segmentation = written
    segment = segmentation.GetSegmentation().GetSegment("ICHAnalysis_ICH")
    entry = segment.GetTerminology() if hasattr(segment, "GetTerminology") else None
    import vtk

    tag = vtk.mutable("")
    assert entry is not None or segment.GetTag(segment.GetTerminologyEntryTagName(), tag)
    text = entry or str(tag)
    assert "SCT^49755003" in text and "SCT^50960005" in text and "SCT^12738006" in text
    assert text.count("~") == 6
    assert np.allclose(segment.GetColor(), (188 / 255, 65 / 255, 28 / 255))
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReference(role) is node


def test_labelmap_volume_equals_the_voxel_count(written):
    from ICHAnalysisPanel import segments

    _node, segmentation = written
    expected = labels_of().sum() * 3.2 * 3.2 * 5.0 / 1000
    assert abs(segments.labelmap_volume_ml(segmentation, segments.ICH.segment_id) - expected) < 1e-6
    surface = segments.surface_volume_ml(segmentation, segments.ICH.segment_id)
    assert 0.8 * expected < surface < expected
    assert segments.labelmap_volume_ml(segmentation, segments.IVH.segment_id) == 0.0


def segment_statistics(slicer, segmentation, segment_id):
    """(labelmap cm3, closed surface cm3 or None) by the filters that Slicer's Segment Statistics is made of.

    Its labelmap plugin thresholds the segment's image, counts with vtkImageAccumulate under a stencil, and multiplies
    by the image's spacing; its closed surface plugin gives the surface as it is to vtkMassProperties.
    """
    import vtk

    image = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(segment_id, image)
    threshold = vtk.vtkImageThreshold()
    threshold.SetInputData(image)
    threshold.ThresholdByLower(0)
    threshold.SetInValue(0)
    threshold.SetOutValue(1)
    threshold.SetOutputScalarType(vtk.VTK_UNSIGNED_CHAR)
    threshold.Update()
    stencil = vtk.vtkImageToImageStencil()
    stencil.SetInputData(threshold.GetOutput())
    stencil.ThresholdByUpper(1)
    stencil.Update()
    counter = vtk.vtkImageAccumulate()
    counter.SetInputData(threshold.GetOutput())
    counter.SetStencilData(stencil.GetOutput())
    counter.Update()
    labelmap = counter.GetVoxelCount() * float(np.prod(image.GetSpacing())) / 1000
    surface = vtk.vtkPolyData()
    segmentation.GetClosedSurfaceRepresentation(segment_id, surface)
    if surface.GetNumberOfCells() == 0:
        return labelmap, None
    mass = vtk.vtkMassProperties()
    mass.SetInputData(surface)
    return labelmap, mass.GetVolume() / 1000


@pytest.mark.parametrize("spacing", [(3.2, 3.2, 5.0), (0.45, 0.47, 1.25), (0.9, 0.9, 2.5)])
def test_volumes_equal_those_of_segment_statistics(slicer, spacing):
    """On regular grids, upright and oblique, by Slicer's own filters; beside a segment of others in one label map."""
    from ICHAnalysisPanel import segments
    from ICHAnalysisPanel.session import LabelBox

    matrix = heads.affine(spacing)
    cosine, sine = np.cos(0.3), np.sin(0.3)
    matrix[:3] = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ matrix[:3]
    node = slicer.util.addVolumeFromArray(heads.head_array(), ijkToRAS=matrix, name="Oblique")
    segmentation = segments.new_segmentation(node)
    segments.write_labels(segmentation, node, LabelBox.of(labels_of()))
    own = np.zeros(heads.SHAPE, np.uint8)
    own[2:6, 10:20, 10:20] = 1
    segmentation.GetSegmentation().AddEmptySegment("user", "User's", [0, 1, 0])
    slicer.util.updateSegmentBinaryLabelmapFromArray(own, segmentation, "user", node)
    segmentation.GetSegmentation().CollapseBinaryLabelmaps()
    for segment_id, count in ((segments.ICH.segment_id, labels_of().sum()), ("user", own.sum())):
        surface_ml = segments.surface_volume_ml(segmentation, segment_id)
        labelmap, surface = segment_statistics(slicer, segmentation, segment_id)
        assert labelmap == pytest.approx(count * np.prod(spacing) / 1000, rel=1e-9)
        assert segments.labelmap_volume_ml(segmentation, segment_id) == pytest.approx(labelmap, rel=1e-12)
        assert surface_ml == pytest.approx(surface, rel=1e-6)


def test_same_volumes_as_slicers_own_module(slicer, written):
    """Slicer's own module, where its source lies in SLICER_SEGMENT_STATISTICS."""
    import os
    import sys

    folder = os.environ.get("SLICER_SEGMENT_STATISTICS", "")
    if not folder:
        pytest.skip("SLICER_SEGMENT_STATISTICS does not name Slicer's Modules/Scripted/SegmentStatistics")
    from ICHAnalysisPanel import segments

    sys.path.insert(0, folder)
    import slicer_core.vtkITK as vtk_itk

    sys.modules.setdefault("vtkITK", vtk_itk)
    from SegmentStatistics import SegmentStatisticsLogic

    node, segmentation = written
    segment_id = segments.ICH.segment_id
    ours = segments.labelmap_volume_ml(segmentation, segment_id), segments.surface_volume_ml(segmentation, segment_id)
    logic = SegmentStatisticsLogic()
    logic.getParameterNode().SetParameter("Segmentation", segmentation.GetID())
    logic.getParameterNode().SetParameter("ScalarVolume", node.GetID())
    logic.computeStatistics()
    statistics = logic.getStatistics()
    theirs = [
        statistics[(segment_id, f"{plugin}SegmentStatisticsPlugin.volume_cm3")]
        for plugin in ("Labelmap", "ClosedSurface")
    ]
    assert theirs == pytest.approx(ours, abs=1e-6)
    assert theirs == pytest.approx(segment_statistics(slicer, segmentation, segment_id), abs=1e-9)


def test_other_segments_are_never_changed(slicer, written):
    """A segment of the user's, overlapping ours in the same segmentation, keeps every voxel through all writes."""
    from ICHAnalysisPanel import segments
    from ICHAnalysisPanel.session import LabelBox

    node, segmentation = written
    own = np.zeros(heads.SHAPE, np.uint8)
    own[10:20, 30:50, 25:45] = 1
    segmentation.GetSegmentation().AddEmptySegment("user", "User's", [0, 1, 0])
    slicer.util.updateSegmentBinaryLabelmapFromArray(own, segmentation, "user", node)
    taken = segments.take(segmentation)
    segments.write_labels(segmentation, node, LabelBox.of(labels_of((12, 38, 30)) * 2))
    segments.write_slice(segmentation, node, np.ones(heads.SHAPE[1:], np.uint8), 14)
    segments.put_back(segmentation, taken)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "user", node), own)
    assert np.array_equal(segments.read_labels(segmentation, node).whole(), labels_of())


def test_preview_changes_one_slice_alone(written):
    from ICHAnalysisPanel import segments

    node, segmentation = written
    plane = np.zeros(heads.SHAPE[1:], np.uint8)
    plane[30:34, 20:26] = 1
    segments.write_slice(segmentation, node, plane, 14)
    found = segments.read_labels(segmentation, node).whole()
    expected = labels_of()
    expected[14] = plane
    assert np.array_equal(found, expected)


def test_results_stand_in_the_study_of_the_volume(slicer):
    from ICHAnalysisPanel import segments
    from ICHAnalysisPanel.session import LabelBox

    node = heads.add_head(slicer)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.CreateItem(study, node)
    segmentation = segments.new_segmentation(node)
    segments.write_labels(segmentation, node, LabelBox.of(labels_of()))
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation)) == study


def test_seg_nrrd_is_read_by_others(written, tmp_path):
    """Written by Slicer's storage node, read by SimpleITK: voxels, place, names and codes."""
    import SimpleITK

    _node, segmentation = written
    segmentation.AddDefaultStorageNode()
    storage = segmentation.GetStorageNode()
    storage.SetFileName(str(tmp_path / "out.seg.nrrd"))
    storage.SetCropToMinimumExtent(False)
    assert storage.WriteData(segmentation)
    image = SimpleITK.ReadImage(str(tmp_path / "out.seg.nrrd"))
    facts = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    number = next(key.split("_")[0] for key, value in facts.items() if value == "Intracerebral hemorrhage")
    inside = SimpleITK.GetArrayFromImage(image) == int(facts[f"{number}_LabelValue"])
    assert inside.sum() == labels_of().sum()
    assert "SCT^50960005^Hemorrhage" in facts[f"{number}_Tags"]
    found = np.argwhere(inside)[0][::-1].tolist()
    expected = (heads.affine() @ [*np.argwhere(labels_of())[0][::-1], 1])[:3]
    place = image.TransformIndexToPhysicalPoint(found)
    assert np.allclose(place, expected * [-1, -1, 1], atol=1e-3)  # ITK counts to the left and to the back


def test_boxes_and_points_become_prompts(slicer, written):
    import vtk

    from ICHAnalysisLib.errors import UsageError
    from ICHAnalysisPanel import prompt_nodes
    from ICHAnalysisPanel.volume_nodes import read_node

    node, segmentation = written
    first = prompt_nodes.add_box("A", (0, 0, 0), (20, 30, 40))
    from_segment = prompt_nodes.box_from_segment(segmentation, "ICHAnalysis_ICH", margin_mm=0.0)
    positive, negative = prompt_nodes.add_points("+", True), prompt_nodes.add_points("-", False)
    positive.AddControlPointWorld(vtk.vtkVector3d(1, 2, 3))
    negative.AddControlPointWorld(vtk.vtkVector3d(4, 5, 6))
    prompts = prompt_nodes.read_prompts([first, from_segment], [positive], [negative])
    assert prompts.boxes[0].ras_min == (-10, -15, -20)
    k, j, i = (axis.max() - axis.min() + 1 for axis in np.nonzero(labels_of()))
    size = np.array(prompts.boxes[1].ras_max) - prompts.boxes[1].ras_min
    assert np.allclose(size, [i * 3.2, j * 3.2, k * 5.0], atol=1e-3)
    assert [(point.ras, point.positive) for point in prompts.points] == [((1, 2, 3), True), ((4, 5, 6), False)]
    prompt_nodes.check_inside(prompts, read_node(node).geometry)
    positive.AddControlPointWorld(vtk.vtkVector3d(900, 0, 0))
    outside = prompt_nodes.read_prompts([], [positive])
    with pytest.raises(UsageError, match="Positive point 2"):
        prompt_nodes.check_inside(outside, read_node(node).geometry)


def test_prompts_follow_their_transform_and_come_back(slicer):
    import vtk

    from ICHAnalysisPanel import prompt_nodes

    points = prompt_nodes.add_points("+", True)
    points.AddControlPoint(vtk.vtkVector3d(1, 2, 3))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = [10, 20, 30]
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    points.SetAndObserveTransformNodeID(transform.GetID())
    roi = prompt_nodes.add_box("A", (0, 0, 0), (20, 30, 40))
    assert prompt_nodes.placed_points(points) == [(11, 22, 33)]
    taken = prompt_nodes.snapshot([roi], [points])
    points.AddControlPoint(vtk.vtkVector3d(7, 7, 7))
    roi.SetCenter(50, 0, 0)
    prompt_nodes.restore(taken)
    assert prompt_nodes.placed_points(points) == [(11, 22, 33)]
    assert prompt_nodes.snapshot([roi], [])["boxes"][roi.GetID()][0] == (0, 0, 0)


def test_bland_altman_nodes(slicer):
    from ICHAnalysisPanel.agreement_nodes import write_bland_altman

    model, reference = np.array([10.0, 22.0, 31.0, 40.0]), np.array([11.0, 20.0, 30.0, 44.0])
    table, chart = write_bland_altman(["a", "b", "c", "d"], model, reference, "Agreement")
    assert table.GetNumberOfRows() == 4
    assert np.allclose(slicer.util.arrayFromTableColumn(table, "Bias"), -0.5)
    assert chart.GetNumberOfPlotSeriesNodes() == 4


def test_layout_describes_every_view(slicer):
    from ICHAnalysisPanel import layout

    layout.show(None, None)
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    assert node.GetViewArrangement() == layout.LAYOUT
    for name in ("Red", "Yellow", "Green", "TableView1", "PlotView1"):
        assert f'singletontag="{name}"' in layout.description()
