"""How long does the panel keep the main thread? `python -m Testing.benchmarks.panel_responsiveness [--pixels 512]`.

A 300-slice scan, 5 boxes and 100 negative points, in the bed (Slicer's libraries, Qt through PySide6, the worker a real
process, with a fixed ball of blood in place of the networks' answer, since they never run on the main thread). One line
a phase: the longest stretch that the main thread was busy with us, by its processor time, which other work on the
machine does not change, and by the clock.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
MODULE_TESTS = ROOT / "Testing" / "module"
SLICES, BOXES, POINTS = 300, 5, 100
LIMIT_S, MASK_LIMIT_S = 0.1, 0.3
#: Where a mask, or its surface by Slicer's one call, enters the scene.
MASK_PHASES = ("worker analyzes; the mask enters", "surface is made", "edited outline is read and measured", "undo")


class Stopwatch:
    """The longest stretch of each phase, in seconds of this thread's processor time and of the clock."""

    def __init__(self, process_events: Callable[[], None]) -> None:
        self.phases: dict[str, tuple[float, float, int]] = {}
        self._process_events = process_events

    def call(self, phase: str, action: Callable[[], Any]) -> None:
        """One stretch."""
        cpu, wall = time.thread_time(), time.perf_counter()
        action()
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        longest = self.phases.get(phase, (0.0, 0.0, 0))
        self.phases[phase] = (max(longest[0], cpu), max(longest[1], wall), longest[2] + 1)

    def until(self, phase: str | Callable[[], str], condition: Callable[[], bool], seconds: float = 1800.0) -> None:
        """Turns of the event loop, one stretch each, until something holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("nothing happened in time")
            self.call(phase if isinstance(phase, str) else phase(), self._process_events)
            time.sleep(0.002)

    def table(self) -> str:
        """Markdown."""
        lines = ["| phase | stretches | longest, processor (ms) | longest, clock (ms) |", "|---|---:|---:|---:|"]
        for phase, (cpu, wall, count) in self.phases.items():
            lines.append(f"| {phase} | {count} | {1000 * cpu:.0f} | {1000 * wall:.0f} |")
        return "\n".join(lines)


def instant(volume, prompts=None, clinical=None, models=None, options=None, progress=None, *, text=None):
    """The worker's answer: a ball of 50 mL in the middle of the scan, measured, and a heatmap around it."""
    from ICHAnalysisLib.analysis import Analysis, AnalysisArrays, Presence
    from ICHAnalysisLib.results import describe_lesions, describe_volumes

    for stage in range(20):
        progress(stage / 20, f"Stage {stage + 1}")
    center = (np.array(volume.shape) - 1) / 2
    steps = np.array([volume.slice_heights_mm[0], volume.spacing_mm[1], volume.spacing_mm[0]])
    far = [np.abs(np.arange(size) - middle) * step for size, middle, step in zip(volume.shape, center, steps)]
    inside = [np.flatnonzero(axis < 30) for axis in far]
    box = tuple(slice(axis[0], axis[-1] + 1) for axis in inside)
    squares = np.ix_(*(axis[part] ** 2 for axis, part in zip(far, box)))
    distance = np.sqrt(sum(squares))
    labels, heatmap = np.zeros(volume.shape, np.uint8), np.zeros(volume.shape, np.float32)
    labels[box] = distance < 22.9
    heatmap[box] = np.clip(1 - distance / 30, 0, 1)
    volumes, lines, measurements = describe_volumes(volume, labels)
    share = labels.any(axis=(1, 2)).astype(float)
    analysis = Analysis(
        status="ok",
        findings=volume.findings,
        presence=Presence(1.0, True, tuple(share.tolist())),
        lesions=describe_lesions(volume, labels == 1),
        volumes_ml=volumes,
        abc2_lines=lines,
        measurements=measurements,
        mode="automatic" if prompts is None else "prompted",
    )
    return analysis, AnalysisArrays(labels, heatmap)


