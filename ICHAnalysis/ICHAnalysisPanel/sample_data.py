"""The demo scan as sample data: it is made on this computer, nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer

from ICHAnalysisPanel.volume_nodes import SIMULATED_ATTRIBUTE
from ICHAnalysisPanel.worker import Worker

NAME = "SimulatedHemorrhageCT"
CATEGORY = "ICHAnalysis"


def register(module_folder: Path) -> None:
    """Add the demo scan to the Sample Data module."""
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # since Slicer 5.12
        logic.registerCustomSampleDataCategory(category=CATEGORY, title="ICHAnalysis")
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=NAME,
        thumbnailFileName=str(module_folder / "Resources" / "Icons" / f"{NAME}.png"),
        uris=[],  # Slicer compares the lengths of these lists: no file, no name
        fileNames=[],
        nodeNames=[],
        customDownloader=make_demo_volume,
    )


def make_demo_volume(_source: Any = None) -> Any:
    """A simulated head CT with a hemorrhage as a volume node that says that it is simulated, shown in the views."""
    from ICHAnalysisLib.commands.demo import demo_case
    from ICHAnalysisPanel.result_nodes import show_scan

    node = volume_of(demo_case().volume)
    show_scan(node)
    return node


class DemoMaker:
    """Makes the demo scan in a process of its own: it takes some seconds of computing."""

    POLL_MS = 100

    def __init__(self, on_made: Callable[[Any], None], on_failed: Callable[[str], None]) -> None:
        self._on_made = on_made
        self._on_failed = on_failed
        self._worker: Worker | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(self.POLL_MS)
        self._timer.connect("timeout()", self.poll)

    @property
    def is_running(self) -> bool:
        """True while a scan is being made."""
        return self._worker is not None

    def start(self) -> None:
        """Begin; nothing where one is being made."""
        if self._worker is None:
            self._worker = Worker()
            self._worker.send("demo")
            self._timer.start()

    def close(self) -> None:
        """End the worker."""
        self._timer.stop()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def poll(self) -> None:
        """Take what the worker has said; called by the timer."""
        for event in self._worker.poll() if self._worker is not None else ():
            if event["kind"] == "demo":
                node = add_node(np.load(event["voxels"]), np.array(event["ijk_to_ras"]))
                self.close()
                self._on_made(node)
                return
            if event["kind"] in ("error", "died"):
                self.close()
                self._on_failed(event["message"])
                return


def volume_of(volume: Any, name: str = NAME) -> Any:
    """A volume node of an even, upright CTVolume."""
    return add_node(np.round(np.clip(volume.hu, -32768, 32767)).astype(np.int16), volume.ijk_to_ras, name)


def add_node(voxels: np.ndarray, ijk_to_ras: np.ndarray, name: str = NAME) -> Any:
    """A volume node of int16 HU (K, J, I) that says that it is simulated."""
    node = slicer.util.addVolumeFromArray(voxels, ijkToRAS=ijk_to_ras, name=name)
    node.SetAttribute(SIMULATED_ATTRIBUTE, "1")
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(80, 40)
    return node
