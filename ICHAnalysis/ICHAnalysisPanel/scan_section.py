"""The scan part of the panel: the chosen node, its geometry, and what is found wrong with it, told before Apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from ICHAnalysisLib.ct.checks import blocking, unanswered
from ICHAnalysisLib.ct.geometry_checks import geometry_findings
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.findings import Finding
from ICHAnalysisPanel import words
from ICHAnalysisPanel.scan_source import ScanSource
from ICHAnalysisPanel.volume_nodes import BentSlicesError, FileLookUp, hardened_copy, read_node

#: A choice that rests this long has its voxels checked.
INSPECT_MS = 700


class ScanSection:
    """Reads the chosen node where it changed, and shows the findings; the voxels are judged by the worker."""

    def __init__(self, ui: Any, look_up: FileLookUp, inspect: Callable[[], None]) -> None:
        self.ui = ui
        self.look_up = look_up
        self.key: Any = None
        self.source: ScanSource | None = None
        self.is_bent = False
        self._problem = ""
        self._findings: tuple[Finding, ...] = ()
        self._is_checked = False
        self._waits_for_apply = False
        self._timer = qt.QTimer()
        self._timer.setInterval(INSPECT_MS)
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", inspect)

    def close(self) -> None:
        """Forget the scan: the scene closes or another parameter node comes."""
        self._timer.stop()
        self.key, self.source, self.is_bent, self._problem = None, None, False, ""
        self._show((), False)

    def look(self, node: Any) -> tuple[bool, bool]:
        """Read the node again where it changed: (whether it changed, whether the scan before was left for another)."""
        key = volume_key(node)
        if key == self.key:
            return False, False
        is_left = self.key is not None and (key is None or self.key[0] != key[0])
        self.key, self.source, self.is_bent, self._problem = key, None, False, ""
        try:
            self.source = read_node(node, self.look_up) if node is not None else None
        except BentSlicesError:
            self.is_bent = True
        except UsageError as error:
            self._problem = str(error)
        self._waits_for_apply = False
        self._timer.stop()
        if self.source is None:
            self._show((), False)
        else:
            # Where files are reread, they say where the slices lie; the node's own places would raise false questions.
            geometry = () if self.source.files else geometry_findings(self.source.geometry)
            self._show((*self.source.notes, *geometry), False)
            self._timer.start()
        return True, is_left

    def harden(self, node: Any) -> Any:
        """A copy of a bent node with its transforms hardened."""
        with slicer.util.WaitCursor():
            return hardened_copy(node)

    @property
    def remedy(self) -> str:
        """What to do about a scan that is blocked, "" for one that is not."""
        blocks = blocking(self._findings)
        return blocks[0].remedy if blocks else ""

    def problem(self, accept: bool) -> str:
        """Why this scan cannot be analyzed, "" where it can."""
        if self._problem or (self.source is None and not self.is_bent):
            return self._problem or _("Choose a head CT under Input volume.")
        blocks = blocking(self._findings)
        if blocks:
            return blocks[0].message
        if unanswered(self._findings) and not accept:
            return _("Read the questions under Input volume, then check that you want to go on.")
        return ""

    def sentences(self) -> set[str]:
        """Sentences of the findings that stand below the selector."""
        return {finding.message for finding in self._findings}

    def found(self, findings: tuple[Finding, ...]) -> None:
        """The worker has judged the voxels."""
        self._timer.stop()
        self._waits_for_apply = False
        self._show(findings, True)

    def unread(self) -> None:
        """The worker could not judge the voxels."""
        self._waits_for_apply = True
        self._show(self._findings, False)

    def _show(self, findings: tuple[Finding, ...], is_checked: bool) -> None:
        self._findings, self._is_checked = findings, is_checked
        text = words.findings_html(findings) + words.quiet_html(self._state())
        self.ui.findingsLabel.text = text
        self.ui.findingsLabel.visible = bool(text)
        self.ui.acceptBox.visible = bool(unanswered(findings))

    def _state(self) -> str:
        if self.is_bent:
            return _(
                "A transform above this volume bends its slices. Apply hardens it on a copy (resampled) and analyzes "
                "the copy."
            )
        if self.source is None:
            return ""
        if self._waits_for_apply:
            return _("The voxels are checked when you press Apply.")
        if not self._is_checked:
            return _("Checking the voxels...")
        return "" if self._findings else _("Checked: nothing wrong was found with this scan.")


def volume_key(node: Any) -> Any:
    """Changes with the node, its voxels, its matrix and the transforms above it."""
    if node is None or node.GetImageData() is None:
        return None if node is None else (node.GetID(), None)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    transforms = []
    parent = node.GetParentTransformNode()
    while parent is not None:
        transforms.append((parent.GetID(), parent.GetTransformToWorldMTime()))
        parent = parent.GetParentTransformNode()
    image = node.GetImageData()
    values = tuple(slicer.util.arrayFromVTKMatrix(matrix).ravel())
    return (node.GetID(), image.GetPointData().GetScalars().GetMTime(), values, tuple(transforms))
