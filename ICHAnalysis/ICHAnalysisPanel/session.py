"""One scan under analysis: read once, checked once, the networks kept, arrays carried back to the node's voxels.

Runs in the worker process, or in the application itself for the Python console. Knows neither Slicer nor Qt.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ICHAnalysisLib.analysis import Analysis, AnalysisArrays
from ICHAnalysisLib.findings import Level
from ICHAnalysisPanel.abc_lines import with_height_lines
from ICHAnalysisPanel.kept_networks import KeptNetworks
from ICHAnalysisPanel.scan_source import ScanSource, from_node, load_volume, note, on_node

if TYPE_CHECKING:
    from ICHAnalysisLib.clinical import ClinicalRecord
    from ICHAnalysisLib.config.analyze import AnalyzeOptions
    from ICHAnalysisLib.findings import Finding
    from ICHAnalysisLib.prompts import Prompts

#: Called with the fraction done and a short text; raises CancelledError to stop.
Progress = Callable[[float, str], None]
#: Called with the index of a node slice and its labels (J, I), ahead of the rest.
Preview = Callable[[int, np.ndarray], None]
#: The library's function, by module and name; tests name another.
DEFAULT_ANALYZER = "ICHAnalysisLib.analyze:analyze"


@dataclass(frozen=True, eq=False)
class LabelBox:
    """The part of a label map that holds labels: uint8 (k, j, i), beginning at voxel `start` of a map of `shape`."""

    labels: np.ndarray
    start: tuple[int, int, int]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, labels: np.ndarray) -> LabelBox:
        """The smallest box of a whole (K, J, I) map; of no size where the map is empty."""
        where = [np.flatnonzero(labels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        if not where[0].size:
            return cls(np.zeros((0, 0, 0), np.uint8), (0, 0, 0), labels.shape)
        box = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in where)
        return cls(np.ascontiguousarray(labels[box]), tuple(one.start for one in box), labels.shape)

    def whole(self) -> np.ndarray:
        """The whole map (K, J, I)."""
        labels = np.zeros(self.shape, np.uint8)
        box = tuple(slice(first, first + count) for first, count in zip(self.start, self.labels.shape))
        labels[box] = self.labels
        return labels

    def is_same(self, other: LabelBox) -> bool:
        """True where both maps hold the same labels, however large their boxes are."""
        first, second = self._tight(), other._tight()
        return (first.start, first.shape) == (second.start, second.shape) and np.array_equal(
            first.labels, second.labels
        )

    def _tight(self) -> LabelBox:
        box = LabelBox.of(self.labels)
        start = tuple(own + more for own, more in zip(self.start, box.start)) if box.labels.size else (0, 0, 0)
        return LabelBox(box.labels, start, tuple(self.shape))

    def with_part(self, part: np.ndarray, start: tuple[int, int, int], label: int) -> LabelBox:
        """This map with `label` where a bool (k, j, i) part that begins at voxel `start` is true."""
        grown = self._grown(start, part.shape)
        view = grown.labels[grown._where(start, part.shape)]
        view[part] = label
        return grown

    def with_slice(self, k: int, labels: np.ndarray) -> LabelBox:
        """This map with slice k replaced by (J, I) labels."""
        box = LabelBox.of(labels[None])
        start = (k, box.start[1], box.start[2])
        grown = self._grown(start, box.labels.shape)
        if grown.start[0] <= k < grown.start[0] + len(grown.labels):
            grown.labels[k - grown.start[0]] = 0
        if box.labels.size:
            grown.labels[grown._where(start, box.labels.shape)] = box.labels
        return grown

    def _where(self, start: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(slice(one - own, one - own + size) for one, own, size in zip(start, self.start, shape))

    def _grown(self, start: tuple[int, ...], shape: tuple[int, ...]) -> LabelBox:
        """A copy whose box holds another one too."""
        if 0 in shape:
            return LabelBox(self.labels.copy(), self.start, self.shape)
        if not self.labels.size:
            return LabelBox(np.zeros(shape, np.uint8), tuple(start), self.shape)
        low = tuple(min(own, one) for own, one in zip(self.start, start))
        ends = [max(own + n, one + m) for own, n, one, m in zip(self.start, self.labels.shape, start, shape)]
        grown = LabelBox(np.zeros([end - first for end, first in zip(ends, low)], np.uint8), low, self.shape)
        grown.labels[grown._where(self.start, self.labels.shape)] = self.labels
        return grown

    def slice_counts(self, label: int) -> np.ndarray:
        """(K,) voxels with a label in each slice."""
        counts = np.zeros(self.shape[0], int)
        found = np.count_nonzero(self.labels == label, axis=(1, 2))
        counts[self.start[0] : self.start[0] + len(found)] = found
        return counts


@dataclass(frozen=True, eq=False)
class Outcome:
    """An analysis with its arrays on the node's voxels.

    mask: the label map; heatmap uint8 (K, J, I) in percent or None; slice_probability float (K,), NaN for none.
    """

    analysis: Analysis
    mask: LabelBox
    heatmap: np.ndarray | None
    slice_probability: np.ndarray


class Session:
    """A scan, loaded when first needed; raises InputBlockedError where it cannot be analyzed."""

    def __init__(
        self, source: ScanSource, analyzer: str = DEFAULT_ANALYZER, networks: KeptNetworks | None = None
    ) -> None:
        self.source = source
        self.analyzer = analyzer
        self.networks = networks or KeptNetworks()
        self._volume: Any = None
        self._slice_preview: Any = None

    @property
    def volume(self) -> Any:
        """The checked CTVolume."""
        if self._volume is None:
            self._volume = load_volume(self.source)
        return self._volume

    def inspect(self) -> tuple[Finding, ...]:
        """What was found about the scan."""
        return self.volume.findings

    def analyze(
        self,
        prompts: Prompts | None,
        clinical: ClinicalRecord | None,
        text: str | None,
        options: AnalyzeOptions,
        progress: Progress,
        slice_in_view: int | None = None,
        preview: Preview | None = None,
    ) -> Outcome:
        """The answer of all networks. Raises what the library raises.

        slice_in_view: index of a node slice whose outline `preview` gets before the rest is computed.
        """
        from ICHAnalysisLib.ct.checks import require_clear

        progress(0.02, "Checking the scan")
        prompts = None if prompts is None or prompts.empty else prompts
        volume = self.volume
        require_clear(volume.findings, options.accept)
        analyze, is_default = self._function()
        models = self.networks.load(options, progress) if is_default else None
        if preview is not None and slice_in_view is not None and prompts is not None:
            self._preview(slice_in_view, prompts, clinical, text, options, preview)
        analysis, arrays = analyze(
            volume,
            prompts,
            clinical,
            models,
            options,
            lambda done, message: progress(0.1 + 0.85 * done, message),
            text=text,
        )
        return self._outcome(with_device_note(analysis, options.device), arrays)

    def measure(self, analysis: Analysis, mask: LabelBox, clinical: ClinicalRecord | None) -> Analysis:
        """The analysis after a person edited the label map on the node's voxels: mode "edited"."""
        from ICHAnalysisLib.analyze import measure_labels

        labels = from_node(mask.whole(), self.volume, self.source)
        return with_height_lines(
            measure_labels(analysis, AnalysisArrays(labels), self.volume, clinical), labels, self.volume
        )

    def _preview(
        self,
        slice_in_view: int,
        prompts: Prompts,
        clinical: ClinicalRecord | None,
        text: str | None,
        options: AnalyzeOptions,
        preview: Preview,
    ) -> None:
        """The outline of one node slice, where that slice was analyzed."""
        from ICHAnalysisPanel.preview import SlicePreview
        from ICHAnalysisPanel.scan_source import node_slices

        order, models = node_slices(self.volume, self.source), self.networks.models
        if order[slice_in_view] < 0 or models is None:
            return
        if self._slice_preview is None or not self._slice_preview.is_for(models, clinical, text):
            self._slice_preview = SlicePreview(self.volume, models, clinical, text)
        labels = self._slice_preview.labels(int(order[slice_in_view]), prompts, options)
        if labels.shape == self.source.shape[1:]:  # large scans are analyzed with reduced pixels: no preview
            preview(slice_in_view, labels)

    def _function(self) -> tuple[Callable, bool]:
        module, _, name = self.analyzer.partition(":")
        return getattr(importlib.import_module(module), name), self.analyzer == DEFAULT_ANALYZER

    def _outcome(self, analysis: Analysis, arrays: AnalysisArrays) -> Outcome:
        volume, source = self.volume, self.source
        heatmap = None
        if arrays.heatmap is not None:
            percent = np.round(100 * np.clip(arrays.heatmap, 0, 1)).astype(np.uint8)
            heatmap = on_node(percent, volume, source)
        known = analysis.presence.slices if analysis.presence is not None else ()
        by_slice = np.full(volume.shape[0], np.nan)
        by_slice[: len(known)] = [np.nan if value is None else value for value in known]
        analyzed = np.where(np.isfinite(by_slice), by_slice, -1.0)[:, None, None]
        on_slices = replace(source, shape=(source.shape[0], 1, 1))
        probability = on_node(analyzed, replace_plane(volume), on_slices)[:, 0, 0] if source.files else by_slice
        probability = np.where(probability < 0, np.nan, probability)
        analysis = with_height_lines(analysis, arrays.labels, volume)
        return Outcome(analysis, LabelBox.of(on_node(arrays.labels, volume, source)), heatmap, probability)


def with_device_note(analysis: Analysis, asked: str) -> Analysis:
    """The analysis, saying so where it was not computed on the device that was asked for."""
    if asked == "auto" or not analysis.device or analysis.device.startswith(asked):
        return analysis
    message = f"The device {asked} is not available on this computer; {analysis.device} was used instead."
    finding = note("device_fallback", message, "Choose auto under Advanced to stop asking for it.", Level.NOTE)
    return replace(analysis, findings=(*analysis.findings, finding))


def replace_plane(volume: Any) -> Any:
    """The volume with one voxel a slice, for values that belong to whole slices."""
    return replace(volume, hu=volume.hu[:, :1, :1])
