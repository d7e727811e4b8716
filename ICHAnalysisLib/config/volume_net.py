"""Configuration of the volume net (paper 003) and of the networks it was compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ICHAnalysisLib.config.preprocess import BRAIN, HEMORRHAGE, SOFT_TISSUE, PreprocessConfig
from ICHAnalysisLib.errors import UsageError

Backbone = Literal[
    "resnet34", "r2plus1d_18", "mc3_18", "r3d_18", "s3d", "mvit_v2_s", "swin3d_t", "densenet121", "efficientnet_b0"
]


@dataclass(frozen=True)
class VolumeNetConfig:
    """A scan network with two heads: the hematoma's size (cube root of its volume, mm) and the outcome.

    `planes` to `outcome_from_size` describe the 3D ResNet-34; the comparators have fixed sizes.
    """

    backbone: Backbone = "resnet34"
    in_chans: int = 1  # HU windows
    planes: tuple[int, int, int, int] = (64, 128, 256, 512)  # channels of the four stages; the stem has the first
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    norm: Literal["batch", "group"] = "batch"  # "group" (of 4 channels) where batches are below 4 (decision R17)
    regression: bool = True
    classification: bool = True
    volume_pool: Literal["average", "sum"] = "average"  # "sum": blood fractions times cell volume add up to the volume
    aux_density: bool = False  # blood fraction of each cell of layer1's grid, supervised by the mask
    outcome_from_size: bool = False  # the outcome head also sees the predicted size (without gradient)
    voxel_volume: bool = False  # both heads also see the logarithm of a voxel's volume; for stretched scans (R2)
    cell_volume_ml: float = 0.0  # of one cell of layer1's grid; needed by volume_pool "sum"
    outcome_relu: bool = False  # a ReLU before the softmax, as printed; it can silence a class (decision R8)
    uncertainty_weights: bool = False  # both losses weighted by learned variances instead (decision R10)

    def __post_init__(self) -> None:
        if not self.regression and not self.classification:
            raise UsageError("Volume net: regression and classification are both off; there is nothing to learn.")
        if self.norm == "group" and any(width % 4 for width in self.planes):
            raise UsageError(f"Volume net: planes {self.planes} must be multiples of 4 for group norm.")
        if self.volume_pool == "sum" and not (self.aux_density and self.regression and self.cell_volume_ml > 0):
            raise UsageError("Volume net: volume_pool 'sum' needs regression, aux_density and cell_volume_ml above 0.")
        own = ("aux_density", "outcome_from_size", "voxel_volume", "outcome_relu", "uncertainty_weights")
        if self.backbone != "resnet34" and any(getattr(self, name) for name in own):
            raise UsageError(f"Volume net: {', '.join(own)} belong to resnet34, not {self.backbone!r}.")
        if self.uncertainty_weights and not (self.regression and self.classification):
            raise UsageError("Volume net: uncertainty_weights balance two heads, so both are needed.")
        if self.voxel_volume and self.volume_pool == "sum":
            raise UsageError("Volume net: volume_pool 'sum' needs cells of one volume, so no voxel_volume.")
        if self.outcome_from_size and not (self.regression and self.classification):
            raise UsageError("Volume net: outcome_from_size needs both heads.")


_PREPROCESS = PreprocessConfig(spacing_mm=1.8, size=128, windows=(BRAIN, HEMORRHAGE), depth=32, slice_spacing_mm=5.0)
_PAPER_PREPROCESS = PreprocessConfig(spacing_mm=0.9, size=224, windows=(HEMORRHAGE,), depth=32, slice_spacing_mm=5.0)


def cell_volume_ml(preprocess: PreprocessConfig) -> float:
    """Volume of one cell of layer1's grid, mL: 2 slices x 4 x 4 pixels of the input."""
    return 2 * preprocess.slice_spacing_mm * (4 * preprocess.spacing_mm) ** 2 / 1000.0


_COMPACT = VolumeNetConfig(
    in_chans=2,
    planes=(16, 48, 64, 96),  # the stem takes most of the time, so that wide stages behind it cost little
    norm="group",
    volume_pool="sum",
    aux_density=True,
    outcome_from_size=True,
    cell_volume_ml=cell_volume_ml(_PREPROCESS),
)
_TINY_PREPROCESS = replace(_PREPROCESS, spacing_mm=7.2, size=32, depth=16, slice_spacing_mm=10.0)

#: Name of a preset -> network of torchvision or MONAI.
_COMPARATORS: dict[str, Backbone] = {
    "r2plus1d": "r2plus1d_18",
    "mc3": "mc3_18",
    "r3d": "r3d_18",
    "s3d": "s3d",
    "mvit": "mvit_v2_s",
    "swin3d": "swin3d_t",
    "densenet": "densenet121",
    "efficientnet": "efficientnet_b0",
}

PRESETS: dict[str, VolumeNetConfig] = {
    "compact": _COMPACT,  # shipped; about 3.2 M parameters
    "small": replace(_COMPACT, planes=(32, 64, 96, 128)),
    "paper": VolumeNetConfig(),  # 3D ResNet-34 of width 64, both heads
    "paper_stretch": VolumeNetConfig(voxel_volume=True),  # the paper's resizing, which loses mm (decision R2)
    "paper_wide": VolumeNetConfig(),  # [0, 100] HU without bone, beside the paper's window (decision R3)
    "paper_regression": VolumeNetConfig(classification=False),
    "paper_classification": VolumeNetConfig(regression=False),
    **{f"paper_{name}": VolumeNetConfig(backbone=backbone) for name, backbone in _COMPARATORS.items()},
    "compact_regression": replace(_COMPACT, classification=False, outcome_from_size=False),
    "compact_classification": replace(
        _COMPACT, regression=False, volume_pool="average", aux_density=False, outcome_from_size=False
    ),
    **{f"compact_{name}": VolumeNetConfig(backbone=backbone, in_chans=2) for name, backbone in _COMPARATORS.items()},
    "tiny": replace(
        _COMPACT, planes=(4, 4, 8, 8), blocks=(1, 1, 1, 1), cell_volume_ml=cell_volume_ml(_TINY_PREPROCESS)
    ),
}

#: Preprocessing of each preset: even spacing in mm by default (decision R2), the paper's window in the paper's presets.
PREPROCESS: dict[str, PreprocessConfig] = {
    **{name: _PAPER_PREPROCESS if name.startswith("paper") else _PREPROCESS for name in PRESETS},
    "paper_stretch": replace(_PAPER_PREPROCESS, layout="stretch"),
    "paper_wide": replace(_PAPER_PREPROCESS, windows=(SOFT_TISSUE,), bone_hu=150.0),
    "tiny": _TINY_PREPROCESS,
}
