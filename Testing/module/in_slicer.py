"""The module's checks in a real Slicer: `Slicer --python-script Testing/module/in_slicer.py`.

Add the folder ICHAnalysis under Application Settings > Modules first, or start Slicer with
`--additional-module-paths <checkout>/ICHAnalysis`. Needs no network weights: a threshold stands in for them. Prints
one line a check; with `--testing`, as CTest runs it, Slicer then ends with the number of failed checks as its status.
Runs in Slicer 5.10 and later, with its main window.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parents[1]):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

import heads  # noqa: E402
import slicer  # noqa: E402

checks = []


def check(function):
    """Register a check; its name is its sentence. The bed runs it too, so that this script does not age."""
    function.needs_application = False
    checks.append(function)
    return function


def check_of_application(function):
    """Register a check of what the application alone has: its layouts, its reading and writing, its other modules."""
    check(function).needs_application = True
    return function


def panel():
    """The open module's panel with a threshold in place of the networks."""
    slicer.util.selectModule("ICHAnalysis")
    found = slicer.modules.ichanalysis.widgetRepresentation().self().panel
    found.ensure_dependencies = lambda: None
    found.run.analyzer = "threshold_analyzer:analyze"
    found.run.environment = {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    return found


def wait(condition, seconds=300.0):
    """Run the event loop until something holds; returns the longest turn in seconds."""
    end, longest = time.monotonic() + seconds, 0.0
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("nothing happened in time")
        start = time.perf_counter()
        slicer.app.processEvents()
        longest = max(longest, time.perf_counter() - start)
        time.sleep(0.005)
    return longest


def analyzed_head():
    """A head, analyzed through the panel."""
    from ICHAnalysisPanel.run import State

    slicer.mrmlScene.Clear(0)
    shown = panel()
    node = heads.add_head(slicer)
    shown.ui.inputSelector.setCurrentNode(node)
    assert shown.ui.applyButton.enabled, shown.ui.applyButton.toolTip
    shown.ui.applyButton.click()
    longest = wait(lambda: shown.run.state is State.IDLE and not shown._steps)
    return shown, node, longest


@check
def apply_fills_the_scene():
    from ICHAnalysisPanel.abc_nodes import find_lines

    shown, node, longest = analyzed_head()
    assert shown.results.is_of(node)
    assert shown.parameters.resultTable.GetNumberOfRows() >= 5
    assert {line.GetName() for line in find_lines()} == {"A", "B", "C"}
    print(f"        the longest turn of the event loop took {1000 * longest:.0f} ms")


@check
def empty_panel_says_what_to_do():
    slicer.mrmlScene.Clear(0)
    shown = panel()
    assert not shown.ui.applyButton.enabled
    assert "Choose a head CT" in shown.ui.applyButton.toolTip


@check
def wrong_inputs_are_refused_in_words():
    from ICHAnalysisPanel.prompt_nodes import add_box

    slicer.mrmlScene.Clear(0)
    shown = panel()
    shown.parameters.inputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    assert "holds no voxels" in shown.ui.applyButton.toolTip
    shown.parameters.inputVolume = heads.add_head(slicer)
    shown.prompts.use(add_box("Far box", (500, 0, 0), (10, 10, 10)))
    shown.update()
    assert "Far box lies outside the scan" in shown.ui.applyButton.toolTip


@check
def cancel_leaves_no_result():
    slicer.mrmlScene.Clear(0)
    shown = panel()
    shown.run.environment["ICH_TEST_SLOW"] = "30"
    shown.ui.inputSelector.setCurrentNode(heads.add_head(slicer))
    shown.ui.applyButton.click()
    wait(lambda: "Stage" in shown.ui.stageLabel.text)
    assert shown.ui.applyButton.text == "Cancel"
    shown.ui.applyButton.click()
    assert shown.ui.applyButton.text == "Apply" and shown.parameters.outputSegmentation is None


@check
def a_deleted_volume_stops_the_run():
    slicer.mrmlScene.Clear(0)
    shown = panel()
    shown.run.environment["ICH_TEST_SLOW"] = "30"
    node = heads.add_head(slicer)
    shown.ui.inputSelector.setCurrentNode(node)
    shown.ui.applyButton.click()
    wait(lambda: "Stage" in shown.ui.stageLabel.text)
    slicer.mrmlScene.RemoveNode(node)
    wait(lambda: shown.ui.applyButton.text == "Apply")


@check
def a_changed_box_updates_the_outline_and_undo_brings_it_back():
    from ICHAnalysisPanel.prompt_nodes import add_box
    from ICHAnalysisPanel.run import State
    from ICHAnalysisPanel.segments import read_labels

    shown, node, _longest = analyzed_head()
    automatic = read_labels(shown.parameters.outputSegmentation, node).whole()
    box = np.array(shown.results.analysis.lesions[0].box_ras_mm)
    low, high = box[:3], box[3:]
    shown.prompts.use(add_box("Half", (low + high) / 2 - [(high[0] - low[0]) / 2, 0, 0], high - low + 1))
    wait(lambda: shown.results.analysis.mode == "prompted" and shown.run.state is State.IDLE and not shown._steps)
    prompted = read_labels(shown.parameters.outputSegmentation, node).whole()
    assert 0 < prompted.sum() < automatic.sum()
    shown.ui.undoButton.click()
    assert np.array_equal(read_labels(shown.parameters.outputSegmentation, node).whole(), automatic)
    assert shown.prompts.boxes() == []


@check
def numbers_follow_an_edited_outline_and_other_segments_stay():
    from ICHAnalysisPanel.segments import ICH, read_labels

    shown, node, _longest = analyzed_head()
    segmentation = shown.parameters.outputSegmentation
    own = np.zeros(heads.SHAPE, np.uint8)
    own[10:20, 30:50, 25:45] = 1
    segmentation.GetSegmentation().AddEmptySegment("user", "User's", [0, 1, 0])
    slicer.util.updateSegmentBinaryLabelmapFromArray(own, segmentation, "user", node)
    mask = read_labels(segmentation, node).whole() == 1
    mask[: len(mask) // 2] = False
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation, ICH.segment_id, node)
    wait(lambda: shown.results.analysis.mode == "edited" and not shown._steps)
    assert abs(shown.results.analysis.volumes_ml["segmentation"] - mask.sum() * 0.0512) < 0.001
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "user", node), own)


