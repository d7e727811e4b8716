"""The outline on the slice in view ahead of the rest: one slice through ICH-SCNet, its tower features kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.prompts import Prompts


class SlicePreview:
    """One scan's stack with the features of every slice asked for so far. Knows neither Slicer nor Qt."""

    def __init__(self, volume: Any, models: Any, clinical: Any, text: str | None) -> None:
        from ICHAnalysisLib.preprocess import make_stack

        self._made_for = (models, clinical, text)
        self.stack = make_stack(volume, models.ich_scnet.preprocess)
        self.session = models.session(self.stack, models.ich_scnet.text(clinical, text))

    def is_for(self, models: Any, clinical: Any, text: str | None) -> bool:
        """True where the features kept are those of these networks and these words."""
        return models is self._made_for[0] and (clinical, text) == self._made_for[1:]

    def labels(self, k: int, prompts: Prompts, options: AnalyzeOptions) -> np.ndarray:
        """(J, I) uint8 labels of acquired slice k."""
        from ICHAnalysisLib.postprocess import native_labels
        from ICHAnalysisLib.prompt_projection import project_prompts

        s = int(self.stack.slice_of_native()[k])
        projected = project_prompts(prompts, self.stack)
        ich, ivh = (np.zeros(self.stack.hu.shape, np.float32) for _ in range(2))
        if not projected.restricted or projected.boxed[s] or projected.pointed[s]:
            (ich[s],), (ivh[s],) = self.session.obeying([s], projected)
        return native_labels(ich, ivh, self.stack, options.postprocess)[0][k]
