"""The logic without widgets: analyze, batch, compareVolumes; sample data; dependencies; what the extension ships."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import heads
import nibabel
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def logic(slicer, monkeypatch):
    import ICHAnalysis
    from ICHAnalysisPanel import dependencies

    monkeypatch.setattr(dependencies, "ensure", lambda: None)
    created = ICHAnalysis.ICHAnalysisLogic()
    created.service.analyzer = "threshold_analyzer:analyze"
    return created


def test_analyze_returns_the_analysis_and_fills_the_scene(slicer, logic):
    from ICHAnalysisPanel.prompt_nodes import add_box

    node = heads.add_head(slicer)
    steps = []
    roi = add_box("Box", (-14, -14, 3), (60, 60, 60))
    analysis = logic.analyze(node, boxes=[roi], clinical={"age": 67, "gcs": 12}, progress=lambda f, m: steps.append(f))
    assert analysis.mode == "prompted"
    assert analysis.volumes_ml["segmentation"] > 1
    assert steps == sorted(steps) and len(steps) > 10
    segmentation = logic.results["segmentation"]
    assert segmentation.GetSegmentation().GetSegment("ICHAnalysis_ICH") is not None
    table = logic.compareVolumes(segmentation, analysis)
    rows = {table.GetCellText(row, 0): row for row in range(table.GetNumberOfRows())}
    labelmap = table.GetTable().GetValueByName(rows["Reference labelmap"], "mL").ToDouble()
    assert abs(labelmap - analysis.volumes_ml["segmentation"]) < 1e-3


def test_wrong_arguments_name_themselves(slicer, logic):
    from ICHAnalysisLib.errors import UsageError

    node = heads.add_head(slicer)
    with pytest.raises(UsageError, match="gcs"):
        logic.analyze(node, clinical={"gcs": 42})
    with pytest.raises(UsageError, match="outside the scan"):
        logic.analyze(node, points=[(900, 0, 0)])
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Nothing")
    with pytest.raises(UsageError, match="Nothing holds no segment"):
        logic.compareVolumes(empty, logic.analyze(node))


def test_volumes_are_compared_from_files(slicer, logic, tmp_path):
    from ICHAnalysisLib.errors import UsageError

    analysis = logic.analyze(heads.add_head(slicer))
    (tmp_path / "analysis.json").write_text(analysis.to_json())
    segmentation = logic.results["segmentation"]
    segmentation.AddDefaultStorageNode()
    segmentation.GetStorageNode().SetFileName(str(tmp_path / "rater.seg.nrrd"))
    assert segmentation.GetStorageNode().WriteData(segmentation)
    labels = (heads.head_array() > 55) & (heads.head_array() < 90)
    nibabel.save(
        nibabel.Nifti1Image(labels.astype(np.uint8).transpose(2, 1, 0), heads.affine()), tmp_path / "rater.nii.gz"
    )
    expected = {"rater.seg.nrrd": analysis.volumes_ml["segmentation"], "rater.nii.gz": labels.sum() * 0.0512}
    for name, volume_ml in expected.items():
        table = logic.compareVolumes(tmp_path / name, tmp_path / "analysis.json")
        rows = {table.GetCellText(row, 0): row for row in range(table.GetNumberOfRows())}
        labelmap = table.GetTable().GetValueByName(rows["Reference labelmap"], "mL").ToDouble()
        assert labelmap == pytest.approx(volume_ml, abs=1e-3)
    count = len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))
    (tmp_path / "broken.seg.nrrd").write_text("no image")
    for name, reason in (("absent.seg.nrrd", "does not exist"), ("broken.seg.nrrd", "no segmentation")):
        with pytest.raises(UsageError, match=reason):
            logic.compareVolumes(tmp_path / name, analysis)
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == count


def test_a_blocked_file_raises_as_a_blocked_node_does(slicer, logic, tmp_path, monkeypatch):
    import ICHAnalysisLib.predict
    from ICHAnalysisLib.errors import InputBlockedError

    monkeypatch.setattr(ICHAnalysisLib.predict.Models, "load", lambda *_arguments: None)  # never asked
    nibabel.save(nibabel.Nifti1Image(np.full((40, 40, 12), -1000, np.int16), heads.affine()), tmp_path / "air.nii.gz")
    with pytest.raises(InputBlockedError, match="empty") as caught:
        logic.analyze(tmp_path / "air.nii.gz")
    assert caught.value.findings[0].remedy


def test_networks_are_kept_until_others_are_wanted(monkeypatch):
    import ICHAnalysisLib.predict
    from ICHAnalysisLib.config.analyze import AnalyzeOptions
    from ICHAnalysisPanel.kept_networks import KeptNetworks

    loaded = []

    def load(*key):
        loaded.append(key)
        return object()

    monkeypatch.setattr(ICHAnalysisLib.predict.Models, "load", load)
    networks = KeptNetworks()
    first = networks.load(AnalyzeOptions(device="cpu"), lambda *_told: None)
    assert networks.load(AnalyzeOptions(device="cpu", heatmap=False), lambda *_told: None) is first
    assert networks.load(AnalyzeOptions(device="cuda"), lambda *_told: None) is not first
    assert networks.load(AnalyzeOptions(device="cuda", weights="/w"), lambda *_told: None) is not first
    assert loaded == [(None, "cpu"), (None, "cuda"), ("/w", "cuda")]


def test_batch_of_nodes_resumes(slicer, logic, tmp_path):
    nodes = [heads.add_head(slicer, "Patient Doe"), heads.add_head(slicer, "B", center=(12, 30, 24), radii=(2.5, 4, 4))]
    rows = logic.batch(nodes, tmp_path / "out")
    assert [row["status"] for row in rows] == ["ok", "ok"], rows
    text = (tmp_path / "out" / "cases.csv").read_text()
    assert "Doe" not in text and len(text.splitlines()) == 3
    logic.service.analyzer = "no_such_module:analyze"  # a second run must not need it
    assert [row["status"] for row in logic.batch(nodes, tmp_path / "out")] == ["ok", "ok"]


def test_real_networks_through_the_logic(slicer, logic):
    """The library's own analyze with the shipped weights."""
    from ICHAnalysisLib.weights.registry import weights_path
    from ICHAnalysisPanel.session import DEFAULT_ANALYZER

    try:
        missing = [name for name in ("ich_scnet", "dtvit", "volume_net") if not Path(weights_path(name, None)).exists()]
    except Exception as error:
        missing = [str(error)]
    if missing:
        pytest.skip(f"no shipped weights: {missing}")
    logic.service.analyzer = DEFAULT_ANALYZER
    analysis = logic.analyze(heads.add_head(slicer))
    assert analysis.status == "ok"
    assert analysis.presence is not None and 0 <= analysis.presence.probability <= 1
    assert len(analysis.presence.slices) == heads.SHAPE[0]
    assert logic.results["segmentation"] is not None