@check
def two_volumes_in_turn_keep_their_results():
    from ICHAnalysisPanel.run import State

    shown, first, _longest = analyzed_head()
    volume_ml = shown.results.analysis.volumes_ml["segmentation"]
    shown.ui.inputSelector.setCurrentNode(heads.add_head(slicer, "Follow-up", radii=(2.5, 4, 4)))
    shown.ui.applyButton.click()
    wait(lambda: shown.run.state is State.IDLE and not shown._steps)
    assert shown.results.analysis.volumes_ml["segmentation"] < volume_ml
    shown.ui.inputSelector.setCurrentNode(first)
    assert shown.results.analysis.volumes_ml["segmentation"] == volume_ml


@check
def clinical_values_stay_out_of_the_scene():
    slicer.mrmlScene.Clear(0)
    shown = panel()
    shown.ui.ageBox.value = 67
    shown.ui.storeClinicalBox.checked = True
    node = shown.parameters.parameterNode
    assert "67" in node.GetParameter("clinicalRecord")
    shown.ui.storeClinicalBox.checked = False
    assert not [name for name in node.GetParameterNames() if "67" in node.GetParameter(name)]
    slicer.mrmlScene.Clear(0)
    assert shown.ui.ageBox.value == -1


@check
def voxels_are_checked_before_apply():
    slicer.mrmlScene.Clear(0)
    shown = panel()
    shown.ui.inputSelector.setCurrentNode(heads.add_head(slicer))
    wait(lambda: "Checking the voxels" not in shown.ui.findingsLabel.text)
    assert "when you press Apply" not in shown.ui.findingsLabel.text, "the worker could not read the scan"


