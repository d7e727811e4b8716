"""Pictures of the panel and the views for the docs: `python Testing/module/make_pictures.py [FOLDER]`.

The panel is drawn with stand-ins for Slicer's widgets, the views with Slicer's own displayable managers. The scan is
the demo scan, analyzed by the shipped networks: what the tutorial's reader sees. The batch is of toy heads, outlined
by a threshold.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from Testing.bed import boot, pythonqt, views  # noqa: E402

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "ICHAnalysis" / "docs"
OUT = OUT.resolve()
OUT.mkdir(parents=True, exist_ok=True)
#: Pixels of a view.
SIZE = (520, 520)


def pump(condition, seconds: float = 900.0) -> None:
    """Run the event loop until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        boot.boot().app.processEvents()
        time.sleep(0.01)


def main() -> None:
    """All pictures."""
    slicer = boot.boot()
    boot.load_module(ROOT / "ICHAnalysis" / "ICHAnalysis.py")
    widget = boot.create_widget("ICHAnalysis")
    from ICHAnalysisPanel.run import State

    panel = widget.panel
    panel.ensure_dependencies = lambda: None
    boot.grab(widget, OUT / "panel_empty.png")
    slices = [views.SliceView("Red", "Axial", SIZE), views.SliceView("Green", "Coronal", SIZE)]
    three_d = views.ThreeDView(SIZE)
    picture_error(slicer, widget)
    add_scan(panel)
    widget.ui.clinicalSection.collapsed = False
    widget.ui.ageBox.value, widget.ui.gcsBox.value = 67, 12
    widget.ui.ivhBox.setCurrentIndex(1)
    widget.ui.cognitionBox.setCurrentIndex(1)
    pump(lambda: "Checking" not in widget.ui.findingsLabel.text and not panel._change_timer.active)
    boot.grab(widget, OUT / "panel_ready.png")
    widget.ui.clinicalSection.collapsed = True
    widget.ui.applyButton.click()
    pump(lambda: widget.ui.progressBar.value > 20)
    boot.grab(widget, OUT / "panel_running.png")
    pump(lambda: panel.run.state is State.IDLE and not panel._steps)
    boot.grab(widget, OUT / "panel_done.png", width=620)
    picture_views(panel, slices, three_d)
    picture_batch(widget)
    widget.exit()
    widget.cleanup()
    assert not pythonqt.slot_errors, pythonqt.slot_errors


def picture_error(slicer, widget) -> None:
    """A scan that cannot be analyzed."""
    import heads
    import numpy as np

    panel = widget.panel
    air = slicer.util.addVolumeFromArray(np.full((12, 40, 40), -1000, np.int16), ijkToRAS=heads.affine(), name="Air")
    panel.parameters.inputVolume = air
    pump(lambda: "Checking" not in widget.ui.findingsLabel.text)
    boot.grab(widget, OUT / "panel_error.png")
    panel.parameters.inputVolume = None
    slicer.mrmlScene.RemoveNode(air)


def add_scan(panel) -> None:
    """The demo scan, and a box around its hemorrhage as a user would draw it."""
    import numpy as np

    from ICHAnalysisLib.commands.demo import demo_case
    from ICHAnalysisPanel.prompt_nodes import add_box
    from ICHAnalysisPanel.sample_data import volume_of

    case = demo_case()
    panel.parameters.inputVolume = volume_of(case.volume)
    places = case.volume.ijk_to_ras_points(np.argwhere(case.labels == 1)[:, ::-1])
    low, high = places.min(axis=0) - 8, places.max(axis=0) + 8
    panel.prompts.use(add_box("Hemorrhage box", (low + high) / 2, high - low))


def picture_views(panel, slices, three_d) -> None:
    """The views at the hemorrhage."""
    from ICHAnalysisPanel.result_nodes import lesion_center

    for roi in panel.prompts.boxes():
        roi.GetDisplayNode().SetHandlesInteractive(False)
    for view in slices:
        view.logic.FitSliceToAll()
    panel.parameters.outputSegmentation.GetDisplayNode().SetOpacity2DFill(0.2)
    center = lesion_center(panel.results.analysis)
    for view in slices:
        view.node.JumpSliceByOffsetting(*center)
    for view, name in zip(slices, ("view_axial.png", "view_coronal.png")):
        view.save(OUT / name)
    three_d.save(OUT / "view_3d.png")


def picture_batch(widget) -> None:
    """The batch section after a batch of six small heads, and their agreement."""
    import heads

    here = os.getcwd()
    os.chdir(tempfile.mkdtemp(prefix="ICHAnalysis-pictures-"))
    Path("ward").mkdir()
    radii = [(2 + 0.5 * number, 4 + number, 3 + number) for number in range(6)]
    for number, radius in enumerate(radii, start=1):
        heads.write_head(f"ward/{number}.nii.gz", radii=radius)
    lines = [f"patient-{number},ward/{number}.nii.gz" for number in range(1, 7)]
    Path("list.csv").write_text("\n".join(["case_id,image", *lines]) + "\n")
    batch, ui = widget.batch, widget.ui
    batch.analyzer = "threshold_analyzer:analyze_case"
    batch.environment = {"PYTHONPATH": str(Path(__file__).parent)}
    for section in (ui.scanSection, ui.promptSection, ui.outputSection, ui.resultSection):
        section.collapsed = True
    ui.batchSection.collapsed = False
    ui.batchSourceEdit.text, ui.batchFolderEdit.text = "list.csv", "results"
    batch.on_run()
    pump(lambda: not batch.is_running)
    batch.on_agreement()
    boot.grab(widget, OUT / "panel_batch.png")
    os.chdir(here)


if __name__ == "__main__":
    main()
