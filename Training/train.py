"""Train a network: `python -m Training.train CONFIG [key=value ...]`, or under torchrun for several processes.

    python -m Training.train dtvit/compact data.cache=CACHE --out runs/dtvit
    torchrun --nproc_per_node=4 -m Training.train ich_scnet/paper data.cache=CACHE --out runs/scnet
    python -m Training.train dtvit/compact data.cache=CACHE --out runs/dtvit --resume

Exit status: 0 finished (or the time limit was reached), 2 wrong use, 4 stopped by a loss that is not finite or by
data that cannot be read, 143 ended by SIGTERM after saving.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from Training.checkpoint import list_checkpoints, newest_checkpoint, save_checkpoint
from Training.config import RunConfig, load_config
from Training.distributed import World, barrier, end_process, start_world, stop_world
from Training.loop import Loop, Status
from Training.run import Run, build_run
from Training.watch import RunFolder

log = logging.getLogger(__name__)


def train(cfg: RunConfig, out: Path, resume: bool = False, accept_changes: bool = False) -> Status:
    """Run the configuration in the folder `out`, from the start or from its newest checkpoint.

    accept_changes: go on although the data or the configuration differ from the checkpoint's.
    Raises UsageError where `out` already holds a run and `resume` is not asked for, or nothing fits.
    """
    world = start_world(cfg.loop.device)
    try:
        folder = RunFolder(out, world, cfg.loop.tensorboard)
        run = build_run(cfg, world, _state_to_resume(folder, world, resume), accept_changes)
        status = _run(run, folder)
        barrier(world)
        return status
    finally:
        stop_world(world)


def _run(run: Run, folder: RunFolder) -> Status:
    def save(is_best: bool) -> None:
        contents = run.contents()
        if run.world.is_main:
            save_checkpoint(folder.checkpoints, contents, run.cfg.loop.keep_checkpoints, is_best)

    loop = Loop(run, folder, save)
    folder.start(run.cfg, run.world, run.progress.step, run.former_step)
    _say_what_runs(run)
    facts = {"status": "failed", "monitor": run.task.monitor, "total_steps": run.total_steps, "data": run.data_key}
    folder.results({**facts, **run.progress.as_dict(), "status": "running"})
    try:
        status = loop.run()
        facts["status"] = status
        return status
    except ICHAnalysisError as error:
        facts["error"] = str(error)
        raise
    finally:
        folder.results({**facts, **run.progress.as_dict()})
        folder.draw_curves(at_once=True)
        folder.close()


def _state_to_resume(folder: RunFolder, world: World, resume: bool) -> dict[str, Any] | None:
    """The newest checkpoint, or None at the start. All processes look before one of them can write."""
    try:
        if resume:
            path, state = newest_checkpoint(folder.checkpoints)
            log.info("Resuming from %s.", path)
            return state
        if list_checkpoints(folder.checkpoints):
            raise UsageError(f"{folder.path} already holds a run; add --resume to continue it, or name another --out.")
        return None
    finally:
        barrier(world)


def _say_what_runs(run: Run) -> None:
    cfg = run.cfg
    count = sum(p.numel() for p in run.network.parameters())
    trainable = sum(p.numel() for p in run.network.parameters() if p.requires_grad)
    items = {split: len(data) for split, data in run.datasets.items()}  # type: ignore[arg-type]
    log.info(
        "%s %s: %.3f M parameters, %.3f M of them trainable",
        cfg.task.name,
        cfg.task.preset,
        count / 1e6,
        trainable / 1e6,
    )
    log.info(
        "%d training and %d validation items; %d processes on %s, %s, global batch %d; %d steps, %d of them done",
        items["train"],
        items.get("val", 0),
        run.world.size,
        run.world.device,
        cfg.loop.precision,
        run.sampler.global_batch_size,
        run.total_steps,
        run.progress.step,
    )


def start_logging() -> None:
    """Progress on standard error; of several processes only the main one speaks, warnings excepted."""
    level = logging.INFO if int(os.environ.get("RANK", "0")) == 0 else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's text for the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Training.train", description="Train one network.")
    parser.add_argument("config", help="a YAML file, or a packaged configuration such as dtvit/compact")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as optimizer.lr=1e-4")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/TASK-PRESET-foldN)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its newest checkpoint")
    parser.add_argument("--accept-changes", action="store_true", help="resume although data or network settings differ")
    args = parser.parse_intermixed_args(argv)
    start_logging()
    try:
        cfg = load_config(args.config, args.overrides)
        out = args.out or Path("runs") / f"{cfg.task.name}-{cfg.task.preset}-fold{cfg.data.fold}"
        status = train(cfg, out, args.resume, args.accept_changes)
    except UsageError as error:
        log.error("%s", error)
        return 2
    except ICHAnalysisError as error:
        log.error("%s", error)
        return 4
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"{status}: {out}")
    return 143 if status == "terminated" else 0


if __name__ == "__main__":
    end_process(main())
