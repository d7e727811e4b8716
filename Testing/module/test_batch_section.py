"""The batch part of the panel: run, go on, cancel, and the agreement of its measures as plots."""

from __future__ import annotations

import heads
import numpy as np
import pytest
from scipy import ndimage

BLEEDS = {"a": (3.2, 6, 5), "b": (2.5, 4, 4), "c": (4.2, 8, 7)}


@pytest.fixture
def ward(tmp_path):
    """A folder of three scans and a list of them with ids."""
    folder = tmp_path / "ward"
    folder.mkdir()
    lines = ["case_id,image"]
    for name, radii in BLEEDS.items():
        heads.write_head(folder / f"{name}.nii.gz", radii=radii)
        lines.append(f"{name},ward/{name}.nii.gz")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run_batch(widget, waiter, source, folder):
    widget.ui.batchSourceEdit.text, widget.ui.batchFolderEdit.text = str(source), str(folder)
    assert widget.ui.batchButton.enabled, widget.ui.batchButton.toolTip
    widget.ui.batchButton.click()
    waiter.until(lambda: not widget.batch.is_running)


def voxels_ml(radii):
    array = heads.head_array(radii=radii)
    return ndimage.binary_opening((array > 55) & (array < 90)).sum() * 0.0512


def test_batch_fills_a_table_goes_on_and_shows_agreement(slicer, widget, waiter, ward):
    assert not widget.ui.batchButton.enabled
    assert "Choose a folder of scans" in widget.ui.batchButton.toolTip
    run_batch(widget, waiter, ward / "list.csv", ward / "out")
    assert [row["status"] for row in widget.batch.rows] == ["ok"] * 3, widget.batch.rows
    table = widget.panel.parameters.batchTable
    assert [table.GetCellText(row, 0) for row in range(3)] == ["a", "b", "c"]
    outline = slicer.util.arrayFromTableColumn(table, "Outline").copy()
    assert np.allclose(outline, [voxels_ml(radii) for radii in BLEEDS.values()], atol=1e-3)
    run_batch(widget, waiter, ward / "list.csv", ward / "out")
    assert "3 from an earlier run" in widget.ui.batchLabel.text
    assert len(slicer.util.getNodesByClass("vtkMRMLTableNode")) == 1
    references = {"a": 20.0, "b": 9.0, "c": 47.5}
    (ward / "raters.csv").write_text("case_id,rater\n" + "".join(f"{k},{v}\n" for k, v in references.items()))
    widget.ui.referenceFileEdit.text = str(ward / "raters.csv")
    widget.ui.agreementButton.click()
    assert widget.ui.batchReferenceBox.currentText == "rater"
    charts = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    assert {chart.GetName() for chart in charts} == {"Agreement", "Scatter"}
    difference = outline - np.array(list(references.values()))
    limits = next(node for node in slicer.util.getNodesByClass("vtkMRMLTableNode") if node.GetName() == "Agreement")
    assert np.allclose(slicer.util.arrayFromTableColumn(limits, "Bias"), difference.mean(), atol=2e-3)
    upper = difference.mean() + 1.96 * difference.std(ddof=1)
    assert np.allclose(slicer.util.arrayFromTableColumn(limits, "Upper limit"), upper, atol=2e-3)
    assert f"bias {difference.mean():+.2f} mL" in widget.ui.batchLabel.text
    widget.ui.agreementButton.click()
    assert len(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")) == 2
    assert len(slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")) == 6
    names = [widget.panel.parameters.parameterNode.GetParameter(name) for name in
             widget.panel.parameters.parameterNode.GetParameterNames()]  # fmt: skip
    assert not [value for value in names if str(ward) in value]


def test_cancelled_batch_takes_its_attempt_back(slicer, widget, waiter, ward):
    widget.batch.environment["ICH_TEST_SLOW"] = "60"
    widget.ui.batchSourceEdit.text, widget.ui.batchFolderEdit.text = str(ward / "list.csv"), str(ward / "out")
    widget.ui.batchButton.click()
    assert widget.ui.batchButton.text == "Cancel batch"
    waiter.until(lambda: list((ward / "out").glob("rows/*.attempts")))
    widget.ui.batchButton.click()
    assert not widget.ui.batchButton.enabled
    waiter.until(lambda: not widget.batch.is_running)
    assert "Cancelled" in widget.ui.batchLabel.text
    assert list((ward / "out").glob("rows/*.attempts")) == []
    assert widget.ui.batchButton.text == "Run batch" and widget.ui.batchButton.enabled


def test_agreement_says_what_is_missing(slicer, ward):
    import ICHAnalysis
    from ICHAnalysisLib.errors import UsageError

    logic = ICHAnalysis.ICHAnalysisLogic()
    rows = [{"case_id": str(n), "status": "ok", "volume_ml": 10.0 + n, "abc2_ml": 11.0 + n * n} for n in range(5)]
    with pytest.raises(UsageError, match="holds no cases"):
        logic.agreement(ward)
    with pytest.raises(UsageError, match="2 cases have both"):
        logic.agreement(rows[:2])
    with pytest.raises(UsageError, match="cannot be compared with itself"):
        logic.agreement(rows, reference="Outline")
    with pytest.raises(UsageError, match="no measure 'abc'"):
        logic.agreement(rows, reference="abc")
    (ward / "others.csv").write_text("case_id,rater\nnobody,3\n")
    with pytest.raises(UsageError, match="no case_id in common"):
        logic.agreement(rows, referenceFile=ward / "others.csv")
    failed = [*rows, {"case_id": "x", "status": "failed", "volume_ml": None, "abc2_ml": None}]
    found = logic.agreement(failed)
    assert found.numbers.errors.cases == 5
    assert found.numbers.errors.bias_ml == pytest.approx(np.mean([-1 + n - n * n for n in range(5)]))
    assert found.scatter.GetNumberOfPlotSeriesNodes() == 2
    assert found.bland_altman.GetYAxisTitle() == "Outline - ABC/2 (mL)"
