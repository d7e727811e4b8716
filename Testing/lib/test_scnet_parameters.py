"""The table of parameters: published sizes of the towers, nothing counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

import ICHAnalysisLib

torch = pytest.importorskip("torch")

from ICHAnalysisLib.config.ich_scnet import BASE, COMPACT, PAPER  # noqa: E402
from ICHAnalysisLib.networks.ich_scnet import build_ich_scnet  # noqa: E402
from ICHAnalysisLib.networks.parameters import count_parameters, table  # noqa: E402


def test_towers_have_their_published_sizes() -> None:
    """SAM: ViT-B 89.67 M and ViT-H 637.0 M, prompt encoder 6,220, mask decoder 4.06 M; CLIP ViT-L/14 image 303.97 M
    and text 123.65 M, ViT-B/16 image 86.19 M and text 63.43 M."""
    base, paper = count_parameters(BASE), count_parameters(PAPER)
    assert base["SAM image encoder"] == (89_670_912, 0)
    assert paper["SAM image encoder"] == (637_026_048, 0)
    assert base["SAM prompt encoder"][0] == 6_220
    assert paper["interaction: mask decoders"][0] == 4 * 4_058_340
    assert base["CLIP image encoder"][0] == 86_192_640
    assert paper["CLIP image encoder"][0] == 303_966_208
    assert paper["CLIP text encoder"][0] == 123_650_304 + 768  # and the token for no text
    assert paper["DenseNet classifier"][0] == pytest.approx(7.0e6, rel=0.02)


def test_frozen_towers_do_not_count_as_trainable() -> None:
    paper = count_parameters(PAPER)
    assert paper["CLIP image encoder"][1] == 0 and paper["SAM prompt encoder"][1] == 0
    assert paper["interaction: mask decoders"][1] > 0.8 * paper["interaction: mask decoders"][0]


def test_compact_is_as_small_as_it_must_be() -> None:
    total = sum(parameter.numel() for parameter in build_ich_scnet(COMPACT).parameters())
    assert sum(count[0] for count in count_parameters(COMPACT).values()) == total
    assert 2 * total < 5e6  # bytes in half precision


def test_table_has_a_row_a_part_and_the_totals() -> None:
    lines = table().splitlines()
    assert lines[0] == "| part | compact | base | paper |"
    assert len(lines) == 13 and lines[-1].startswith("| **all** |")
    assert table() in (Path(ICHAnalysisLib.__file__).parent / "docs" / "ich_scnet.md").read_text(encoding="utf-8")
