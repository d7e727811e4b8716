"""Simulated cases: the same by seed, true to their truth, and made of the tissue of a head."""

from __future__ import annotations

import numpy as np
import pytest

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate import AcquisitionSpec, CaseSpec, SimulatedCase, simulate_case
from ICHAnalysisLib.simulate.hemorrhage import DARKER_ZONE_HU, density
from ICHAnalysisLib.simulate.scene import OUTSIDE, Grid

COARSE = AcquisitionSpec(
    matrix=80, spacing_mm=2.8, thickness_mm=8.0, gap_mm=0.0, uneven=False, tilt_degrees=0.0, detail_mm=2.8,
    storage="full", bottom_mm=-60.0, top_mm=60.0,
)  # fmt: skip
FINE = AcquisitionSpec(
    matrix=224, spacing_mm=1.0, thickness_mm=5.0, gap_mm=0.0, uneven=False, tilt_degrees=0.0, storage="full",
    noise_hu=2.5, bottom_mm=-30.0, top_mm=45.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def putamen() -> SimulatedCase:
    """A plain deep clot of 24 mL in 5 mm slices."""
    spec = CaseSpec(
        has_ich=True, location="deep", side="left", volume_ml=24.0, density_hu=63.0, feature="plain", ivh=False,
        edema_mm=4.0, confounders=0.0, acquisition=FINE,
    )  # fmt: skip
    return simulate_case(4, spec)


def test_same_seed_same_case() -> None:
    spec = CaseSpec(has_ich=True, acquisition=COARSE)
    first, again, other = simulate_case(11, spec), simulate_case(11, spec), simulate_case(12, spec)
    assert np.array_equal(first.volume.hu, again.volume.hu)
    assert np.array_equal(first.labels, again.labels)
    assert first.truth == again.truth and first.record == again.record and first.parameters == again.parameters
    assert first.volume.hu.shape != other.volume.hu.shape or not np.array_equal(first.volume.hu, other.volume.hu)


def test_voxel_count_is_the_fine_truth(putamen: SimulatedCase) -> None:
    assert putamen.truth["volume_ml"] == pytest.approx(24.0, rel=0.03)
    counted = putamen.volume.mask_volume_ml(putamen.labels == 1)
    assert counted == pytest.approx(putamen.truth["volume_ml"], rel=0.02)


def test_clot_density(putamen: SimulatedCase) -> None:
    hu = putamen.volume.hu[putamen.labels == 1]
    assert np.median(hu) == pytest.approx(62, abs=4)
    low, high = np.percentile(hu, [5, 95])
    assert low > 42 and high < 80


@pytest.mark.parametrize(("feature", "drop"), [("blend", (18, 24)), ("two_densities", (8, 18))])
def test_both_zones_of_a_clot_are_blood(feature: str, drop: tuple[int, int]) -> None:
    """A clot of 50 HU has no darker zone of 30 HU, which would be brain: both zones are lifted."""
    grid = Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (40, 40, 40))
    z, y, x = np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij")
    alpha = (z**2 + y**2 + x**2 < 17**2).astype(np.float32)
    for seed in range(4):
        hu = density(alpha, grid, np.random.default_rng(seed), 50.0, feature, (1.0, 0.0))[alpha > 0.5]
        dark, bright = np.percentile(hu, [4, 96])
        assert dark > DARKER_ZONE_HU - 5 and drop[0] < bright - dark < drop[1] + 12


def test_epicenter_is_the_center_of_the_mask(putamen: SimulatedCase) -> None:
    k, j, i = np.nonzero(putamen.labels == 1)
    center = putamen.volume.ijk_to_ras_points(np.stack([i, j, k], axis=1)).mean(axis=0)
    assert np.linalg.norm(center - putamen.truth["epicenter_ras_mm"]) < 2.0
    assert putamen.truth["side"] == "left" and center[0] < 0


def test_edema_is_darker_than_brain(putamen: SimulatedCase) -> None:
    brain = (putamen.volume.hu > 15) & (putamen.volume.hu < 48) & (putamen.labels == 0)
    assert putamen.volume.hu[putamen.labels == 3].mean() < putamen.volume.hu[brain].mean() - 2


@pytest.mark.parametrize("location", ["deep", "lobar", "subtentorial"])
def test_epicenter_lies_in_its_region(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ICHAnalysisLib.simulate import cohort

    seen = {}
    original = cohort.insert_blood

    def spy(scene, paint, wanted, start, rng):  # type: ignore[no-untyped-def]
        truth = original(scene, paint, wanted, start, rng)
        seen["region"] = scene.region_at(np.asarray(truth["epicenter_scene_mm"]))
        seen["outside"] = float(paint.blood[scene.tissue == OUTSIDE].sum() / paint.blood.sum())
        return truth

    monkeypatch.setattr(cohort, "insert_blood", spy)
    case = simulate_case(
        21, CaseSpec(has_ich=True, location=location, volume_ml=9.0, confounders=0.0, acquisition=COARSE)
    )  # type: ignore[arg-type]
    assert seen["region"] in (0, ("deep", "lobar", "subtentorial").index(location) + 1)
    assert seen["outside"] < 0.1
    assert case.truth["location"] == location


def test_no_hemorrhage_no_label() -> None:
    case = simulate_case(5, CaseSpec(has_ich=False, confounders=0.0, acquisition=COARSE))
    assert case.labels.max() == 0
    assert case.truth["volume_ml"] == 0 and case.truth["location"] is None and case.outcome == {}


def test_tilted_uneven_stack_says_so() -> None:
    acquisition = AcquisitionSpec(
        matrix=96, spacing_mm=2.4, detail_mm=2.4, thickness_mm=6.0, tilt_degrees=18.0, uneven=True
    )
    case = simulate_case(8, CaseSpec(has_ich=False, confounders=0.0, acquisition=acquisition))
    assert case.volume.tilt_degrees == pytest.approx(18.0, abs=0.01)
    assert not case.volume.is_even
    assert np.all(case.volume.steps_mm > 0)


def test_window_storage_clips() -> None:
    from dataclasses import replace

    case = simulate_case(5, CaseSpec(has_ich=False, acquisition=replace(COARSE, storage="window_-20_100")))
    assert case.volume.hu.min() == -20 and case.volume.hu.max() == 100


def test_a_clot_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match="fits"):
        simulate_case(5, CaseSpec(has_ich=True, location="subtentorial", volume_ml=240.0, acquisition=COARSE))


def test_second_center_is_brighter_and_noisier() -> None:
    first, second = (
        simulate_case(5, CaseSpec(has_ich=False, confounders=0.0, center=center, acquisition=COARSE))  # type: ignore[arg-type]
        for center in ("first", "second")
    )
    noise = [case.parameters["acquisition"]["noise_hu_at_5_mm"] for case in (first, second)]
    assert noise[1] == pytest.approx(1.5 * noise[0])
    difference = (second.volume.hu - first.volume.hu)[8:12, 34:46, 34:46]
    assert np.median(difference) == pytest.approx(3.0, abs=0.6)
    assert difference.std() > 0.1 * noise[0]


@pytest.mark.parametrize("wrong", [{"volume_ml": 0.0}, {"location": "frontal"}, {"feature": "sparkle"}])
def test_wrong_specs_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        CaseSpec(**wrong)
