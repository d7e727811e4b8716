"""The volume net of paper 003: a 3D ResNet-34 with one head for the hematoma's size and one for the outcome.

Legend: B scans, C channels (HU windows), D slices, H = W pixels, P planes of a stage; d, h, w cells of layer1's grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.config.volume_net import VolumeNetConfig

#: Added before the cube root, mm3, so that its slope stays finite at no blood; 2.7 mm or 0.02 mL.
_ROOT_EPS_MM3 = 20.0
#: A voxel of a head of 155 x 180 x 150 mm stretched to 32 x 224 x 224, mL: the logarithm stays near 0.
_USUAL_VOXEL_ML = 155 * 180 * 150 / (32 * 224 * 224) / 1000
#: A fraction below this counts as none, so that thousands of nearly empty cells do not add up.
_DEAD_ZONE = 0.05


class VolumeNet(nn.Module):
    """Scans to the size of the hematoma in mm (cube root of its volume in mm3) and to outcome logits.

    target_mean, target_sd: of the size in the training fold, mm (decision R6); set them before training.
    Parameter names of stem and stages are torchvision's ResNet's.
    """

    foldable = (("conv1", "bn1"),)
    target_mean: Tensor
    target_sd: Tensor

    def __init__(self, cfg: VolumeNetConfig) -> None:
        super().__init__()
        self.cfg = cfg
        planes = cfg.planes
        self.conv1 = nn.Conv3d(cfg.in_chans, planes[0], 7, (1, 2, 2), 3, bias=False)
        self.bn1 = _norm(cfg.norm, planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        self.layer1 = _stage(planes[0], planes[0], cfg.blocks[0], 1, cfg.norm)
        self.layer2 = _stage(planes[0], planes[1], cfg.blocks[1], 2, cfg.norm)
        self.layer3 = _stage(planes[1], planes[2], cfg.blocks[2], 2, cfg.norm)
        self.layer4 = _stage(planes[2], planes[3], cfg.blocks[3], 2, cfg.norm)
        known = planes[3] + int(cfg.voxel_volume)
        self.size_head = nn.Conv3d(known, 1, 1) if cfg.regression else None
        seen = known + int(cfg.outcome_from_size)
        self.outcome_head = nn.Conv3d(seen, 2, 1) if cfg.classification else None
        self.density = DensityHead(planes[:3]) if cfg.aux_density else None
        self.log_variances = nn.Parameter(torch.zeros(2)) if cfg.uncertainty_weights else None  # size, outcome
        self.register_buffer("target_mean", torch.tensor(0.0))
        self.register_buffer("target_sd", torch.tensor(1.0))
        self.apply(_initialize)
        if self.density is not None:
            self.density.initialize()
        for head in (self.size_head, self.outcome_head):
            if head is not None:
                nn.init.normal_(head.weight, std=0.01)

    def forward(self, scan: Tensor, voxel_ml: Tensor | None = None) -> dict[str, Tensor]:
        """(B, C, D, H, W) in [0, 1], and voxel_ml (B,) where the network reads it, to what is built of size_mm (B,),
        outcome_logits (B, 2) and density_logits (B, d, h, w).

        outcome_logits: class 1 is the poor outcome. density_logits: logits of each cell's blood fraction. With
        uncertainty_weights also log_variances (2,) of size and outcome, which only the loss reads.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(scan))))  # (B, P0, D/2, H/4, W/4)
        first = self.layer1(x)
        second = self.layer2(first)
        third = self.layer3(second)
        last = self.layer4(third)  # (B, P3, D/16, H/32, W/32)
        if self.cfg.voxel_volume:
            last = self._with_voxel_volume(last, voxel_ml)
        output: dict[str, Tensor] = {}
        if self.density is not None:
            output["density_logits"] = self.density(first, second, third).float()
        if self.size_head is not None:
            standardized = self.size_head(last).mean(dim=(1, 2, 3, 4)).float()
            output["size_mm"] = self._size(standardized, output)
        if self.outcome_head is not None:
            output["outcome_logits"] = self._outcome(last, output)
        if self.log_variances is not None:
            output["log_variances"] = self.log_variances.float()
        return output

    def _with_voxel_volume(self, last: Tensor, voxel_ml: Tensor | None) -> Tensor:
        """The maps with ln(voxel volume / usual voxel volume) as one more channel."""
        if voxel_ml is None:
            raise ValueError("This network reads stretched scans and needs voxel_ml, the volume of a voxel.")
        logarithm = torch.log(voxel_ml.float() / _USUAL_VOXEL_ML).to(last.dtype)
        return torch.cat([last, logarithm.reshape(-1, 1, 1, 1, 1).expand(-1, 1, *last.shape[2:])], dim=1)

    def _size(self, standardized: Tensor, output: dict[str, Tensor]) -> Tensor:
        """(B,) size in mm from the pooled head and, for volume_pool "sum", from the blood fractions."""
        if self.cfg.volume_pool == "average":
            return standardized * self.target_sd + self.target_mean
        fraction = (torch.sigmoid(output["density_logits"]) - _DEAD_ZONE).clamp_min(0) / (1 - _DEAD_ZONE)
        volume_mm3 = fraction.sum(dim=(1, 2, 3)) * (1000.0 * self.cfg.cell_volume_ml)
        summed = (volume_mm3 + _ROOT_EPS_MM3) ** (1 / 3)
        return summed * (1.0 + 0.1 * standardized)

    def _outcome(self, last: Tensor, output: dict[str, Tensor]) -> Tensor:
        """(B, 2) logits; by default no ReLU before the softmax, it would silence a class (decision R8)."""
        if self.outcome_head is None:
            raise ValueError("This network has no outcome head.")
        if self.cfg.outcome_from_size:
            size = ((output["size_mm"].detach() - self.target_mean) / self.target_sd).to(last.dtype)
            last = torch.cat([last, size.reshape(-1, 1, 1, 1, 1).expand(-1, 1, *last.shape[2:])], dim=1)
        logits = self.outcome_head(last).mean(dim=(2, 3, 4)).float()
        return logits.relu() if self.cfg.outcome_relu else logits

    def cam_layer(self, target: str) -> str:
        """Name of the layer whose maps Grad-CAM explains for "size" or "poor": the last before the pooling."""
        return "density.predict" if target == "size" and self.cfg.volume_pool == "sum" else "layer4"


