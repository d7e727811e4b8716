"""The preprocessed cache: whole entries or none, keys that follow content and preprocessing, unknown stays unknown."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ICHAnalysisLib.errors import UsageError
from Testing.training.cached_heads import PREPROCESS, SIZE, SLICES, head, make_cache, write_head
from Training.data import cache


def test_round_trip(tmp_path: Path) -> None:
    write_head(tmp_path, 1)
    (case,) = cache.open_cache(tmp_path)
    hu, labels = head(1, clot=True)
    assert case.hu.dtype == np.int16 and case.hu.shape == (SLICES, SIZE, SIZE)
    np.testing.assert_array_equal(case.hu, np.rint(hu))
    np.testing.assert_array_equal(case.labels, labels)
    assert (case.case_id, case.patient_id, case.num_slices) == ("case01", "patient01", SLICES)
    assert case.meta["slices"]["ich"] == [int((plane == 1).sum()) for plane in labels]
    assert isinstance(case.hu, np.memmap)


def test_slice_facts_count_dense_pixels_only_inside_the_skull() -> None:
    hu, labels = head(0, clot=False)
    facts = cache.slice_facts(hu, labels)
    assert max(facts["dense"]) == 0
    assert 0.15 * SIZE**2 < facts["inside"][SLICES // 2] < 0.45 * SIZE**2
    hu[2, 30:33, 30:33] = 120  # a calcification
    hu[3, 1:4, 1:4] = 120  # something in the air
    facts = cache.slice_facts(hu, labels)
    assert facts["dense"] == [0, 0, 9, 0, 0, 0]


def test_key_follows_content_and_preprocessing() -> None:
    key = cache.cache_key(("scan", "mask"), PREPROCESS)
    assert key == cache.cache_key(("scan", "mask"), PREPROCESS)
    assert key != cache.cache_key(("scanm", "ask"), PREPROCESS)
    assert key != cache.cache_key(("scan", "mask"), replace(PREPROCESS, spacing_mm=0.8))
    assert key == cache.cache_key(("scan", "mask"), replace(PREPROCESS, bone_hu=150.0))  # masked when read
    assert key == cache.cache_key(("scan", "mask"), replace(PREPROCESS, neighbor_windows=PREPROCESS.windows))


def test_nothing_half_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_head(tmp_path, 1)

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", no_space)
    with pytest.raises(OSError, match="No space"):
        write_head(tmp_path, 2)
    assert [case.case_id for case in cache.open_cache(tmp_path)] == ["case01"]
    assert len(list(tmp_path.iterdir())) == 1


def test_several_writers_make_one_entry(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: write_head(tmp_path, 3), range(16)))
    assert len(folders) == 1
    assert [path.name for path in tmp_path.iterdir()] == [folders.pop().name]


def test_memory_maps_are_not_pickled(tmp_path: Path) -> None:
    case = make_cache(tmp_path, 1)[0]
    first = int(case.hu[0, 0, 0])
    data = pickle.dumps(case)
    assert len(data) < 5000
    assert int(pickle.loads(data).hu[0, 0, 0]) == first


def test_unknown_numbers_become_null(tmp_path: Path) -> None:
    folder = write_head(tmp_path, 1, volume_ml=float("nan"), location=None)
    stored = json.loads((folder / "meta.json").read_text())
    assert stored["volume_ml"] is None and stored["location"] is None


@pytest.mark.parametrize(
    ("facts", "words"), [({"patient_id": None}, "patient_id"), ({"positions_mm": [0.0]}, "positions")]
)
def test_parts_that_do_not_fit(tmp_path: Path, facts: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        write_head(tmp_path, 1, **facts)


def test_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Training\.data\.pool"):
        cache.open_cache(tmp_path / "missing")
