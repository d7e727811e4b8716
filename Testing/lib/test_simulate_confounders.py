"""What resembles hemorrhage: it is seen in the scan, named in the parameters, and never labeled as the target."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.simulate import AcquisitionSpec, CaseSpec, SimulatedCase, confounders, simulate_case

SCANNER = AcquisitionSpec(
    matrix=80, spacing_mm=2.8, thickness_mm=8.0, gap_mm=0.0, uneven=False, tilt_degrees=0.0, detail_mm=2.8,
    storage="full", noise_hu=0.5, artifacts=False, holder=False, bottom_mm=-40.0, top_mm=60.0,
)  # fmt: skip


def _with_only(name: str, monkeypatch: pytest.MonkeyPatch) -> SimulatedCase:
    chances = {key: (1.0, 1.0) if key == name else (0.0, 0.0) for key in confounders.CHANCES}
    monkeypatch.setattr(confounders, "CHANCES", chances)
    return simulate_case(6, CaseSpec(has_ich=False, acquisition=SCANNER))


@pytest.fixture(scope="module")
def plain() -> SimulatedCase:
    return simulate_case(6, CaseSpec(has_ich=False, confounders=0.0, acquisition=SCANNER))


@pytest.mark.parametrize(
    ("name", "brighter"), [("subdural", True), ("subarachnoid", True), ("calcification", True), ("infarct", False)]
)
def test_seen_but_not_labeled(name: str, brighter: bool, plain: SimulatedCase, monkeypatch: pytest.MonkeyPatch) -> None:
    case = _with_only(name, monkeypatch)
    assert case.parameters["confounders"] == [name]
    assert case.labels.max() == 0 and case.truth["volume_ml"] == 0
    change = case.volume.hu - plain.volume.hu
    seen = change > 8 if brighter else change < -3
    assert np.count_nonzero(seen) > np.count_nonzero(change < -8 if brighter else change > 3)
    assert np.count_nonzero(seen) >= 2


def test_ventricular_blood_alone_is_labeled_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    case = _with_only("ventricular", monkeypatch)
    assert set(np.unique(case.labels)) == {0, 2}
    assert not case.truth["has_ich"]
