"""The panel from loading to results and back, with a real worker process, against Slicer's libraries."""

from __future__ import annotations

import heads
import numpy as np
from waiting import wait_done

from Testing.bed import boot


def mask_of(widget):
    from ICHAnalysisPanel.segments import read_labels

    parameters = widget.panel.parameters
    return read_labels(parameters.outputSegmentation, parameters.inputVolume).whole()


def test_empty_panel_says_what_to_do(slicer, widget):
    assert not widget.ui.applyButton.enabled
    assert "Choose a head CT" in widget.ui.applyButton.toolTip
    assert not widget.ui.undoButton.enabled
    assert not widget.ui.progressBar.visible


def test_from_loading_to_results(slicer, widget, analyze):
    node = heads.add_head(slicer)
    analyze(node)
    parameters = widget.panel.parameters
    truth = (heads.head_array() > 55) & (heads.head_array() < 90)
    found = mask_of(widget) == 1
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.97
    assert "Hemorrhage" in widget.ui.resultLabel.text
    names = [parameters.resultTable.GetCellText(row, 0) for row in range(parameters.resultTable.GetNumberOfRows())]
    assert names[:3] == ["Segmentation", "Slicer labelmap", "Slicer closed surface"]
    assert "Volume net" in names and "ABC/2" in names
    volume_ml = parameters.resultTable.GetTable().GetValueByName(0, "mL").ToDouble()
    assert abs(volume_ml - found.sum() * 3.2 * 3.2 * 5.0 / 1000) < 0.001
    assert parameters.heatmap.GetImageData().GetScalarRange()[1] == 100
    assert parameters.lesionLabels.GetNumberOfControlPoints() == 1
    assert parameters.chart.GetNumberOfPlotSeriesNodes() == 2
    assert widget.ui.resultTable.rowCount == len(names)


def test_cancel_leaves_no_result_and_apply_works_again(slicer, widget, waiter, analyze):
    node = heads.add_head(slicer)
    widget.panel.run.environment["ICH_TEST_SLOW"] = "30"
    widget.ui.inputSelector.setCurrentNode(node)
    widget.ui.applyButton.click()
    assert widget.ui.applyButton.text == "Cancel"
    waiter.until(lambda: "Stage" in widget.ui.stageLabel.text)
    worker = widget.panel.run._worker
    widget.ui.applyButton.click()
    assert widget.ui.applyButton.text == "Apply"
    assert not worker.is_alive
    assert not worker.folder.exists()
    assert widget.panel.parameters.outputSegmentation is None
    widget.panel.run.environment["ICH_TEST_SLOW"] = "0"
    analyze(node)
    assert widget.panel.parameters.outputSegmentation is not None


def test_wrong_inputs_are_refused_in_words(slicer, widget):
    label_map = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    widget.panel.parameters.inputVolume = label_map
    assert not widget.ui.applyButton.enabled
    assert "holds no voxels" in widget.ui.applyButton.toolTip
    widget.panel.parameters.inputVolume = heads.add_head(slicer)
    widget.ui.gcsBox.value = 2
    from ICHAnalysisPanel.prompt_nodes import add_box

    outside = add_box("Far box", (500, 0, 0), (10, 10, 10))
    widget.panel.prompts.use(outside)
    widget.panel.update()
    assert "Far box lies outside the scan" in widget.ui.applyButton.toolTip


def test_blocked_scan_says_why_and_how_to_go_on(slicer, widget, waiter):
    air = slicer.util.addVolumeFromArray(np.full((12, 40, 40), -1000, np.int16), ijkToRAS=heads.affine(), name="Air")
    widget.ui.inputSelector.setCurrentNode(air)
    widget.ui.applyButton.click()
    wait_done(widget, waiter)
    assert "color:#b3261e" in widget.ui.stageLabel.text
    assert "Blocked" in widget.ui.findingsLabel.text
    assert not widget.ui.applyButton.enabled
    assert widget.ui.applyButton.toolTip in widget.ui.findingsLabel.text
    assert widget.panel.parameters.outputSegmentation is None