def test_a_suspicion_is_no_clean_bill(slicer):
    """Nothing outlined: the panel says none found, or that hemorrhage is suspected all the same."""
    from ICHAnalysisLib.analysis import NEGATIVE_CAVEAT, Analysis, Presence
    from ICHAnalysisPanel.words import outcome_html

    negative = outcome_html(Analysis("ok", presence=Presence(0.1, False)))
    assert "No intraparenchymal hemorrhage found" in negative and NEGATIVE_CAVEAT in negative
    suspected = outcome_html(Analysis("ok", presence=Presence(0.8, False)))
    assert "Hemorrhage suspected, none could be outlined" in suspected
    assert "No intraparenchymal hemorrhage found" not in suspected


def test_sample_data_is_registered(slicer):
    import ICHAnalysis
    from ICHAnalysisPanel import layout
    from Testing.bed import scripted

    scripted.sample_data.clear()
    ICHAnalysis.register_with_application()
    (entry,) = scripted.sample_data
    assert entry["sampleName"] == "SimulatedHemorrhageCT"
    assert Path(entry["thumbnailFileName"]).is_file()
    assert entry["customDownloader"].__name__ == "make_demo_volume"
    assert slicer.app.layoutManager().layoutLogic().GetLayoutNode().IsLayoutDescription(layout.LAYOUT)


def test_simulated_volume_says_so(slicer):
    from ICHAnalysisLib.ct.volume import CTVolume
    from ICHAnalysisPanel.sample_data import volume_of
    from ICHAnalysisPanel.volume_nodes import read_node

    node = volume_of(CTVolume.from_affine(heads.head_array().astype(np.float32), heads.affine()))
    assert np.array_equal(slicer.util.arrayFromVolume(node), heads.head_array())
    assert read_node(node).geometry.source["simulated"]


def test_nothing_heavy_is_imported_with_the_module():
    tops = set()
    for path in (ROOT / "ICHAnalysis").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                tops |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                tops.add(node.module.split(".")[0])
    assert not tops & {"torch", "scipy", "skimage", "matplotlib", "pydicom", "SimpleITK", "SampleData", "PyTorchUtils"}


@pytest.mark.parametrize("folder", ["ICHAnalysis", "ICHAnalysisLib"])
def test_cmake_lists_every_file(folder):
    """An unlisted file would be missing from the installed extension; list_files.py writes the lists."""
    import list_files

    assert list_files.listed(folder) == list_files.files_of(folder)


def test_panel_file_uses_only_known_widgets():
    text = (ROOT / "ICHAnalysis" / "Resources" / "UI" / "ICHAnalysis.ui").read_text()
    selectors = re.findall(r'class="(qMRML\w+|qSlicer\w+)" name="(\w+)"', text)
    connected = set(re.findall(r"<receiver>(\w+)</receiver>", text))
    assert {name for kind, name in selectors if kind != "qMRMLWidget"} == connected
