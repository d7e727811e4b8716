"""The CLIP and SAM towers of ICH-SCNet, from open_clip's and segment-anything's own classes (paper 000, Fig. 1b).

B batch, E CLIP image width, T CLIP text width, P SAM prompt channels, N tokens, G SAM grid, g CLIP grid.
Parameter names are the published ones, so official checkpoints load strictly; see `tower_checkpoints`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.config.ich_scnet import ClipConfig, SamConfig
from ICHAnalysisLib.quick_imports import compiler_put_off

with compiler_put_off():
    from open_clip.transformer import QuickGELU, TextTransformer, VisionTransformer
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer

TOKENIZER_SIZE = 49408  # ids of open_clip's SimpleTokenizer
PAD_ID = 0


@dataclass(frozen=True)
class TowerFeatures:
    """What the image towers say about I^0, cacheable: sam (B, P, G, G) and clip (B, E, g, g); None where not built."""

    sam: Tensor | None
    clip: Tensor | None


@dataclass(frozen=True)
class TextFeatures:
    """Text tokens (B, N, T) and which of them are words, (B, N) bool."""

    tokens: Tensor
    valid: Tensor


class ClipImageTower(nn.Module):
    """CLIP's vision transformer: last hidden states without the class token (decision S14)."""

    mean: Tensor
    std: Tensor

    def __init__(self, cfg: ClipConfig) -> None:
        super().__init__()
        self.visual = VisionTransformer(
            image_size=cfg.image_size,
            patch_size=cfg.patch_size,
            width=cfg.vision_width,
            layers=cfg.vision_layers,
            heads=cfg.vision_heads,
            mlp_ratio=4.0,
            output_dim=cfg.embed_dim,
            act_layer=QuickGELU if cfg.quick_gelu else nn.GELU,
        )
        self.image_size = cfg.image_size
        _register_normalization(self, cfg.mean, cfg.std)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, E, g, g)."""
        resized = resize(image, self.image_size)
        out = self.visual.forward_intermediates(
            (resized - self.mean) / self.std, indices=1, normalize_intermediates=True, intermediates_only=True
        )
        return out["image_intermediates"][-1]


class ClipTextTower(nn.Module):
    """CLIP's text transformer: last hidden states of every token (decision S14).

    With a vocabulary of its own, tokenizer ids are mapped to rows 2, 3, ... in its order; row 0 is padding and row 1
    "unknown", which every other id falls on. Rows of ids that are all padding (no text) yield no valid token.
    """

    row_of_id: Tensor

    def __init__(self, cfg: ClipConfig) -> None:
        super().__init__()
        rows = TOKENIZER_SIZE if cfg.vocabulary is None else len(cfg.vocabulary) + 2
        self.text = TextTransformer(
            context_length=cfg.context_length,
            vocab_size=rows,
            width=cfg.text_width,
            heads=cfg.text_heads,
            layers=cfg.text_layers,
            output_dim=cfg.embed_dim,
            act_layer=QuickGELU if cfg.quick_gelu else nn.GELU,
        )
        row_of_id = torch.arange(TOKENIZER_SIZE)
        if cfg.vocabulary is not None:
            row_of_id = torch.ones(TOKENIZER_SIZE, dtype=torch.long)
            row_of_id[PAD_ID] = 0
            row_of_id[torch.tensor(cfg.vocabulary)] = torch.arange(len(cfg.vocabulary)) + 2
        self.register_buffer("row_of_id", row_of_id, persistent=False)

    def forward(self, text_tokens: Tensor) -> TextFeatures:
        """(B, 77) tokenizer ids padded with 0 to hidden states. The causal mask keeps padding out of the words."""
        rows = self.row_of_id[text_tokens]
        out = self.text.forward_intermediates(
            rows, indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NLC"
        )
        return TextFeatures(out["text_intermediates"][-1], text_tokens != PAD_ID)


class SamImageTower(nn.Module):
    """SAM's image encoder: (B, 3, H, W) in [0, 1] to (B, P, G, G)."""

    mean: Tensor
    std: Tensor

    def __init__(self, cfg: SamConfig) -> None:
        super().__init__()
        self.image_encoder = ImageEncoderViT(
            img_size=cfg.image_size,
            patch_size=cfg.patch_size,
            embed_dim=cfg.embed_dim,
            depth=cfg.depth,
            num_heads=cfg.heads,
            out_chans=cfg.prompt_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=cfg.relative_positions,
            window_size=cfg.window_size,
            global_attn_indexes=cfg.global_attention,
        )
        self.image_size = cfg.image_size
        _register_normalization(self, cfg.mean, cfg.std)

    def forward(self, image: Tensor) -> Tensor:
        return self.image_encoder((resize(image, self.image_size) - self.mean) / self.std)