def test_deleted_volume_stops_the_run(slicer, widget, waiter):
    node = heads.add_head(slicer)
    widget.panel.run.environment["ICH_TEST_SLOW"] = "30"
    widget.ui.inputSelector.setCurrentNode(node)
    widget.ui.applyButton.click()
    waiter.until(lambda: "Stage" in widget.ui.stageLabel.text)
    slicer.mrmlScene.RemoveNode(node)
    waiter.until(lambda: widget.ui.applyButton.text == "Apply")
    assert "Choose a head CT" in widget.ui.applyButton.toolTip


def test_scene_close_and_reload_bring_everything_back(slicer, widget, analyze, tmp_path):
    import vtk

    from ICHAnalysisPanel import layout
    from ICHAnalysisPanel.abc_nodes import find_lines

    node = heads.add_head(slicer)
    widget.ui.ageBox.value = 71
    analyze(node)
    before = mask_of(widget)
    widget.panel.parameters.maskThreshold = 0.65
    widget.panel.results.show_layout()
    rows = widget.panel.parameters.resultTable.GetNumberOfRows()
    boot.save_scene(tmp_path / "scene.mrb")
    slicer.mrmlScene.Clear(0)
    assert widget.panel.parameters.inputVolume is None
    assert widget.ui.resultLabel.text == "No analysis yet."
    assert widget.ui.ageBox.value == -1
    boot.load_scene(tmp_path / "scene.mrb")
    widget.initializeParameterNode()
    parameters = widget.panel.parameters
    assert parameters.inputVolume.GetName() == "Head CT"
    assert parameters.maskThreshold == 0.65
    assert np.array_equal(mask_of(widget), before)
    assert "Hemorrhage" in widget.ui.resultLabel.text
    assert widget.panel.results.is_of(parameters.inputVolume)
    assert "71" not in parameters.parameterNode.GetParameter("clinicalRecord")
    assert parameters.resultTable.GetNumberOfRows() == rows == widget.ui.resultTable.rowCount
    series = [parameters.chart.GetNthPlotSeriesNode(n) for n in range(2)]
    assert all(one.GetTableNode() is parameters.sliceTable for one in series)
    assert parameters.heatmap.GetDisplayNode().GetColorNode().GetName() == "ICHAnalysis attention"
    assert parameters.heatmap.GetDisplayNode().GetLowerThreshold() == 40
    assert parameters.heatmap.GetImageData().GetScalarRange()[1] == 100
    assert parameters.lesionLabels.GetNthControlPointLabel(0).endswith(" mL")
    assert {line.GetName() for line in find_lines()} == {"A", "B", "C"}
    segment = parameters.outputSegmentation.GetSegmentation().GetSegment("ICHAnalysis_ICH")
    tag = vtk.mutable("")
    assert segment.GetTag(segment.GetTerminologyEntryTagName(), tag) and "SCT^50960005" in str(tag)
    layout_node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    assert layout_node.GetViewArrangement() == layout.LAYOUT
    assert layout_node.IsLayoutDescription(layout.LAYOUT)


def test_changed_prompts_update_the_outline_and_undo_brings_it_back(slicer, widget, waiter, analyze):
    from ICHAnalysisPanel.prompt_nodes import add_box
    from ICHAnalysisPanel.segments import ICH

    analyze(heads.add_head(slicer))
    automatic = mask_of(widget)
    lesion = widget.panel.results.analysis.lesions[0]
    box = np.array(lesion.box_ras_mm)
    low, high = box[:3], box[3:]
    half = add_box("Half", (low + high) / 2 - [(high[0] - low[0]) / 2, 0, 0], high - low + 1)
    widget.panel.prompts.use(half)
    waiter.until(lambda: widget.panel._change_timer.active is False)
    wait_done(widget, waiter)
    prompted = mask_of(widget)
    assert widget.panel.results.analysis.mode == "prompted"
    assert 0 < prompted.sum() < automatic.sum()
    assert widget.ui.undoButton.enabled
    widget.ui.undoButton.click()
    assert np.array_equal(mask_of(widget), automatic)
    assert widget.panel.results.analysis.mode == "automatic"
    assert half.GetAttribute("ICHAnalysis.box") == "0" and widget.panel.prompts.boxes() == []
    by_slice = slicer.util.arrayFromTableColumn(widget.panel.parameters.sliceTable, "Outline (mL)")
    assert np.allclose(by_slice, (automatic == 1).sum(axis=(1, 2)) * 0.0512, atol=1e-3)
    assert widget.panel.parameters.outputSegmentation.GetSegmentation().GetSegment(ICH.segment_id) is not None


