"""The SAM-CLIP cross-modal interaction module (paper 000, Fig. 1b, Eq. 1 and 2).

B batch, E CLIP image width, T text width, d attention width, g CLIP grid, P SAM channels, G SAM grid, N text tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ICHAnalysisLib.networks.encoders import BatchedMaskDecoder, ClipTextTower, TextFeatures, resize


class CrossModalAttention(nn.Module):
    """Image tokens ask, words answer (Eq. 1): M_clip = Norm(Att(Q, K, V)) + En_img(i)."""

    def __init__(self, image_width: int, text_width: int, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)  # keeps the grid, so that the residual fits (decision S11)
        self.query = nn.Conv2d(image_width, dim, 1)
        self.key = nn.Conv1d(text_width, dim, 1)
        self.value = nn.Conv1d(text_width, dim, 1)
        self.out = nn.Linear(dim, image_width)
        self.norm = nn.LayerNorm(image_width)

    def forward(self, image: Tensor, text: TextFeatures) -> Tensor:
        """image (B, E, g, g) and text tokens (B, N, T) to M_clip (B, E, g, g)."""
        batch, _, height, width = image.shape
        query = self.query(self.pool(image)).flatten(2).transpose(1, 2)  # (B, g*g, d)
        words = text.tokens.transpose(1, 2)  # (B, T, N)
        key, value = self.key(words).transpose(1, 2), self.value(words).transpose(1, 2)  # (B, N, d)
        mask = text.valid[:, None, None, :]  # (B, 1, 1, N): padding answers nothing
        attended = F.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value), attn_mask=mask
        )  # (B, heads, g*g, d / heads)
        attended = attended.transpose(1, 2).flatten(2)  # (B, g*g, d)
        update = self.norm(self.out(attended)).transpose(1, 2).reshape(batch, -1, height, width)
        return update + image

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, d) to (B, heads, N, d / heads)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class SamClipInteraction(nn.Module):
    """One scale's module: clinical words weight the CLIP tokens, SAM's decoder turns them into a valid mask.

    attention, decoder: None where the variant leaves that half out (table II): without a decoder the mask is a 1x1
    convolution of M_clip, without attention the decoder sees the SAM embedding alone.
    scale_channels: channels of I^k where the towers ran once on I^0; a 1x1 convolution of I^k then stands in for the
    encoder's view of it. It starts at zero where the towers are pretrained, so that the decoder first meets the
    embedding it knows. None where the encoder itself runs on I^k.
    """

    def __init__(
        self,
        attention: CrossModalAttention | None,
        decoder: BatchedMaskDecoder | None,
        image_width: int,
        prompt_dim: int,
        scale_channels: int | None,
        zero_start: bool,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.decoder = decoder
        self.mix: nn.Conv2d | None = None
        self.scale: nn.Conv2d | None = None
        self.head = nn.Conv2d(image_width, 1, 1) if decoder is None else None
        if decoder is not None and attention is not None:
            self.mix = nn.Conv2d(image_width, prompt_dim, 1)  # Conv(M_clip) of Eq. 2
        if decoder is not None and scale_channels is not None:
            self.scale = nn.Conv2d(scale_channels, prompt_dim, 1)
            if zero_start:
                nn.init.zeros_(self.scale.weight)
                nn.init.zeros_(self.scale.bias)  # type: ignore[arg-type]

    def forward(
        self,
        sam: Tensor | None,
        clip: Tensor | None,
        text: TextFeatures | None,
        scale_image: Tensor,
        sparse: Tensor | None,
        no_mask: Tensor | None,
        image_pe: Tensor | None,
    ) -> Tensor:
        """Valid-mask logits (B, 1, h, w): (4G, 4G) from the decoder, (g, g) from CLIP alone.

        sam (B, P, G, G), clip (B, E, g, g), scale_image I^k (B, C_k, H_k, W_k), sparse (B, N, P),
        no_mask (1, P, 1, 1) SAM's "no mask" embedding, image_pe (1, P, G, G).
        """
        rough = self.attention(clip, text) if self.attention is not None else None
        if self.decoder is None:
            return self.head(rough)  # type: ignore[misc]
        embedding: Tensor = sam  # type: ignore[assignment]
        if self.mix is not None:
            embedding = embedding + resize(self.mix(rough), embedding.shape[-2:])
        if self.scale is not None:
            pooled = F.adaptive_avg_pool2d(scale_image, (embedding.shape[-2], embedding.shape[-1]))
            embedding = embedding + self.scale(pooled)
        return self.decoder.decode(embedding, image_pe, sparse, no_mask)  # type: ignore[arg-type]


class NoText(nn.Module):
    """A learned token that stands where a sample has no text at all."""

    def __init__(self, text_width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(text_width))
        nn.init.normal_(self.token, std=0.02)

    def forward(self, text: TextFeatures | None, batch: int) -> TextFeatures:
        """Text features with the token in position 0 of every sample that has no word; (batch, 1, T) for None."""
        if text is None:
            tokens = self.token.expand(batch, 1, -1)
            return TextFeatures(tokens, torch.ones(batch, 1, dtype=torch.bool, device=tokens.device))
        empty = ~text.valid.any(dim=1)  # (B,)
        first = torch.zeros_like(text.valid)
        first[:, 0] = empty
        tokens = torch.where(first.unsqueeze(-1), self.token.to(text.tokens.dtype), text.tokens)
        return TextFeatures(tokens, text.valid | first)


def encode_text(
    tower: ClipTextTower | None, no_text: NoText | None, text_tokens: Tensor | None, batch: int
) -> TextFeatures | None:
    """Text features of (B, 77) token ids, the token of `no_text` where there is no word; None without a text tower."""
    if tower is None or no_text is None:
        return None
    return no_text(None if text_tokens is None else tower(text_tokens), batch)
