"""The choice of a reference segment: the segments of the chosen segmentation by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ReferenceBox:
    """Keeps the combo box and the parameter the same."""

    def __init__(self, ui: Any, on_choice: Callable[[], None]) -> None:
        self._box = ui.referenceSegmentBox
        self._on_choice = on_choice
        self._parameters: Any = None
        self._box.connect("activated(int)", self.choose)

    def fill(self, parameters: Any) -> None:
        """Offer the segments of the reference; nothing to choose where there is none."""
        self._parameters = parameters
        found = _segments(parameters.referenceSegmentation if parameters is not None else None)
        box = self._box
        if found != [(box.itemText(index), box.itemData(index)) for index in range(box.count)]:
            box.clear()
            for name, segment_id in found:
                box.addItem(name, segment_id)
        box.enabled = bool(found)
        if found:
            ids = [segment_id for _name, segment_id in found]
            chosen = parameters.referenceSegment
            box.setCurrentIndex(ids.index(chosen) if chosen in ids else 0)

    def choose(self, index: int) -> None:
        """Remember which segment is the reference."""
        if self._parameters is not None and index >= 0:
            self._parameters.referenceSegment = self._box.itemData(index) or ""
            self._on_choice()


def _segments(node: Any | None) -> list[tuple[str, str]]:
    """(name, ID) of every segment of a node."""
    contents = node.GetSegmentation() if node is not None else None
    count = contents.GetNumberOfSegments() if contents is not None else 0
    return [(contents.GetNthSegment(index).GetName(), contents.GetNthSegmentID(index)) for index in range(count)]
