"""The training loop. It knows processes, precision, accumulation, clocks and files; what is learned, the task knows.

    epoch -> global batch -> micro-batches: losses, backward -> checks -> clip -> step -> average -> log, validate, save

A step is taken only after every process has found every loss and the gradient finite.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import FrameType
from typing import Literal

import torch
from torch import nn

from ICHAnalysisLib.errors import ICHAnalysisError
from Training.distributed import (
    any_process,
    gather,
    mean_of_processes,
    set_gradient_exchange,
    share_buffers,
    whole,
)
from Training.feed import dead_loaders_named, feed, names_of, to_device
from Training.inference import autocast, mean_losses, predict_split
from Training.optim import lr_factor, set_lr
from Training.run import Run
from Training.sampler import grouped, mix_seed
from Training.tasks.base import Batch, total_loss
from Training.watch import TRAIN_CSV, VALIDATION_CSV, RunFolder

log = logging.getLogger(__name__)

Status = Literal["finished", "early stop", "time up", "terminated"]


class NonFiniteError(ICHAnalysisError):
    """A loss or gradient was not finite. No step was taken; the last checkpoint is the last good state."""


class UnsavedError(ICHAnalysisError):
    """The last checkpoint of a run could not be written; older ones are still there."""


class Loop:
    """One run, seen from one process. `save(is_best)` writes a checkpoint and may raise OSError."""

    def __init__(self, run: Run, folder: RunFolder, save: Callable[[bool], None]) -> None:
        self.cfg, self.task, self.world, self.folder, self.save = run.cfg, run.task, run.world, folder, save
        self.model, self.network, self.optimizer, self.average = run.model, run.network, run.optimizer, run.average
        self.scaler, self.sampler, self.datasets, self.progress = run.scaler, run.sampler, run.datasets, run.progress
        self.total_steps = run.total_steps
        self.terminated = False
        self.started = time.monotonic()
        self._clock = self.started  # up to here the wall time is counted in progress.seconds
        self._last_save = self.started
        self._logged = run.progress.seconds  # at the last line of the log
        self._unsaved: OSError | None = None  # why the last checkpoint was not written
        self._first_step = run.progress.step
        self._sums: dict[str, float] = defaultdict(float)  # since the last line of the log
        self._counted = 0

    # --- the run -----------------------------------------------------------------------------------------------

    def run(self) -> Status:
        """Train until the last step, the time limit, an early stop or SIGTERM; always saved at the end.

        Raises UnsavedError where the last state could not be written.
        """
        previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            if self.progress.owes_validation:
                self._save(self._validate())
            # A run that was killed between its last validation and its end has nothing left to do.
            status: Status | None = "early stop" if self._is_stale() else None
            while status is None and self.progress.step < self.total_steps:
                with dead_loaders_named(workers=0):  # the news of one may come in the middle of a step
                    status = self._epoch()
            if self._unsaved:
                raise UnsavedError(
                    f"Step {self.progress.step} could not be saved ({self._unsaved}); make room, --resume."
                )
            return status or "finished"
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _epoch(self) -> Status | None:
        """The epoch from where it stands; a status where the run is to end."""
        progress, loop = self.progress, self.cfg.loop
        getattr(self.datasets["train"], "set_epoch", lambda epoch: None)(progress.epoch)
        for micro_batches in self._global_batches():
            self._step(micro_batches)
            progress.step += 1
            progress.items_seen += self.sampler.global_batch_size
            progress.items += self.sampler.global_batch_size
            epoch_ends = progress.items >= self.sampler.num_items
            if epoch_ends:
                progress.epoch, progress.items = progress.epoch + 1, 0
            if progress.step % loop.log_every == 0 or progress.step == self.total_steps:
                self._log()
            terminated, time_up, save_due = any_process(self.world, self._flags())
            last = progress.step >= self.total_steps
            due = progress.step % loop.validate_every == 0 if loop.validate_every else epoch_ends
            progress.owes_validation = terminated and (due or last)
            is_best = (due or last or time_up) and not terminated and self._validate()
            if is_best or due or epoch_ends or last or terminated or time_up or save_due:
                self._save(is_best)
            if terminated:
                return "terminated"
            if self._is_stale():
                return "early stop"
            if last or time_up:
                return "finished" if last else "time up"
            if epoch_ends:
                break
        return None

    def _global_batches(self) -> Iterator[list[tuple[Batch | None, list[str]]]]:
        """This process's micro-batches of each optimizer step; the wait for them is measured."""
        progress, cfg = self.progress, self.cfg
        batches = feed(
            self.datasets["train"],
            self.sampler.micro_batches(progress.epoch, progress.items),
            self.task.collate,
            workers=cfg.data.workers,
            seed=mix_seed(cfg.loop.seed, progress.epoch),
            replace_unreadable=True,
            pin=self.world.device.type == "cuda",
        )
        groups = grouped(batches, cfg.loop.gradient_accumulation_steps)
        while True:
            before = time.monotonic()
            group = next(groups, None)
            self._sums["wait"] += time.monotonic() - before
            if group is None:
                return
            yield group

    # --- one step ----------------------------------------------------------------------------------------------

    def _step(self, micro_batches: list[tuple[Batch | None, list[str]]]) -> None:
        """Gradients of one global batch, then the step. Raises NonFiniteError before it would spoil the weights."""
        loop = self.cfg.loop
        lr = self.cfg.optimizer.lr * lr_factor(self.progress.step, self.total_steps, self.cfg.schedule)
        set_lr(self.optimizer, lr)
        self.model.train()
        bad: list[str] = []
        for n, (batch, troubles) in enumerate(micro_batches):
            for trouble in troubles:
                log.warning("Replaced by its neighbor: %s", trouble)
            assert batch is not None  # training items are replaced, never left out
            set_gradient_exchange(self.model, n == len(micro_batches) - 1)
            bad += self._backward(to_device(batch, self.world.device, loop.channels_last), len(micro_batches))
        self._stop_if_any(bad, "loss")
        self.scaler.unscale_(self.optimizer)
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), loop.max_norm or math.inf))
        if not self.scaler.is_enabled():  # with fp16 the scaler skips an overflowed step by itself
            named = [f"{name} (gradient)" for batch, _ in micro_batches for name in names_of(batch or {})]
            self._stop_if_any([] if bool(torch.isfinite(norm)) else named, "gradient")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.network)
        self._sums["grad_norm"] += float(norm)
        self._sums["lr"] += lr
        self._counted += 1

    def _backward(self, batch: Batch, count: int) -> list[str]:
        """Losses of one micro-batch and their gradient; the names of its cases where a loss is not finite."""
        with autocast(self.cfg, self.world):
            losses = self.task.losses(self.model, batch, self.progress.epoch)
            total = total_loss(losses)
        values = {key: float(value.detach()) for key, value in losses.items()}
        wrong = [key for key, value in values.items() if key.endswith("_loss") and not math.isfinite(value)]
        self.scaler.scale(total / count).backward()
        for key, value in {**values, "total": float(total.detach())}.items():
            self._sums[key] += value / count
        return [f"{name} ({', '.join(wrong)})" for name in names_of(batch)] if wrong else []

    def _stop_if_any(self, bad: list[str], what: str) -> None:
        """Stop every process together where one of them has something that is not finite."""
        if any_process(self.world, [bool(bad)])[0]:
            cases = sorted({name for part in gather(self.world, bad) for name in part})
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError(
                f"Step {self.progress.step}: the {what} is not finite; stopped before the optimizer step. In the "
                f"batch: {'; '.join(cases)}. Look at these cases or lower optimizer.lr, then --resume."
            )

    # --- around the steps --------------------------------------------------------------------------------------

    def _validate(self) -> bool:
        """Metrics of the validation split with the averaged weights where there are some; True for a new best."""
        self.progress.owes_validation = False
        if "val" not in self.datasets:
            return False
        began = time.monotonic()
        share_buffers(self.world, self.network)
        with self.average.applied(self.network) if self.average is not None else nullcontext():
            split = (self.task, self.network, self.datasets["val"], self.cfg, self.world)
            rows, unread = predict_split(*split)
            losses = mean_losses(*split, self.progress.epoch) if self.cfg.loop.validation_loss else {}
        metrics = {key: float(value) for key, value in self.task.metrics(rows).items()} if rows else {}
        score = metrics.get(self.task.monitor, math.nan)
        best = self.progress.best_score
        better = math.isfinite(score) and (
            best is None or (score > best if self.task.higher_is_better else score < best)
        )
        if better:
            self.progress.best_score, self.progress.best_step, self.progress.stale = score, self.progress.step, 0
        else:
            self.progress.stale += 1
        position = {"step": self.progress.step, "epoch": self.progress.epoch}
        counts = {"rows": len(rows), "unread": len(unread)}
        self.folder.record(VALIDATION_CSV, {**position, **metrics, **losses, **counts})
        self.folder.draw_curves()
        seconds, mark = time.monotonic() - began, ", best so far" if better else ""
        log.info(
            "validation at step %d: %s %.4f%s (%.0f s)", self.progress.step, self.task.monitor, score, mark, seconds
        )
        self._sums["outside"] += time.monotonic() - began
        return better

    def _is_stale(self) -> bool:
        return 0 < self.cfg.loop.early_stop <= self.progress.stale

    def _save(self, is_best: bool) -> None:
        """Checkpoint. A full disk is reported and the run goes on: what was saved before is still there."""
        began = time.monotonic()
        share_buffers(self.world, self.network)
        self._tick()
        self._unsaved = None
        try:
            self.save(is_best)
        except OSError as error:
            self._unsaved = error
            log.error("The checkpoint of step %d was not written: %s. Older ones are kept.", self.progress.step, error)
        self._last_save = time.monotonic()
        self._sums["outside"] += self._last_save - began

    def _flags(self) -> list[bool]:
        """SIGTERM came, the wall time is used up, a checkpoint is due: each process says what it sees."""
        loop, now = self.cfg.loop, time.monotonic()
        time_up = loop.max_minutes is not None and now - self.started > 60 * loop.max_minutes
        return [self.terminated, time_up, now - self._last_save > 60 * loop.checkpoint_minutes]

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True

    def _tick(self) -> None:
        """Count the wall time since the last call."""
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now

    def _log(self) -> None:
        """Means over the steps since the last line, and the time left."""
        self._tick()
        sums, count = self._sums, max(1, self._counted)
        self._sums, self._counted = defaultdict(float), 0
        wait, outside = sums.pop("wait", 0.0), sums.pop("outside", 0.0)  # outside: validation and saving
        seconds = self.progress.seconds - self._logged - outside
        self._logged = self.progress.seconds
        means = mean_of_processes(self.world, {key: value / count for key, value in sums.items()})
        speed = count * self.sampler.global_batch_size / max(seconds, 1e-9)
        clocks = {
            "seconds": round(self.progress.seconds, 2),
            "items_per_second": round(speed, 3),
            "wait_share": round(wait / max(seconds, 1e-9), 4),
        }
        position = {"step": self.progress.step, "epoch": self.progress.epoch}
        self.folder.record(TRAIN_CSV, {**position, **means, **clocks})
        if self.world.is_main:
            log.info(
                "step %d/%d, epoch %d: total %.4f, lr %.2e, %.2f items/s, %s left",
                self.progress.step,
                self.total_steps,
                self.progress.epoch,
                means["total"],
                means["lr"],
                speed,
                self._left(),
            )

    def _left(self) -> str:
        """Time to the last step, or to the limit where that comes first."""
        now = time.monotonic()
        per_step = (now - self.started) / max(1, self.progress.step - self._first_step)
        left = per_step * (self.total_steps - self.progress.step)
        limit = self.cfg.loop.max_minutes
        if limit is not None and self.started + 60 * limit < now + left:
            within = max(0.0, self.started + 60 * limit - now)
            return f"{duration(within)} (all steps would need {duration(left)})"
        return duration(left)


def duration(seconds: float) -> str:
    """Seconds as 1 h 05 min, 12 min 30 s or 8 s."""
    whole_seconds = round(seconds)
    hours, minutes, rest = whole_seconds // 3600, whole_seconds // 60 % 60, whole_seconds % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
