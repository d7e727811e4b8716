"""The interaction module: Eq. 1 by hand, its gradients, padding and missing text."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402, N812

from ICHAnalysisLib.networks.encoders import TextFeatures, build_mask_decoder  # noqa: E402
from ICHAnalysisLib.networks.sam_clip import CrossModalAttention, NoText, SamClipInteraction  # noqa: E402
from Testing.lib.scnet_sizes import SAM  # noqa: E402


def words(valid: list[int], width: int = 6, dtype: torch.dtype = torch.float32) -> TextFeatures:
    """Four random words a sample, of which the first `valid` are real."""
    mask = torch.tensor([[n < count for n in range(4)] for count in valid])
    return TextFeatures(torch.randn(len(valid), 4, width, dtype=dtype), mask)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_equation_1_with_one_head_by_hand() -> None:
    module = CrossModalAttention(8, 6, 8, 1)
    image, text = torch.randn(1, 8, 3, 3), words([4])
    tokens = module.pool(image).flatten(2)[0].T  # (9, 8)
    query = tokens @ module.query.weight[:, :, 0, 0].T + module.query.bias
    key = text.tokens[0] @ module.key.weight[:, :, 0].T + module.key.bias
    value = text.tokens[0] @ module.value.weight[:, :, 0].T + module.value.bias
    attended = torch.softmax(query @ key.T / 8**0.5, dim=1) @ value
    update = module.norm(module.out(attended))
    expected = update.T.reshape(1, 8, 3, 3) + image
    assert torch.allclose(module(image, text), expected, atol=1e-5)


def test_padding_says_nothing() -> None:
    module = CrossModalAttention(8, 6, 8, 2)
    image, text = torch.randn(1, 8, 3, 3), words([2])
    other = TextFeatures(text.tokens.clone(), text.valid)
    other.tokens[:, 2:] += 100
    assert torch.allclose(module(image, text), module(image, other), atol=1e-6)


def test_pooling_keeps_the_grid_and_takes_the_neighborhood_s_maximum() -> None:
    module = CrossModalAttention(1, 6, 2, 1)
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 1
    assert module.pool(image).sum() == 9


def test_numerical_gradients() -> None:
    module = CrossModalAttention(4, 6, 4, 2).double()
    image = torch.randn(2, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    text = words([3, 4], dtype=torch.float64)
    tokens = text.tokens.requires_grad_()
    parameters = tuple(module.parameters())

    def run(image_: torch.Tensor, tokens_: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return module(image_, TextFeatures(tokens_, text.valid))

    assert torch.autograd.gradcheck(run, (image, tokens, *parameters), atol=1e-6)


def interaction(scale_channels: int | None, zero_start: bool = False) -> SamClipInteraction:
    attention = CrossModalAttention(8, 6, 8, 2)
    return SamClipInteraction(attention, build_mask_decoder(SAM).eval(), 8, SAM.prompt_dim, scale_channels, zero_start)


def test_equation_2_by_its_parts() -> None:
    """Decision S10: the decoder sees SAM's embedding of I^k and, added to it, a convolution of M_clip at its size."""
    module, text = interaction(3), words([4])
    sam, clip, scale = torch.randn(1, 16, 4, 4), torch.randn(1, 8, 3, 3), torch.randn(1, 3, 8, 8)
    sparse, no_mask, pe = torch.randn(1, 5, 16), torch.randn(1, 16, 1, 1), torch.randn(1, 16, 4, 4)
    found = module(sam, clip, text, scale, sparse, no_mask, pe)
    rough = F.interpolate(module.mix(module.attention(clip, text)), size=(4, 4), mode="bilinear", align_corners=False)
    embedding = sam + rough + module.scale(F.avg_pool2d(scale, 2))
    assert torch.allclose(found, module.decoder.decode(embedding, pe, sparse, no_mask), atol=1e-5)


def test_a_pretrained_decoder_first_meets_the_embedding_it_knows() -> None:
    """Where the towers run once, the stand-in for the encoder's view of I^k starts at zero."""
    module, text = interaction(3, zero_start=True), words([4])
    sam, clip = torch.randn(1, 16, 4, 4), torch.randn(1, 8, 3, 3)
    rest = (torch.randn(1, 5, 16), torch.randn(1, 16, 1, 1), torch.randn(1, 16, 4, 4))
    first, second = (module(sam, clip, text, torch.randn(1, 3, 8, 8), *rest) for _ in range(2))
    assert torch.equal(first, second)
    assert interaction(None).scale is None


def test_missing_text_is_a_learned_token() -> None:
    module = NoText(6)
    alone = module(None, 3)
    assert alone.tokens.shape == (3, 1, 6) and alone.valid.all()
    text = words([2, 0])
    mixed = module(text, 2)
    assert torch.equal(mixed.tokens[0], text.tokens[0])
    assert torch.equal(mixed.tokens[1, 0], module.token)
    assert mixed.valid.tolist() == [[True, True, False, False], [True, False, False, False]]
