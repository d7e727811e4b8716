"""The pool of simulated cases: the same whoever makes it, resumable, clear where a case cannot be made."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ICHAnalysisLib.config.preprocess import LOCATIONS, PreprocessConfig
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate.cohort import SimulatedCase
from Testing.lib.tissue_models import model, write_minc
from Testing.training.cached_heads import head
from Training.data import pool
from Training.data.cache import folder_digest, open_cache

ROOT = Path(__file__).parents[2]

SMALL = PreprocessConfig(spacing_mm=3.6, size=64)


def quick_case(seed: int, spec: Any, background: Any) -> SimulatedCase:
    """A simulated case in no time: the tests' ellipse."""
    hu, labels = head(seed % 1000, bool(spec.has_ich))
    volume = CTVolume.from_affine(hu[:, ::-1, ::-1].copy(), np.diag([3.6, 3.6, 5.0, 1.0]))
    location = (spec.location or "deep") if spec.has_ich else None
    truth = {"has_ich": spec.has_ich, "location": location, "side": "left", "volume_ml": 3.0, "ivh_ml": 0.0}
    return SimulatedCase(f"sim{seed}", volume, labels[:, ::-1, ::-1].copy(), truth, {"age": 70}, {}, {"seed": seed})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls of the quick simulator."""
    calls: list[int] = []

    def simulate(seed: int, spec: Any, background: Any = None) -> SimulatedCase:
        calls.append(seed)
        return quick_case(seed, spec, background)

    monkeypatch.setattr(pool, "simulate_case", simulate)
    return calls


def test_plans_follow_the_shares() -> None:
    cfg = pool.PoolConfig(Path("x"), 1, seed=3, backgrounds=(Path("a"), Path("b")))
    plans = [pool.plan_case(cfg, index) for index in range(2000)]
    positives = [plan for plan in plans if plan.positive]
    assert len(positives) / 2000 == pytest.approx(0.6, abs=0.04)
    assert sum(plan.background is not None for plan in plans) / 2000 == pytest.approx(0.5, abs=0.04)
    assert {plan.background for plan in plans} == {None, 0, 1}
    placed = [plan.location for plan in positives if plan.location]
    assert all(placed.count(place) / len(placed) == pytest.approx(1 / 3, abs=0.06) for place in LOCATIONS)
    small = [plan.volume_ml for plan in positives if plan.volume_ml]
    assert min(small) >= 0.2 and max(small) <= 3.0 and len(small) / len(positives) == pytest.approx(0.25, abs=0.05)
    assert len({plan.seed for plan in plans}) == 2000


def test_large_lesions_are_drawn_on_purpose_where_they_have_room() -> None:
    usual = pool.PoolConfig(Path("x"), 1, seed=3, positive_fraction=1.0)
    cfg = replace(usual, large_fraction=0.3)
    plans = [pool.plan_case(cfg, index) for index in range(1000)]
    large = [plan for plan in plans if plan.volume_ml and plan.volume_ml > pool.SMALL_ML[1]]
    assert len(large) / 1000 == pytest.approx(0.3, abs=0.05)
    assert min(plan.volume_ml or 0 for plan in large) >= 30 and max(plan.volume_ml or 0 for plan in large) <= 140
    assert {plan.location for plan in large} == {"deep", "lobar"}
    others = [plan for plan in plans if plan not in large]
    assert all(plan == pool.plan_case(usual, plan.index) for plan in others)
    with pytest.raises(UsageError, match=r"small_fraction 0.25 and large_fraction 0.9"):
        replace(usual, large_fraction=0.9)


def test_every_hemorrhage_can_be_asked_for_at_one_place() -> None:
    cfg = pool.PoolConfig(Path("x"), 1, seed=3)
    asked = replace(cfg, location="subtentorial")
    for index in range(200):
        usual, placed = pool.plan_case(cfg, index), pool.plan_case(asked, index)
        assert placed.location == ("subtentorial" if placed.positive else None)
        assert replace(placed, location=usual.location) == usual
    with pytest.raises(UsageError, match="'pons'"):
        replace(cfg, location="pons")
    with pytest.raises(UsageError, match="large_fraction"):
        replace(asked, large_fraction=0.1)


def test_every_clot_has_the_feature_that_is_asked_for() -> None:
    usual = pool.PoolConfig(Path("x"), 1, seed=3)
    asked = replace(usual, feature="blend")
    keys = set()
    for index in range(20):
        plan, other = pool.plan_case(asked, index), pool.plan_case(usual, index)
        assert plan.feature == ("blend" if plan.positive else None)
        assert replace(plan, feature=None) == other
        keys |= {pool._key(plan, (), SMALL), pool._key(other, (), SMALL)}
    assert len(keys) == 20 + sum(pool.plan_case(usual, index).positive for index in range(20))
    with pytest.raises(UsageError, match="'stripes' is not one of plain"):
        replace(usual, feature="stripes")


def test_more_hemorrhages_can_break_into_the_ventricles() -> None:
    cfg = pool.PoolConfig(Path("x"), 1, seed=3)
    asked = replace(cfg, ivh_fraction=0.4, ventricles=1.0)
    plans = [pool.plan_case(asked, index) for index in range(600)]
    broken = [plan for plan in plans if plan.ivh]
    assert all(plan.positive for plan in broken) and {plan.ivh for plan in plans} == {True, None}
    assert len(broken) / sum(plan.positive for plan in plans) == pytest.approx(0.4, abs=0.06)
    for plan in plans[:100]:
        usual = pool.plan_case(cfg, plan.index)
        assert replace(plan, ivh=None, ventricles=0.0) == usual
        assert pool._key(plan, (), PreprocessConfig()) != pool._key(usual, (), PreprocessConfig())
    with pytest.raises(UsageError, match=r"ivh_fraction 1\.5"):
        replace(cfg, ivh_fraction=1.5)


def test_pool_resumes_and_grows(tmp_path: Path, quick: list[int]) -> None:
    cfg = pool.PoolConfig(tmp_path, 3, seed=1)
    assert pool.fill(cfg, SMALL) == 3
    assert pool.fill(cfg, SMALL) == 0
    assert len(quick) == 3
    assert pool.fill(replace(cfg, count=5), SMALL) == 2
    cases = open_cache(tmp_path)
    assert len({case.patient_id for case in cases}) == 5
    for case in cases:
        assert case.meta["has_ich"] == bool((case.labels == 1).any())
        assert case.meta["preprocess"]["size"] == 64 and case.meta["background"] is None


def test_labels_come_through_upright(tmp_path: Path, quick: list[int]) -> None:
    pool.fill(pool.PoolConfig(tmp_path, 1, seed=1, positive_fraction=1.0), SMALL)
    (case,) = open_cache(tmp_path)
    clot = np.asarray(case.labels) == 1
    assert clot.any() and float(np.median(np.asarray(case.hu)[clot])) == pytest.approx(62, abs=3)
    assert float(np.median(np.asarray(case.hu)[3][np.asarray(case.labels[3]) == 0])) < 62


def test_a_head_without_room_takes_the_next_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def simulate(seed: int, spec: Any, background: Any = None) -> SimulatedCase:
        seeds.append(seed)
        if len(seeds) == 1:
            raise UsageError("No clot fits into this head.")
        return quick_case(seed, spec, background)

    monkeypatch.setattr(pool, "simulate_case", simulate)
    assert pool.fill(pool.PoolConfig(tmp_path, 1), SMALL) == 1
    assert seeds[1] == seeds[0] + 1


def test_all_failed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def simulate(*_: Any) -> SimulatedCase:
        raise UsageError("No brain in this background.")

    monkeypatch.setattr(pool, "simulate_case", simulate)
    with pytest.raises(UsageError, match="No brain in this background"):
        pool.fill(pool.PoolConfig(tmp_path, 2), SMALL)


def test_command_line(tmp_path: Path, quick: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert pool.main(["--out", str(tmp_path), "--count", "1"]) == 0
    assert capsys.readouterr().out == f"1 new cases in {tmp_path}\n"
    assert pool.main(["--out", str(tmp_path), "--count", "0"]) == 2
    assert pool.main(["--out", str(tmp_path), "--count", "1", "--background", str(tmp_path / "none")]) == 2


def test_background_digest_follows_the_bytes(tmp_path: Path) -> None:
    scan = tmp_path / "scan"
    scan.mkdir()
    (scan / "1.dcm").write_bytes(b"one")
    first = folder_digest(scan)
    (scan / "2.dcm").write_bytes(b"two")
    assert folder_digest(scan) != first
    assert len(first) == 64


def test_workers_keep_to_one_thread() -> None:
    """In a process of its own, as they are: it must not slow the others down."""
    code = (
        "import torch, numpy, threadpoolctl; from Training.data.pool import keep_to_one_thread;"
        "keep_to_one_thread();"
        "print(torch.get_num_threads(), max(pool['num_threads'] for pool in threadpoolctl.threadpool_info()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["1", "1"]


def test_an_anatomical_model_is_a_background(tmp_path: Path) -> None:
    head = write_minc(tmp_path / "egg.mnc.gz", model())
    cfg = pool.PoolConfig(tmp_path / "pool", 1, 4, (head,), 1.0, 1.0, location="lobar", confounders=0.0)
    assert pool.fill(cfg, SMALL) == 1
    (case,) = open_cache(cfg.out)
    assert case.meta["background"] == folder_digest(head) and case.meta["has_ich"]
    assert (np.asarray(case.labels) == 1).any()
