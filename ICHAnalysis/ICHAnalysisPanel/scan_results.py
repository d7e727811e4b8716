"""Results of scans that are not chosen now: kept on their own segmentation, and brought back with the scan.

A scene may hold a first CT and its follow-up. The parameter node knows the results of the chosen one alone; those of
the other stay in the scene, hidden in the views, and are saved with it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import slicer

from ICHAnalysisLib.analysis import Analysis
from ICHAnalysisPanel import segments

#: Reference of the parameter node to the scan that its results belong to.
VOLUME_ROLE = "analyzedVolume"
#: The analysis on the segmentation of a scan that is not chosen now, and the reference to that scan.
ANALYSIS_ATTRIBUTE = "ICHAnalysis.analysis"
SCAN_ROLE = "ICHAnalysis.scan"
#: Nodes of a scan's results beside its segmentation, as the parameter node names them.
NODES = ("resultTable", "sliceTable", "chart", "heatmap", "lesionLabels")


def without_clinical(analysis: Analysis) -> Analysis:
    """The analysis without the clinical values behind its scores."""
    prognosis = {key: replace(value, items={}) for key, value in analysis.prognosis.items()}
    return replace(analysis, prognosis=prognosis)


def to_text(analysis: Analysis) -> str:
    """The analysis as the scene keeps it."""
    return json.dumps(analysis.to_dict(), allow_nan=False)


def put_away(parameters: Any) -> None:
    """Leave the results of the analyzed scan in the scene, hidden in the views, and forget them in the parameters."""
    segmentation = parameters.outputSegmentation
    scan = parameters.parameterNode.GetNodeReference(VOLUME_ROLE)
    if segmentation is not None and scan is not None:
        text = to_text(without_clinical(Analysis.from_json(parameters.analysisJson)))
        segmentation.SetAttribute(ANALYSIS_ATTRIBUTE, text)
        segmentation.SetNodeReferenceID(SCAN_ROLE, scan.GetID())
        for name in NODES:
            node = getattr(parameters, name)
            segmentation.SetNodeReferenceID(_role(name), node.GetID() if node is not None else None)
    _show(segmentation, parameters.lesionLabels, False)
    parameters.analysisJson = ""
    parameters.outputSegmentation = None
    for name in NODES:
        setattr(parameters, name, None)
    parameters.parameterNode.SetNodeReferenceID(VOLUME_ROLE, None)


def bring_back(parameters: Any, scan: Any) -> bool:
    """The inverse for a scan that was analyzed before; False where it was not."""
    for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        text = segmentation.GetAttribute(ANALYSIS_ATTRIBUTE)
        if text and segmentation.GetNodeReference(SCAN_ROLE) is scan:
            break
    else:
        return False
    segmentation.RemoveAttribute(ANALYSIS_ATTRIBUTE)
    parameters.outputSegmentation = segmentation
    for name in NODES:
        setattr(parameters, name, segmentation.GetNodeReference(_role(name)))
    parameters.parameterNode.SetNodeReferenceID(VOLUME_ROLE, scan.GetID())
    parameters.analysisJson = text
    _show(segmentation, parameters.lesionLabels, True)
    return True


def _role(name: str) -> str:
    return f"ICHAnalysis.{name}"


def _show(segmentation: Any | None, labels: Any | None, visible: bool) -> None:
    """Our segments and the lesions' labels in the views, or not; segments of others stay as they are."""
    display = segmentation.GetDisplayNode() if segmentation is not None else None
    if display is not None:
        for kind in segments.KINDS:
            display.SetSegmentVisibility(kind.segment_id, visible)
    if labels is not None and labels.GetDisplayNode() is not None:
        labels.GetDisplayNode().SetVisibility(visible)
