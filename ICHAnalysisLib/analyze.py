"""One scan, three networks, one `Analysis`. The order of the stages is the order of this file."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ICHAnalysisLib import __version__
from ICHAnalysisLib.analysis import (
    LABEL_ICH,
    NEGATIVE_CAVEAT,
    SUSPICION_CAVEAT,
    Analysis,
    AnalysisArrays,
    Interval,
    Presence,
)
from ICHAnalysisLib.beside import beside
from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.ct.lesion_checks import lesion_findings, settle_gaps
from ICHAnalysisLib.errors import CancelledError, InputBlockedError
from ICHAnalysisLib.findings import Finding
from ICHAnalysisLib.quick_imports import collector_paused
from ICHAnalysisLib.results import (
    describe_lesions,
    describe_location,
    describe_midline,
    describe_prognosis,
    describe_volumes,
    kept_midline,
)

if TYPE_CHECKING:
    from ICHAnalysisLib.clinical import ClinicalRecord
    from ICHAnalysisLib.config.outputs import OutputOptions
    from ICHAnalysisLib.ct.volume import CTVolume
    from ICHAnalysisLib.predict import Models
    from ICHAnalysisLib.prompts import Prompts

logger = logging.getLogger(__name__)

#: Called with the fraction done and a short text; may raise CancelledError to stop.
Progress = Callable[[float, str], None]

#: Called with the questions about a scan; True where all are answered with yes.
Ask = Callable[[Sequence[Finding]], bool]


def analyze_scan(
    path: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    prompts: Prompts | None = None,
    clinical: ClinicalRecord | None = None,
    text: str | None = None,
    series: str | None = None,
    models: Models | None = None,
    options: AnalyzeOptions | None = None,
    outputs: OutputOptions | None = None,
    progress: Progress | None = None,
    ask: Ask | None = None,
) -> tuple[Analysis, dict[str, Path]]:
    """Read a scan, analyze it and, where `out` is given, write the files: (analysis, paths by name).

    A blocked scan is an answer too: its analysis says why, and analysis.json is written. Names of files and folders
    are taken out of every sentence, since they may be a patient's. ask: gets the questions about the scan that
    `options.accept` leaves open; without it they block. Raises UsageError for wrong prompts or clinical values and
    CancelledError where `progress` asked to stop.
    """
    from ICHAnalysisLib.ct.checks import accepted, clear_or_ask, gap_question_waits
    from ICHAnalysisLib.ct.readers import read_scan
    from ICHAnalysisLib.outputs.redact import redacted

    options = options or AnalyzeOptions()
    step = progress or _silent
    step(0.02, "Reading the scan")
    started = time.perf_counter()
    try:
        volume = read_scan(path, series=series, accept=True)
        waiting = ("missing_slices",) if gap_question_waits(volume) else ()
        answered = clear_or_ask(volume.findings, options.accept, ask, waiting)
    except InputBlockedError as error:
        analysis = redacted(blocked(error, options.case_id), path)
        return analysis, _write(analysis, None, None, out, outputs)
    reading = time.perf_counter() - started
    analysis, arrays = analyze(
        volume, prompts, clinical, models, options, lambda done, message: step(0.1 + 0.75 * done, message), text=text
    )
    try:  # what waited for the outline
        clear_or_ask(analysis.findings, options.accept, ask, answered)
    except InputBlockedError as error:
        analysis = redacted(blocked(error, options.case_id), path)
        return analysis, _write(analysis, None, None, out, outputs)
    timings = {"read": round(reading, 3), **analysis.timings_s}
    analysis = redacted(replace(analysis, findings=accepted(analysis.findings), timings_s=timings), path)
    step(0.87, "Writing the results")
    files = _write(analysis, arrays, volume, out, outputs)
    step(1.0, "Done")
    return analysis, files


def analyze(
    volume: CTVolume,
    prompts: Prompts | None = None,
    clinical: ClinicalRecord | None = None,
    models: Models | None = None,
    options: AnalyzeOptions | None = None,
    progress: Progress | None = None,
    *,
    text: str | None = None,
) -> tuple[Analysis, AnalysisArrays]:
    """The answer of all three networks for one checked volume, arrays on its acquired slices.

    models: loaded networks, kept by the caller between scans; loaded here where None. text: clinical free text for
    ICH-SCNet in place of `clinical`; it enters no output. Raises UsageError for a prompt outside the scan.
    """
    with collector_paused():
        from ICHAnalysisLib.ct.geometry import axial_copy, return_to_original
        from ICHAnalysisLib.predict import Models
        from ICHAnalysisLib.stages import Evidence, see_scan, see_slices, segment

    options = options or AnalyzeOptions()
    clock = _Clock(progress or _silent)
    if prompts is not None:
        prompts.validate(volume)
    clock.stage("load", 0.0, "Loading the networks")
    models = models or Models.load(options.weights, options.device)
    clock.stage("preprocess", 0.08, "Preparing the slices")
    axial = axial_copy(volume)  # the volume itself unless its slices are not axial or sheared (hazards 2 and 24)
    evidence = Evidence.of(axial, models)
    clock.stage("scan", 0.16, "Looking at the whole scan")
    with beside(1) as submit:
        scanning = submit(see_scan, evidence, models, want_heatmap=options.heatmap)
        brain = evidence.brain_native  # what the slices need next
        scan = scanning.result()
    clock.stage("slices", 0.26, "Looking for hemorrhage slice by slice")
    slices = see_slices(evidence, models)
    clock.stage("segmentation", 0.42, "Outlining the hemorrhage")
    segmented = segment(evidence, slices, scan, models, prompts, clinical, text, options)
    clock.stage("measure", 0.85, "Measuring volumes and scores")
    labels = return_to_original(segmented.labels, axial, volume, order=0)
    midline = describe_midline(volume, labels, brain if axial is volume else None) if labels.any() else {}
    heatmap = scan.native_heatmap() if segmented.positive else None
    arrays = AnalysisArrays(
        labels=labels,
        heatmap=None if heatmap is None else return_to_original(heatmap, axial, volume, order=1),
        probability=return_to_original(segmented.probability, axial, volume, order=1),
    )
    analysis = _assemble(volume, slices, segmented, scan, arrays, clinical, models, options)
    clock.stop()
    measurements = {**analysis.measurements, **midline}
    return replace(analysis, measurements=measurements, timings_s=clock.timings), arrays


def measure_labels(
    analysis: Analysis, arrays: AnalysisArrays, volume: CTVolume, clinical: ClinicalRecord | None = None
) -> Analysis:
    """The same analysis after a person edited the label map: lesions, volumes, location and scores follow the mask.

    The networks' own numbers stay as they were; `mode` becomes "edited".
    """
    lesions = describe_lesions(volume, arrays.labels == LABEL_ICH)
    volumes, lines, measurements = describe_volumes(volume, arrays.labels)
    volumes["network"] = analysis.volumes_ml.get("network")
    location, notes = describe_location(volume, arrays.labels == LABEL_ICH, None, previous=analysis.location)
    kept = {key: value for key, value in analysis.prognosis.items() if key in ("slice_network", "scan_network")}
    accepted = any(item.score is not None or item.score_range is not None for item in analysis.prognosis.values())
    scores = describe_prognosis(volume, clinical, volumes, location, None, None, False, accepted)
    intervals = {key: value for key, value in analysis.intervals.items() if key != "segmentation"}
    return replace(
        analysis,
        lesions=lesions,
        volumes_ml=volumes,
        abc2_lines=lines,
        measurements={**measurements, **(kept_midline(analysis.measurements) if measurements else {})},
        location=location,
        prognosis={**kept, **{k: v for k, v in scores.items() if k in ("ich_score", "func")}},
        intervals=intervals,
        findings=(*analysis.findings, *notes),
        mode="edited",
    )


def blocked(error: InputBlockedError, case_id: str = "") -> Analysis:
    """The analysis of a scan that could not be analyzed: what was found, and why."""
    return Analysis(status="blocked", findings=error.findings, message=str(error), case_id=case_id, version=__version__)


def _assemble(
    volume: CTVolume,
    slices: Any,
    segmented: Any,
    scan: Any,
    arrays: AnalysisArrays,
    clinical: ClinicalRecord | None,
    models: Models,
    options: AnalyzeOptions,
) -> Analysis:
    """All numbers of one scan as one value."""
    ich = arrays.labels == LABEL_ICH
    volumes, lines, measurements = describe_volumes(volume, arrays.labels)
    found = bool(ich.any())
    suspected = not found and segmented.presence >= options.fusion.threshold
    volumes["network"] = scan.volume_ml if found else 0.0
    seen = slices.stack.volume  # an upright copy where the acquired slices are not axial: its slices have the answers
    location, location_notes = describe_location(seen, segmented.labels == LABEL_ICH, slices.native_location())
    simulated = bool(volume.source.get("simulated"))
    intervals: dict[str, Interval] = {}
    if found:
        intervals["network"] = scan.interval
        if segmented.interval is not None:
            intervals["segmentation"] = segmented.interval
    prognosis = (
        describe_prognosis(
            volume,
            clinical,
            volumes,
            location,
            segmented.poor_probability,
            scan.poor_probability,
            simulated or options.simulated_prognosis,
            options.accept,
        )
        if found
        else {}
    )
    if segmented.poor_interval is not None and getattr(prognosis.get("slice_network"), "probability", None) is not None:
        intervals["slice_network"] = segmented.poor_interval
    return Analysis(
        status="ok",
        findings=(
            *settle_gaps(volume.findings, volume, arrays.labels > 0),
            *segmented.findings,
            *location_notes,
            *lesion_findings(volume, ich),
        ),
        input=describe_input(volume),
        presence=Presence(
            probability=round(segmented.presence, 4),
            positive=segmented.positive,
            slices=slices.native_presence() if seen is volume else (),
            threshold=options.fusion.threshold,
            origin="the likeliest lesion by all networks' evidence, fused; calibrated on simulated scans",
        ),
        location=location,
        lesions=describe_lesions(volume, ich),
        volumes_ml=volumes,
        intervals=intervals,
        abc2_lines=lines,
        measurements=measurements,
        prognosis=prognosis,
        mode=segmented.mode,
        weights=models.infos(),
        device=str(models.device),
        version=__version__,
        message="" if found else SUSPICION_CAVEAT if suspected else NEGATIVE_CAVEAT,
        case_id=options.case_id,
    )


def describe_input(volume: CTVolume) -> dict[str, Any]:
    """Facts about the scan for analysis.json, without identifiers or paths."""
    hidden = {"files", "path", "instances"}
    facts = {key: value for key, value in volume.source.items() if key not in hidden}
    return {
        **facts,
        "shape": list(volume.shape),
        "spacing_mm": [round(float(value), 4) for value in volume.spacing_mm],
        "tilt_degrees": round(volume.tilt_degrees, 2),
        "slice_positions_mm": [round(float(value), 3) for value in volume.positions_mm],
        "slice_heights_mm": [round(float(value), 3) for value in volume.slice_heights_mm],
        "slice_origins_ras_mm": [[round(float(v), 3) for v in origin] for origin in volume.slice_origins_ras],
        "side_known": volume.side_known,
    }


def _write(
    analysis: Analysis,
    arrays: AnalysisArrays | None,
    volume: CTVolume | None,
    out: str | os.PathLike | None,
    outputs: OutputOptions | None,
) -> dict[str, Path]:
    """The files of an analysis, or nothing where no folder was named."""
    if out is None:
        return {}
    from ICHAnalysisLib.outputs.files import write_outputs

    return write_outputs(analysis, arrays, volume, Path(out), outputs)


def _silent(_fraction: float, _message: str) -> None:
    """No progress wanted."""


class _Clock:
    """Reports stages and keeps their times."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._name = ""
        self._start = time.perf_counter()
        self.timings: dict[str, float] = {}

    def stage(self, name: str, fraction: float, message: str) -> None:
        self.stop()
        self._name, self._start = name, time.perf_counter()
        try:
            self._progress(fraction, message)
        except CancelledError:
            logger.info("Cancelled before the stage %s", name)
            raise

    def stop(self) -> None:
        if self._name:
            self.timings[self._name] = round(time.perf_counter() - self._start, 3)


__all__ = ["analyze", "analyze_scan", "blocked", "describe_input", "measure_labels"]
