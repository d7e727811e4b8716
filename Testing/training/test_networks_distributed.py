"""The three networks themselves in two processes: gradients of every parameter arrive, sharded ones learn the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cached_heads import make_cache

import Training.tasks.dtvit
import Training.tasks.ich_scnet
import Training.tasks.volume_net  # noqa: F401  (here, not in each process again)
from Testing.training.ranks import run_ranks
from Training import distributed
from Training.checkpoint import newest_checkpoint
from Training.evaluate import main as evaluate
from Training.train import main as train
from Training.watch import read_rows

OPTIONS = (
    "task.preset=tiny", "task.options.augment=null", "data.val_fraction=0.5", "loop.max_steps=2",
    "loop.micro_batch_size=3", "loop.precision=fp32", "loop.device=cpu", "loop.threads=1", "loop.tensorboard=false",
    "loop.validation_loss=true", "schedule.kind=constant", "schedule.warmup_steps=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven heads, of which three are held out: no number that two processes could share evenly."""
    folder = tmp_path_factory.mktemp("cache")
    make_cache(folder, 7)
    return folder


def run_two(cache: Path, out: Path, config: str, *options: str) -> dict[str, torch.Tensor]:
    """The weights after two steps in two processes."""
    assert run_ranks(train, [config, f"data.cache={cache}", *OPTIONS, *options, "--out", str(out)], 2) == [0, 0]
    return newest_checkpoint(out / "checkpoints")[1]["model"]


@pytest.mark.parametrize("config", ["dtvit/compact", "volume_net/compact", "ich_scnet/compact"])
def test_a_network_trains_in_two_processes_and_one_judges_the_same(config: str, cache: Path, tmp_path: Path) -> None:
    run_two(cache, tmp_path, config)
    row = read_rows(tmp_path / "validation.csv")[0][-1]
    assert run_ranks(evaluate, [str(tmp_path / "checkpoints" / "step-000000002.pt"), "--out", str(tmp_path / "val"),
                                "--resamples", "0"], 1) == [0]  # fmt: skip
    alone = {entry["metric"]: entry["value"] for entry in read_rows(tmp_path / "val" / "summary.csv")[0]}
    for name, value in alone.items():
        assert float(row[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize("network", ["{towers: trained}", "{towers: frozen, per_scale: true}"])
def test_sharded_ich_scnet_learns_what_the_whole_one_does(
    network: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP2, as the paper's preset needs it, in blocks as that preset has them."""
    monkeypatch.setattr(distributed, "_LARGE", 500)
    options = [f"task.network={network}", "task.network.shared_decoder=false", "data.val_limit=1"]
    options += ["task.network.fold=1"] if "per_scale" in network else []
    options += ["optimizer.name=sgd", "optimizer.lr=0.01", "loop.channels_last=false"]  # another order rounds otherwise
    whole = run_two(cache, tmp_path / "ddp", "ich_scnet/compact", *options)
    sharded = run_two(cache, tmp_path / "fsdp", "ich_scnet/compact", *options, "loop.parallel=fsdp")
    assert whole.keys() == sharded.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(sharded[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    one, other = (read_rows(tmp_path / name / "validation.csv")[0][-1] for name in ("ddp", "fsdp"))
    assert float(one["total"]) == pytest.approx(float(other["total"]), rel=1e-5)
