"""What ICH-SCNet is compared with (paper 000, table III), on the same items, prompts and metrics.

Built from libraries: a plain U-Net, a SegResNet and nnU-Net's network (MONAI) with prompts drawn as channels,
segment-anything with the prompts of its own encoder (SAM or MedSAM, by the checkpoint), DenseNet-121 on the image,
alone or with the record as words or as numbers, and a logistic regression on the numbers. The paper's other rows
publish no code or weights that a library offers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ICHAnalysisLib.config.ich_scnet import SLICE_CHANNELS, ICHSCNetConfig
from ICHAnalysisLib.networks.densenet import OUTCOMES, OutcomeClassifier
from ICHAnalysisLib.networks.encoders import (
    BatchedMaskDecoder,
    ClipTextTower,
    SamImageTower,
    TextFeatures,
    TowerFeatures,
    build_mask_decoder,
    build_prompt_encoder,
    resize,
)
from ICHAnalysisLib.networks.ich_scnet import ICHSCNetOutput
from ICHAnalysisLib.networks.prompt_planes import PLANES, prompt_planes
from ICHAnalysisLib.networks.sam_clip import NoText, encode_text
from ICHAnalysisLib.prompts import PromptBatch
from Training.data.record_numbers import WIDTH


class Comparator(nn.Module):
    """The face of `ICHSCNet` that the task sees, with nothing to cache."""

    def encode(self, image: Tensor) -> TowerFeatures:
        """No towers."""
        return TowerFeatures(None, None)

    def encode_text(self, text_tokens: Tensor | None, batch: int) -> TextFeatures | None:
        """No text."""
        return None


class SegmentationComparator(Comparator):
    """A library's network on the image and the prompts drawn as channels: masks, no outcome."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        image: Tensor,
        prompts: PromptBatch,
        text_tokens: Tensor | None = None,
        features: TowerFeatures | None = None,
        text: TextFeatures | None = None,
    ) -> ICHSCNetOutput:
        """As `ICHSCNet.forward`; stages where the network supervises some in training, (B, stages, K, H, W)."""
        found = self.network(torch.cat([image, prompt_planes(prompts, image)], dim=1))
        stages = found.unbind(1) if found.ndim == 5 else (found,)
        return ICHSCNetOutput(feature=stages[0], valid_masks=(), segmentation=stages[0], stage_logits=stages)


class SamComparator(Comparator):
    """segment-anything alone: image encoder, prompt encoder, decoder; hemorrhage only.

    `sam_image`, `prompt_encoder` and `interactions` are named as in `ICHSCNet`, for the same checkpoint loader.
    Each image's prompts are embedded and decoded alone, as segment-anything does it, without the padding that a batch
    of different prompts needs. Without a prompt its mask is whatever the decoder makes of none: read its box mode.
    """

    def __init__(self, cfg: ICHSCNetConfig) -> None:
        super().__init__()
        self.sam_image = SamImageTower(cfg.sam)
        self.prompt_encoder = build_prompt_encoder(cfg.sam)
        holder = nn.Module()
        holder.decoder = build_mask_decoder(cfg.sam)
        self.interactions = nn.ModuleList([holder])
        if cfg.towers == "frozen":
            self.sam_image.requires_grad_(False)
            self.prompt_encoder.requires_grad_(False)

    def forward(
        self,
        image: Tensor,
        prompts: PromptBatch,
        text_tokens: Tensor | None = None,
        features: TowerFeatures | None = None,
        text: TextFeatures | None = None,
    ) -> ICHSCNetOutput:
        """As `ICHSCNet.forward`, with one stage of one class."""
        size = (image.shape[-2], image.shape[-1])
        dense = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        decoder = cast(BatchedMaskDecoder, self.interactions[0].decoder)  # a ModuleList does not say what it holds
        positions = self.prompt_encoder.get_dense_pe()
        seen = self.sam_image(image[:, :SLICE_CHANNELS])
        masks = [
            decoder.decode(seen[b : b + 1], positions, self._sparse(prompts.slices(b, b + 1), size), dense)
            for b in range(len(image))
        ]
        logits = resize(torch.cat(masks), size)
        return ICHSCNetOutput(feature=logits, valid_masks=(), segmentation=logits, stage_logits=(logits,))

    def _sparse(self, prompts: PromptBatch, size: tuple[int, int]) -> Tensor:
        """(1, N, P) embeddings of one image's prompts; points without a box end with one padding point."""
        kept, boxes = prompts.point_labels[0] >= 0, prompts.box_valid[0].bool()
        points, labels = prompts.points[:, kept], prompts.point_labels[:, kept]
        if kept.any() and not boxes.any():
            points = torch.cat([points, torch.zeros_like(points[:, :1])], dim=1)
            labels = torch.cat([labels, torch.full_like(labels[:, :1], -1)], dim=1)
        return self.prompt_encoder.embed(points, labels, prompts.boxes[:, boxes], prompts.box_valid[:, boxes], size)


