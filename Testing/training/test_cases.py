"""Which cases train, validate and test: by patient, whatever decides it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ICHAnalysisLib.errors import UsageError
from Testing.training.cached_heads import make_cache, write_head
from Training.cases import fingerprint, load_cases, split_by_hash
from Training.config import DataConfig
from Training.data.splits import main as make_splits


def names(splits: dict) -> dict[str, list[str]]:
    return {split: [case.case_id for case in cases] for split, cases in splits.items()}


def test_a_hash_of_the_patient_gives_the_fractions() -> None:
    counts = Counter(split_by_hash(f"p{n}", 0.2, 0.1) for n in range(5000))
    assert counts["val"] == pytest.approx(1000, rel=0.1) and counts["test"] == pytest.approx(500, rel=0.15)
    assert all(split_by_hash(f"p{n}", 0.2) == split_by_hash(f"p{n}", 0.2) for n in range(50))


def test_a_growing_cache_moves_no_case(tmp_path: Path) -> None:
    make_cache(tmp_path, 6)
    cfg = DataConfig(cache=str(tmp_path), val_fraction=0.4)
    before = load_cases(cfg)
    assert sorted(c.case_id for part in before.values() for c in part) == [f"case{n:02d}" for n in range(6)]
    make_cache(tmp_path, 9)
    after = load_cases(cfg)
    for split, part in names(before).items():
        assert set(part) <= set(names(after)[split])
    assert fingerprint(before) != fingerprint(after)
    assert fingerprint(after) == fingerprint(load_cases(cfg))


def test_the_held_out_fold_is_the_test_and_chooses_nothing(tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", 12)
    assert make_splits([str(tmp_path / "cache"), "--out", str(tmp_path / "folds.json"), "--folds", "3"]) == 0
    tested: list[str] = []
    for fold in range(3):
        cfg = DataConfig(str(tmp_path / "cache"), folds=str(tmp_path / "folds.json"), fold=fold, val_fraction=0.3)
        parts = names(load_cases(cfg))
        assert sum(map(len, parts.values())) == 12 and len(parts["test"]) == 4
        tested += parts["test"]
    assert sorted(tested) == [f"case{n:02d}" for n in range(12)]


def test_the_cases_own_splits_hold_where_all_have_one(tmp_path: Path) -> None:
    for number, split in enumerate(("test", "train", "val", "train")):
        write_head(tmp_path, number, split=split)
    write_head(tmp_path / "more", 9, split="val")
    both = names(load_cases(DataConfig(cache=(str(tmp_path), str(tmp_path / "more")))))
    assert both["val"] == ["case02", "case09"]
    parts = names(load_cases(DataConfig(cache=str(tmp_path))))
    assert parts == {"train": ["case01", "case03"], "val": ["case02"], "test": ["case00"]}
    assert names(load_cases(DataConfig(cache=str(tmp_path), limit=1)))["train"] == ["case01"]


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_head(tmp_path, 0, split="train", patient_id="same")
    write_head(tmp_path, 1, split="test", patient_id="same")
    with pytest.raises(UsageError, match="leak") as caught:
        load_cases(DataConfig(cache=str(tmp_path)))
    assert "same pixels" not in str(caught.value) and "case00 and case01" in str(caught.value)


def test_no_cache(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.cache"):
        load_cases(DataConfig())
    with pytest.raises(UsageError, match="No cached case"):
        load_cases(DataConfig(cache=str(tmp_path)))
    make_cache(tmp_path, 2)
    with pytest.raises(UsageError, match="twice"):
        load_cases(DataConfig(cache=(str(tmp_path), str(tmp_path))))
