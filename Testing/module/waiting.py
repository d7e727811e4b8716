"""Run the event loop until something holds."""

from __future__ import annotations

import time


class Waiter:
    """Turns the event loop."""

    def __init__(self, slicer) -> None:
        self.slicer = slicer

    def until(self, condition, seconds: float = 900.0) -> None:
        """Raises AssertionError where the condition does not come true in time."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "nothing happened in time"
            self.slicer.app.processEvents()
            time.sleep(0.005)


def wait_done(widget, waiter: Waiter) -> None:
    """Until nothing runs and nothing waits to be shown."""
    from ICHAnalysisPanel.run import State

    panel = widget.panel
    waiter.until(lambda: panel.run.state is State.IDLE and not panel._steps)
