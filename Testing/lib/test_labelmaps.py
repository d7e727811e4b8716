"""Label maps on the acquired slices and upright: affines to the digit, bleeds in their true place."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from output_cases import bleed_labels, tilted_volume, upright_volume

from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.outputs.labelmaps import (
    has_exact_header,
    header_affine,
    header_finding,
    read_array,
    write_heatmap,
    write_labels,
    write_labels_ras,
)

CENTER = np.array([-21.0, 9.0, 2.0])


def itk_centroid_ras(path) -> np.ndarray:
    """Centroid of the label 1 in RAS mm, by ITK's reading of the header."""
    image = sitk.ReadImage(str(path))
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.Cast(image, sitk.sitkUInt8))
    return np.array(statistics.GetCentroid(1)) * [-1, -1, 1]


def test_regular_scan_keeps_its_exact_affine(tmp_path):
    volume = upright_volume()
    labels = bleed_labels(volume, CENTER)
    path = write_labels(labels, volume, tmp_path / "segmentation.nii.gz")
    image = nibabel.load(path)
    assert np.array_equal(image.affine, volume.ijk_to_ras)
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), labels)
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labels)
    assert np.allclose(itk_centroid_ras(path), CENTER, atol=1.0)
    assert header_finding(volume) is None


@pytest.mark.parametrize("flipped", [False, True])
def test_tilted_uneven_scan_has_its_own_planes_under_a_rigid_header(tmp_path, flipped):
    volume = tilted_volume(flipped=flipped)
    labels = bleed_labels(volume, CENTER)
    path = write_labels(labels, volume, tmp_path / "segmentation.nii.gz")
    image = nibabel.load(path)
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), labels)
    axes = image.affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    assert np.allclose((axes / spacing).T @ (axes / spacing), np.eye(3), atol=1e-6)
    assert spacing[2] == pytest.approx(np.mean(np.abs(volume.steps_mm)), rel=1e-6)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labels)


def test_rows_pushed_aside_get_a_rigid_header_and_the_error_of_the_corners(tmp_path):
    upright = upright_volume()
    volume = replace(upright, row_step_ras=upright.row_step_ras + 0.2 * upright.column_step_ras)
    assert volume.shear_degrees == pytest.approx(np.degrees(np.arctan(0.2)), abs=1e-6) and not volume.is_regular
    labels = bleed_labels(volume, CENTER)
    finding = header_finding(volume)
    assert finding is not None and finding.hazard == 2 and "sheared by 11.3 degrees" in finding.message
    half = (volume.shape[1] - 1) / 2
    row = half * volume.row_step_ras
    column = volume.column_step_ras / np.linalg.norm(volume.column_step_ras)
    upright_row = (row - column * (row @ column)) / np.cos(np.arctan(0.2))
    assert f"{np.linalg.norm(row - upright_row):.1f} mm off" in finding.message
    path = write_labels(labels, volume, tmp_path / "segmentation.nii.gz")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labels)
    true = write_labels_ras(labels, volume, tmp_path / "segmentation_ras.nii.gz")
    assert np.allclose(itk_centroid_ras(true), CENTER, atol=1.0)


