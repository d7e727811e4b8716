"""The packaged paper configurations equal the papers in print; the scheduler's example is a script that runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ICHAnalysisLib.config import dtvit, ich_scnet, volume_net
from Training.config import CONFIG_FOLDER, load_config
from Training.tasks.base import build_task

SLURM = Path(__file__).parents[2] / "Training" / "docs" / "slurm_example.sh"


def global_batch(name: str, processes: int = 1) -> int:
    loop = load_config(name).loop
    return loop.micro_batch_size * loop.gradient_accumulation_steps * processes


def test_paper_000_in_print() -> None:
    """ICH-SCNet: AdamW, 1e-4, batch 32, 25 epochs on four GPUs; alpha 0.2, beta 0.8; KL(P|S) + KL(S|P)."""
    cfg = load_config("ich_scnet/paper")
    assert (cfg.optimizer.name, cfg.optimizer.lr, cfg.loop.epochs) == ("adamw", 1e-4, 25)
    assert global_batch("ich_scnet/paper", processes=4) == 32 and global_batch("ich_scnet/base") == 32
    assert cfg.loop.parallel == "fsdp" and load_config("ich_scnet/base").loop.parallel == "ddp"
    loss = build_task(cfg).options.loss
    assert (loss.alpha, loss.beta, loss.mta_weight, loss.divergence) == (0.2, 0.8, 1.0, "jeffreys")
    network = ich_scnet.PRESETS["paper"]
    assert (network.clip.vision_width, network.clip.patch_size, network.sam.embed_dim) == (1024, 14, 1280)


def test_paper_002_in_print() -> None:
    """DTViT: ViT-B/16, 224 pixels, one gray window in three equal channels, SGD 0.01, batch 32 (8 plain), 50 epochs."""
    cfg = load_config("dtvit/paper")
    assert (cfg.optimizer.name, cfg.optimizer.lr, cfg.loop.epochs) == ("sgd", 0.01, 50)
    assert global_batch("dtvit/paper") == 32 and global_batch("dtvit/paper_plain") == 8
    network, preprocess = dtvit.PRESETS["paper"], dtvit.PREPROCESS["paper"]
    assert (network.img_size, network.patch_size, network.embed_dim, network.depth) == (224, 16, 768, 12)
    assert preprocess.size == 224
    assert [(window.lower, window.upper) for window in preprocess.windows] == [(0, 80)] * 3
    assert build_task(load_config("dtvit/paper_plain")).options.augment is None


@pytest.mark.parametrize("name", ["paper", "paper_stretch", "paper_regression", "paper_classification"])
def test_paper_003_in_print(name: str) -> None:
    """3D ResNet-34: SGD 1e-4, momentum 0.9, weight decay 5e-4, batch 8, 300 epochs; [40, 110] HU; 32 x 224 x 224."""
    cfg = load_config(f"volume_net/{name}")
    optimizer = cfg.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 1e-4, 0.9, 5e-4)
    assert global_batch(f"volume_net/{name}") == 8 and cfg.loop.epochs == 300 and cfg.schedule.kind == "constant"
    network, preprocess = volume_net.PRESETS[cfg.task.preset], volume_net.PREPROCESS[cfg.task.preset]
    assert network.blocks == (3, 4, 6, 3) and network.planes == (64, 128, 256, 512)
    assert (preprocess.depth, preprocess.size) == (32, 224)
    assert [(window.lower, window.upper) for window in preprocess.windows] == [(40, 110)]
    assert preprocess.layout == ("stretch" if name == "paper_stretch" else "physical")


@pytest.mark.parametrize("network", ["ich_scnet", "dtvit", "volume_net"])
def test_every_paper_row_has_one_that_a_cpu_finishes(network: str) -> None:
    names = {path.stem for path in (CONFIG_FOLDER / network).glob("*.yaml")}
    rows = {name.removeprefix("paper") for name in names if name.startswith("paper")}
    small = {name.removeprefix("compact") for name in names if name.startswith("compact")}
    no_compact = {"_stretch", "_wide"} if network == "volume_net" else set()  # other preprocessing, no row of a table
    too_large = {"_medsam_box"} if network == "ich_scnet" else set()  # a published tower of its own
    ours = {"_neighbors", "_outcome"} if network == "ich_scnet" else set()  # what the papers have not
    assert rows - small <= no_compact | too_large and small - rows == ours


def fake(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.skipif(shutil.which("bash") is None, reason="the example is a bash script")
@pytest.mark.parametrize(("status", "code"), [("terminated", 143), ("finished", 0), ("failed", 4)])
def test_the_slurm_example_asks_for_its_place_again_after_sigterm_alone(tmp_path: Path, status: str, code: int) -> None:
    """Slurm's own commands are replaced by recorders; what they are told must be a command of this package."""
    fake(tmp_path, "scontrol", f'echo "$@" >> {tmp_path}/scontrol.txt; echo node1')
    fake(
        tmp_path,
        "srun",
        f'echo "$@" > {tmp_path}/srun.txt; echo \'"status": "{status}"\' > "$OUT/results.json"; exit {code}',
    )
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    job = {
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_JOB_ID": "7",
    }
    paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(tmp_path / "run"), "CACHE": "cache"}
    for resumed in (False, True):
        done = subprocess.run(["bash", str(SLURM)], env={**os.environ, **job, **paths}, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        told = (tmp_path / "srun.txt").read_text().split()
        assert ("--resume" in told) is resumed
        (tmp_path / "run" / "checkpoints" / "step-000000003.pt").touch()
    assert (["requeue", "7"] in [line.split() for line in (tmp_path / "scontrol.txt").read_text().splitlines()]) is (
        status == "terminated"
    )
    assert told[:2] == ["torchrun", "--nnodes=2"] and "--nproc_per_node=4" in told
    after = told[told.index("Training.train") + 1 :]
    cfg = load_config(after[0], [item for item in after if re.fullmatch(r"[\w.]+=.*", item)])
    assert cfg.data.cache == "cache" and cfg.loop.micro_batch_size * cfg.loop.gradient_accumulation_steps * 8 == 32