@check_of_application
def batch_runs_and_goes_on():
    import tempfile

    panel()
    batch = slicer.modules.ichanalysis.widgetRepresentation().self().batch
    batch.analyzer = "threshold_analyzer:analyze_case"
    batch.environment = {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    folder = Path(tempfile.mkdtemp(prefix="ICHAnalysisCheck-"))
    (folder / "scans").mkdir()
    slicer.mrmlScene.Clear(0)
    for name, radii in (("a", (3.2, 6, 5)), ("b", (2.5, 4, 4)), ("c", (4.2, 8, 7))):
        node = heads.add_head(slicer, name, radii=radii)
        assert slicer.util.saveNode(node, str(folder / "scans" / f"{name}.nii.gz"))
    for resumed in (0, 3):
        batch.ui.batchSourceEdit.text, batch.ui.batchFolderEdit.text = str(folder / "scans"), str(folder / "out")
        assert batch.ui.batchButton.enabled, batch.ui.batchButton.toolTip
        batch.on_run()
        wait(lambda: not batch.is_running)
        assert f"{resumed} from an earlier run" in batch.ui.batchLabel.text, batch.ui.batchLabel.text
    batch.on_agreement()
    assert "bias" in batch.ui.batchLabel.text, batch.ui.batchLabel.text


@check_of_application
def volumes_equal_segment_statistics():
    from SegmentStatistics import SegmentStatisticsLogic

    from ICHAnalysisPanel.segments import ICH, labelmap_volume_ml, surface_volume_ml

    shown, _node, _longest = analyzed_head()
    segmentation = shown.parameters.outputSegmentation
    surface_volume_ml(segmentation, ICH.segment_id)  # makes the surface, without which nothing is told of it
    logic = SegmentStatisticsLogic()
    logic.getParameterNode().SetParameter("Segmentation", segmentation.GetID())
    logic.computeStatistics()
    statistics = logic.getStatistics()
    for plugin, ours in (("Labelmap", labelmap_volume_ml), ("ClosedSurface", surface_volume_ml)):
        theirs = statistics[(ICH.segment_id, f"{plugin}SegmentStatisticsPlugin.volume_cm3")]
        assert abs(theirs - ours(segmentation, ICH.segment_id)) < 1e-3, plugin
    model = shown.results.analysis.volumes_ml["segmentation"]
    assert abs(model - statistics[(ICH.segment_id, "LabelmapSegmentStatisticsPlugin.volume_cm3")]) < 1e-2


@check
def shortcuts_belong_to_the_module():
    panel()
    shortcuts = slicer.modules.ichanalysis.widgetRepresentation().self().shortcuts
    assert all(shortcut.enabled for shortcut in shortcuts)
    slicer.util.selectModule("Data")
    assert not any(shortcut.enabled for shortcut in shortcuts)


@check_of_application
def scene_reloads():
    shown, _node, _longest = analyzed_head()
    before = np.count_nonzero(slicer.util.arrayFromTableColumn(shown.parameters.sliceTable, "Outline (mL)"))
    path = str(Path(slicer.app.temporaryPath) / "ICHAnalysisCheck.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    assert slicer.util.loadScene(path)
    shown = panel()
    assert shown.results.is_of(shown.parameters.inputVolume)
    after = np.count_nonzero(slicer.util.arrayFromTableColumn(shown.parameters.sliceTable, "Outline (mL)"))
    assert after == before > 0


@check_of_application
def layout_shows_table_and_plot():
    shown, _node, _longest = analyzed_head()
    shown.results.show_layout()
    slicer.app.processEvents()
    manager = slicer.app.layoutManager()
    assert manager.tableViewCount >= 1 and manager.plotViewCount >= 1


@check_of_application
def sample_data_makes_the_demo_scan():
    from ICHAnalysisPanel.sample_data import CATEGORY, NAME

    slicer.mrmlScene.Clear(0)
    (source,) = [one for one in slicer.modules.sampleDataSources[CATEGORY] if one.sampleName == NAME]
    node = source.customDownloader(source)  # what the button of the Sample Data module calls
    assert node.GetName() == NAME and slicer.util.arrayFromVolume(node).max() > 500


def main() -> int:
    """Run every check; returns how many failed."""
    failed = 0
    for function in checks:
        try:
            function()
            print(f"passed  {function.__name__}")
        except Exception:
            failed += 1
            print(f"FAILED  {function.__name__}\n{traceback.format_exc()}")
    print(f"{len(checks) - failed} of {len(checks)} checks passed in Slicer {slicer.app.applicationVersion}")
    return failed


if __name__ == "__main__":
    status = main()
    if slicer.app.testingEnabled():
        slicer.util.exit(status)
