"""ICH-SCNet: CLIP-guided SAM, group-bridge fusion, masks and prognosis in one network (paper 000, Fig. 1a).

B batch; H, W size of the slice; I^0..I^3 the four image scales; C_k, H_k, W_k of scale k; C_F channels of the feature
output F; K segmentation classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ICHAnalysisLib.config.ich_scnet import SLICE_CHANNELS, ICHSCNetConfig
from ICHAnalysisLib.networks.densenet import OutcomeClassifier
from ICHAnalysisLib.networks.encoders import (
    ClipImageTower,
    ClipTextTower,
    SamImageTower,
    TextFeatures,
    TowerFeatures,
    build_mask_decoder,
    build_prompt_encoder,
    resize,
)
from ICHAnalysisLib.networks.mtff import MTFF, ConcatFusion, ConvBlock
from ICHAnalysisLib.networks.prompt_planes import PLANES, prompt_planes
from ICHAnalysisLib.networks.sam_clip import CrossModalAttention, NoText, SamClipInteraction, encode_text
from ICHAnalysisLib.prompts import PromptBatch

SCALES = 4


@dataclass(frozen=True)
class ICHSCNetOutput:
    """What one pass yields; None where the variant or the call leaves it out.

    segmentation: logits (B, K, H, W), channel 0 the paper's S, channel 1 intraventricular blood.
    stage_logits: logits (B, K, H, W) of each stage at full size, finest first; stage 0 is `segmentation` (S23, S24).
    feature: F (B, C_F, H / fold, W / fold). feature_logits: (B, 2, H, W) background and foreground of F (S4).
    valid_masks: logits (B, 1, h, w) of the four interaction modules. outcome: logits (B, 2) good, poor.
    """

    feature: Tensor
    valid_masks: tuple[Tensor, ...]
    segmentation: Tensor | None = None
    stage_logits: tuple[Tensor, ...] = ()
    feature_logits: Tensor | None = None
    outcome: Tensor | None = None


class ICHSCNet(nn.Module):
    """The network of paper 000 with its variants, sized by `ICHSCNetConfig`.

    dense_prompts (off in `base` and `paper`): boxes, points and prior mask are also drawn as channels beside the image
    that the stem reads. SAM's published prompt encoder was trained on a billion masks; one trained from scratch on a
    few thousand steps does not learn to carry a box through a 16 x 16 token grid to every pixel. The towers never see
    these channels, so that their features stay valid when a prompt changes; no prompt is a channel of zeros.
    """

    def __init__(self, cfg: ICHSCNetConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.uses_clip = cfg.interaction in ("sam_clip", "clip")
        self.uses_sam = cfg.interaction in ("sam_clip", "sam")
        self._build_trunk()
        self._build_towers()
        self._build_interactions()
        if cfg.fusion == "mtff":
            self.fusion: MTFF | ConcatFusion = MTFF(
                cfg.widths, cfg.feature_channels, cfg.dilations, cfg.refine_blocks, cfg.norm, cfg.finest_pool
            )
        else:
            self.fusion = ConcatFusion(cfg.widths, cfg.feature_channels, cfg.norm)
        stages = SCALES if cfg.fusion == "mtff" else 1
        self.stage_heads = nn.ModuleList()
        self.feature_head = None
        if cfg.tasks != "cla":
            self.stage_heads.extend(_head(cfg.feature_channels, cfg.num_classes, cfg.fold) for _ in range(stages))
        if cfg.tasks == "both":
            self.feature_head = _head(cfg.feature_channels, 2, cfg.fold)
        late_width = cfg.clip.text_width if cfg.classifier.late_text and self.uses_clip else 0
        self.classifier = (
            OutcomeClassifier(cfg.classifier, cfg.feature_channels, late_width) if cfg.tasks != "seg" else None
        )

    def _build_trunk(self) -> None:
        """Stem and three down-sampling layers: I^0..I^3."""
        cfg = self.cfg
        # Neighbors last: weights trained without them fit when zeros are appended.
        channels = (cfg.image_channels + (PLANES if cfg.dense_prompts else 0)) * cfg.fold**2
        self.stem = ConvBlock(channels, cfg.widths[0], 1, cfg.residual_blocks[0], cfg.norm)
        sources = [cfg.widths[0] if cfg.stem_in_trunk else channels, *cfg.widths[1:3]]
        self.down = nn.ModuleList(
            ConvBlock(source, width, 2, count, cfg.norm)
            for source, width, count in zip(sources, cfg.widths[1:], cfg.residual_blocks[1:])
        )

    def _build_towers(self) -> None:
        """CLIP and SAM, shared by the four scales."""
        cfg = self.cfg
        self.clip_image = ClipImageTower(cfg.clip) if self.uses_clip else None
        self.clip_text = ClipTextTower(cfg.clip) if self.uses_clip else None
        self.no_text = NoText(cfg.clip.text_width) if self.uses_clip else None
        self.sam_image = SamImageTower(cfg.sam) if self.uses_sam else None
        self.prompt_encoder = build_prompt_encoder(cfg.sam) if self.uses_sam else None
        self.to_image = None
        if cfg.per_scale:  # I^1..I^3 as the three channels that the towers read (decision S6)
            self.to_image = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in cfg.widths[1:])

    def _build_interactions(self) -> None:
        """Four modules; one mask decoder for all, or a copy each."""
        cfg = self.cfg
        shared = build_mask_decoder(cfg.sam) if self.uses_sam and cfg.shared_decoder else None
        modules = []
        for width in cfg.widths:
            attention = (
                CrossModalAttention(cfg.clip.vision_width, cfg.clip.text_width, cfg.attention_dim, cfg.attention_heads)
                if self.uses_clip
                else None
            )
            decoder = (shared or build_mask_decoder(cfg.sam)) if self.uses_sam else None
            modules.append(
                SamClipInteraction(
                    attention,
                    decoder,
                    cfg.clip.vision_width,
                    cfg.sam.prompt_dim,
                    None if cfg.per_scale else width,
                    zero_start=cfg.towers == "frozen",
                )
            )
        self.interactions = nn.ModuleList(modules)

    def encode(self, image: Tensor) -> TowerFeatures:
        """Tower features of (B, 3, H, W) slices in [0, 1]; they depend on neither prompts, text nor neighbors."""
        image = image[:, :SLICE_CHANNELS]
        return TowerFeatures(
            self.sam_image(image) if self.sam_image is not None else None,
            self.clip_image(image) if self.clip_image is not None else None,
        )

    def encode_text(self, text_tokens: Tensor | None, batch: int) -> TextFeatures | None:
        """Text features of (B, 77) token ids; None, or a row of zeros, is the learned "no text" token."""
        return encode_text(self.clip_text, self.no_text, text_tokens, batch)

    def forward(
        self,
        image: Tensor,
        prompts: PromptBatch,
        text_tokens: Tensor | None = None,
        features: TowerFeatures | None = None,
        with_outcome: bool = True,
        text: TextFeatures | None = None,
        deep: bool = True,
    ) -> ICHSCNetOutput:
        """image (B, C, H, W): HU windows in [0, 1], three of the slice, then the neighbors'; prompts in its pixels;
        text_tokens (B, 77) or None.

        features, text: what `encode` and `encode_text` returned for these slices, to spare the towers a second look.
        deep: False leaves out what only the losses read, the deeper stages' logits and those of F.
        Raises ValueError where features come with `per_scale`, whose towers depend on trained layers, or where the
        image has other channels.
        """
        if image.shape[1] != self.cfg.image_channels:
            raise ValueError(
                f"The image has {image.shape[1]} channels; this network reads {SLICE_CHANNELS} and "
                f"{self.cfg.neighbor_channels} of the neighbors."
            )
        if features is not None and self.cfg.per_scale:
            raise ValueError("per_scale runs the towers on trained features; they cannot be cached.")
        size = (image.shape[-2], image.shape[-1])
        images = self._scales(image, prompts)
        text = text if text is not None else self.encode_text(text_tokens, image.shape[0])
        masks = self._valid_masks(image, images, prompts, text, features)
        probs = [resize(torch.sigmoid(mask), tuple(scale.shape[-2:])) for mask, scale in zip(masks, images)]
        feature, sums = self.fusion(images, probs)
        heads = self.stage_heads if deep else self.stage_heads[:1]
        stages = tuple(resize(head(item), size) for head, item in zip(heads, sums))
        outcome = None
        if self.classifier is not None and with_outcome:
            outcome = self.classifier(feature, text)
        return ICHSCNetOutput(
            feature=feature,
            valid_masks=masks,
            segmentation=stages[0] if stages else None,
            stage_logits=stages,
            feature_logits=self.feature_head(feature) if deep and self.feature_head is not None else None,
            outcome=outcome,
        )

    def _scales(self, image: Tensor, prompts: PromptBatch) -> list[Tensor]:
        """I^0 at the stem's width, then I^1..I^3: (B, C_k, H / 2^k, W / 2^k), H and W divided by the fold."""
        own, beside = image[:, :SLICE_CHANNELS], image[:, SLICE_CHANNELS:]
        planes = [prompt_planes(prompts, own)] if self.cfg.dense_prompts else []
        source = torch.cat([own, *planes, beside], dim=1)
        if self.cfg.fold > 1:
            source = F.pixel_unshuffle(source, self.cfg.fold)  # (B, C fold^2, H / fold, W / fold)
        scales = [self.stem(source)]
        below = scales[0] if self.cfg.stem_in_trunk else source
        for layer in self.down:
            below = layer(below)
            scales.append(below)
        return scales

    def _valid_masks(
        self,
        image: Tensor,
        images: Sequence[Tensor],
        prompts: PromptBatch,
        text: TextFeatures | None,
        features: TowerFeatures | None,
    ) -> tuple[Tensor, ...]:
        """Logits (B, 1, h, w) of the four interaction modules."""
        sparse = no_mask = image_pe = None
        if self.prompt_encoder is not None:
            sparse = self.prompt_encoder.embed(
                prompts.points,
                prompts.point_labels,
                prompts.boxes,
                prompts.box_valid,
                (image.shape[-2], image.shape[-1]),
            )
            no_mask = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
            image_pe = self.prompt_encoder.get_dense_pe()
        if features is None and not self.cfg.per_scale:
            features = self.encode(image)
        masks = []
        for k, (module, scale) in enumerate(zip(self.interactions, images)):
            seen = features if features is not None else self._encode_scale(image, scale, k)
            masks.append(module(seen.sam, seen.clip, text, scale, sparse, no_mask, image_pe))
        return tuple(masks)

    def _encode_scale(self, image: Tensor, scale: Tensor, k: int) -> TowerFeatures:
        """Tower features of I^k, recomputed in the backward pass rather than kept (decision S8)."""
        if k == 0:
            return self.encode(image)
        seen = self.to_image[k - 1](scale)  # type: ignore[index]
        sam = checkpoint(self.sam_image, seen, use_reentrant=False) if self.sam_image is not None else None
        clip = checkpoint(self.clip_image, seen, use_reentrant=False) if self.clip_image is not None else None
        return TowerFeatures(sam, clip)


