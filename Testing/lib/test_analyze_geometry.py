"""The whole way of scans that are not axial, with the shipped weights: the answer comes back to the acquired slices."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.analysis import LABEL_ICH
from ICHAnalysisLib.analyze import analyze
from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.predict import Models
from ICHAnalysisLib.simulate.acquisition import AcquisitionSpec
from ICHAnalysisLib.simulate.cohort import CaseSpec, simulate_case
from ICHAnalysisLib.simulate.rescan import KnownScan, centroid_ras, rescan


@pytest.fixture(scope="module")
def case():
    acquisition = AcquisitionSpec(
        matrix=192, thickness_mm=4.0, gap_mm=0.0, uneven=False, tilt_degrees=0.0, storage="full", holder=False
    )
    return simulate_case(4242, CaseSpec(has_ich=True, location="deep", volume_ml=30.0, acquisition=acquisition))


@pytest.mark.parametrize(
    "options", [{"plane": "coronal", "heights_mm": 4.0}, {"shear_degrees": 12.0}], ids=["coronal", "sheared"]
)
def test_the_answer_lies_in_its_place_on_the_acquired_slices(case, options):
    known = KnownScan(case.volume, (case.labels == 1).astype(np.uint8))
    scan = rescan(known, pixel_mm=1.2, **options)
    analysis, arrays = analyze(scan.volume, models=Models.load(), options=AnalyzeOptions(heatmap=True))
    found = arrays.labels == LABEL_ICH
    assert found.shape == scan.volume.shape == arrays.heatmap.shape
    assert analysis.volumes_ml["segmentation"] == pytest.approx(known.truth_ml, rel=0.2)
    assert np.linalg.norm(centroid_ras(scan.volume, found) - known.centroid_ras) < 4.0
    assert (analysis.location.label, analysis.location.side) == ("deep", case.truth["side"])
    assert analysis.presence.positive and analysis.presence.slices == ()
