"""Tables I and II of paper 000 in small, by one command: `python -m Training.papers.small_study --out DIR`.

Simulates 40 patients who all bleed, trains every row of both tables from one seed on the same folds by patient, and
judges each on the patients that it did not see. DIR/small_study.md then has both tables, with 95 % t intervals over the
folds, and whether multi-task beat single-task by the differences within the folds. Sized for one CPU core: slices of
64 pixels of 3.6 mm and towers of a few tokens, so that its numbers say something about the method's parts and nothing
about the paper's or the shipped network. Started again, it goes on where it was.

Exit status: 0, or 2 for wrong use.
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import stats

from ICHAnalysisLib.config.ich_scnet import PREPROCESS
from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from Training.checkpoint import list_checkpoints
from Training.config import load_config
from Training.crossval import join_folds
from Training.data.pool import PoolConfig, fill
from Training.data.splits import make_folds, members_of_cache, write_folds
from Training.evaluate import evaluate
from Training.papers.base import PaperTable
from Training.papers.ich_scnet import TABLES
from Training.results import Metric, chosen_checkpoint, find_evaluation, is_finished, run_name
from Training.tables import NOT_MEASURED, NOT_RUN, format_metric
from Training.train import start_logging, train
from Training.watch import read_rows, write_rows, write_text

log = logging.getLogger(__name__)

#: What makes the compact configurations small. Validation chooses nothing: the last weights are judged. A few epochs
#: need no augmentation.
SETTINGS = (
    "task.preset=tiny",
    "task.network.widths=[16,16,32,32]",
    "task.network.clip.vision_width=32",
    "task.network.sam.embed_dim=32",
    "task.options.augment=null",
    "data.val_fraction=0",
    "optimizer.lr=3.0e-3",
    "loop.precision=fp32",
    "loop.device=cpu",
    "loop.threads=1",
    "loop.tensorboard=false",
    "loop.checkpoint_minutes=1000",
)
#: Multi-task against single-task: the configurations, and the metric that both have.
COMPARED = (
    ("outcome AUC", "outcome_auc", "ich_scnet/compact", "ich_scnet/compact_cla"),
    ("Dice without prompts", "automatic_ich_dice", "ich_scnet/compact", "ich_scnet/compact_seg"),
)


@dataclass(frozen=True)
class StudyConfig:
    """How large the study is."""

    out: Path
    patients: int = 40
    folds: int = 5
    steps: int = 250  # optimizer steps of 16 slices each, of every run
    seed: int = 0
    workers: int = 1  # processes; each takes a fold
    overrides: tuple[str, ...] = ()  # key=value for every run, after SETTINGS

    @property
    def run_settings(self) -> list[str]:
        """Overrides of every run."""
        fixed = [f"data.cache={self.out / 'pool'}", f"data.folds={self.out / 'folds.json'}", f"loop.seed={self.seed}"]
        return [*SETTINGS, *fixed, f"loop.max_steps={self.steps}", *self.overrides]


def run_study(cfg: StudyConfig) -> str:
    """Do what is missing of the study; returns the text of small_study.md. Raises UsageError for wrong settings."""
    pool = PoolConfig(
        cfg.out / "pool", cfg.patients, cfg.seed, positive_fraction=1.0, small_fraction=0.0, workers=cfg.workers
    )
    fill(pool, PREPROCESS["tiny"])
    folds = cfg.out / "folds.json"
    if not folds.exists():
        write_folds(folds, make_folds(members_of_cache(pool.out), cfg.folds, cfg.seed))
    if cfg.workers == 1:
        for fold in range(cfg.folds):
            run_fold(cfg, fold)
    else:
        with multiprocessing.get_context("spawn").Pool(cfg.workers, start_logging) as workers:
            workers.map(partial(run_fold, cfg), range(cfg.folds), chunksize=1)
    return write_study(cfg)


def small_tables() -> list[PaperTable]:
    """Tables I and II with the configurations that finish on a CPU."""
    return [TABLES[number].at("compact") for number in ("1", "2")]


def configurations() -> list[str]:
    """Every configuration of both tables once."""
    found = [row.config for table in small_tables() for row in table.rows if row.config is not None]
    return list(dict.fromkeys(found))


def run_fold(cfg: StudyConfig, fold: int) -> None:
    """Train and judge every configuration on one fold in this process, as far as that is not done."""
    for config in configurations():
        folder = cfg.out / run_name(config) / f"fold{fold}"
        if find_evaluation(folder, "test") is not None:
            continue
        if not is_finished(folder):
            settings = [*cfg.run_settings, f"data.fold={fold}"]
            train(load_config(config, settings), folder, resume=bool(list_checkpoints(folder / "checkpoints")))
        evaluate(chosen_checkpoint(folder), folder / "test", "test", failures=0, resamples=0)


def fold_values(folder: Path) -> dict[str, list[float]]:
    """Of each metric the value of every fold, NaN where it has none; empty where nothing was judged yet."""
    path = folder / "summary.csv"
    if not path.exists():
        return {}
    rows, columns = read_rows(path)
    names = [name for name in columns if name.startswith("fold") and name != "folds"]
    return {row["metric"]: [float(row[name]) if row[name] else math.nan for name in names] for row in rows}


def mean_over_folds(values: Sequence[float]) -> Metric | None:
    """Mean with its 95 % t interval over the folds that have a value; no interval from a single one."""
    known = np.array([value for value in values if math.isfinite(value)])
    if not known.size:
        return None
    mean = float(known.mean())
    if known.size < 2:
        return Metric(mean)
    half = float(stats.t.ppf(0.975, known.size - 1) * known.std(ddof=1) / math.sqrt(known.size))
    return Metric(mean, mean - half, mean + half)


def compare(what: str, multi: Sequence[float], single: Sequence[float]) -> tuple[dict[str, str], str]:
    """A row and a sentence about multi-task less single-task, the differences taken within the folds."""
    found = mean_over_folds([a - b for a, b in zip(multi, single, strict=True)])
    if found is None or found.low is None or found.high is None:
        raise UsageError(f"{what}: fewer than two folds have it for both; take more patients or fewer folds.")
    verdict = "multi-task did not differ measurably from single-task"
    if found.low > 0:
        verdict = "multi-task was better than single-task"
    elif found.high < 0:
        verdict = "multi-task was worse than single-task"
    folds = ", ".join(f"{a - b:+.3f}" for a, b in zip(multi, single, strict=True))
    sentence = f"{what}: {verdict}; difference {format_metric(found)}."
    return {"measure": what, "difference": format_metric(found), "each fold": folds, "verdict": verdict}, sentence


def write_study(cfg: StudyConfig) -> str:
    """small_study.md and a CSV of each table from the rows whose folds are all judged; returns the text."""
    for config in configurations():
        folder = cfg.out / run_name(config)
        if all(find_evaluation(folder / f"fold{fold}", "test") for fold in range(cfg.folds)):
            join_folds(folder, range(cfg.folds))
    values = {config: fold_values(cfg.out / run_name(config)) for config in configurations()}
    parts = [
        f"{cfg.patients} simulated patients, {cfg.folds} folds by patient, {cfg.steps} steps a run, seed {cfg.seed}: "
        "mean over the folds, in parentheses the 95 % t interval of that mean."
    ]
    for number, table in enumerate(small_tables(), start=1):
        cells = [
            {
                **dict(zip(table.label_headers, row.labels, strict=True)),
                **{
                    column.header: _cell(values.get(str(row.config), {}), column.metric, column.scale, column.digits)
                    for column in table.columns
                },
            }
            for row in table.rows
        ]
        write_rows(cfg.out / f"small_table{number}.csv", list(cells))
        parts += [f"## {table.title}", markdown(cells)]
    rows, sentences = [], []
    for what, metric, multi, single in COMPARED:
        if not values[multi] or not values[single]:
            continue
        row, sentence = compare(what, values[multi][metric], values[single][metric])
        rows.append(row)
        sentences.append(sentence)
    if rows:
        parts += ["## Multi-task less single-task, within the folds", markdown(rows), *sentences]
    text = "\n\n".join(parts) + "\n"
    write_text(cfg.out / "small_study.md", text)
    return text


def _cell(values: dict[str, list[float]], metric: str, scale: float, digits: int) -> str:
    """A table's cell as text."""
    if not values:
        return NOT_RUN
    found = mean_over_folds(values.get(metric, []))
    return NOT_MEASURED if found is None else format_metric(found, scale, digits)


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Rows of text as a Markdown table."""
    headers = list(rows[0])
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    return "\n".join([*lines, *("| " + " | ".join(row[header] for header in headers) + " |" for row in rows)])


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's text for the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m Training.papers.small_study", description="Tables I and II, small."
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every run, such as loop.threads=4")
    parser.add_argument("--out", type=Path, required=True, help="folder of the simulated patients, runs and tables")
    parser.add_argument("--patients", type=int, default=StudyConfig.patients)
    parser.add_argument("--folds", type=int, default=StudyConfig.folds)
    parser.add_argument("--steps", type=int, default=StudyConfig.steps, help="optimizer steps of every run")
    parser.add_argument("--seed", type=int, default=StudyConfig.seed)
    parser.add_argument("--no-run", action="store_true", help="only write the tables of what is there")
    parser.add_argument("--workers", type=int, default=StudyConfig.workers, help="processes, each takes a fold")
    args = parser.parse_intermixed_args(argv)
    start_logging()
    fields = {key: value for key, value in vars(args).items() if key not in ("no_run", "overrides")}
    cfg = StudyConfig(**fields, overrides=tuple(args.overrides))
    try:
        print(write_study(cfg) if args.no_run else run_study(cfg))
    except ICHAnalysisError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
