"""Stretched scans (paper 003's resizing): their geometry, their voxel volume, and a size in mm that follows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cached_heads import PREPROCESS, make_cache

from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.config.preprocess import HEMORRHAGE
from ICHAnalysisLib.config.volume_net import PREPROCESS as SCANS
from ICHAnalysisLib.config.volume_net import PRESETS, VolumeNetConfig
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.gradcam import volume_heatmap
from ICHAnalysisLib.interval import size_of_volume
from ICHAnalysisLib.networks.volume_net import build_volume_net
from ICHAnalysisLib.predict import VolumeNetPredictor
from ICHAnalysisLib.preprocess import make_stack
from ICHAnalysisLib.simulate import AcquisitionSpec, CaseSpec, simulate_case
from ICHAnalysisLib.stretch import Stretch
from ICHAnalysisLib.weights.registry import LoadedWeights
from Training.config import load_config
from Training.data.datasets import ScanDataset
from Training.tasks.base import build_task, total_loss

STRETCHED = replace(PREPROCESS, depth=16, size=32, layout="stretch", windows=(HEMORRHAGE,))
SMALL = {
    "preset": "tiny", "network.in_chans": 1, "network.volume_pool": "average", "network.aux_density": False,
    "network.outcome_from_size": False, "network.voxel_volume": True, "network.planes": [8, 16, 16, 32],
    "network.norm": "batch", "options.augment": None,
}  # fmt: skip

COARSE = AcquisitionSpec(
    matrix=80, spacing_mm=2.8, thickness_mm=8.0, gap_mm=0.0, uneven=False, tilt_degrees=0.0, detail_mm=2.8,
    storage="full", bottom_mm=-60.0, top_mm=60.0,
)  # fmt: skip


def ball(scale: float, step_mm: float = 3.0, height_mm: float = 5.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU (S, H, W), clot and slice positions of a head of 60 x `scale` mm with a clot of 20 x `scale` mm in it."""
    count, size = int(150 * scale / height_mm), int(180 * scale / step_mm)
    z = (np.arange(count) - (count - 1) / 2) * height_mm
    y = (np.arange(size) - (size - 1) / 2) * step_mm
    r = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + y[None, None, :] ** 2)
    hu = np.where(r < 60 * scale, 30.0, -1000.0).astype(np.float32)
    hu[r < 20 * scale] = 65
    return hu, r < 20 * scale, z


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.3])
def test_voxels_times_their_volume_are_the_clot(scale: float) -> None:
    """The same picture for every scale; only the voxel's volume tells the heads apart."""
    hu, clot, z = ball(scale)
    stretch = Stretch.of(hu, z, np.full(len(z), 5.0), 3.0, STRETCHED)
    small = stretch.apply(hu)
    assert small.shape == (16, 32, 32)
    share = stretch.apply(clot.astype(np.float32))
    assert share.sum() * stretch.voxel_ml == pytest.approx(clot.sum() * 0.045, rel=0.03)
    assert (small > 50).sum() == pytest.approx(np.sum(share > 0.5), rel=0.15)
    edges = (small > -300).any(axis=(0, 1)), (small > -300).any(axis=(0, 2))
    assert all(edge.all() for edge in edges)  # the head's box fills the plane


def test_a_heatmap_goes_back_to_where_it_was_seen() -> None:
    hu, clot, z = ball(1.0)
    hu, clot = np.roll(hu, 6, axis=2), np.roll(clot, 6, axis=2)
    stretch = Stretch.of(hu, z, np.full(len(z), 5.0), 3.0, STRETCHED)
    back = stretch.back(stretch.apply(clot.astype(np.float32)))
    assert back.shape == hu.shape
    assert 2 * ((back > 0.5) & clot).sum() / ((back > 0.5).sum() + clot.sum()) > 0.9


def test_the_paper_preset_that_stretches() -> None:
    cfg = load_config("volume_net/paper_stretch")
    assert cfg.task.preset == "paper_stretch" and cfg.optimizer.name == "sgd" and cfg.optimizer.lr == 1e-4
    preprocess = SCANS["paper_stretch"]
    assert (preprocess.depth, preprocess.size, preprocess.layout) == (32, 224, "stretch")
    assert [(w.lower, w.upper) for w in preprocess.windows] == [(40, 110)]
    with torch.device("meta"):
        network = build_volume_net(PRESETS["paper_stretch"])
        output = network(torch.empty(2, 1, 32, 224, 224), torch.empty(2))
    assert output["size_mm"].shape == (2,) and network.size_head.in_channels == 513