class BatchedPromptEncoder(PromptEncoder):
    """SAM's prompt encoder for one set of padded points and boxes per image; names as in the official weights."""

    def embed(
        self, points: Tensor, point_labels: Tensor, boxes: Tensor, box_valid: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Sparse embeddings (B, Np + 2 Nb, P).

        points (B, Np, 2) x, y and boxes (B, Nb, 4) x0, y0, x1, y1 in pixels of the (height, width) `size`, pixel
        centers at whole numbers; point_labels (B, Np) 1, 0, or -1 for padding; box_valid (B, Nb).
        Padding becomes SAM's "not a point" token.
        """
        corners = boxes.reshape(boxes.shape[0], -1, 2)  # (B, 2 Nb, 2): upper left, lower right, ...
        coords = torch.cat([points, corners], dim=1).float() + 0.5  # SAM: shift to pixel centers
        with torch.autocast(coords.device.type, enabled=False):  # bfloat16 cannot tell neighboring pixels apart
            encoded = self.pe_layer.forward_with_coords(coords, size)  # (B, N, P)
        kinds = self._kinds(point_labels, box_valid)  # (B, N)
        table = torch.stack([e.weight[0] for e in (*self.point_embeddings, self.not_a_point_embed)])  # (5, P)
        real = (kinds != 4).unsqueeze(-1)
        return torch.where(real, encoded, 0.0) + table[kinds]

    def _kinds(self, point_labels: Tensor, box_valid: Tensor) -> Tensor:
        """(B, Np + 2 Nb) row of the embedding table: 0 negative, 1 positive, 2 and 3 box corners, 4 not a point."""
        point_kinds = torch.where(point_labels < 0, 4, point_labels)
        corner = torch.tensor([2, 3], device=box_valid.device).repeat(box_valid.shape[1])
        box_kinds = torch.where(box_valid.bool().repeat_interleave(2, dim=1), corner, 4)
        return torch.cat([point_kinds, box_kinds], dim=1).long()


class BatchedMaskDecoder(MaskDecoder):
    """SAM's mask decoder for a batch of images with one set of prompts each; names as in the official weights.

    segment-anything's own `predict_masks` repeats one image embedding once per prompt set. Here row b of the prompts
    belongs to image b. Only token 0, the single-mask output, is decoded (decision S18).
    """

    def decode(self, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
        """Mask logits (B, 1, 4G, 4G) of image_embeddings (B, P, G, G), image_pe (1, P, G, G), sparse (B, N, P),
        dense (B or 1, P, G, G)."""
        batch, channels, height, width = image_embeddings.shape
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight], dim=0)
        tokens = torch.cat([output_tokens.expand(batch, -1, -1), sparse], dim=1)  # (B, 1 + masks + N, P)
        source = image_embeddings + dense
        hidden, source = self.transformer(source, image_pe.expand(batch, -1, -1, -1), tokens)
        source = source.transpose(1, 2).reshape(batch, channels, height, width)
        upscaled = self.output_upscaling(source)  # (B, P/8, 4G, 4G)
        weights = self.output_hypernetworks_mlps[0](hidden[:, 1])  # (B, P/8)
        return torch.einsum("bc,bchw->bhw", weights, upscaled).unsqueeze(1)


def build_prompt_encoder(cfg: SamConfig) -> BatchedPromptEncoder:
    """The prompt encoder of a SAM of these sizes."""
    return BatchedPromptEncoder(
        embed_dim=cfg.prompt_dim,
        image_embedding_size=(cfg.grid, cfg.grid),
        input_image_size=(cfg.image_size, cfg.image_size),
        mask_in_chans=cfg.mask_channels,
    )


def build_mask_decoder(cfg: SamConfig) -> BatchedMaskDecoder:
    """The mask decoder of a SAM of these sizes."""
    return BatchedMaskDecoder(
        transformer_dim=cfg.prompt_dim,
        transformer=TwoWayTransformer(
            depth=cfg.decoder_depth,
            embedding_dim=cfg.prompt_dim,
            num_heads=cfg.decoder_heads,
            mlp_dim=cfg.decoder_mlp_dim,
        ),
        num_multimask_outputs=cfg.multimask_outputs,
        iou_head_hidden_dim=cfg.iou_hidden_dim,
    )


def resize(image: Tensor, size: int | Sequence[int]) -> Tensor:
    """Bilinear, align_corners False (decision S7); the same tensor where the size already fits."""
    target = (size, size) if isinstance(size, int) else tuple(size)
    if tuple(image.shape[-2:]) == target:
        return image
    return F.interpolate(image, size=target, mode="bilinear", align_corners=False)


def _register_normalization(module: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Normalization lives with the tower but not in its weights."""
    module.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
    module.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