def test_undo_of_the_first_run_leaves_nothing_of_it(slicer, widget, analyze):
    from ICHAnalysisPanel.abc_nodes import find_lines

    analyze(heads.add_head(slicer))
    parameters = widget.panel.parameters
    widget.ui.undoButton.click()
    assert widget.ui.resultLabel.text == "No analysis yet."
    assert not mask_of(widget).any()
    assert parameters.heatmap is None and find_lines() == []
    assert parameters.lesionLabels.GetNumberOfControlPoints() == 0
    assert [table.GetNumberOfRows() for table in (parameters.resultTable, parameters.sliceTable)] == [0, 0]
    assert not widget.ui.undoButton.enabled
    analyze(parameters.inputVolume)
    assert mask_of(widget).any() and parameters.heatmap is not None


def test_edited_outline_is_followed(slicer, widget, waiter, analyze):
    from ICHAnalysisPanel.segments import ICH

    analyze(heads.add_head(slicer))
    parameters = widget.panel.parameters
    before = widget.panel.results.analysis.volumes_ml["segmentation"]
    mask = mask_of(widget) == 1
    mask[: mask.shape[0] // 2] = False
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), parameters.outputSegmentation, ICH.segment_id, parameters.inputVolume
    )
    waiter.until(lambda: widget.panel.results.analysis.mode == "edited")
    analysis = widget.panel.results.analysis
    assert abs(analysis.volumes_ml["segmentation"] - mask.sum() * 0.0512) < 0.001
    assert analysis.volumes_ml["segmentation"] < before
    assert parameters.resultTable.GetTable().GetValueByName(0, "mL").ToDouble() == analysis.volumes_ml["segmentation"]


def test_clinical_form_checks_and_keeps_quiet(slicer, widget):
    widget.panel.parameters.inputVolume = heads.add_head(slicer)
    widget.ui.ageBox.value = 67
    widget.ui.gcsBox.value = 12
    widget.ui.sexBox.setCurrentIndex(1)
    widget.ui.clinicalText.setPlainText("Mrs. Example, hypertension")
    record = widget.panel.form.record()
    assert (record.age, record.gcs, record.sex, record.ivh) == (67, 12, "female", None)
    widget.ui.ivhBox.setCurrentIndex(1)
    assert widget.panel.form.record().ivh is False
    node = widget.panel.parameters.parameterNode
    widget.panel.form.store(node, widget.panel.parameters.storeClinical)
    values = [node.GetParameter(name) for name in node.GetParameterNames()]
    assert not [value for value in values if "Example" in value or "67" in value]
    widget.panel.form.store(node, True)
    widget.panel.form.fill({})
    assert widget.panel.form.record() is None
    widget.panel.form.restore(node)
    assert widget.panel.form.values()["age_years"] == 67
    assert widget.panel.form.text == "Mrs. Example, hypertension"
    widget.panel.form.store(node, False)
    assert not node.HasParameter("clinicalRecord")


def test_clinical_values_go_as_soon_as_they_are_not_wanted(slicer, widget, analyze):
    """They are kept where the user wants that, follow the form, and need no run to be taken out again."""
    from dataclasses import replace

    from ICHAnalysisLib.analysis import Prognosis

    analyze(heads.add_head(slicer))
    widget.ui.ageBox.value = 67
    widget.ui.storeClinicalBox.checked = True
    node = widget.panel.parameters.parameterNode
    assert '"age_years": 67' in node.GetParameter("clinicalRecord")
    widget.ui.ageBox.value = 68
    assert '"age_years": 68' in node.GetParameter("clinicalRecord")
    score = Prognosis(0.1, "death within 30 days", "published", score=1, items={"age": 68})
    results = widget.panel.results
    results._keep(replace(results.analysis, prognosis={"ich_score": score}))
    assert results.analysis.prognosis["ich_score"].items == {"age": 68}
    widget.ui.storeClinicalBox.checked = False
    assert "68" not in node.GetParameter("clinicalRecord")
    assert results.analysis.prognosis["ich_score"].items == {}
    assert widget.ui.ageBox.value == 68  # the form itself stays as it is


