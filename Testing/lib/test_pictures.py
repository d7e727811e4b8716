"""Pictures: the patient's right on the left, outlines on the blood, stamps that say what this is not."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from output_cases import bleed_labels, negative_analysis, positive_analysis, tilted_volume, upright_volume
from PIL import Image

from ICHAnalysisLib.analysis import NEGATIVE_CAVEAT, RESEARCH_USE, Interval, Prognosis
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.display import DisplayFrame, gray, key_slices, outlines
from ICHAnalysisLib.outputs.pictures import number_lines, overview_figure, png_bytes
from ICHAnalysisLib.outputs.surface import head_views
from ICHAnalysisLib.scores import func_score, ich_score

LEFT_FRONT = np.array([-40.0, 50.0, 5.0])


def texts(figure) -> str:
    """Every text of a figure, in one line."""
    from matplotlib.text import Text

    return " ".join(item.get_text() for item in figure.findobj(Text))


@pytest.mark.parametrize("flipped", [False, True])
def test_left_of_the_patient_is_shown_on_the_right_and_front_is_up(flipped):
    volume = tilted_volume(0.0, flipped)
    labels = bleed_labels(volume, LEFT_FRONT, 9.0)
    frame = DisplayFrame.of(volume)
    k = int(np.argmax(labels.sum(axis=(1, 2))))
    shown = frame.image(labels[k])
    rows, columns = np.nonzero(shown)
    assert columns.mean() > shown.shape[1] * 0.6 and rows.mean() < shown.shape[0] * 0.4
    assert frame.marks == ("R", "L")
    js, is_ = np.nonzero(labels[k])
    assert np.allclose(frame.xy(np.array([[is_.mean(), js.mean()]]))[0], [columns.mean(), rows.mean()])


def test_coronal_and_sagittal_stacks_stand_upright():
    hu = np.zeros((6, 20, 30), np.float32)
    coronal = np.array([[-2.0, 0, 0, 30], [0, 0, 5.0, -10], [0, -2.0, 0, 20], [0, 0, 0, 1]])
    frame = DisplayFrame.of(CTVolume.from_affine(hu, coronal))
    assert (frame.flip_x, frame.flip_y, frame.marks) == (False, False, ("R", "L"))
    sagittal = np.array([[0, 0, 5.0, -10], [0, 2.0, 0, -30], [2.0, 0, 0, -20], [0, 0, 0, 1]])
    sagittal[:3, :2] = [[0, 0], [2.0, 0], [0, 2.0]]
    frame = DisplayFrame.of(CTVolume.from_affine(hu, sagittal))
    assert (frame.flip_x, frame.flip_y, frame.marks) == (True, True, ("A", "P"))


def test_transposed_storage_is_turned():
    affine = np.array([[0, -2.0, 0, 30], [-2.0, 0, 0, 30], [0, 0, 5.0, 0], [0, 0, 0, 1]])
    frame = DisplayFrame.of(CTVolume.from_affine(np.zeros((4, 20, 30), np.float32), affine))
    assert frame.transpose and frame.full_shape == (30, 20)


def test_no_side_marks_where_the_side_is_unknown():
    assert DisplayFrame.of(upright_volume(side_known=False)).marks == ("", "")


def test_crop_keeps_the_head():
    hu = np.full((5, 100, 100), -1000.0, np.float32)
    hu[:, 30:70, 40:80] = 40.0
    affine = np.diag([-1.0, -1.0, 5.0, 1.0])
    frame = DisplayFrame.of(CTVolume.from_affine(hu, affine))
    assert frame.crop == (25, 75, 35, 85)
    assert frame.size_mm == (50.0, 50.0)


def test_brain_window_is_linear_and_clipped():
    assert gray(np.array([-1024.0, 0.0, 40.0, 80.0, 3000.0, np.nan])).tolist() == [0, 0, 128, 255, 255, 0]


def test_outline_encloses_the_mask():
    volume = upright_volume()
    mask = np.zeros(volume.shape[1:], bool)
    mask[20:26, 12:18] = True
    frame = DisplayFrame.of(volume)
    lines = outlines(mask, frame)
    assert len(lines) == 1
    inside = frame.xy(np.array([[12, 20], [17, 25]]))
    assert np.all(lines[0].min(axis=0) < inside.min(axis=0)) and np.all(lines[0].max(axis=0) > inside.max(axis=0))


def test_key_slices_hold_the_largest_area():
    labels = np.zeros((30, 8, 8), np.uint8)
    labels[8:20, 3:5, 3:5] = 1
    labels[11, 2:6, 2:6] = 1
    labels[19, :, :] = 2
    chosen = key_slices(labels, 6)
    assert 11 in chosen and len(chosen) == 6 and min(chosen) >= 8 and max(chosen) <= 19
    assert key_slices(labels[10:13], 6) == [0, 1, 2]


def test_key_slices_of_a_single_blood_slice_show_its_neighbors():
    labels = np.zeros((10, 4, 4), np.uint8)
    labels[9, 2, 2] = 1
    chosen = key_slices(labels, 4)
    assert 9 in chosen and len(chosen) == 4


def test_overview_says_what_it_is(tmp_path):
    volume = tilted_volume()
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]))
    analysis = positive_analysis(volume, labels, input={"simulated": True})
    figure = overview_figure(analysis, labels, volume)
    shown = texts(figure)
    volume_ml = analysis.volumes_ml["segmentation"]
    for part in (RESEARCH_USE, "SIMULATED", f"{volume_ml:.1f} mL", "deep, left", "50 mm", "R", "L", "A 2"):
        assert part in shown, part
    picture = np.asarray(Image.open(io.BytesIO(png_bytes(figure))).convert("RGB"))
    assert picture.shape == (1000, 1600, 3)
    outline = np.all(np.abs(picture.astype(int) - [255, 93, 58]) < 12, axis=-1)
    assert outline.sum() > 100


def test_overview_has_room_for_every_number():
    """IVH, both scores with their ranges and both networks at once: nothing is left out or runs into the legend."""
    volume = tilted_volume()
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]))
    labels[4, 30:33, 20:23] = 2
    networks = {
        name: Prognosis(0.4, "poor outcome (GOS below 4) at 90 days", "trained on simulated outcomes")
        for name in ("slice_network", "scan_network")
    }
    known = {"age": None, "gcs": None, "volume_ml": 20.0}
    scores = {
        "ich_score": ich_score(**known, ivh=True, infratentorial=False),
        "func": func_score(**known, location="deep", cognitive_impairment=None),
    }
    wide = Interval(12.5, 6.7, 125.0, "mL", "volume net")
    analysis = positive_analysis(volume, labels, prognosis=scores | networks)
    analysis = replace(analysis, intervals=analysis.intervals | {"network": wide})
    figure = overview_figure(analysis, labels, volume)
    lines = number_lines(analysis)
    assert len(lines) == 10
    shown = [text.get_text() for text in figure.texts]
    assert all(label in shown for label, *_ in lines)
    column = sorted(float(text.get_position()[1]) for text in figure.texts if text.get_position()[0] == 0.712)
    assert column[0] == 0.075 and column[1] > 0.10  # the legend, and the last line above it


def test_overview_of_a_negative_carries_the_caveat_and_no_stamp():
    volume = upright_volume()
    figure = overview_figure(negative_analysis(), np.zeros(volume.shape, np.uint8), volume)
    shown = texts(figure)
    assert all(word in shown for word in NEGATIVE_CAVEAT.split()) and "SIMULATED" not in shown


def test_overview_shows_hostile_text_as_text():
    volume = upright_volume()
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]))
    analysis = positive_analysis(volume, labels, message="$\\frac{1}{0 <b>bold</b>")
    assert "<b>bold</b>" in texts(overview_figure(analysis, labels, volume))
    assert len(png_bytes(overview_figure(analysis, labels, volume))) > 10_000


def test_head_views_put_the_left_bleed_on_the_right_of_the_front_view():
    volume = upright_volume()
    labels = bleed_labels(volume, np.array([-35.0, 0.0, 2.0]), 12.0)
    views = {view.name: (view, picture) for view, picture in head_views(labels, volume, pixels=120)}
    assert list(views) == ["from the front", "from the left", "from above, face at the bottom"]
    for name in ("from the front", "from above, face at the bottom"):
        view, picture = views[name]
        assert view.marks == ("R", "L") and red_columns(picture).mean() > 60
    assert head_views(np.zeros(volume.shape, np.uint8), volume) == []


@pytest.mark.parametrize("right_mm", [-35.0, 35.0])
def test_the_side_view_is_that_of_the_blood_and_says_where_the_face_is(right_mm):
    volume = upright_volume()
    labels = bleed_labels(volume, np.array([right_mm, 30.0, 2.0]), 12.0)
    _, (view, picture), _ = head_views(labels, volume, pixels=120)
    assert view.name == ("from the right" if right_mm > 0 else "from the left")
    toward_face = red_columns(picture).mean() - 60  # the bleed lies in front of the middle
    assert abs(toward_face) > 5 and view.marks[int(toward_face > 0)] == "A"


def test_views_of_a_scan_without_provable_sides_name_none():
    volume = upright_volume(side_known=False)
    labels = bleed_labels(volume, np.array([35.0, 0.0, 2.0]), 12.0)
    views = [view for view, _ in head_views(labels, volume, pixels=40)]
    text = " ".join(word for view in views for word in (view.name, *view.marks))
    assert "left" not in text and "right" not in text and "R" not in text and "L" not in text


def red_columns(picture: np.ndarray) -> np.ndarray:
    """Columns of the pixels in the color of hemorrhage."""
    found = picture[..., 0].astype(int) - picture[..., 2] > 60
    assert found.any()
    return np.nonzero(found)[1]
