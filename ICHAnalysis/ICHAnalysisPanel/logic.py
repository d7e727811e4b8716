"""What the module can do without its panel: analyze, batch and compare, on nodes or on files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisLib.clinical import ClinicalRecord
from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.prompts import Box, Point, Prompts
from ICHAnalysisPanel import result_nodes, result_tables, segments
from ICHAnalysisPanel.kept_networks import KeptNetworks
from ICHAnalysisPanel.prompt_nodes import NEGATIVE_ATTRIBUTE, check_inside, read_prompts
from ICHAnalysisPanel.scan_source import ScanSource
from ICHAnalysisPanel.session import DEFAULT_ANALYZER, Outcome, Session
from ICHAnalysisPanel.volume_nodes import FileLookUp, database_file, read_node, straight

if TYPE_CHECKING:
    from ICHAnalysisLib.batch_cases import Case
    from ICHAnalysisLib.config.batch import BatchOptions

Progress = Callable[[float, str], None]


class AnalysisService:
    """Blocking analysis in this process; networks are kept from one scan to the next."""

    def __init__(self, analyzer: str = DEFAULT_ANALYZER, look_up: FileLookUp = database_file) -> None:
        self.analyzer = analyzer
        self.look_up = look_up
        self.networks = KeptNetworks()

    def session(self, source: ScanSource) -> Session:
        """A session that reuses the networks."""
        return Session(source, self.analyzer, self.networks)

    def analyze_node(
        self,
        volume: Any,
        prompts: Prompts | None = None,
        clinical: dict[str, Any] | ClinicalRecord | None = None,
        text: str | None = None,
        options: AnalyzeOptions | None = None,
        progress: Progress | None = None,
    ) -> tuple[Outcome, Session]:
        """The outcome of one volume node. Raises UsageError and InputBlockedError with a sentence for the user."""
        source = read_node(volume, self.look_up)
        if prompts is not None:
            check_inside(prompts, source.geometry)
        session = self.session(source)
        outcome = session.analyze(prompts, as_record(clinical), text, options or AnalyzeOptions(), progress or _silent)
        return outcome, session

    def analyze_file(
        self,
        path: str | Path,
        prompts: Prompts | None = None,
        clinical: dict[str, Any] | ClinicalRecord | None = None,
        text: str | None = None,
        options: AnalyzeOptions | None = None,
        progress: Progress | None = None,
    ) -> Analysis:
        """The analysis of a file or folder, with nothing added to the scene.

        Raises UsageError for wrong values and InputBlockedError, with its findings, for a scan that cannot be used.
        """
        from ICHAnalysisLib.analyze import analyze_scan
        from ICHAnalysisLib.errors import InputBlockedError

        options, progress, record = options or AnalyzeOptions(), progress or _silent, as_record(clinical)
        models = self.networks.load(options, progress)
        analysis, _files = analyze_scan(
            path, prompts=prompts, clinical=record, text=text, models=models, options=options, progress=progress
        )
        if analysis.status == "blocked":  # as with a node: a script must not take it for an answer
            raise InputBlockedError(analysis.message, analysis.findings)
        return analysis

    def batch(
        self,
        scans: str | Path | Sequence[Any],
        folder: str | Path,
        options: AnalyzeOptions | None = None,
        progress: Progress | None = None,
    ) -> list[dict[str, Any]]:
        """Analyze a folder of scans or volume nodes; a row a case in `folder`/cases.csv, resumable."""
        from ICHAnalysisLib.batch import run_batch
        from ICHAnalysisLib.batch_cases import find_cases
        from ICHAnalysisLib.config.batch import BatchOptions

        step = progress or _silent
        batch_options = BatchOptions(analyze=options or AnalyzeOptions())

        def case_done(done: int, total: int, row: dict[str, Any]) -> None:
            step(done / total, f"{done} of {total}: {row['case_id']} {row['status']}")

        if isinstance(scans, (str, Path)):
            cases = find_cases(scans, skip=Path(folder))
            return run_batch(cases, folder, batch_options, case_done).rows
        cases, nodes = _node_cases(scans)

        def analyze_case(case: Case, case_folder: Path, chosen: BatchOptions) -> Analysis:
            return self._analyze_to_folder(
                nodes[case.case_id], case_folder, replace(chosen.analyze, case_id=case.case_id)
            )

        return run_batch(cases, folder, batch_options, case_done, analyze_case).rows

    def _analyze_to_folder(self, volume: Any, folder: Path, options: AnalyzeOptions) -> Analysis:
        """One node of a batch, with the files that the command line writes."""
        from ICHAnalysisLib.analysis import AnalysisArrays
        from ICHAnalysisLib.analyze import blocked
        from ICHAnalysisLib.errors import InputBlockedError
        from ICHAnalysisLib.outputs.files import write_outputs
        from ICHAnalysisPanel.scan_source import from_node

        shown = straight(volume, self.look_up)
        try:
            outcome, session = self.analyze_node(shown, options=options)
        except InputBlockedError as error:
            analysis = blocked(error, options.case_id)
            write_outputs(analysis, None, None, folder)
            return analysis
        finally:
            if shown is not volume:
                slicer.mrmlScene.RemoveNode(shown)
        analysis = replace(outcome.analysis, case_id=options.case_id)
        heatmap = None
        if outcome.heatmap is not None:
            heatmap = from_node(outcome.heatmap, session.volume, session.source).astype(np.float32) / 100
        labels = from_node(outcome.mask.whole(), session.volume, session.source)
        write_outputs(analysis, AnalysisArrays(labels, heatmap), session.volume, folder)
        return analysis


def write_results(
    outcome: Outcome, volume: Any, source: ScanSource, segmentation: Any, nodes: dict[str, Any], reference: Any = None
) -> dict[str, Any]:
    """Everything of an outcome as nodes: volumes, slices, plot, attention map and lesion labels.

    nodes: nodes of an earlier outcome, reused: "volumes", "slices", "chart", "heatmap", "lesions". The segmentation is
    written by the caller, first. Returns the nodes by the same names.
    """
    analysis = outcome.analysis
    rows = result_tables.volume_rows(analysis, segmentation, reference)
    scan = volume.GetName()
    volumes = result_tables.write_volume_table(nodes.get("volumes"), rows, scan)
    slices = result_tables.write_slice_table(
        nodes.get("slices"), outcome.slice_probability, outcome.mask, source.geometry, scan
    )
    chart = result_tables.write_slice_plot(nodes.get("chart"), slices, scan)
    heatmap = nodes.get("heatmap")
    if outcome.heatmap is not None:
        heatmap = result_nodes.write_heatmap(heatmap, volume, outcome.heatmap)
    lesions = result_nodes.write_lesion_labels(nodes.get("lesions"), analysis, scan)
    return {"volumes": volumes, "slices": slices, "chart": chart, "heatmap": heatmap, "lesions": lesions}


def prompts_of(boxes: Sequence[Any], points: Any, negative: Any) -> Prompts | None:
    """Prompts from nodes, from numbers, or from the library's own types.

    boxes: ROI nodes, (R0, A0, S0, R1, A1, S1) in mm, or Box. points, negative: a point list node or several of them,
    (R, A, S) triples, or Point. A point list with the attribute of negative points counts as negative.
    """
    nodes = [box for box in boxes if hasattr(box, "GetID")]
    others = [box if isinstance(box, Box) else Box(tuple(box[:3]), tuple(box[3:])) for box in boxes if box not in nodes]
    lists: dict[bool, list[Any]] = {True: [], False: []}
    loose: list[Point] = []
    for given, sign in ((points, True), (negative, False)):
        for one in _as_list(given):
            if hasattr(one, "GetID"):
                lists[sign and one.GetAttribute(NEGATIVE_ATTRIBUTE) is None].append(one)
            else:
                loose.append(one if isinstance(one, Point) else Point(tuple(one), sign))
    read = read_prompts(nodes, lists[True], lists[False])
    prompts = Prompts((*read.boxes, *others), (*read.points, *loose))
    return None if prompts.empty else prompts


def compare(segmentation: Any, analysis: Analysis | str | Path, segment_id: str | None = None) -> Any:
    """A table node: the analysis' volumes beside those of a segment (the first one where none is named).

    segmentation: a node, or a file, which is then read into the scene. analysis: a value, or an analysis.json.
    """
    if isinstance(segmentation, (str, Path)):
        segmentation = read_segmentation(Path(segmentation))
    if isinstance(analysis, (str, Path)):
        analysis = Analysis.from_json(Path(analysis).read_text(encoding="utf-8"))
    contents = segmentation.GetSegmentation()
    if contents.GetNumberOfSegments() == 0:
        raise UsageError(f"{segmentation.GetName()} holds no segment to compare with.")
    segment_id = segment_id or contents.GetNthSegmentID(0)
    if contents.GetSegment(segment_id) is None:
        raise UsageError(f"{segmentation.GetName()} has no segment {segment_id}.")
    rows = result_tables.volume_rows(analysis, None, (segmentation, segment_id))
    return result_tables.write_volume_table(None, rows, segmentation.GetName())


def read_segmentation(path: Path) -> Any:
    """A segmentation node of a .seg.nrrd, .nrrd or .nii.gz file. Raises UsageError where it cannot be read."""
    if not path.is_file():
        raise UsageError(f"{path.name} does not exist: give the file of a segmentation (.seg.nrrd, .nrrd or .nii.gz).")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", path.name.partition(".")[0])
    node.CreateDefaultDisplayNodes()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    if not storage.ReadData(node):
        slicer.mrmlScene.RemoveNode(node)
        raise UsageError(f"{path.name} is no segmentation that Slicer can read: give a .seg.nrrd, .nrrd or .nii.gz.")
    return node


def as_record(clinical: dict[str, Any] | ClinicalRecord | None) -> ClinicalRecord | None:
    """A validated record."""
    if clinical is None or isinstance(clinical, ClinicalRecord):
        return clinical
    return ClinicalRecord.from_dict(clinical)


def output_segmentation(segmentation: Any, volume: Any) -> Any:
    """The segmentation to write to: the one chosen, or a new one."""
    return segmentation if segmentation is not None else segments.new_segmentation(volume)


def _as_list(given: Any) -> list[Any]:
    if given is None:
        return []
    if hasattr(given, "GetID") or isinstance(given, Point):
        return [given]
    given = list(given)
    return [given] if given and isinstance(given[0], (int, float)) else given


def _node_cases(nodes: Sequence[Any]) -> tuple[list[Case], dict[str, Any]]:
    """Cases named by a hash of their voxels: a node's name may be a patient's."""
    from ICHAnalysisLib.batch_cases import Case

    found: dict[str, Any] = {}
    for node in nodes:
        voxels = slicer.util.arrayFromVolume(node)
        found[f"volume-{hashlib.sha256(np.ascontiguousarray(voxels)).hexdigest()[:10]}"] = node
    return [Case(case_id, case_id) for case_id in found], found


def _silent(_fraction: float, _message: str) -> None:
    """No progress wanted."""
