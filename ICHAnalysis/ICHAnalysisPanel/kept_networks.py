"""The networks, loaded once and kept from scan to scan until other weights or another device are wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ICHAnalysisLib.config.analyze import AnalyzeOptions


class KeptNetworks:
    """Knows neither Slicer nor Qt: the worker process uses it, and the Python console."""

    def __init__(self) -> None:
        self.models: Any = None
        self._key: tuple | None = None

    def load(self, options: AnalyzeOptions, progress: Callable[[float, str], None]) -> Any:
        """The networks for these options. Raises WeightsError where the folder of weights will not do."""
        from ICHAnalysisLib.predict import Models

        key = (options.weights, options.device)
        if self.models is None or key != self._key:
            progress(0.05, "Loading the networks")
            self.models = Models.load(*key)
            self._key = key
        return self.models