class DensityHead(nn.Module):
    """Blood fraction of each cell on layer1's grid, from three stages: fine detail with wide context."""

    def __init__(self, planes: tuple[int, ...]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv3d(width, planes[0], 1) for width in planes)
        self.predict = nn.Sequential(nn.ReLU(), nn.Conv3d(planes[0], planes[0], 3, padding=1), nn.ReLU())
        self.logit = nn.Conv3d(planes[0], 1, 1)

    def initialize(self) -> None:
        """Start from "no blood": cells with blood are few."""
        nn.init.normal_(self.logit.weight, std=0.01)
        if self.logit.bias is not None:
            nn.init.constant_(self.logit.bias, -6.0)

    def forward(self, *stages: Tensor) -> Tensor:
        """Stages (B, P, ...) from fine to coarse to logits (B, d, h, w) on the grid of the first."""
        merged = self.laterals[0](stages[0])
        for lateral, stage in zip(list(self.laterals)[1:], stages[1:], strict=True):
            merged = merged + F.interpolate(lateral(stage), size=merged.shape[2:], mode="trilinear")
        return self.logit(self.predict(merged)).squeeze(1)


class BasicBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions and a shortcut; a 1 x 1 x 1 convolution where sizes differ (shortcut B)."""

    foldable = (("conv1", "bn1"), ("conv2", "bn2"), ("downsample.0", "downsample.1"))

    def __init__(self, inplanes: int, planes: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = _norm(norm, planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv3d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = _norm(norm, planes)
        self.downsample = (
            nn.Sequential(nn.Conv3d(inplanes, planes, 1, stride, bias=False), _norm(norm, planes))
            if stride != 1 or inplanes != planes
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inplanes, ...) to (B, planes, ...), each axis divided by the stride."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


def build_volume_net(cfg: VolumeNetConfig) -> nn.Module:
    """The network of `cfg`: the 3D ResNet-34, or a comparator with the same two heads."""
    if cfg.backbone == "resnet34":
        return VolumeNet(cfg)
    from ICHAnalysisLib.networks.comparators import ScanComparator

    return ScanComparator(cfg)


def _stage(inplanes: int, planes: int, blocks: int, stride: int, norm: str) -> nn.Sequential:
    """One stage of basic blocks; the first carries the stride."""
    rest = [BasicBlock(planes, planes, 1, norm) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inplanes, planes, stride, norm), *rest)


def _norm(kind: str, planes: int) -> nn.Module:
    """Batch norm, or group norm of 4 channels a group."""
    return nn.BatchNorm3d(planes) if kind == "batch" else nn.GroupNorm(planes // 4, planes)


def _initialize(module: nn.Module) -> None:
    """He initialization of convolutions, as torchvision's ResNet."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
