"""A cache from a manifest: labels by the row's rule, nothing invented, failures beside, facts renewed in place."""

from __future__ import annotations

import sys
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from ICHAnalysisLib.config.preprocess import PreprocessConfig
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from Testing.training.ranks import PROCESSES
from Testing.training.scan_files import AFFINE, SLICES, scan_arrays, write_head_nifti, write_nifti
from Training.data import cache
from Training.data.build import BuildConfig, build_cache
from Training.data.cache import open_cache
from Training.data.manifest import ManifestRow, write_manifest
from Training.data.masks import labels_of_mask, read_mask

SMALL = PreprocessConfig(spacing_mm=2.3, size=96)
ROW = ManifestRow("a", "x:1", "scan.nii.gz", mask="mask.nii.gz", mask_values={"ich": [2], "ivh": [3]})

_PATIENCE_S = 120.0  # a guard against a hang, not a measure


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scan and a mask whose value 2 is the clot."""
    labels = write_head_nifti(tmp_path / "scan.nii.gz")
    write_nifti(tmp_path / "mask.nii.gz", (2 * labels).astype(np.uint8))
    return tmp_path


def build(folder: Path, *rows: ManifestRow) -> list:
    """Build the rows; whatever the reader asks about such a plain head is accepted."""
    write_manifest(folder / "manifest.csv", rows)
    return build_cache(folder / "manifest.csv", BuildConfig(folder / "cache", SMALL, accept=True))


def test_volume_and_labels_survive(folder: Path) -> None:
    (built,) = build(folder, replace(ROW, gos=3, age=70.0))
    assert built.reason is None and built.new
    (case,) = open_cache(folder / "cache")
    _, labels = scan_arrays()
    truth_ml = (labels == 1).sum() * abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    assert case.meta["volume_ml"] == pytest.approx(truth_ml, rel=1e-6)
    assert case.meta["has_ich"] is True and case.meta["ivh_ml"] == 0.0 and case.meta["location"] is None
    stored = (case.labels == 1).sum() * 2.3**2 * 6.5 / 1000
    assert stored == pytest.approx(truth_ml, rel=0.06)  # half a pixel of 2.3 mm
    assert float(np.median(case.hu[case.labels == 1])) == pytest.approx(62, abs=2)
    assert case.meta["outcome"] == {"gos": 3, "poor_outcome": 1} and case.meta["record"] == {"age": 70.0}


def test_facts_are_renewed_and_arrays_kept(folder: Path) -> None:
    (first,) = build(folder, ROW)
    before = (folder / "cache" / first.key / "hu.npy").stat().st_mtime_ns
    (second,) = build(
        folder, replace(ROW, mrs=5, location="deep", location_source="reader", volume_ml=9.0, volume_method="x")
    )
    assert (second.key, second.new) == (first.key, False)
    (case,) = open_cache(folder / "cache")
    assert case.meta["outcome"]["mrs"] == 5 and case.meta["location"] == "deep" and case.meta["volume_ml"] == 9.0
    assert (folder / "cache" / first.key / "hu.npy").stat().st_mtime_ns == before


def test_changed_mask_replaces_the_entry(folder: Path) -> None:
    (first,) = build(folder, ROW)
    write_nifti(folder / "mask.nii.gz", np.zeros_like(scan_arrays()[1]))
    (second,) = build(folder, ROW)
    assert second.new and second.key != first.key
    (case,) = open_cache(folder / "cache")
    assert case.meta["has_ich"] is False and case.meta["volume_ml"] == 0.0


def test_without_mask_nothing_is_known(folder: Path) -> None:
    bare = ManifestRow("a", "x:1", "scan.nii.gz")
    build(folder, bare)
    (case,) = open_cache(folder / "cache")
    assert (case.labels == 255).mean() > 0.95 and set(np.unique(case.labels)) <= {0, 255}  # 0 outside the scan
    assert case.meta["has_ich"] is None and case.meta["volume_ml"] is None and case.meta["slice_has_ich"] is None
    build(folder, replace(bare, has_ich=0, ivh=0))
    (case,) = open_cache(folder / "cache")
    assert (case.labels == 0).all() and case.meta["slice_has_ich"] == [0] * SLICES


def test_slice_rows_know_their_slices_alone(folder: Path) -> None:
    rows = [
        replace(ROW, case_id=f"a#{k}", slice_index=k, has_ich=has, mask=mask, mask_values=mask and ROW.mask_values)
        for k, has, mask in ((9, 1, "mask.nii.gz"), (10, 1, None), (3, 0, None))
    ]
    build(folder, *rows, replace(rows[2], case_id="a#4", slice_index=4, has_ich=0, ivh=0))
    (case,) = open_cache(folder / "cache")
    known = [k for k in range(SLICES) if (case.labels[k] == 255).mean() < 0.95]
    assert known == [4, 9]
    assert [k for k, value in enumerate(case.meta["slice_has_ich"]) if value is not None] == [3, 4, 9, 10]
    assert case.meta["has_ich"] is True and case.meta["volume_ml"] is None


def test_a_failed_case_stops_no_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.nii.gz").write_bytes(b"no image")
    write_manifest(folder / "m.csv", [replace(ROW, case_id="bad", image="broken.nii.gz"), ROW])
    arguments = [str(folder / "m.csv"), "--out", str(folder / "cache"), "--yes"]
    assert cache.main([*arguments, "--preprocess", '{"spacing_mm": 2.3, "size": 96}']) == 4
    assert "2 cases, 1 new, 1 failed" in capsys.readouterr().out
    failures = (folder / "cache" / "failures.csv").read_text().splitlines()
    assert len(failures) == 2 and failures[1].startswith("bad,") and "broken.nii.gz" in failures[1]
    assert [case.case_id for case in open_cache(folder / "cache")] == ["a"]
    assert cache.main([*arguments, "--preprocess", '{"spacing": 1}']) == 2


def test_voxels_that_were_damaged_on_the_way_are_not_taken(folder: Path) -> None:
    """Readers of images stop at the last voxel, before the checksum."""
    for name in ("scan.nii.gz", "mask.nii.gz"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-8] + bytes(4) + whole[-4:])  # the checksum of other bytes
        (built,) = build(folder, ROW)
        assert built.reason is not None and name in built.reason and "damaged" in built.reason
        (folder / name).write_bytes(whole)
    assert build(folder, ROW)[0].reason is None


def test_a_mask_that_contradicts_its_row_is_refused(folder: Path) -> None:
    write_nifti(folder / "mask.nii.gz", (255 * scan_arrays()[1]).astype(np.uint8))
    hard = replace(ROW, mask_values={"ich": [1]})
    (built,) = build(folder, hard)
    assert built.reason is not None and "holds [255] and mask_values names [1]" in built.reason
    (built,) = build(folder, replace(hard, mask_kind="0-255"))
    assert built.reason is None
    (built,) = build(folder, replace(hard, mask_kind="0-255", has_ich=0))
    assert built.reason is not None and "has_ich is 0, yet the mask marks ICH" in built.reason
    (built,) = build(folder, replace(hard, has_ich=0))  # subdural blood, say: no ICH in it
    assert built.reason is None


def _build_at_once(arguments: list[str], start: Barrier) -> None:
    start.wait(_PATIENCE_S)
    sys.exit(cache.main(arguments))


def test_several_processes_build_one_cache(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.nii.gz").write_bytes(b"no image")
    rows = [replace(ROW, case_id=f"c{n}", patient_id=f"x:{n}", boxes=None) for n in range(3)]
    for n, row in enumerate(rows):
        write_head_nifti(folder / f"{n}.nii.gz", seed=n)
        rows[n] = replace(row, image=f"{n}.nii.gz")
    write_manifest(folder / "m.csv", [*rows, replace(ROW, case_id="bad", image="broken.nii.gz")])
    arguments = [str(folder / "m.csv"), "--out", str(folder / "cache"), "--yes"]
    arguments += ["--preprocess", '{"spacing_mm": 2.3, "size": 96}']
    for _ in range(2):  # the second time every entry is superseded, and removed by whoever comes first
        start = PROCESSES.Barrier(3)
        # Daemons: one that hangs must fail this test, not hold up the end of all tests.
        builders = [PROCESSES.Process(target=_build_at_once, args=(arguments, start), daemon=True) for _ in range(3)]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join(_PATIENCE_S)
        assert [builder.exitcode for builder in builders] == [4, 4, 4]
        cases = open_cache(folder / "cache")
        assert [case.case_id for case in cases] == ["c0", "c1", "c2"]
        assert all(case.labels.shape == case.hu.shape for case in cases)
        assert {path.name for path in (folder / "cache").iterdir()} == {c.folder.name for c in cases} | {"failures.csv"}
        assert (folder / "cache" / "failures.csv").read_text().count("\n") == 2
        write_nifti(folder / "mask.nii.gz", (3 * scan_arrays()[1]).astype(np.uint8))


def test_mask_on_another_grid_is_sampled_in_place(folder: Path) -> None:
    hu, labels = scan_arrays()
    volume = CTVolume.from_affine(hu, AFFINE)
    flipped = AFFINE.copy()
    flipped[:3, 3] += AFFINE[:3, 0] * (labels.shape[2] - 1)
    flipped[:3, 0] *= -1
    write_nifti(folder / "flipped.nii.gz", labels[:, :, ::-1].copy(), flipped)
    np.testing.assert_array_equal(read_mask(folder / "flipped.nii.gz", None, volume), labels)
    cropped = AFFINE.copy()
    cropped[:3, 3] += AFFINE[:3, :3] @ np.array([10, 20, 5])
    write_nifti(folder / "cropped.nii.gz", labels[5:15, 20:90, 10:90].copy(), cropped)
    np.testing.assert_array_equal(read_mask(folder / "cropped.nii.gz", None, volume), labels)
    far = AFFINE.copy()
    far[2, 3] += 500
    write_nifti(folder / "far.nii.gz", labels, far)
    with pytest.raises(UsageError, match="0 % of the mask"):
        read_mask(folder / "far.nii.gz", None, volume)


def test_boxes_come_along(folder: Path) -> None:
    j, i = np.nonzero((scan_arrays()[1] == 1).any(axis=0))
    box = {"slice": 9, "x": float(i.min()), "y": float(j.min()), "width": float(np.ptp(i)), "height": float(np.ptp(j))}
    build(folder, replace(ROW, boxes=[{**box, "label": "Intraparenchymal"}, {**box, "slice": 99, "label": "x"}]))
    (case,) = open_cache(folder / "cache")
    (found,) = case.meta["boxes"]
    y, x = np.nonzero(case.labels[found["slice"]] == 1)
    assert [found["x0"], found["x1"], found["y0"], found["y1"]] == pytest.approx(
        [x.min(), x.max(), y.min(), y.max()], abs=1.0
    )


def test_half_scale_masks(folder: Path) -> None:
    volume = CTVolume.from_affine(scan_arrays()[0], AFFINE)
    gray = (255 * scan_arrays()[1]).astype(np.uint8)
    gray[0, 0, :3] = (100, 127, 128)
    write_nifti(folder / "gray.nii.gz", gray)
    values = read_mask(folder / "gray.nii.gz", "0-255", volume)
    assert values[0, 0, :3].tolist() == [0, 0, 1] and values.sum() == scan_arrays()[1].sum() + 1


def test_rules_of_mask_values() -> None:
    values = np.array([0, 1, 2, 3])

    def labels(**changes: object) -> list[int]:
        return labels_of_mask(values, replace(ROW, **changes)).tolist()

    assert labels(mask_values={"ich": [2], "ivh": [3]}) == [0, 0, 1, 2]
    assert labels(mask_values={"ich": [1], "oedema": [2]}) == [0, 1, 3, 0]
    assert labels(mask_values={"oedema": [1]}) == [255, 3, 255, 255]
    assert labels(mask_values={"bleed": [1]}) == [0, 255, 0, 0]
    assert labels(mask_values={"bleed": [1]}, has_ich=1) == [0, 255, 0, 0]
    assert labels(mask_values={"bleed": [1]}, has_ich=1, ivh=0, sdh=0, edh=0, sah=0) == [0, 1, 0, 0]
