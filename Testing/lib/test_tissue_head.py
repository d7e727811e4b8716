"""Head CTs made from anatomical models: geometry, densities, reading MINC files, and bleeds in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate.background import prepare, read_background
from ICHAnalysisLib.simulate.cohort import CaseSpec, simulate_case
from ICHAnalysisLib.simulate.scene import VENTRICLE
from ICHAnalysisLib.simulate.tissue_head import CLASSES, PIXEL_MM, SLICE_MM, TissueHead, read_tissue_head, tissue_head
from Testing.lib.tissue_models import NAMES, egg, model, write_minc


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> TissueHead:
    return read_tissue_head(write_minc(tmp_path_factory.mktemp("model") / "egg.mnc.gz", model()))


def test_brain_has_the_volume_of_its_ellipsoid(head: TissueHead) -> None:
    voxel_ml = PIXEL_MM**2 * SLICE_MM / 1000
    wanted = 4 / 3 * np.pi * 69 * 86 * 64 / 1000
    assert head.brain.sum() * voxel_ml == pytest.approx(wanted, rel=0.01)
    assert head.hu.shape == head.brain.shape == (50, 217, 217)


def test_every_class_has_its_density(head: TissueHead) -> None:
    """Single voxels deep within each ellipsoid, and white matter's mean."""
    assert head.hu[26, 10:22, 108].max() == pytest.approx(CLASSES["skull"], abs=450)
    assert head.hu[25:29, 60:70, 130:140].mean() == pytest.approx(CLASSES["white"], abs=0.8)
    assert head.hu[0, 0, 0] == pytest.approx(-1000, abs=5)
    at = head.slice_origins_ras[:, 2]
    k = int(np.abs(at - 12).argmin())
    row = round((head.slice_origins_ras[0, 1] + 16) / PIXEL_MM)
    left, right = (round((head.slice_origins_ras[0, 0] - x) / PIXEL_MM) for x in (-12, 12))
    assert head.hu[k, row - 4 : row + 4, [left, right]].mean() == pytest.approx(CLASSES["csf"], abs=1.5)


def test_places_are_those_of_the_model(tmp_path: Path) -> None:
    """A dense spot on the left, in front, below: where the file's own coordinates put it."""
    labels = model()
    spot = egg((-35, 30, -20), (6, 6, 6)) & (labels == NAMES.index("white"))
    labels[spot] = NAMES.index("skull")
    made = read_background(write_minc(tmp_path / "spot.mnc.gz", labels))
    found = np.argwhere(made.hu > 500)
    steps = found[:, [2]] * made.column_step_ras + found[:, [1]] * made.row_step_ras
    places = made.slice_origins_ras[found[:, 0]] + steps
    near = np.linalg.norm(places - [-35, 30, -20], axis=1) < 9
    assert near.sum() * PIXEL_MM**2 * SLICE_MM == pytest.approx(spot.sum(), rel=0.25)
    assert places[near].mean(0) == pytest.approx([-35, 30, -20], abs=0.7)


def test_same_labels_same_scan(head: TissueHead) -> None:
    again = tissue_head(np.flip(model(), (1, 2)), 1.0, np.array([90.0, 90.0, -72.0]))
    assert np.array_equal(again.hu, head.hu)
    assert np.allclose(again.slice_origins_ras, head.slice_origins_ras)


def test_ventricles_are_coded_and_the_cistern_behind_is_not(head: TissueHead) -> None:
    labels = model()
    labels[egg((0, -60, 0), (9, 8, 9))] = NAMES.index("csf")  # where the quadrigeminal cistern lies
    with_cistern = tissue_head(np.flip(labels, (1, 2)), 1.0, np.array([90.0, 90.0, -72.0]))
    coded = [(prepare(scan).tissue == VENTRICLE).sum() * PIXEL_MM**2 * SLICE_MM / 1000 for scan in (head, with_cistern)]
    wanted = 2 * 4 / 3 * np.pi * 6 * 30 * 7 / 1000
    assert 0.6 * wanted < coded[0] < wanted  # smoothing takes the rim of narrow ones
    assert coded[1] == pytest.approx(coded[0], rel=0.05)


@pytest.mark.parametrize("location", ["deep", "lobar"])
def test_bleeds_fit_into_it(head: TissueHead, location: str) -> None:
    case = simulate_case(5, CaseSpec(has_ich=True, location=location, volume_ml=12.0, confounders=0), head)
    assert case.truth["mask_volume_ml"] == pytest.approx(12.0, rel=0.15)
    assert case.parameters["kind"] == "background"
    clot = case.volume.hu[case.labels == 1].mean()
    assert clot > case.volume.hu[(case.labels == 0) & (case.volume.hu > 10) & (case.volume.hu < 50)].mean() + 8


def test_what_is_no_discrete_model_is_refused(tmp_path: Path) -> None:
    labels = model()
    labels[50, 50, 50] = 12
    with pytest.raises(UsageError, match=r"whole\.mnc\.gz.*0 to 12.*crisp"):
        read_tissue_head(write_minc(tmp_path / "whole.mnc.gz", labels))
    damaged = tmp_path / "damaged.mnc.gz"
    damaged.write_bytes(b"no model")
    with pytest.raises(UsageError, match=r"damaged\.mnc\.gz cannot be read"):
        read_background(damaged)


def test_voxels_that_do_not_fit_and_empty_models_are_refused() -> None:
    with pytest.raises(UsageError, match=r"0\.7 mm"):
        tissue_head(model(), 0.7, np.zeros(3))
    with pytest.raises(UsageError, match="background alone"):
        tissue_head(np.zeros((20, 20, 20), dtype=np.uint8), 1.0, np.zeros(3))
    scalp = np.full((20, 20, 20), NAMES.index("skin"), dtype=np.uint8)
    with pytest.raises(UsageError, match="no brain"):
        tissue_head(scalp, 1.0, np.zeros(3))