class OutcomeComparator(Comparator):
    """DenseNet on the three windows, optionally joined by the mean word of the record: outcome, no masks."""

    def __init__(self, cfg: ICHSCNetConfig, late_width: int = 0) -> None:
        super().__init__()
        self.classifier = OutcomeClassifier(cfg.classifier, SLICE_CHANNELS, late_width)

    def forward(
        self,
        image: Tensor,
        prompts: PromptBatch,
        text_tokens: Tensor | None = None,
        features: TowerFeatures | None = None,
        text: TextFeatures | None = None,
    ) -> ICHSCNetOutput:
        """As `ICHSCNet.forward`; prompts change nothing."""
        text = text if text is not None else self.encode_text(text_tokens, len(image))
        return ICHSCNetOutput(feature=image, valid_masks=(), outcome=self.classifier(image[:, :SLICE_CHANNELS], text))


class WordsComparator(OutcomeComparator):
    """DenseNet and the mean word of the record's sentence."""

    def __init__(self, cfg: ICHSCNetConfig) -> None:
        super().__init__(cfg, cfg.clip.text_width)
        self.clip_text = ClipTextTower(cfg.clip)
        self.no_text = NoText(cfg.clip.text_width)

    def encode_text(self, text_tokens: Tensor | None, batch: int) -> TextFeatures | None:
        """Word features."""
        return encode_text(self.clip_text, self.no_text, text_tokens, batch)


class NumbersComparator(OutcomeComparator):
    """DenseNet and the record's numbers beside its last layer."""

    def __init__(self, cfg: ICHSCNetConfig) -> None:
        super().__init__(cfg, WIDTH)

    def encode_text(self, text_tokens: Tensor | None, batch: int) -> TextFeatures | None:
        """The numbers (B, WIDTH) in the place of a single word."""
        return as_word(text_tokens)


class LogisticComparator(Comparator):
    """Logistic regression on the record's numbers, fitted by the same loop: outcome, no image, no masks."""

    def __init__(self, cfg: ICHSCNetConfig) -> None:
        super().__init__()
        self.regression = nn.Linear(WIDTH, OUTCOMES)
        nn.init.zeros_(self.regression.weight)
        nn.init.zeros_(self.regression.bias)

    def encode_text(self, text_tokens: Tensor | None, batch: int) -> TextFeatures | None:
        """The numbers (B, WIDTH) in the place of a single word."""
        return as_word(text_tokens)

    def forward(
        self,
        image: Tensor,
        prompts: PromptBatch,
        text_tokens: Tensor | None = None,
        features: TowerFeatures | None = None,
        text: TextFeatures | None = None,
    ) -> ICHSCNetOutput:
        """As `ICHSCNet.forward`; neither image nor prompts change anything."""
        text = text if text is not None else self.encode_text(text_tokens, len(image))
        if text is None:
            raise ValueError("The logistic regression needs the record's numbers.")
        return ICHSCNetOutput(feature=image, valid_masks=(), outcome=self.regression(text.tokens[:, 0]))


def as_word(numbers: Tensor | None) -> TextFeatures | None:
    """(B, WIDTH) as text of one word each."""
    if numbers is None:
        return None
    return TextFeatures(numbers.unsqueeze(1), torch.ones(len(numbers), 1, dtype=torch.bool, device=numbers.device))


def _channels(cfg: ICHSCNetConfig) -> int:
    """Channels of an image with its prompts: what ICH-SCNet itself reads, neighboring slices too."""
    return cfg.image_channels + PLANES


def _unet(cfg: ICHSCNetConfig) -> Comparator:
    """A plain U-Net of five levels, 16 to 256 channels."""
    from monai.networks.nets import UNet

    channels = (16, 32, 64, 128, 256)
    network = UNet(2, _channels(cfg), cfg.num_classes, channels, (2, 2, 2, 2), num_res_units=2, norm="batch")
    return SegmentationComparator(network)


def _segresnet(cfg: ICHSCNetConfig) -> Comparator:
    """MONAI's SegResNet with 16 initial filters."""
    from monai.networks.nets import SegResNet

    return SegmentationComparator(SegResNet(2, 16, _channels(cfg), cfg.num_classes))


def _nnunet(cfg: ICHSCNetConfig) -> Comparator:
    """nnU-Net's plain 2-D network in MONAI's version, five poolings, its deep supervision by our weights.

    What makes nnU-Net, its own planning, augmentation and training, is not here.
    """
    from monai.networks.nets import DynUNet

    levels = (32, 64, 128, 256, 512, 512)
    strides = (1, 2, 2, 2, 2, 2)
    kernels = (3,) * len(levels)
    network = DynUNet(
        2,
        _channels(cfg),
        cfg.num_classes,
        kernels,
        strides,
        strides[1:],
        filters=levels,
        deep_supervision=True,
        deep_supr_num=3,
    )
    return SegmentationComparator(network)


#: Name -> (tasks it does, builder).
COMPARATORS: dict[str, tuple[str, Callable[[ICHSCNetConfig], Comparator]]] = {
    "unet": ("seg", _unet),
    "segresnet": ("seg", _segresnet),
    "nnunet": ("seg", _nnunet),
    "sam": ("seg", SamComparator),
    "densenet": ("cla", OutcomeComparator),
    "densenet_text": ("cla", WordsComparator),
    "densenet_numbers": ("cla", NumbersComparator),
    "logistic": ("cla", LogisticComparator),
}
#: Comparators that read the record as numbers instead of words.
READ_NUMBERS = ("densenet_numbers", "logistic")
