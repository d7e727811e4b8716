"""Run configurations: strict, inherited, overridable, and every packaged one readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from ICHAnalysisLib.errors import UsageError
from Training.config import (
    CONFIG_FOLDER,
    OptimizerConfig,
    config_from_dict,
    config_to_dict,
    dump_yaml,
    load_config,
    merge_overrides,
    refine,
)
from Training.tasks.base import build_task

PACKAGED = sorted(str(path.relative_to(CONFIG_FOLDER).with_suffix("")) for path in CONFIG_FOLDER.rglob("*.yaml"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_refines_its_base_and_overrides_refine_both(tmp_path: Path) -> None:
    write(
        tmp_path / "base.yaml", "task: {name: dtvit, options: {a: 1, b: 2}}\noptimizer: {lr: 3e-4, weight_decay: 0.1}"
    )
    child = write(tmp_path / "child.yaml", "base: base.yaml\ntask: {options: {b: 3}}\nloop: {epochs: 7}\n")
    cfg = load_config(child, ["optimizer.lr=1e-3", "data.limit=5", "task.options.c=[1, x]", "loop.max_steps=null"])
    assert cfg.task.name == "dtvit" and cfg.task.options == {"a": 1, "b": 3, "c": [1, "x"]}
    assert cfg.optimizer.lr == 1e-3 and cfg.optimizer.weight_decay == 0.1
    assert cfg.loop.epochs == 7 and cfg.data.limit == 5 and cfg.loop.max_steps is None


def test_plain_types_and_back(tmp_path: Path) -> None:
    cfg = load_config(write(tmp_path / "a.yaml", "task: {name: t}\noptimizer: {betas: [0.8, 0.9]}\n"))
    assert config_from_dict(config_to_dict(cfg)) == cfg
    again = load_config(write(tmp_path / "b.yaml", dump_yaml(config_to_dict(cfg))))
    assert again == cfg and again.optimizer.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("task: {name: t}\nlopp: {epochs: 1}", "lopp"),
        ("task: {name: t}\nloop: {epoch: 1}", "epoch"),
        ("task: {name: t}\nloop: {epochs: many}", "many"),
        ("task: {name: t}\nloop: {precision: fp8}", "fp8"),
        ("task: {name: t}\nloop: {epochs: 0}", "epochs 0"),
        ("task: {name: t}\noptimizer: {lr: 0}", "lr 0"),
        ("task: {name: t}\ndata: {val_fraction: 1.0}", "val_fraction"),
        ("loop: {epochs: 1}", "task"),
        ("- 1", "mapping"),
        ("task: {name: [", "YAML"),
        ("base: none.yaml", "none.yaml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        load_config(write(tmp_path / "a.yaml", text))


@pytest.mark.parametrize("item", ["lr", "=1", "a..b=1", "a b=1"])
def test_an_override_needs_key_and_value(item: str) -> None:
    with pytest.raises(UsageError, match="key=value"):
        merge_overrides({}, [item])


def test_bases_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "base: b.yaml")
    write(tmp_path / "b.yaml", "base: a.yaml")
    with pytest.raises(UsageError, match="circle"):
        load_config(tmp_path / "a.yaml")


def test_a_missing_file_lists_the_packaged_ones() -> None:
    with pytest.raises(UsageError, match=PACKAGED[0]):
        load_config("nothing/here")


def test_refining_a_dataclass_is_strict() -> None:
    assert refine(OptimizerConfig(), {"lr": 1}, "o") == OptimizerConfig(lr=1.0)
    with pytest.raises(UsageError, match="speed"):
        refine(OptimizerConfig(), {"speed": 1}, "o")


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_configurations_build_their_task(name: str) -> None:
    cfg = load_config(name)
    assert cfg.task.name == name.partition("/")[0]
    assert build_task(cfg).name == cfg.task.name


def test_what_the_papers_leave_open_is_as_decided() -> None:
    """Decisions S39, S40, V17 and R17; what they print stands in test_paper_configs."""
    scnet, dtvit, volume = (load_config(f"{name}/paper") for name in ("ich_scnet", "dtvit", "volume_net"))
    assert (scnet.optimizer.weight_decay, scnet.schedule.kind, scnet.schedule.warmup_fraction) == (0.01, "cosine", 0.05)
    assert (dtvit.optimizer.momentum, dtvit.schedule.kind, dtvit.schedule.warmup_fraction) == (0.9, "cosine", 0.05)
    assert dtvit.loop.early_stop == 10 and build_task(dtvit).monitor == "scan_score"
    assert build_task(volume).network.norm == "batch" and volume.schedule.warmup_fraction == 0
    loss = build_task(scnet).options.loss
    assert loss.gammas == (1.0, 0.75, 0.5, 0.25) and loss.bce_weight == loss.valid_mask_weight == 0
