"""Keys of the panel, also for the views beside it; active only while the module is open."""

from __future__ import annotations

from typing import Any

import qt


def make_shortcuts(widget: Any, panel: Any) -> list[Any]:
    """P and N place points, B draws a box, Ctrl+Return applies, Ctrl+Shift+Z undoes; disabled until `enter`."""
    actions = {
        "P": lambda: panel.prompts.place(True),
        "N": lambda: panel.prompts.place(False),
        "B": panel.prompts.draw_box,
        "Ctrl+Return": lambda: panel.ui.applyButton.click(),
        "Ctrl+Shift+Z": panel.undo,
    }
    shortcuts = []
    for keys, action in actions.items():
        shortcut = qt.QShortcut(qt.QKeySequence(keys), widget)
        shortcut.setContext(qt.Qt.WindowShortcut)
        shortcut.enabled = False
        shortcut.connect("activated()", action)
        shortcuts.append(shortcut)
    return shortcuts
