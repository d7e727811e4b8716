"""A cache of simulated cases: `python -m Training.data.pool --out DIR --count N --seed S [--background PATH ...]`.

Case n of seed S is always the same case, whoever makes it: a run that was stopped goes on where it was, several
processes may fill one folder, and a larger --count adds cases to those that are there.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.config.preprocess import LOCATIONS, PreprocessConfig
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from ICHAnalysisLib.preprocess import SliceStack, make_stack
from ICHAnalysisLib.simulate.cohort import CaseSpec, SimulatedCase, simulate_case
from ICHAnalysisLib.simulate.hemorrhage import FEATURES
from Training.data.cache import cache_key, folder_digest, is_cached, write_case
from Training.data.masks import stack_labels

logger = logging.getLogger(__name__)

#: Volumes of the small lesions that are drawn on purpose, mL.
SMALL_ML = (0.2, 3.0)
#: Volumes of the large lesions that are drawn on purpose, mL; never below the tentorium, where none has room.
LARGE_ML = (30.0, 140.0)
_ATTEMPTS = 3


@dataclass(frozen=True)
class PoolConfig:
    """What a pool holds. Everything but `out`, `count` and `workers` decides what each case is."""

    out: Path
    count: int
    seed: int = 0
    backgrounds: tuple[Path, ...] = ()  # real bleed-free heads; cases alternate between them and procedural ones
    background_fraction: float = 0.5  # of the cases, where a background is given
    positive_fraction: float = 0.6
    even_locations: float = 0.5  # of the positives have each location alike, the others the published shares
    location: str | None = None  # of every positive instead
    feature: str | None = None  # of every clot (`simulate.hemorrhage.FEATURES`) instead of the usual mix
    small_fraction: float = 0.25  # of the positives have 0.2 to 3 mL, the others the published volumes
    large_fraction: float = 0.0  # of the positives have 30 to 140 mL, which the published volumes rarely reach
    confounders: float = 1.0  # how often look-alikes are drawn: 0 never, 1 the usual mix, 2 often
    randomize: float = 1.0  # how strongly real heads are varied
    ventricles: float = 0.0  # how strongly the ventricles are varied besides
    ivh_fraction: float = 0.0  # of the positives break into ventricles within reach, the others as published
    center: Literal["first", "second"] = "first"  # whose scanner and patients
    workers: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or self.workers < 1:
            raise UsageError(f"Pool: --count {self.count} and --workers {self.workers} must be at least 1.")
        names = (
            "positive_fraction",
            "background_fraction",
            "even_locations",
            "small_fraction",
            "large_fraction",
            "ivh_fraction",
        )
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"Pool: {name} {getattr(self, name)} must lie in 0 to 1.")
        if self.location is not None and self.location not in LOCATIONS:
            raise UsageError(f"Pool: location {self.location!r} is not one of {', '.join(LOCATIONS)}.")
        if self.feature is not None and self.feature not in FEATURES:
            raise UsageError(f"Pool: feature {self.feature!r} is not one of {', '.join(FEATURES)}.")
        if self.location == "subtentorial" and self.large_fraction > 0:
            raise UsageError("Pool: large lesions have no room below the tentorium; set large_fraction to 0.")
        if self.small_fraction + self.large_fraction > 1:
            raise UsageError(
                f"Pool: small_fraction {self.small_fraction} and large_fraction {self.large_fraction} exceed 1 in sum."
            )


@dataclass(frozen=True)
class Plan:
    """One case before it is simulated. background: index or None; location, volume_ml: None leaves the draw open."""

    index: int
    seed: int
    positive: bool
    background: int | None
    location: str | None
    volume_ml: float | None
    confounders: float = 1.0
    randomize: float = 1.0
    center: Literal["first", "second"] = "first"
    ventricles: float = 0.0
    ivh: bool | None = None  # None: drawn
    feature: str | None = None  # None: drawn


def plan_case(cfg: PoolConfig, index: int) -> Plan:
    """What case `index` of the pool is; independent of the pool's size."""
    rng = np.random.default_rng([cfg.seed, index])
    seed = int(rng.integers(2**31))
    bleeds, real, which, place, region, small, size = rng.random(7)
    background = int(which * len(cfg.backgrounds)) if cfg.backgrounds and real < cfg.background_fraction else None
    positive = bool(bleeds < cfg.positive_fraction)
    location = LOCATIONS[int(region * len(LOCATIONS))] if positive and place < cfg.even_locations else None
    volume = None
    if positive and small < cfg.small_fraction:
        volume = _between(SMALL_ML, size)
    elif positive and small >= 1 - cfg.large_fraction:
        volume = _between(LARGE_ML, size)
        location = ("deep", "lobar")[int(2 * region)]
    if positive and cfg.location is not None:
        location = cfg.location
    broken_through = positive and np.random.default_rng([cfg.seed, index, 1]).random() < cfg.ivh_fraction
    return Plan(
        index, seed, positive, background, location, volume, cfg.confounders, cfg.randomize, cfg.center,
        cfg.ventricles, True if broken_through else None, cfg.feature if positive else None,
    )  # fmt: skip


