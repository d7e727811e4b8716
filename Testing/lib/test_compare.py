"""The compare command: CSV of raters, pairs of label maps, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ICHAnalysisLib.cli import main
from ICHAnalysisLib.compare import compare_masks, compare_methods, find_reference, read_volume_table
from ICHAnalysisLib.discrimination import wilson
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.outputs.comparison import bland_altman_figure, scatter_figure
from ICHAnalysisLib.outputs.tables import read_csv


def write_raters(path: Path, cases: int = 12) -> np.ndarray:
    """Slicer, two clinicians and a network; clinician 2 reads everything 20 % high. Returns Slicer's volumes."""
    rng = np.random.default_rng(0)
    truth = np.exp(rng.normal(2.7, 0.8, cases))
    lines = ["case_id,location,clinician 1,clinician 2,network,slicer"]
    for n, ml in enumerate(truth):
        network = "" if n == 3 else f"{ml + 1.0:.4f}"
        place = "subtentorial" if n == 0 else "deep"
        lines.append(f"c{n},{place},{ml + rng.normal(0, 2):.4f},{1.2 * ml:.4f},{network},{ml:.4f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return truth


def write_mask(path: Path, mask_ijk: np.ndarray, spacing: tuple[float, float, float]) -> None:
    nibabel.save(nibabel.Nifti1Image(mask_ijk.astype(np.uint8), np.diag([*spacing, 1.0])), path)


def test_table_of_raters(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    truth = write_raters(tmp_path / "raters.csv")
    assert main(["compare", str(tmp_path / "raters.csv"), "--out", str(tmp_path / "out")]) == 0
    rows = {row["method"]: row for row in read_csv(tmp_path / "out" / "table_1.csv")}
    assert list(rows) == ["clinician 1", "clinician 2", "network"]
    assert float(rows["network"]["mae"]) == pytest.approx(1.0, abs=1e-3)
    assert float(rows["network"]["mse"]) == pytest.approx(1.0, abs=1e-3)
    assert int(rows["network"]["cases"]) == 11
    assert float(rows["clinician 2"]["mape_percent"]) == pytest.approx(20, abs=0.01)
    assert float(rows["clinician 2"]["mae"]) == pytest.approx(0.2 * truth.mean(), abs=1e-3)
    assert "| clinician 1 |" in capsys.readouterr().out
    low, share, high = (float(rows["network"][f"agreement_30_ml{end}"]) for end in ("_lower", "", "_upper"))
    hits = round(share * 11)
    assert share == pytest.approx(hits / 11) and (low, high) == pytest.approx(
        (wilson(hits, 11).lower, wilson(hits, 11).upper)
    )
    for name in ("bland_altman.png", "scatter.png"):
        assert (tmp_path / "out" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    worst = read_csv(tmp_path / "out" / "worst.csv")
    sizes = [abs(float(row["difference_ml"])) for row in worst]
    assert sizes == sorted(sizes, reverse=True)
    assert len({row["case_id"] for row in worst}) == len(worst) == 12  # one row a case
    assert all(float(row["lowest_ml"]) <= float(row["volume_ml"]) <= float(row["highest_ml"]) for row in worst)
    text = (tmp_path / "out" / "table_1.md").read_text(encoding="utf-8")
    assert "ratios" in text and "clinician 2 1.20 (1.20 to 1.20)" in text  # 20 % high grows with the volume
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["reference"] == "slicer"


def test_every_panel_has_one_scale(tmp_path: Path) -> None:
    write_raters(tmp_path / "raters.csv")
    table = read_volume_table(tmp_path / "raters.csv")
    agreements = compare_methods(table, "slicer")
    for draw in (bland_altman_figure, scatter_figure):
        panels = [axes for axes in draw(table, "slicer", agreements).axes if axes.get_visible()]
        assert [axes.get_title() for axes in panels] == ["clinician 1", "clinician 2", "network"]
        assert len({axes.get_ylim() for axes in panels}) == 1
        shown = [len(axes.collections[0].get_offsets()) for axes in panels]
        assert shown == [12, 12, 12]  # the unknown one is there and masked


def test_label_maps_in_pairs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for folder in ("model", "reference"):
        (tmp_path / folder).mkdir()
    for n in range(3):
        reference = np.zeros((30, 30, 8), dtype=bool)
        reference[5:15, 5:15, 2 : 5 + n] = True
        write_mask(tmp_path / "reference" / f"c{n}.nii.gz", reference, (0.5, 0.5, 5.0))
        write_mask(tmp_path / "model" / f"c{n}.nii", np.roll(reference, 5, axis=0), (0.5, 0.5, 5.0))
    out = tmp_path / "out"
    arguments = ["compare", "--model", str(tmp_path / "model"), "--reference", str(tmp_path / "reference")]
    assert main([*arguments, "--out", str(out)]) == 0
    cases = read_csv(out / "cases.csv")
    assert [float(case["dice"]) for case in cases] == pytest.approx([0.5] * 3)
    assert [float(case["hd95_max"]) for case in cases] == pytest.approx([2.5] * 3)
    assert float(cases[0]["reference_ml"]) == pytest.approx(100 * 3 * 0.25 * 5 / 1000)
    assert float(cases[0]["difference_ml"]) == pytest.approx(0.0)
    assert float(cases[0]["pro"]) == pytest.approx(0.5)
    assert float(cases[0]["false_positive_ml"]) == pytest.approx(50 * 3 * 0.25 * 5 / 1000)  # which PRO does not see
    assert json.loads((out / "comparison.json").read_text())["overlap"]["dice_mean"] == pytest.approx(0.5)
    assert "Dice 0.500" in capsys.readouterr().out


def test_label_maps_that_are_all_empty_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for folder in ("model", "reference"):
        (tmp_path / folder).mkdir()
        for n in range(3):
            write_mask(tmp_path / folder / f"c{n}.nii.gz", np.zeros((12, 12, 4), bool), (0.5, 0.5, 5.0))
    arguments = ["compare", "--model", str(tmp_path / "model"), "--reference", str(tmp_path / "reference")]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["overlap"]["both_empty"] == 3 and found["overlap"]["dice_mean"] is None
    assert found["methods"]["model"]["icc"]["value"] is None
    assert "| n/a |" in capsys.readouterr().out  # neither ICC nor a percentage error


def test_a_mask_on_a_finer_grid_is_brought_over(tmp_path: Path) -> None:
    coarse = np.zeros((20, 20, 6), dtype=bool)
    coarse[5:12, 5:12, 2:4] = True
    fine = coarse.repeat(2, axis=0).repeat(2, axis=1)
    write_mask(tmp_path / "r.nii.gz", coarse, (1.0, 1.0, 5.0))
    affine = np.diag([0.5, 0.5, 5.0, 1.0])
    affine[:2, 3] = -0.25
    nibabel.save(nibabel.Nifti1Image(fine.astype(np.uint8), affine), tmp_path / "m.nii.gz")
    pair = compare_masks("c", tmp_path / "m.nii.gz", tmp_path / "r.nii.gz")
    assert pair.overlap.dice == pytest.approx(1.0, abs=0.05)
    assert pair.model_ml == pytest.approx(pair.reference_ml)


def test_masks_of_two_places_are_refused(tmp_path: Path) -> None:
    mask = np.zeros((10, 10, 4), dtype=bool)
    mask[2:5, 2:5, 1] = True
    write_mask(tmp_path / "r.nii.gz", mask, (1.0, 1.0, 5.0))
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[0, 3] = 500
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), tmp_path / "m.nii.gz")
    with pytest.raises(UsageError, match="same place"):
        compare_masks("c", tmp_path / "m.nii.gz", tmp_path / "r.nii.gz")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case_id,slicer,a\nx,1,abc\n", "no volume"),
        ("case_id,slicer,a\nx,1,2\nx,1,2\n", "more than one row"),
        ("case_id,slicer,a\nx,-1,2\n", "0 to 2000"),
        ("id,slicer\nx,1\n", "case_id"),
        ("case_id\nx\n", "no column"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_volume_table(tmp_path / "t.csv")
    with pytest.raises(UsageError, match="cannot be read"):
        read_volume_table(tmp_path / "none.csv")


def test_a_reference_must_be_known(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("case_id,a,b\nx,1,2\n")
    table = read_volume_table(tmp_path / "t.csv")
    with pytest.raises(UsageError, match="--reference"):
        find_reference(table, None)
    assert find_reference(table, "b") == "b"
    (row,) = compare_methods(table, "b")
    assert row.limits is None and row.errors.mae_ml == 1.0
    assert main(["compare"]) == 2
    assert main(["compare", str(tmp_path / "t.csv")]) == 2
