"""Weights files: one safetensors file a network, with its config, preprocessing and origin in the file's metadata.

Nothing is ever unpickled. The default files lie beside this module; `--weights DIR` names another folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ICHAnalysisLib.analysis import WeightsInfo
from ICHAnalysisLib.config.base import from_dict, to_dict
from ICHAnalysisLib.config.preprocess import PreprocessConfig
from ICHAnalysisLib.errors import WeightsError

if TYPE_CHECKING:
    import torch

#: Networks and the file name of each one's weights.
FILE_NAMES = {
    "ich_scnet": "ich_scnet.safetensors",
    "dtvit": "dtvit.safetensors",
    "volume_net": "volume_net.safetensors",
    "candidate_net": "candidate_net.safetensors",
    "margin_net": "margin_net.safetensors",
}
DEFAULT_FOLDER = Path(__file__).parent
_FORMAT = "ich-analysis-weights-1"


@dataclass(frozen=True, eq=False)
class LoadedWeights:
    """A weights file in memory: tensors as stored, and everything needed to rebuild and feed the network.

    card: name, trained_on, seeds, figures, calibration and whatever else the training wrote down.
    """

    network: str
    config: dict[str, Any]
    preprocess: PreprocessConfig
    state_dict: dict[str, torch.Tensor]
    card: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    path: Path | None = None

    def info(self) -> WeightsInfo:
        """What analysis.json says about these weights."""
        return WeightsInfo(
            self.network, str(self.card.get("name", "")), self.sha256, str(self.card.get("trained_on", "unknown"))
        )


def save_weights(
    path: str | os.PathLike,
    network: str,
    config: Any,
    preprocess: PreprocessConfig,
    state_dict: dict[str, torch.Tensor],
    card: dict[str, Any],
) -> Path:
    """Write one network's weights, floating tensors as fp16, to a temporary name and then in place.

    config: the network's frozen dataclass (or its dictionary). card: JSON-ready facts about the training.
    Raises WeightsError for an unknown network name.
    """
    import torch
    from safetensors.torch import save_file

    if network not in FILE_NAMES:
        raise WeightsError(f"Unknown network {network!r}; known are {', '.join(FILE_NAMES)}.")
    tensors = {
        key: (value.detach().to(torch.float16) if value.is_floating_point() else value.detach()).contiguous().cpu()
        for key, value in state_dict.items()
    }
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"Weights of {network}: tensor {key} is not finite in fp16; nothing was written.")
    metadata = {
        "format": _FORMAT,
        "network": network,
        "config": json.dumps(to_dict(config)),
        "preprocess": json.dumps(to_dict(preprocess)),
        "card": json.dumps(card),
    }
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    save_file(tensors, temporary, metadata=metadata)
    temporary.chmod(0o644)  # safetensors writes for its owner alone; shipped weights are for everybody
    os.replace(temporary, target)
    return target


def load_weights(path: str | os.PathLike, network: str | None = None) -> LoadedWeights:
    """Read a weights file; floating tensors come back as float32.

    Raises WeightsError where the file is missing, damaged, of another format, or of another network than asked.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    source = Path(path)
    if not source.is_file():
        raise WeightsError(f"No weights at {source}; name a folder that holds {', '.join(FILE_NAMES.values())}.")
    try:
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{source.name} is not a readable safetensors file ({error}); copy it again.") from error
    if metadata.get("format") != _FORMAT:
        raise WeightsError(f"{source.name} was not written by this software (format {metadata.get('format')!r}).")
    if network is not None and metadata["network"] != network:
        raise WeightsError(f"{source.name} holds {metadata['network']}, not {network}.")
    return LoadedWeights(
        network=metadata["network"],
        config=json.loads(metadata["config"]),
        preprocess=from_dict(PreprocessConfig, json.loads(metadata["preprocess"])),
        state_dict={k: v.to(torch.float32) if v.is_floating_point() else v for k, v in state.items()},
        card=json.loads(metadata["card"]),
        sha256=file_sha256(source),
        path=source,
    )


def weights_path(network: str, folder: str | os.PathLike | None = None) -> Path:
    """Where a network's weights are expected: in `folder`, or the shipped default."""
    return Path(folder or DEFAULT_FOLDER) / FILE_NAMES[network]


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_state(model: torch.nn.Module, weights: LoadedWeights) -> None:
    """Load strictly; raises WeightsError that names what does not fit."""
    own = model.state_dict()
    missing = sorted(set(own) - set(weights.state_dict))
    extra = sorted(set(weights.state_dict) - set(own))
    shapes = sorted(k for k in set(own) & set(weights.state_dict) if own[k].shape != weights.state_dict[k].shape)
    if missing or extra or shapes:
        raise WeightsError(
            f"{weights.path or weights.network} does not fit the network: missing {missing[:3]}, "
            f"unexpected {extra[:3]}, other shape {shapes[:3]}; the file and its config do not belong together."
        )
    model.load_state_dict(weights.state_dict)