def _between(limits_ml: tuple[float, float], share: float) -> float:
    """The volume, mL, at this share of the way between the limits' logarithms."""
    low, high = np.log(limits_ml)
    return round(float(np.exp(low + (high - low) * share)), 3)


def fill(cfg: PoolConfig, preprocess: PreprocessConfig | None = None) -> int:
    """Simulate what is missing; returns the number of new cases. Raises where every case failed."""
    preprocess = preprocess or PreprocessConfig()
    digests = tuple(folder_digest(path) for path in cfg.backgrounds)
    plans = [plan_case(cfg, index) for index in range(cfg.count)]
    keys = {plan.index: _key(plan, digests, preprocess) for plan in plans}
    missing = [plan for plan in plans if not is_cached(cfg.out, keys[plan.index])]
    logger.info("%d of %d cases are there; simulating %d", len(plans) - len(missing), len(plans), len(missing))
    jobs = [(plan, keys[plan.index], cfg.out, preprocess, digests) for plan in missing]
    made, failed, started = 0, 0, time.monotonic()
    for done, message in enumerate(_run(jobs, cfg), start=1):
        made, failed = made + (message is None), failed + (message is not None)
        if message:
            logger.warning("%s", message)
        if done % 10 == 0 or done == len(jobs):
            seconds = (time.monotonic() - started) / done
            logger.info(
                "%d/%d cases, %.1f s each, %.0f min left", done, len(jobs), seconds, seconds * (len(jobs) - done) / 60
            )
    if failed and not made:
        raise UsageError(f"None of {failed} cases could be simulated; the last message says why: {message}")
    return made


def _key(plan: Plan, digests: tuple[str, ...], preprocess: PreprocessConfig) -> str:
    """The cache key of a planned case."""
    background = "" if plan.background is None else digests[plan.background]
    usual = Plan(plan.index, plan.seed, plan.positive, plan.background, plan.location, plan.volume_ml)
    unusual = () if plan == usual else (f"{plan.confounders}/{plan.randomize}/{plan.center}",)
    if plan.ventricles or plan.ivh is not None:
        unusual = (*unusual, f"{plan.ventricles}/{plan.ivh}")
    if plan.feature is not None:
        unusual = (*unusual, plan.feature)
    drawn = map(str, (plan.seed, plan.positive, plan.location, plan.volume_ml))
    return cache_key(("simulated", *drawn, background, *unusual), preprocess)


_backgrounds: list[CTVolume] = []


def load_backgrounds(paths: tuple[Path, ...]) -> None:
    """Read the real heads once a process."""
    from ICHAnalysisLib.simulate.background import read_background

    _backgrounds[:] = [read_background(path) for path in paths]