def small_task(**changed: object):  # type: ignore[no-untyped-def]
    settings = {**SMALL, **changed}
    overrides = [f"task.{key}={'null' if value is None else value}" for key, value in settings.items()]
    overrides += [
        "preprocess.layout=stretch", "preprocess.size=32", "preprocess.windows=[{center: 75, width: 70}]",
        "task.options.outcome_weight=0", "task.options.density_weight=0",
    ]  # fmt: skip
    return build_task(load_config("volume_net/compact", [str(item) for item in overrides]))


def test_the_task_learns_sizes_in_mm_of_stretched_scans(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = small_task(**{"network.norm": "group"})  # running averages of so few scans would make it luck
    cases = make_cache(tmp_path, 4)
    task.fit_to_training_fold(cases)
    dataset = task.build_dataset(cases, "train")
    batch = task.collate([dataset[n] for n in range(len(dataset))])
    item = ScanDataset(cases, task.preprocess)[0]
    assert item["image"].shape == (1, 16, 32, 32)
    assert float(batch["voxel_ml"][0]) == pytest.approx(item["voxel_ml"])
    assert (item["labels"] == 1).sum() > 0
    model = task.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)  # at 3e-3 some starts die, on some processors this one
    for _ in range(120):
        loss = total_loss(task.losses(model, batch, 0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        rows = task.predict(model, batch)
    for row in rows:
        assert row["size_mm"] == pytest.approx(float(size_of_volume(row["volume_ml"])), abs=1.0)
    heat = volume_heatmap(model, batch["image"][:1], voxel_ml=batch["voxel_ml"][:1].float())
    assert heat.shape == (16, 32, 32) and 0 <= heat.min() <= heat.max() <= 1


def test_size_follows_the_voxel_volume() -> None:
    """Through the appended logarithm alone: the same picture of larger voxels is a larger hematoma."""
    torch.manual_seed(0)
    cfg = replace(
        PRESETS["tiny"], in_chans=1, volume_pool="average", aux_density=False, outcome_from_size=False,
        voxel_volume=True,
    )  # fmt: skip
    network = build_volume_net(cfg).eval()
    network.target_sd.fill_(10.0)
    with torch.no_grad():
        network.size_head.weight.zero_()
        network.size_head.weight[0, -1] = 1.0
        scan = torch.rand(1, 1, 16, 32, 32)
        sizes = [float(network(scan, torch.tensor([v]))["size_mm"]) for v in (0.002, 0.004)]
    assert sizes[1] - sizes[0] == pytest.approx(10 * np.log(2), abs=1e-4)
    with pytest.raises(ValueError, match="voxel_ml"):
        network(scan)


def test_a_stretched_scan_without_its_voxel_volume_is_refused() -> None:
    with pytest.raises(UsageError, match="voxel_volume"):
        small_task(**{"network.voxel_volume": False})
    with pytest.raises(UsageError, match="resnet34"):
        VolumeNetConfig(backbone="r3d_18", voxel_volume=True)
    with pytest.raises(UsageError, match="sum"):
        replace(PRESETS["tiny"], voxel_volume=True)


def test_a_stretched_network_answers_a_scan() -> None:
    """The predictor stretches the scan itself, and its heatmap lies on the stack."""
    cfg = replace(
        PRESETS["tiny"], in_chans=1, volume_pool="average", aux_density=False, outcome_from_size=False,
        voxel_volume=True,
    )  # fmt: skip
    torch.manual_seed(0)
    network = build_volume_net(cfg)
    weights = LoadedWeights("volume_net", to_dict(cfg), STRETCHED, network.state_dict())
    predictor = VolumeNetPredictor(network, weights, torch.device("cpu"))
    volume = simulate_case(3, CaseSpec(has_ich=False, confounders=0.0, acquisition=COARSE)).volume
    stack = make_stack(volume, PREPROCESS)
    answer = predictor.predict(stack, want_heatmap=True)
    assert np.isfinite(answer.volume_ml) and 0 <= answer.poor_probability <= 1
    assert answer.heatmap is not None and answer.heatmap.shape == stack.hu.shape
