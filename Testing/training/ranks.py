"""Processes for the tests, each with its own rank.

They are forked from a server that has imported torch and run nothing: the test process itself has threads by now, and
a fork of it may inherit a lock that one of them holds.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from Testing.training.toy import NAME

PROCESSES = multiprocessing.get_context("forkserver")
_PRELOADED = ["torch.distributed.fsdp", "torch._dynamo", "Training.curves", "Training.evaluate", "Training.train"]
PROCESSES.set_forkserver_preload(_PRELOADED)

CONFIG = f"""
task: {{name: "{NAME}"}}
optimizer: {{lr: 1e-2}}
loop:
  {{epochs: 4, micro_batch_size: 4, gradient_accumulation_steps: 2, precision: bf16, ema_decay: 0.9, log_every: 3,
    device: cpu, threads: 1, tensorboard: false, checkpoint_minutes: 60}}
"""


def write_config(folder: Path) -> Path:
    """The toy run's configuration file."""
    path = folder / "toy.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run_ranks(main: Callable[[list[str]], int], arguments: Sequence[str], size: int, **environment: str) -> list[int]:
    """Exit codes of `main(arguments)` in `size` processes; a negative one is the signal that ended it."""
    port = str(free_port())
    processes = []
    for rank in range(size):
        variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), **environment}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        process = PROCESSES.Process(target=_enter, args=(main, list(arguments), variables))
        process.start()
        processes.append(process)
    for process in processes:
        process.join(300)  # a guard against a hang, not a measure
        if process.is_alive():
            process.kill()
            process.join()
    return [int(process.exitcode or 0) for process in processes]


def _enter(main: Callable[[list[str]], int], arguments: list[str], variables: dict[str, str]) -> None:
    os.environ.update(variables)
    code = 1
    try:
        code = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