def large_head(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """int16 HU (300, pixels, pixels) and its affine: the small test head, enlarged."""
    import heads
    from scipy import ndimage

    small = heads.head_array()
    zoom = [size / own for size, own in zip((SLICES, pixels, pixels), small.shape)]
    large = ndimage.zoom(small, zoom, order=0)
    spacing = tuple(own * before / now for own, before, now in zip(heads.SPACING, small.shape[::-1], large.shape[::-1]))
    return large, heads.affine(spacing, large.shape)


def erase_lower_half(slicer: Any, segmentation: Any, segment_id: str) -> None:
    """Cut a segment as Segment Editor does: by a modifier label map within its extent."""
    from vtk.util import numpy_support

    from ICHAnalysisPanel.segments import segment_image

    image = segment_image(segmentation, segment_id)
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    values[: len(values) // 2] = 0
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetBinaryLabelmapToSegment(image, segmentation, segment_id, logic.MODE_REPLACE, image.GetExtent())


def measure(pixels: int) -> Stopwatch:
    """Drive the panel through a session and time every stretch."""
    import vtk

    from Testing.bed import boot

    slicer = boot.boot()
    boot.load_module(ROOT / "ICHAnalysis" / "ICHAnalysis.py")
    widget = boot.create_widget("ICHAnalysis")
    from ICHAnalysisPanel.prompt_nodes import add_box
    from ICHAnalysisPanel.run import State
    from ICHAnalysisPanel.segments import ICH

    panel = widget.panel
    panel.ensure_dependencies = lambda: None
    panel.run.analyzer = "Testing.benchmarks.panel_responsiveness:instant"
    panel.run.environment = {"PYTHONPATH": str(ROOT)}
    array, matrix = large_head(pixels)
    node = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name="Large")
    watch = Stopwatch(slicer.app.processEvents)

    def is_idle() -> bool:
        return panel.run.state is State.IDLE and not panel._steps and not panel._change_timer.active

    def running() -> str:
        names = ("the views are set", "attention map enters", "tables are written", "surface is made")
        return names[min(len(panel._steps), 4) - 1] if panel._steps else "worker analyzes; the mask enters"

    watch.call("choose the scan", lambda: widget.ui.inputSelector.setCurrentNode(node))
    watch.until("voxels are checked in the worker", lambda: "Checking" not in widget.ui.findingsLabel.text)
    panel.parameters.acceptQuestions = True
    for number in range(BOXES):
        center = (-20 + 5 * number, 0, 0)
        watch.call("add a box", lambda at=center: panel.prompts.use(add_box("Box", at, (60, 60, 60))))
    negative = panel.parameters.negativePoints
    for number in range(POINTS):
        place = vtk.vtkVector3d(number % 20 - 10, 30, 20)
        watch.call("add a point", lambda at=place: negative.AddControlPointWorld(at))
    watch.until("prompts rest", is_idle)
    watch.call("press Apply", widget.ui.applyButton.click)
    watch.until(running, is_idle)
    watch.call("move a point", lambda: negative.SetNthControlPointPositionWorld(0, 12.0, 31.0, 20.0))
    watch.until(running, lambda: panel.run.state is State.RUNNING)
    watch.until(running, is_idle)
    erase_lower_half(slicer, panel.parameters.outputSegmentation, ICH.segment_id)
    names = {0: "edited outline is read and measured", 1: "numbers of the edited outline"}
    watch.until(lambda: names[min(len(panel._steps), 1)], lambda: panel.results.analysis.mode == "edited")
    watch.call("undo", panel.undo)
    watch.call("close the scene", lambda: slicer.mrmlScene.Clear(0))
    widget.exit()
    widget.cleanup()
    return watch


def main() -> int:
    """Print the table; 1 where a limit is missed by processor time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=512, help="columns and rows of each slice (default: 512)")
    arguments = parser.parse_args()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path[:0] = [str(ROOT), str(MODULE_TESTS)]
    watch = measure(arguments.pixels)
    print(watch.table())
    late = [
        phase
        for phase, (cpu, _wall, _count) in watch.phases.items()
        if cpu > (MASK_LIMIT_S if phase in MASK_PHASES else LIMIT_S)
    ]
    print(f"over the limit: {', '.join(late) or 'nothing'}")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
