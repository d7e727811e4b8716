"""`ich-analysis info`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ICHAnalysisLib import cli
from ICHAnalysisLib.ct.sources import FileRef
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.simulate import hazard_scans
from ICHAnalysisLib.simulate.dicom_series import write_series


def test_info_of_the_real_head(shared_data: Path, capsys) -> None:
    assert cli.main(["info", str(shared_data / "head_ct_ge")]) == 0
    text = capsys.readouterr().out
    assert "28 slices of 512 x 512 pixels, 0.488 x 0.488 mm" in text
    assert "13 x 4.00, 1 x 1.08, 13 x 7.00 mm" in text and "tilt: 18.5 degrees" in text
    assert "sum 149.6 mm" in text and "would be analyzed" in text
    assert "--pixels adds" in text


def test_info_with_pixels_blocks_the_phantom(shared_data: Path, capsys) -> None:
    assert cli.main(["info", str(shared_data / "head_phantom_philips"), "--pixels"]) == 0
    text = capsys.readouterr().out
    assert "BLOCK not_a_head (no. 34)" in text and "never offered: localizer" in text
    assert "This scan would be blocked" in text


def test_info_marks_the_chosen_series(bench, tmp_path: Path, capsys) -> None:
    made = hazard_scans.whole_study(bench, tmp_path / "study")
    cli.main(["info", str(made.path), "--series", "4"])
    text = capsys.readouterr().out
    assert any(line.startswith("*  4 ") and "bone kernel H60s" in line for line in text.splitlines())
    assert "after you confirm" in text


def test_info_says_when_a_gap_is_asked_about(bench, tmp_path: Path, capsys) -> None:
    cli.main(["info", str(hazard_scans.missing_elsewhere(bench, tmp_path / "few").path)])
    assert "asked only if a bleed lies next to the gap" in capsys.readouterr().out
    made = hazard_scans.missing_elsewhere(bench, tmp_path / "many")
    sorted(made.path.iterdir())[20].unlink()
    cli.main(["info", str(made.path)])
    assert "after you confirm" in capsys.readouterr().out


def test_info_of_an_image(bench, tmp_path: Path, capsys) -> None:
    from ICHAnalysisLib.simulate import hazard_images

    made = hazard_images.shifted(bench, tmp_path)
    cli.main(["info", str(made.path), "--pixels"])
    text = capsys.readouterr().out
    assert "FIX   shifted_hu (no. 16)" in text and f"{bench.usual.volume.shape[0]} slices" in text


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory) -> Path:
    """300 files: five series of 512 x 512 slices, and what else lies in a hospital's export."""
    folder = tmp_path_factory.mktemp("export")
    origins = np.arange(50)[:, None] * np.array([0.0, 0.0, 3.0])
    hu = np.broadcast_to(np.float32(30.0), (50, 512, 512))
    volume = CTVolume(hu, np.array([-0.45, 0, 0]), np.array([0, -0.45, 0]), origins, np.full(50, 3.0))
    for number in range(1, 6):
        write_series(folder / f"s{number}", volume, number, ConvolutionKernel=("H30s", "H60s")[number % 2])
    for number in range(50):
        (folder / f"report{number}.txt").write_text("text")
    return folder


def test_headers_of_300_files_are_read_without_their_pixels(mixed_folder: Path, capsys, monkeypatch) -> None:
    """Bytes read, not seconds: a slice of 512 x 512 has 512 KiB, its header fits the first 64."""
    amounts: list[int] = []
    read = FileRef.read

    def counted(ref: FileRef, *limit: int) -> bytes:
        content = read(ref, *limit)
        amounts.append(len(content))
        return content

    monkeypatch.setattr(FileRef, "read", counted)
    assert sum(1 for path in mixed_folder.rglob("*") if path.is_file()) == 300
    cli.main(["info", str(mixed_folder)])
    assert "250 DICOM images in 5 series" in capsys.readouterr().out
    assert max(amounts) <= 64 << 10 and sum(amounts) <= 250 * (65 << 10) + 50 * 1024


def test_wrong_path_is_wrong_use(tmp_path: Path, capsys) -> None:
    assert cli.main(["info", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert cli.main(["info", str(tmp_path)]) == 3
