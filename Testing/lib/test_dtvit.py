"""DTViT: shapes, gradients, published weights, and what its configuration refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from ICHAnalysisLib.config.base import from_dict, to_dict
from ICHAnalysisLib.config.dtvit import PREPROCESS, PRESETS, DTViTConfig
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.networks.dtvit import build_dtvit, encoder_state_dict
from ICHAnalysisLib.preprocess import make_stack

SMALL = DTViTConfig(img_size=64, embed_dim=24, depth=2, num_heads=3, decoder_dim=16)


@pytest.mark.parametrize(
    "cfg",
    [
        SMALL,
        PRESETS["tiny"],
        replace(SMALL, patch_head=True),
        replace(SMALL, normalize="imagenet"),
        DTViTConfig(encoder="resnet18", img_size=64, decoder_dim=16),
        DTViTConfig(encoder="alexnet", img_size=64, decoder_dim=16, in_chans=2),
    ],
)
def test_shapes_and_a_gradient_for_every_parameter(cfg: DTViTConfig) -> None:
    torch.manual_seed(0)
    network = build_dtvit(cfg)
    output = network(torch.rand(3, cfg.in_chans, cfg.img_size, cfg.img_size))
    assert output["presence_logits"].shape == (3,)
    assert output["location_logits"].shape == (3, 3)
    assert ("patch_logits" in output) == cfg.patch_head
    if cfg.patch_head:
        assert output["patch_logits"].shape == (3, cfg.img_size // 16, cfg.img_size // 16)
    sum(value.square().sum() for value in output.values()).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(torch.isfinite(value).all() for value in output.values())


def test_compact_answers_under_bf16_and_channels_last_as_in_fp32() -> None:
    torch.manual_seed(0)
    network = build_dtvit(PRESETS["tiny"]).eval().to(memory_format=torch.channels_last)
    image = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            fast = network(image)
    for key in exact:
        assert fast[key].dtype == torch.float32
        assert torch.allclose(fast[key], exact[key], atol=0.1)


def test_compact_is_small() -> None:
    count = sum(parameter.numel() for parameter in build_dtvit(PRESETS["compact"]).parameters())
    assert count < 1.2e6


def test_paper_preset_is_vit_b16_with_two_small_decoders() -> None:
    cfg = PRESETS["paper"]
    assert (cfg.img_size, cfg.patch_size, cfg.embed_dim, cfg.depth, cfg.num_heads) == (224, 16, 768, 12, 12)
    with torch.device("meta"):
        network = build_dtvit(cfg)
    encoder = sum(parameter.numel() for parameter in network.encoder.parameters())
    assert encoder == 85_798_656  # ViT-B/16 without its head
    assert [type(layer).__name__ for layer in network.presence_decoder] == [
        "LayerNorm", "Linear", "GELU", "Dropout", "Linear",
    ]  # decision V10  # fmt: skip
    assert network.location_decoder[1].weight.shape == (256, 768) and network.location_decoder[3].p == 0.1
    assert (network.presence_decoder[4].out_features, network.location_decoder[4].out_features) == (1, 3)
    assert PREPROCESS["paper"].windows[0] == PREPROCESS["paper"].windows[2]


def test_a_timm_checkpoint_gives_the_same_features() -> None:
    torch.manual_seed(1)
    theirs = VisionTransformer(
        img_size=64, patch_size=16, embed_dim=24, depth=2, num_heads=3, num_classes=10
    ).eval()  # fmt: skip
    ours = build_dtvit(SMALL).eval()
    ours.encoder.load_state_dict(encoder_state_dict(theirs.state_dict(), SMALL), strict=True)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours.encoder.forward_features(image), theirs.forward_features(image), atol=1e-6)


def test_a_torchvision_checkpoint_gives_the_same_features() -> None:
    torch.manual_seed(2)
    theirs = TorchvisionViT(64, 16, 2, 3, 24, 96, num_classes=10).eval()
    torch.nn.init.normal_(theirs.class_token)
    ours = build_dtvit(SMALL).eval()
    ours.encoder.load_state_dict(encoder_state_dict(theirs.state_dict(), SMALL), strict=True)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        tokens = theirs._process_input(image)
        expected = theirs.encoder(torch.cat([theirs.class_token.expand(2, -1, -1), tokens], dim=1))
        assert torch.allclose(ours.encoder.forward_features(image), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "alexnet"])
def test_a_torchvision_checkpoint_of_a_comparator_gives_the_same_features(name: str) -> None:
    torch.manual_seed(3)
    theirs = getattr(models, name)().eval()
    cfg = DTViTConfig(encoder=name, img_size=64, decoder_dim=16)
    ours = build_dtvit(cfg).eval()
    ours.encoder.load_state_dict(encoder_state_dict(theirs.state_dict(), cfg), strict=True)
    image, seen = torch.rand(1, 3, 64, 64), []
    last = theirs.layer4 if name == "resnet18" else theirs.features
    last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        theirs(image)
        assert torch.allclose(ours.encoder(image), seen[0], atol=1e-5)


def test_weights_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError, match="no vision transformer"):
        encoder_state_dict({"conv1.weight": torch.zeros(1)}, SMALL)


def test_the_paper_s_input_is_the_head_s_box() -> None:
    """Decision V12: 224 pixels hold the whole head, whatever its size, one window three times."""
    for name, cfg in PREPROCESS.items():
        assert (cfg.layout == "square") == name.startswith("paper")
    head = np.zeros((90, 70))
    head[10:80, 20:50] = 40.0  # 70 x 30 mm
    volume = CTVolume.from_affine(np.repeat(np.where(head > 0, head, -1000)[None], 3, 0), np.diag([-1.0, -1, 5, 1]))
    stack = make_stack(volume, replace(PREPROCESS["paper"], remove_holder=False))
    assert stack.spacing_mm == pytest.approx((70 / 224, 70 / 224))
    rows, columns = (np.flatnonzero((stack.hu[1] > 0).any(axis=axis)) for axis in (1, 0))
    assert rows[0] <= 2 and rows[-1] >= 221 and len(columns) == pytest.approx(30 / 70 * 224, abs=5)


def test_position_embeddings_of_another_size_are_resized() -> None:
    state = VisionTransformer(img_size=96, patch_size=16, embed_dim=24, depth=2, num_heads=3).state_dict()
    fitted = encoder_state_dict(state, SMALL)
    assert fitted["pos_embed"].shape == (1, 17, 24)
    assert torch.equal(fitted["pos_embed"][:, 0], state["pos_embed"][:, 0])


def test_blood_like_patches_raise_presence_and_decide_the_location() -> None:
    torch.manual_seed(0)
    network = build_dtvit(PRESETS["tiny"]).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = network(image)["presence_logits"]
        network.patch_head.bias += 2.0
        after = network(image)["presence_logits"]
    assert float(after - before) == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"img_size": 250},
        {"embed_dim": 100},
        {"pool": "evidence"},
        {"stem": "conv", "patch_size": 8},
        {"encoder": "vgg16", "patch_head": True},
        {"normalize": "imagenet", "in_chans": 1},
        {"top_k": 0},
    ],
)
def test_wrong_configurations_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        DTViTConfig(**wrong)


def test_every_preset_survives_json() -> None:
    for name, cfg in PRESETS.items():
        assert from_dict(DTViTConfig, to_dict(cfg)) == cfg
        assert PREPROCESS[name].size == cfg.img_size
        assert len(PREPROCESS[name].windows) == cfg.in_chans
