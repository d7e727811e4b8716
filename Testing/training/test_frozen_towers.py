"""Towers that a published checkpoint filled and nothing trains: left out of a run's checkpoints, back to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cached_heads import make_cache

from ICHAnalysisLib.errors import UsageError
from Testing.training.test_distributed import differences
from Training.checkpoint import newest_checkpoint
from Training.config import RunConfig, config_from_dict
from Training.distributed import World
from Training.run import load_trained
from Training.tasks.base import build_task
from Training.train import train


def run_config(cache: Path, sam: Path, steps: int) -> RunConfig:
    """ICH-SCNet's tiny preset with frozen towers, SAM's from a file."""
    return config_from_dict(
        {
            "task": {
                "name": "ich_scnet",
                "preset": "tiny",
                "network": {"towers": "frozen", "tasks": "seg"},
                "options": {"augment": None, "box_mode": False, "sam_checkpoint": str(sam)},
            },
            "data": {"cache": str(cache), "val_fraction": 0.0},
            "schedule": {"kind": "constant"},
            "loop": {"max_steps": steps, "micro_batch_size": 2, "precision": "fp32", "device": "cpu", "threads": 1,
                     "ema_decay": 0.9, "tensorboard": False},
        }
    )  # fmt: skip


def write_sam(path: Path) -> Path:
    """A file as segment-anything publishes it, with random weights."""
    model = build_task(config_from_dict({"task": {"name": "ich_scnet", "preset": "tiny"}})).build_model()
    parts = {
        "image_encoder": model.sam_image.image_encoder,
        "prompt_encoder": model.prompt_encoder,
        "mask_decoder": model.interactions[0].decoder,
    }
    torch.save(
        {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}, path
    )
    return path


def test_frozen_towers_stay_in_their_file_and_a_run_resumes_to_the_bit(tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", 3)
    sam = write_sam(tmp_path / "sam.pth")
    train(run_config(tmp_path / "cache", sam, 4), tmp_path / "whole")
    train(run_config(tmp_path / "cache", sam, 2), tmp_path / "broken")
    train(run_config(tmp_path / "cache", sam, 4), tmp_path / "broken", resume=True)
    whole, broken = (newest_checkpoint(tmp_path / name / "checkpoints") for name in ("whole", "broken"))
    assert differences(whole[1]["model"], broken[1]["model"]) == []
    assert differences(whole[1]["optimizer"], broken[1]["optimizer"]) == []

    _, task, model, state = load_trained(whole[0], "last", World(torch.device("cpu")))
    held, own = set(state["model"]), set(model.state_dict())
    left_out = own - held
    assert left_out == task.restored_elsewhere(model) and held <= own
    assert any(name.startswith("sam_image.") for name in left_out)
    assert not any(name.startswith("clip_image.") for name in left_out)  # random: no file could give them back
    assert all(not dict(model.named_parameters())[name].requires_grad for name in left_out)
    published = torch.load(sam, weights_only=True)
    for key, value in model.sam_image.image_encoder.state_dict().items():
        assert torch.equal(value, published[f"image_encoder.{key}"])

    write_sam(sam)
    with pytest.raises(UsageError, match="not the file that the run began with"):
        load_trained(whole[0], "last", World(torch.device("cpu")))


def test_a_checkpoint_that_lacks_what_was_trained_is_refused(tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", 3)
    train(run_config(tmp_path / "cache", write_sam(tmp_path / "sam.pth"), 1), tmp_path / "run")
    path, state = newest_checkpoint(tmp_path / "run" / "checkpoints")
    name = next(name for name in state["model"] if name.startswith("stage_heads."))
    del state["model"][name]
    state["average"] = None
    torch.save(state, path)
    with pytest.raises(UsageError, match=name):
        load_trained(path, "last", World(torch.device("cpu")))
