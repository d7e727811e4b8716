"""ICHAnalysisLib: intracerebral hemorrhage on non-contrast head CT, from arrays and geometry to one `Analysis`.

Research use only, not a medical device. Importing this package loads neither torch nor SimpleITK; the names
below are resolved on first use.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Analysis": "ICHAnalysisLib.analysis",
    "analyze_scan": "ICHAnalysisLib.analyze",
    "analyze": "ICHAnalysisLib.analyze",
    "CTVolume": "ICHAnalysisLib.ct.volume",
    "read_scan": "ICHAnalysisLib.ct.readers",
}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