def test_rigid_header_is_right_in_the_mean_and_the_finding_names_the_error():
    volume = tilted_volume()
    finding = header_finding(volume)
    assert finding is not None and "tilted by" in finding.message and "unevenly" in finding.message
    affine = header_affine(volume)
    middle = np.array([(volume.shape[2] - 1) / 2, (volume.shape[1] - 1) / 2])
    index = np.array([[*middle, k] for k in range(volume.shape[0])])
    stated = index @ affine[:3, :3].T + affine[:3, 3]
    true = volume.ijk_to_ras_points(index)
    assert np.allclose(stated.mean(axis=0), true.mean(axis=0), atol=1e-9)
    worst = np.linalg.norm(stated - true, axis=1).max()
    assert f"{worst:.1f} mm" in finding.message and worst > 3


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("tilt", [0.0, 18.5, -12.0])
def test_upright_file_puts_the_bleed_in_its_true_place(tmp_path, flipped, tilt):
    volume = tilted_volume(tilt, flipped)
    labels = bleed_labels(volume, CENTER)
    path = write_labels_ras(labels, volume, tmp_path / "segmentation_ras.nii.gz")
    image = nibabel.load(path)
    spacing = np.array(image.header.get_zooms())
    assert np.allclose(image.affine[:3, :3], np.diag(spacing))
    voxels = np.argwhere(np.asarray(image.dataobj) == 1)
    centroid = (voxels @ image.affine[:3, :3].T + image.affine[:3, 3]).mean(axis=0)
    assert np.all(np.abs(centroid - CENTER) <= spacing.max())
    assert np.allclose(itk_centroid_ras(path), centroid, atol=1e-3)
    true_ml = volume.mask_volume_ml(labels == 1)
    assert len(voxels) * spacing.prod() / 1000 == pytest.approx(true_ml, rel=0.05)


def test_upright_file_covers_the_whole_stack(tmp_path):
    volume = tilted_volume()
    labels = np.ones(volume.shape, dtype=np.uint8)
    image = nibabel.load(write_labels_ras(labels, volume, tmp_path / "all.nii.gz"))
    filled = np.count_nonzero(np.asarray(image.dataobj)) * np.prod(image.header.get_zooms()) / 1000
    assert filled == pytest.approx(volume.mask_volume_ml(labels > 0), rel=0.02)


def test_nothing_is_invented_where_slices_are_missing(tmp_path):
    volume = upright_volume()
    kept = [0, 1, 2, 3, 6, 7, 8, 9]
    holed = replace(
        volume,
        hu=volume.hu[kept],
        slice_origins_ras=volume.slice_origins_ras[kept],
        slice_thickness_mm=volume.slice_thickness_mm[kept],
    )
    labels = np.ones(holed.shape, dtype=np.uint8)
    image = nibabel.load(write_labels_ras(labels, holed, tmp_path / "holed.nii.gz"))
    data = np.asarray(image.dataobj)
    heights = image.affine[2, 3] + np.arange(data.shape[2])
    filled = data.any(axis=(0, 1))
    assert filled[(heights > -22) & (heights < -3)].all() and not filled[(heights > -2) & (heights < 7)].any()
    assert data.sum() * np.prod(image.header.get_zooms()) / 1000 == pytest.approx(holed.mask_volume_ml(labels > 0))


def test_empty_mask_writes_an_empty_upright_file(tmp_path):
    volume = tilted_volume()
    image = nibabel.load(write_labels_ras(np.zeros(volume.shape, np.uint8), volume, tmp_path / "none.nii.gz"))
    assert np.count_nonzero(np.asarray(image.dataobj)) == 0


def test_heatmap_comes_back_within_a_gray_level(tmp_path):
    volume = tilted_volume()
    heat = np.random.default_rng(0).random(volume.shape).astype(np.float32)
    heat[0, 0, 0] = np.nan
    path = write_heatmap(heat, volume, tmp_path / "heatmap.nii.gz")
    read = nibabel.load(path).get_fdata().transpose(2, 1, 0)
    assert np.allclose(read, np.nan_to_num(heat), atol=0.5 / 255 + 1e-6)
    assert np.allclose(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), read, atol=1e-5)


def test_single_slice_has_a_header():
    volume = upright_volume()
    one = type(volume)(
        volume.hu[:1], volume.column_step_ras, volume.row_step_ras, volume.slice_origins_ras[:1], np.array([5.0])
    )
    assert has_exact_header(one)
    assert np.allclose(np.linalg.norm(header_affine(one)[:3, 2]), 5.0)


def test_arrays_are_read_back_and_another_scan_refused(tmp_path):
    volume = tilted_volume()
    labels = bleed_labels(volume, CENTER)
    path = write_labels(labels, volume, tmp_path / "segmentation.nii.gz")
    assert np.array_equal(read_array(path, volume), labels)
    with pytest.raises(UsageError, match="another series"):
        read_array(path, upright_volume())
