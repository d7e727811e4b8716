"""Figure 1 of paper 002: simulated heads with their overlap, a scan given by its path, nothing that names it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from ICHAnalysisLib.simulate import AcquisitionSpec, CaseSpec, simulate_case
from Training import figures
from Training.papers import holder_figure
from Training.papers.holder_figure import draw_holder_removal

SMALL = AcquisitionSpec(
    matrix=96, spacing_mm=2.6, detail_mm=2.6, thickness_mm=8.0, gap_mm=0.0, uneven=False, tilt_degrees=0.0,
    storage="full", bottom_mm=-30.0, top_mm=40.0, holder=True,
)  # fmt: skip


def test_simulated_heads_keep_their_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder_figure, "_SIMULATED_SEEDS", (6,))
    panels = draw_holder_removal((), ["data.cache=elsewhere"]).axes
    before, ours, papers = (np.asarray(panel.images[0].get_array()) for panel in panels)
    assert (before > -300).sum() > (ours > -300).sum() + 200  # the holder was there, and went
    assert ((ours == before) | (ours == -1024)).all() and ((papers == before) | (papers == -1024)).all()
    assert float(panels[1].get_title().rsplit(" ", 1)[1]) >= 0.99
    assert "SIMULATED" in panels[0].get_ylabel()


def test_a_scan_by_its_path(tmp_path: Path) -> None:
    volume = simulate_case(6, CaseSpec(has_ich=False, confounders=0.0, acquisition=SMALL)).volume
    path = tmp_path / "Doe_Jane.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume.hu.transpose(2, 1, 0).astype(np.int16), volume.ijk_to_ras), path)
    assert figures.main(["dtvit", "1", "--out", str(tmp_path), f"scan={path}"]) == 0
    assert (tmp_path / "dtvit-figure1-paper.png").stat().st_size > 10_000
    panels = draw_holder_removal((), [f"scan={path}"]).axes
    assert [panel.get_title() for panel in panels] == ["original", "3-D rule", "rule of paper 002"]
    assert not any("Doe" in panel.get_ylabel() for panel in panels)


def test_a_missing_scan_is_wrong_use(tmp_path: Path) -> None:
    assert figures.main(["dtvit", "1", "--out", str(tmp_path), f"scan={tmp_path / 'none.nii'}"]) == 2