def _run(jobs: list[tuple], cfg: PoolConfig) -> Iterator[str | None]:
    """Results of `_make` in any order, in this process or in several."""
    load_backgrounds(cfg.backgrounds)  # here too: a worker that cannot read it would be started again and again
    if cfg.workers == 1:
        yield from map(_make, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(cfg.workers, _start, (cfg.backgrounds,)) as pool:
        yield from pool.imap_unordered(_make, jobs)


def _start(backgrounds: tuple[Path, ...]) -> None:
    """Make a worker ready."""
    load_backgrounds(backgrounds)
    keep_to_one_thread()


def keep_to_one_thread() -> None:
    """Let this process compute on one thread: those of processes side by side wait for each other.

    BLAS threads too, which spin while they wait: two workers on two cores took three times as long for a case.
    """
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def _make(job: tuple[Plan, str, Path, PreprocessConfig, tuple[str, ...]]) -> str | None:
    """Simulate, preprocess and store one case; a message where it failed."""
    plan, key, out, preprocess, digests = job
    try:
        case = simulate_plan(plan)
        stack = make_stack(case.volume, preprocess)
        meta = case_meta(case, plan, stack)
        meta["background"] = None if plan.background is None else digests[plan.background]
        meta["preprocess"] = to_dict(preprocess)
        write_case(out, key, stack.hu, stack_labels(case.labels, stack), meta)
    except (ICHAnalysisError, ValueError, ArithmeticError, IndexError) as error:
        return f"case {plan.index} (seed {plan.seed}): {type(error).__name__}: {error}"
    return None


def simulate_plan(plan: Plan) -> SimulatedCase:
    """The planned case; where no clot fits into its head, the head of the next seed."""
    background = None if plan.background is None else _backgrounds[plan.background]
    spec = CaseSpec(
        has_ich=plan.positive,
        location=plan.location,  # type: ignore[arg-type]
        volume_ml=plan.volume_ml,
        confounders=plan.confounders,
        randomize=plan.randomize,
        center=plan.center,
        ventricles=plan.ventricles,
        ivh=plan.ivh,
        feature=plan.feature,
    )
    for attempt in range(_ATTEMPTS - 1):
        try:
            return simulate_case(plan.seed + attempt, spec, background)
        except UsageError as error:
            logger.debug("seed %d: %s", plan.seed + attempt, error)
    return simulate_case(plan.seed + _ATTEMPTS - 1, spec, background)


def case_meta(case: SimulatedCase, plan: Plan, stack: SliceStack) -> dict[str, Any]:
    """What meta.json says about a simulated case."""
    truth = case.truth
    return {
        "case_id": case.case_id,
        "patient_id": f"sim:{case.case_id}",
        "synthetic": True,
        "source": "simulated",
        "positions_mm": stack.positions_mm,
        "heights_mm": stack.heights_mm,
        "spacing_mm": stack.spacing_mm,
        "has_ich": bool(truth["has_ich"]),
        "location": truth.get("location"),
        "side": truth.get("side"),
        "volume_ml": float(truth["volume_ml"]),
        "ivh_ml": float(truth["ivh_ml"]),
        "record": case.record,
        "outcome": case.outcome,
        "simulation": {"plan": asdict(plan), "parameters": case.parameters, "truth": truth},
    }


def add_pool_arguments(parser: argparse.ArgumentParser, count: int | None = None, seed: int = 0) -> None:
    """What decides a pool's cases, on a command line; `pool_config` reads it. count: None makes it required."""
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--count", type=int, required=count is None, default=count, help="number of cases in all")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument(
        "--background",
        type=Path,
        action="append",
        default=[],
        help="bleed-free head CT or anatomical model; repeatable",
    )
    for name in ("background", "positive", "small", "large", "ivh"):
        default = getattr(PoolConfig, f"{name}_fraction")
        parser.add_argument(f"--{name}-fraction", type=float, default=default)
    parser.add_argument("--even-locations", type=float, default=PoolConfig.even_locations)
    parser.add_argument("--location", choices=LOCATIONS, help="of every hemorrhage (default: drawn)")
    parser.add_argument("--feature", choices=FEATURES, help="of every clot (default: drawn)")
    parser.add_argument("--confounders", type=float, default=PoolConfig.confounders, help="0 none, 1 usual, 2 often")
    parser.add_argument("--randomize", type=float, default=PoolConfig.randomize, help="variation of the backgrounds")
    parser.add_argument("--ventricles", type=float, default=PoolConfig.ventricles, help="variation of the ventricles")
    parser.add_argument("--center", choices=("first", "second"), default=PoolConfig.center)
    parser.add_argument("--workers", type=int, default=1)


def pool_config(args: argparse.Namespace) -> PoolConfig:
    """The pool that `add_pool_arguments` describes. Raises UsageError where a value is out of its range."""
    names = [field.name for field in fields(PoolConfig) if field.name != "backgrounds"]
    return PoolConfig(**{name: getattr(args, name) for name in names}, backgrounds=tuple(args.background))


def analysis_command(
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    run: Callable[[PoolConfig, str | None], dict[str, Any]],
    count: int,
    seed: int,
    **defaults: Any,
) -> int:
    """A command line that shows a pool's cases to the networks and prints what `run` says; 0 done, 2 wrong use."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    add_pool_arguments(parser, count=count, seed=seed)
    parser.set_defaults(**defaults)
    parser.add_argument("--weights", help="folder of other weights")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        print(json.dumps(run(pool_config(args), args.weights), indent=2))
    except ICHAnalysisError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 done, 2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m Training.data.pool", description="Fill a cache with simulated cases."
    )
    add_pool_arguments(parser)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        made = fill(pool_config(args))
    except ICHAnalysisError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{made} new cases in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