def test_what_was_noticed_on_the_way_stands_with_the_result(slicer, widget, analyze):
    """Findings of the answer; those of the scan stand below the selector and are not said twice."""
    from dataclasses import replace

    from ICHAnalysisLib.findings import Finding, Level
    from ICHAnalysisPanel.session import with_device_note

    analyze(heads.add_head(slicer))
    results = widget.panel.results
    noticed = Finding("blood_outside", Level.NOTE, "Dense blood outside the brain tissue.", "Look at the margin.")
    of_scan = Finding("padding", Level.FIX, "Padding was set to air.", "None needed.")
    widget.panel.scan.found((of_scan,))
    analysis = replace(results.analysis, findings=(of_scan, noticed), device="cpu")
    results._keep(with_device_note(analysis, "cuda"))
    widget.panel.update()
    text = widget.ui.resultLabel.text
    assert "Dense blood outside the brain tissue." in text and "Look at the margin." in text
    assert "The device cuda is not available on this computer; cpu was used instead." in text
    assert "Padding" not in text
    assert with_device_note(analysis, "auto") is analysis and with_device_note(analysis, "cpu") is analysis


def test_the_demo_scan_is_made_without_blocking(slicer, widget, waiter):
    """By a worker; the scene has it, chosen and shown, and says that it is simulated."""
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    widget.ui.demoButton.click()
    assert not widget.ui.demoButton.enabled and "Making" in widget.ui.demoButton.text
    waiter.until(lambda: not widget.panel.demo.is_running)
    node = widget.panel.parameters.inputVolume
    assert node.GetName() == "SimulatedHemorrhageCT" and node.GetAttribute("ICHAnalysis.simulated") == "1"
    assert node.GetImageData().GetDimensions() == (512, 512, 33)
    assert composite.GetBackgroundVolumeID() == node.GetID()
    assert widget.ui.demoButton.enabled and "Load" in widget.ui.demoButton.text
    slicer.mrmlScene.RemoveNode(composite)


def test_missing_packages_are_told_and_nothing_starts(slicer, widget):
    from ICHAnalysisPanel.dependencies import DependencyError

    def missing():
        raise DependencyError("Install the PyTorch extension, restart Slicer, and press Apply again.")

    widget.panel.ensure_dependencies = missing
    widget.ui.inputSelector.setCurrentNode(heads.add_head(slicer))
    widget.ui.applyButton.click()
    assert "Install the PyTorch extension" in widget.ui.stageLabel.text
    assert widget.ui.applyButton.text == "Apply"


def test_shortcuts_work_only_while_the_module_is_open(widget):
    assert len(widget.shortcuts) == 5
    assert all(shortcut.enabled for shortcut in widget.shortcuts)
    widget.exit()
    assert not any(shortcut.enabled for shortcut in widget.shortcuts)


def test_many_prompts_reach_the_worker(slicer, widget, waiter):
    """100 negative points and 5 boxes: each point leaves its hole, and nothing outside the boxes is outlined."""
    import vtk

    from ICHAnalysisPanel.prompt_nodes import add_box

    node = heads.add_head(slicer)
    widget.panel.parameters.updateOnChange = False
    widget.ui.inputSelector.setCurrentNode(node)
    for number in range(5):
        widget.panel.prompts.use(add_box(f"Box {number}", (-20 + 5 * number, -15, 5), (40, 40, 60)))
    matrix = heads.affine()
    voxels = [(24 + number % 20, 34 + number // 20, 14) for number in range(100)]
    for voxel in voxels:
        place = (matrix @ [*voxel, 1])[:3]
        widget.panel.parameters.negativePoints.AddControlPointWorld(vtk.vtkVector3d(*place))
    assert widget.ui.boxList.count == 5
    assert widget.ui.negativeLabel.text.endswith("100")
    widget.ui.applyButton.click()
    wait_done(widget, waiter)
    found = mask_of(widget)
    assert found.any()
    assert not any(found[k, j, i] for i, j, k in voxels)
    outlined = (matrix @ np.array([*np.nonzero(found)[::-1], np.ones(np.count_nonzero(found))]))[:3]
    assert outlined[0].min() >= -40 - 1e-6 and outlined[0].max() <= 20 + 1e-6