def _head(channels: int, classes: int, fold: int) -> nn.Module:
    """1x1 convolution to `classes`, unfolded to the pixels of the blocks."""
    convolution = nn.Conv2d(channels, classes * fold**2, 1)
    return convolution if fold == 1 else nn.Sequential(convolution, nn.PixelShuffle(fold))


#: Bias of the mask heads before training from scratch: most pixels hold no blood.
_HEAD_BIAS = -2.0


def build_ich_scnet(cfg: ICHSCNetConfig) -> ICHSCNet:
    """The network of `cfg` with random weights and the frozen parts frozen."""
    model = ICHSCNet(cfg)
    if cfg.towers == "trained":
        for name, parameter in model.stage_heads.named_parameters():
            if name.endswith("bias"):
                nn.init.constant_(parameter, _HEAD_BIAS)
    apply_training_state(model)
    return model


#: The one place that says what learns: part of the network -> state with published towers (paper, section II-A).
#: "unused" parts exist so that official checkpoints load strictly; token 0 is the only mask decoded (decision S18).
STATES_WITH_FROZEN_TOWERS: dict[str, str] = {
    "clip_image": "frozen",
    "clip_text": "frozen",
    "sam_image": "frozen",
    "prompt_encoder": "frozen",
    "decoder": "fine-tuned",
    "unused": "unused",
    "rest": "trained",
}
_UNUSED = (
    "iou_prediction_head",
    "output_hypernetworks_mlps.1",
    "output_hypernetworks_mlps.2",
    "output_hypernetworks_mlps.3",
    "mask_downscaling",
    "visual.proj",
    "text.text_projection",
)


def part_of(name: str) -> str:
    """Which part of `STATES_WITH_FROZEN_TOWERS` a parameter belongs to."""
    if any(f".{unused}" in f".{name}" for unused in _UNUSED):
        return "unused"
    for part in ("clip_image", "clip_text", "sam_image", "prompt_encoder"):
        if name.startswith(part + "."):
            return part
    return "decoder" if ".decoder." in name else "rest"


def state_of(name: str, cfg: ICHSCNetConfig) -> str:
    """frozen, fine-tuned, trained or unused."""
    state = STATES_WITH_FROZEN_TOWERS[part_of(name)]
    return "trained" if cfg.towers == "trained" and state != "unused" else state


def apply_training_state(model: ICHSCNet) -> None:
    """Set requires_grad of every parameter by `state_of`."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(state_of(name, model.cfg) in ("trained", "fine-tuned"))
