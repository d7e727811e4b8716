"""Strict configuration: what goes in comes out, and nothing unknown passes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from ICHAnalysisLib.config.analyze import PostprocessConfig
from ICHAnalysisLib.config.base import from_dict, to_dict
from ICHAnalysisLib.config.preprocess import HUWindow, PreprocessConfig
from ICHAnalysisLib.errors import UsageError


@dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (1.0, 2.0)
    maybe: int | None = None


def test_round_trip_of_nested_values():
    value = Outer(Inner(5), "b", (3.0, 4.0), 7)
    assert from_dict(Outer, to_dict(value)) == value
    preprocess = PreprocessConfig(windows=(HUWindow(30, 60),), depth=32)
    assert from_dict(PreprocessConfig, to_dict(preprocess)) == preprocess


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"innner": {}}, "unknown key 'innner'"),
        ({"inner": {"siz": 1}}, r"Outer\.inner: unknown key 'siz'"),
        ({"kind": "c"}, "not one of a, b"),
        ({"pair": [1.0]}, "expected 2 values"),
        ({"inner": {"size": "3"}}, "not of type int"),
        ({"inner": {"size": True}}, "not of type int"),
        ({"maybe": "x"}, "none of"),
        (["inner"], "expected a mapping"),
    ],
)
def test_wrong_values_are_named(data, said):
    with pytest.raises(UsageError, match=said):
        from_dict(Outer, data)


def test_integers_serve_where_floats_are_asked():
    assert from_dict(Outer, {"pair": [1, 2]}).pair == (1.0, 2.0)


def test_thresholds_outside_zero_and_one_are_refused():
    with pytest.raises(UsageError, match=r"1\.5"):
        PostprocessConfig(mask_threshold=1.5)
