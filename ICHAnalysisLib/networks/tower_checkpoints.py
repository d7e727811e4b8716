"""Published checkpoints of CLIP, SAM and DenseNet into ICH-SCNet's parts, strictly, with the file's hash.

Formats: segment-anything's .pth state dict; open_clip's state dict (.pt, .bin, safetensors), as a file or, where there
is a network, as open_clip's name of it; torchvision's state dict. All are read without running code from the file.
OpenAI's own CLIP files are TorchScript archives, which are programs: they are refused and the conversion is named.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ICHAnalysisLib.errors import WeightsError
from ICHAnalysisLib.networks.encoders import BatchedPromptEncoder, ClipImageTower, ClipTextTower, SamImageTower
from ICHAnalysisLib.networks.ich_scnet import ICHSCNet
from ICHAnalysisLib.weights.registry import file_sha256

_SHOWN = 4  # names listed of those that do not fit
#: Keys of open_clip's CLIP that belong to neither tower.
_CLIP_SCALARS = ("logit_scale", "logit_bias")
_SAM_BUFFERS = ("pixel_mean", "pixel_std")
#: What the name of a published checkpoint in open_clip's own list begins with.
OPEN_CLIP = "open_clip:"
_BY_HAND = (
    "Convert it once on a machine you trust: "
    "model = open_clip.create_model('ViT-L-14-quickgelu', pretrained='openai'); "
    "safetensors.torch.save_file(model.state_dict(), 'clip.safetensors')"
)


@dataclass(frozen=True)
class LoadedTower:
    """Which file filled a tower."""

    tower: str
    file: str
    sha256: str


def load_clip_checkpoint(model: ICHSCNet, path: str | Path) -> LoadedTower:
    """Fill both CLIP towers from an open_clip checkpoint.

    path: a file, or "open_clip:MODEL/TAG" such as "open_clip:ViT-L-14/openai", which open_clip fetches and keeps.
    The activation is not in the file: OpenAI's weights, and those named "-quickgelu", need `quick_gelu`, which is the
    preset's to say; by a tag it is checked. Raises WeightsError where the file is missing, of another format, does not
    fit by name or shape, or cannot be fetched.
    """
    image_tower: ClipImageTower | None = getattr(model, "clip_image", None)
    text_tower: ClipTextTower | None = getattr(model, "clip_text", None)
    if image_tower is None or text_tower is None:
        raise WeightsError("This variant of ICH-SCNet has no CLIP towers to load.")
    tag = str(path) if str(path).startswith(OPEN_CLIP) else ""
    path = _fetched(tag, model.cfg.clip.quick_gelu) if tag else Path(path)
    state = _without_prefix(read_state_dict(path), ("state_dict.", "module.", "model."))
    image = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    text = {key.removeprefix("text."): value for key, value in state.items() if not key.startswith("visual.")}
    text = {key: value for key, value in text.items() if key not in (*_CLIP_SCALARS, "attn_mask")}
    if not image or "token_embedding.weight" not in text:
        raise WeightsError(f"{path}: not a CLIP checkpoint of open_clip; it has no visual.* or token_embedding.weight.")
    load_strictly(image_tower.visual, image, path, "CLIP image encoder")
    load_strictly(text_tower.text, text, path, "CLIP text encoder")
    return LoadedTower("clip", tag or path.name, file_sha256(path))


def load_sam_checkpoint(model: ICHSCNet, path: str | Path) -> LoadedTower:
    """Fill SAM's image encoder, prompt encoder and every mask decoder from a segment-anything or MedSAM checkpoint.

    Raises WeightsError as `load_clip_checkpoint` does.
    """
    image_tower: SamImageTower | None = getattr(model, "sam_image", None)
    prompt_encoder: BatchedPromptEncoder | None = getattr(model, "prompt_encoder", None)
    if image_tower is None or prompt_encoder is None:
        raise WeightsError("This variant of ICH-SCNet has no SAM parts to load.")
    path = Path(path)
    state = {key: value for key, value in read_state_dict(path).items() if key not in _SAM_BUFFERS}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = value
    wanted = {"image_encoder", "prompt_encoder", "mask_decoder"}
    if set(parts) != wanted:
        raise WeightsError(
            f"{path}: not a checkpoint of segment-anything; expected the parts {', '.join(sorted(wanted))}, "
            f"found {', '.join(sorted(parts)[:_SHOWN]) or 'none'}."
        )
    load_strictly(image_tower.image_encoder, parts["image_encoder"], path, "SAM image encoder")
    load_strictly(prompt_encoder, parts["prompt_encoder"], path, "SAM prompt encoder")
    for module in model.interactions:
        load_strictly(module.decoder, parts["mask_decoder"], path, "SAM mask decoder")  # type: ignore[arg-type]
    return LoadedTower("sam", path.name, file_sha256(path))


def load_densenet_checkpoint(model: ICHSCNet, path: str | Path) -> LoadedTower:
    """Fill the classifier's DenseNet, but for its last layer, from torchvision's checkpoint (decision S25).

    Only a classifier with `rgb_stem` keeps the three-channel first convolution that such a file has. Raises
    WeightsError as `load_clip_checkpoint` does.
    """
    classifier = getattr(model, "classifier", None)
    if classifier is None or classifier.to_rgb is None:
        raise WeightsError("A DenseNet checkpoint needs a classifier with rgb_stem; set classifier.rgb_stem: true.")
    path = Path(path)
    state = {key.removeprefix("features."): value for key, value in read_state_dict(path).items()
             if key.startswith("features.")}  # fmt: skip
    # torchvision's published files still have the names of its first version, "norm.1" for "norm1".
    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d\.)")
    state = {old.sub(r"\1\2", key): value for key, value in state.items()}
    for key, value in classifier.features.state_dict().items():
        if key.endswith("num_batches_tracked"):  # those files are older than this counter
            state.setdefault(key, value)
    load_strictly(classifier.features, state, path, "DenseNet")
    return LoadedTower("densenet", path.name, file_sha256(path))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from safetensors or a plain state dict; nothing in the file is run.

    Raises WeightsError where the file is missing, a TorchScript archive, or holds anything but tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:
            raise WeightsError(f"{path}: not a readable safetensors file ({error}).") from error
    if _is_torchscript(path):
        raise WeightsError(f"{path}: a TorchScript archive, as OpenAI publishes CLIP, is a program. {_BY_HAND}")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path}: not a plain state dict ({str(error).splitlines()[0]}).") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path}: expected tensors by name, found {type(loaded).__name__}.")
    return dict(loaded)


def load_strictly(module: nn.Module, state: dict[str, Tensor], path: Path, name: str) -> None:
    """Load every tensor into its place; raises WeightsError naming what is missing, too much or misshapen."""
    own = module.state_dict()
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in sorted(set(own) & set(state))
        if own[key].shape != state[key].shape
    ]
    faults = [
        f"{label}: {', '.join(names[:_SHOWN])}{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}"
        for label, names in (("missing", missing), ("not expected", extra), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise WeightsError(f"{path}: does not fit the {name} of this preset; {'; '.join(faults)}.")
    module.load_state_dict(state, strict=True)


def _fetched(tag: str, quick_gelu: bool) -> Path:
    """The file of "open_clip:MODEL/TAG", fetched or from open_clip's cache; raises WeightsError where it is not to be
    had, or was trained with the other activation."""
    from open_clip import pretrained

    name, _, weights = tag.removeprefix(OPEN_CLIP).partition("/")
    facts = pretrained.get_pretrained_cfg(name, weights)
    if not facts:
        known = pretrained.list_pretrained_tags_by_model(name)
        offered = f"tags {', '.join(known)}" if known else "no model of that name"
        raise WeightsError(f"{tag}: open_clip has {offered}; write {OPEN_CLIP}MODEL/TAG, or give the path of a file.")
    trained_quick = bool(facts.get("quick_gelu", False))
    if trained_quick != quick_gelu:
        raise WeightsError(
            f"{tag} was trained {'with' if trained_quick else 'without'} QuickGELU; set "
            f"task.network.clip.quick_gelu={str(trained_quick).lower()}."
        )
    try:
        return Path(pretrained.download_pretrained(facts))
    except Exception as error:  # whatever a network, a proxy or a full disk raises
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{tag} could not be fetched ({reason}); download it elsewhere and give its path."
        ) from error


def _is_torchscript(path: Path) -> bool:
    """A zip archive with a constants file and code is TorchScript."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") or "/code/" in name for name in archive.namelist())


def _without_prefix(state: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Names without the wrapper that every one of them carries, such as DistributedDataParallel's."""
    for prefix in prefixes:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
