"""Weights files: round trip, fp16, and refusals that name what is wrong."""

from __future__ import annotations

import json

import pytest
import torch

from ICHAnalysisLib.config.preprocess import HUWindow, PreprocessConfig
from ICHAnalysisLib.errors import WeightsError
from ICHAnalysisLib.weights.registry import file_sha256, load_state, load_weights, save_weights


def written(tmp_path, **changes):
    state = {"weight": torch.tensor([[1.0, 0.333333]]), "bias": torch.tensor([2.0]), "count": torch.tensor(5)}
    state.update(changes)
    preprocess = PreprocessConfig(windows=(HUWindow(35, 90),))
    return save_weights(tmp_path / "dtvit.safetensors", "dtvit", {"depth": 2}, preprocess, state, {"name": "tiny"})


def test_round_trip_keeps_config_preprocessing_and_card(tmp_path):
    path = written(tmp_path)
    loaded = load_weights(path, "dtvit")
    assert loaded.config == {"depth": 2}
    assert loaded.preprocess.windows == (HUWindow(35, 90),)
    assert loaded.card == {"name": "tiny"}
    assert loaded.sha256 == file_sha256(path)
    assert loaded.state_dict["count"].item() == 5
    assert loaded.state_dict["weight"].dtype == torch.float32
    assert loaded.state_dict["weight"][0, 1].item() == pytest.approx(0.333333, abs=2e-4)
    assert not list(tmp_path.glob("*.tmp"))


def test_state_loads_strictly(tmp_path):
    model = torch.nn.Linear(2, 1)
    weights = load_weights(written(tmp_path))
    with pytest.raises(WeightsError, match=r"unexpected \['count'\]"):
        load_state(model, weights)
    del weights.state_dict["count"]
    load_state(model, weights)
    assert model.bias.item() == 2.0


def test_values_beyond_fp16_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(WeightsError, match="weight is not finite"):
        written(tmp_path, weight=torch.tensor([1e6]))
    assert not (tmp_path / "dtvit.safetensors").exists()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="No weights at"):
        load_weights(tmp_path / "absent.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a file of weights")
    with pytest.raises(WeightsError, match="not a readable"):
        load_weights(broken)
    with pytest.raises(WeightsError, match="holds dtvit, not volume_net"):
        load_weights(written(tmp_path), "volume_net")
    pickled = tmp_path / "pickled.safetensors"
    torch.save({"a": 1}, pickled)
    with pytest.raises(WeightsError, match="not a readable"):
        load_weights(pickled)


def test_metadata_is_json(tmp_path):
    from safetensors import safe_open

    with safe_open(written(tmp_path), framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["preprocess"])["spacing_mm"] == 0.9
