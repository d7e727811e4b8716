"""The code of the recipes page runs, block after block, on the scene that the page speaks of."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import heads
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "ICHAnalysis" / "docs" / "recipes.md"


@pytest.fixture
def without_networks(slicer, widget, monkeypatch):
    """The logic with the threshold in the networks' place, and no reports."""
    import threshold_analyzer

    import ICHAnalysisLib.analyze
    import ICHAnalysisLib.outputs.files
    import ICHAnalysisLib.predict
    from ICHAnalysisLib.analysis import Location
    from ICHAnalysisPanel import dependencies

    def analyze(volume, *arguments, **options):
        analysis, arrays = threshold_analyzer.analyze(volume, *arguments, **options)
        return replace(analysis, location=Location("deep", "left")), arrays

    monkeypatch.setattr(dependencies, "ensure", lambda: None)
    monkeypatch.setattr(threshold_analyzer, "located", analyze, raising=False)
    monkeypatch.setattr(ICHAnalysisLib.analyze, "analyze", analyze)
    monkeypatch.setattr(ICHAnalysisLib.outputs.files, "write_outputs", lambda *_arguments: {})
    monkeypatch.setattr(ICHAnalysisLib.predict.Models, "load", lambda *_arguments: None)
    widget.logic.service.analyzer = "threshold_analyzer:located"


@pytest.fixture
def scene(slicer):
    """The nodes that the page names."""
    import vtk

    from ICHAnalysisPanel.prompt_nodes import add_box, add_points

    volume = heads.add_head(slicer, "CT Head")
    heads.add_head(slicer, "CT 2", radii=(2.5, 4, 4))
    add_box("R", (-14, -14, 3), (60, 60, 60)).SetName("R")
    points = add_points("F", True)
    points.AddControlPointWorld(vtk.vtkVector3d(-14, -14, 3))
    for name in ("Segmentation", "Manual"):
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name).CreateDefaultDisplayNodes()
    manual = slicer.util.getNode("Manual")
    manual.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    manual.GetSegmentation().AddEmptySegment("Segment_1", "By hand", [0, 1, 0])
    truth = ((heads.head_array() > 55) & (heads.head_array() < 90)).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(truth, manual, "Segment_1", volume)
    return volume


def test_every_block_runs(slicer, widget, without_networks, scene, tmp_path):
    from ICHAnalysisLib.outputs.tables import read_csv

    (tmp_path / "ward").mkdir()
    for name, radii in (("a", (3.2, 6, 5)), ("b", (2.5, 4, 4)), ("c", (4.2, 8, 7))):
        heads.write_head(tmp_path / "ward" / f"{name}.nii.gz", radii=radii)
    heads.write_head(tmp_path / "scan.nii.gz")
    manual = slicer.util.getNode("Manual")
    manual.AddDefaultStorageNode()
    manual.GetStorageNode().SetFileName(str(tmp_path / "rater.seg.nrrd"))
    assert manual.GetStorageNode().WriteData(manual)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 12
    names = {"slicer": slicer}
    for block in blocks:
        if "raters.csv" in block:
            cases = [row["case_id"] for row in read_csv(tmp_path / "results" / "cases.csv")]
            table = "case_id,rater 1\n" + "".join(f"{case},{10 + 7 * n}\n" for n, case in enumerate(cases))
            (tmp_path / "raters.csv").write_text(table)
        if "analysis.json" in block:
            (tmp_path / "analysis.json").write_text(names["analysis"].to_json())
        exec(compile(block.replace("/data/", f"{tmp_path}/"), str(PAGE), "exec"), names)
    assert names["analysis"].mode == "automatic"
    assert len(names["lines"]) == 3
    assert names["agreement"].reference == "rater 1"
    assert len(names["rows"]) == 2
    measures = names["frame"].set_index("Measure")["mL"]
    assert measures["Reference labelmap"] == pytest.approx(20.122, abs=1e-3)
