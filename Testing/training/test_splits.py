"""Folds by patient: none in two folds, strata even, one scan under two names found, files round-trip."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ICHAnalysisLib.errors import UsageError
from Testing.training.cached_heads import make_cache
from Training.data.manifest import ManifestRow, write_manifest
from Training.data.splits import (
    Member,
    check_leaks,
    main,
    make_folds,
    members_of_cache,
    members_of_manifest,
    read_folds,
    write_folds,
)


def cohort(patients: int = 90) -> list[Member]:
    """One to three scans a patient; the location is the stratum."""
    rng = np.random.default_rng(0)
    places = ["1/deep", "1/lobar", "0/None"]
    return [
        Member(f"p{p}s{s}", f"x:{p}", places[p % 3]) for p in range(patients) for s in range(int(rng.integers(1, 4)))
    ]


def test_no_patient_in_two_folds_and_strata_even() -> None:
    members = cohort()
    folds = make_folds(members, 5, seed=1)
    assert set(folds.fold_of) == {member.case_id for member in members}
    of_patient: dict[str, set[int]] = {}
    for member in members:
        of_patient.setdefault(member.patient_id, set()).add(folds.fold_of[member.case_id])
    assert all(len(found) == 1 for found in of_patient.values())
    for stratum in ("1/deep", "1/lobar", "0/None"):
        sizes = Counter(folds.fold_of[m.case_id] for m in members if m.stratum == stratum)
        assert max(sizes.values()) - min(sizes.values()) <= 5
    assert folds == make_folds(members, 5, seed=1)
    assert folds.fold_of != make_folds(members, 5, seed=2).fold_of


def test_one_scan_under_two_patients_stays_together() -> None:
    members = cohort(40)
    twins = [replace(members[0], content="same"), replace(members[-1], content="same")]
    members = [twins[0], *members[1:-1], twins[1]]
    for seed in range(5):
        folds = make_folds(members, 5, seed)
        assert folds.fold_of[twins[0].case_id] == folds.fold_of[twins[1].case_id]


def test_leaks_are_named_by_case_never_by_patient() -> None:
    members = [Member("a", "x:secret", "s"), Member("b", "x:secret", "s"), Member("c", "x:2", "s")]
    with pytest.raises(UsageError, match="a and b") as error:
        check_leaks(members, {"a": "train", "b": "test", "c": "train"})
    assert "secret" not in str(error.value)
    check_leaks(members, {"a": "train", "b": "train", "c": "test"})
    same = [Member("a", "x:1", "s", "digest"), Member("b", "x:2", "s", "digest")]
    with pytest.raises(UsageError, match="same pixels"):
        check_leaks(same, {"a": 0, "b": 1})


def test_rare_strata_are_merged() -> None:
    members = [Member(f"c{n}", f"x:{n}", "1/deep/0" if n < 30 else f"1/deep/rare{n}") for n in range(33)]
    folds = make_folds(members, 5)
    assert max(Counter(folds.fold_of.values()).values()) <= 8


def test_file_round_trip_and_split(tmp_path: Path) -> None:
    members = cohort(20)
    folds = make_folds(members, 4)
    assert read_folds(write_folds(tmp_path / "folds.json", folds)) == folds
    parts = folds.split(2, [member.case_id for member in members])
    assert len(parts["train"]) + len(parts["val"]) == len(members)
    assert {folds.fold_of[case] for case in parts["val"]} == {2}
    with pytest.raises(UsageError, match="folds 0 to 3"):
        folds.split(4, [])
    with pytest.raises(UsageError, match="in no fold"):
        folds.split(0, ["unheard"])


def test_too_few_patients() -> None:
    with pytest.raises(UsageError, match="there are 2"):
        make_folds([Member("a", "x:1", "s"), Member("b", "x:2", "s"), Member("c", "x:2", "s")], 3)


def test_members_of_cache_and_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_cache(tmp_path / "cache", 4)
    members = members_of_cache(tmp_path / "cache")
    assert [member.stratum for member in members] == ["1/deep/0/?", "1/lobar/0/?", "1/subtentorial/0/?", "0/?/?/?"]
    rows = [
        ManifestRow(f"s{n}#{k}", f"x:{n}", "scan.nii", slice_index=k, has_ich=int(n == k))
        for n in range(3)
        for k in range(2)
    ]
    write_manifest(tmp_path / "manifest.csv", rows)
    members = members_of_manifest(tmp_path / "manifest.csv")
    assert [(m.case_id, m.stratum[0]) for m in members] == [("s0", "1"), ("s1", "1"), ("s2", "0")]
    assert main([str(tmp_path / "manifest.csv"), "--out", str(tmp_path / "folds.json"), "--folds", "3"]) == 0
    assert "3 cases in 3 folds of 1, 1, 1" in capsys.readouterr().out
    assert main([str(tmp_path / "nothing.csv"), "--out", str(tmp_path / "folds.json")]) == 2


def test_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_text("[]")
    with pytest.raises(UsageError, match="not a folds file"):
        read_folds(tmp_path / "folds.json")
