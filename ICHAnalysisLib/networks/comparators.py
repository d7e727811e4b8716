"""The networks that papers 002 and 003 compared with, from torchvision and MONAI, with the papers' own two heads.

Not built, for want of a maintained implementation: P3D, TSM, TIN, TimeSformer, X3D and Uniformizing-3D of paper 003.
S3D, MC3, R3D, MViT, Swin3D, DenseNet and EfficientNet stand beside R(2+1)D instead.
Legend: B samples, C channels, D slices, H = W pixels, L locations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.config.dtvit import DTViTConfig
from ICHAnalysisLib.config.volume_net import VolumeNetConfig
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.networks.dtvit import decoder, register_pixel_statistics
from ICHAnalysisLib.quick_imports import compiler_put_off

with compiler_put_off():
    from torchvision import models


class DualTaskCNN(nn.Module):
    """A torchvision trunk in the place of DTViT's encoder, behind it the same two decoders (paper 002, table 3)."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, cfg: DTViTConfig) -> None:
        super().__init__()
        self.cfg = cfg
        register_pixel_statistics(self, cfg.normalize)
        network = getattr(models, cfg.encoder)()
        if cfg.encoder.startswith("resnet"):
            features = network.fc.in_features
            self.encoder = nn.Sequential(*list(network.children())[:-2])  # (B, features, H/32, W/32)
        else:
            features = network.features[-3].out_channels
            self.encoder = network.features
        _replace_first_convolution(self.encoder, nn.Conv2d, cfg.in_chans)
        self.presence_decoder = decoder(features, cfg.decoder_dim, 1, cfg.dropout)
        self.location_decoder = decoder(features, cfg.decoder_dim, cfg.num_locations, cfg.dropout)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) in [0, 1] to presence_logits (B,) and location_logits (B, L)."""
        pooled = self.encoder((image - self.pixel_mean) / self.pixel_std).mean(dim=(2, 3))
        return {
            "presence_logits": self.presence_decoder(pooled).squeeze(-1).float(),
            "location_logits": self.location_decoder(pooled).float(),
        }

    @property
    def cam_layer(self) -> str:
        """Name of the layer that Grad-CAM explains."""
        return f"encoder.{len(self.encoder) - 1}"

    def cam_map(self, activations: Tensor) -> Tensor:
        """(B, features, h, w) as they are."""
        return activations


#: Children of torchvision's ResNet in order, as `DualTaskCNN.encoder` numbers them; ReLU and pooling hold no tensor.
_RESNET_CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def cnn_state_dict(state: dict[str, Tensor], encoder: str) -> dict[str, Tensor]:
    """torchvision's state dict of a ResNet, VGG or AlexNet as that of `DualTaskCNN.encoder`; the head is dropped."""
    if not encoder.startswith("resnet"):
        return {key.removeprefix("features."): v for key, v in state.items() if key.startswith("features.")}
    number = {name: str(n) for n, name in enumerate(_RESNET_CHILDREN)}
    parts = [(*key.partition("."), value) for key, value in state.items() if not key.startswith("fc.")]
    return {f"{number.get(first, first)}{dot}{rest}": value for first, dot, rest, value in parts}


class ScanComparator(nn.Module):
    """A 3-D network of a library with the volume net's two heads (paper 003, table 1).

    target_mean, target_sd: of the size in the training fold, mm.
    """

    target_mean: Tensor
    target_sd: Tensor

    def __init__(self, cfg: VolumeNetConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder = _SCAN_BACKBONES[cfg.backbone](cfg)
        features = _FEATURES[cfg.backbone]
        self.size_head = nn.Linear(features, 1) if cfg.regression else None
        self.outcome_head = nn.Linear(features, 2) if cfg.classification else None
        self.register_buffer("target_mean", torch.tensor(0.0))
        self.register_buffer("target_sd", torch.tensor(1.0))

    def forward(self, scan: Tensor) -> dict[str, Tensor]:
        """(B, C, D, H, W) in [0, 1] to size_mm (B,) and outcome_logits (B, 2), as built."""
        if self.cfg.backbone == "mvit_v2_s":  # its position embedding has one size
            scan = F.interpolate(scan, size=(16, 224, 224), mode="trilinear", align_corners=False)
        features = self.encoder(scan)
        output: dict[str, Tensor] = {}
        if self.size_head is not None:
            output["size_mm"] = self.size_head(features).squeeze(-1).float() * self.target_sd + self.target_mean
        if self.outcome_head is not None:
            output["outcome_logits"] = self.outcome_head(features).float()
        return output

    def cam_layer(self, target: str) -> str:
        """Name of the layer whose maps Grad-CAM explains."""
        layers = {"s3d": "encoder.0", "densenet121": "encoder.features", "efficientnet_b0": "encoder._bn1"}
        name = layers.get(self.cfg.backbone, "encoder.layer4")
        if name not in dict(self.named_modules()):
            raise UsageError(f"Grad-CAM is not offered for {self.cfg.backbone!r}, a network of tokens.")
        return name


def _replace_first_convolution(module: nn.Module, kind: type[nn.Module], in_chans: int) -> None:
    """Give the first convolution `in_chans` input channels where it has others."""
    for name, child in module.named_modules():
        if isinstance(child, kind) and isinstance(child, (nn.Conv2d, nn.Conv3d)):
            if child.in_channels == in_chans:
                return
            fresh = kind(
                in_chans,
                child.out_channels,
                child.kernel_size,
                child.stride,
                child.padding,
                bias=child.bias is not None,
            )
            parent = module.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], fresh)
            return
    raise ValueError(f"{type(module).__name__} has no {kind.__name__}.")


def _torchvision_video(cfg: VolumeNetConfig) -> nn.Module:
    """A network of torchvision.models.video without its last layer."""
    network = getattr(models.video, cfg.backbone)()
    _replace_first_convolution(network, nn.Conv3d, cfg.in_chans)
    if cfg.backbone == "s3d":
        network.classifier = nn.Identity()
        return nn.Sequential(network.features, nn.AdaptiveAvgPool3d(1), nn.Flatten())
    head = "fc" if hasattr(network, "fc") else "head"
    setattr(network, head, nn.Identity())
    return network


def _monai_densenet(cfg: VolumeNetConfig) -> nn.Module:
    """MONAI's 3D DenseNet-121 without its last layer."""
    from monai.networks.nets import DenseNet121

    network = DenseNet121(spatial_dims=3, in_channels=cfg.in_chans, out_channels=1)
    network.class_layers.out = nn.Identity()
    return network


def _monai_efficientnet(cfg: VolumeNetConfig) -> nn.Module:
    """MONAI's 3D EfficientNet-B0 without its last layer."""
    from monai.networks.nets import EfficientNetBN

    network: nn.Module = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=3, in_channels=cfg.in_chans)
    network._fc = nn.Identity()
    return network


_SCAN_BACKBONES: dict[str, Callable[[VolumeNetConfig], nn.Module]] = {
    **dict.fromkeys(("r2plus1d_18", "mc3_18", "r3d_18", "s3d", "mvit_v2_s", "swin3d_t"), _torchvision_video),
    "densenet121": _monai_densenet,
    "efficientnet_b0": _monai_efficientnet,
}
_FEATURES = {
    **dict.fromkeys(("r2plus1d_18", "mc3_18", "r3d_18"), 512),
    "s3d": 1024,
    "mvit_v2_s": 768,
    "swin3d_t": 768,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
}
