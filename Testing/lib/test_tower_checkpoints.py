"""Checkpoints in the official layouts load strictly; what does not fit is named; programs are refused."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from dataclasses import replace  # noqa: E402
from functools import partial  # noqa: E402

from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from segment_anything.modeling import (  # noqa: E402
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from ICHAnalysisLib.config.ich_scnet import BASE, PAPER  # noqa: E402
from ICHAnalysisLib.errors import WeightsError  # noqa: E402
from ICHAnalysisLib.networks.ich_scnet import ICHSCNet, build_ich_scnet  # noqa: E402
from ICHAnalysisLib.networks.tower_checkpoints import (  # noqa: E402
    load_clip_checkpoint,
    load_densenet_checkpoint,
    load_sam_checkpoint,
)
from ICHAnalysisLib.prompts import PromptBatch  # noqa: E402
from Testing.lib.scnet_sizes import CLASSIFIER, SAM, frozen  # noqa: E402
from Testing.lib.scnet_sizes import CLIP as CLIP_SIZES  # noqa: E402


def official_clip(width: int = 16) -> CLIP:
    """A CLIP of open_clip with the test's sizes."""
    vision = CLIPVisionCfg(layers=1, width=width, head_width=8, patch_size=8, image_size=32)
    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=8, heads=2, layers=1)
    return CLIP(8, vision, text, quick_gelu=True)


def official_sam() -> Sam:
    """A SAM of segment-anything with the test's sizes, put together as its build file does."""
    encoder = ImageEncoderViT(
        depth=1, embed_dim=16, img_size=64, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), num_heads=2,
        use_rel_pos=False, global_attn_indexes=(0,), window_size=0, out_chans=16,
    )  # fmt: skip
    decoder = MaskDecoder(
        transformer_dim=16,
        transformer=TwoWayTransformer(depth=2, embedding_dim=16, mlp_dim=16, num_heads=2),
        iou_head_hidden_dim=8,
    )
    return Sam(encoder, PromptEncoder(16, (4, 4), (64, 64), 4), decoder)


def network() -> ICHSCNet:
    return build_ich_scnet(frozen(clip=replace(CLIP_SIZES, vocabulary=None), sam=SAM)).eval()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_open_clip_checkpoint_gives_open_clip_s_answers(tmp_path: Path, suffix: str) -> None:
    theirs, path = official_clip().eval(), tmp_path / f"clip{suffix}"
    state = {key: value.clone() for key, value in theirs.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    model = network()
    loaded = load_clip_checkpoint(model, path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and loaded.file == path.name
    image = torch.rand(1, 3, 32, 32)
    ours = model.clip_image
    expected = theirs.encode_image((image - ours.mean) / ours.std)
    assert torch.allclose(ours.visual((image - ours.mean) / ours.std), expected, atol=1e-5)
    tokens = torch.zeros(1, 77, dtype=torch.long)
    tokens[0, :3] = torch.tensor([49406, 531, 49407])
    assert torch.allclose(model.clip_text.text(tokens), theirs.encode_text(tokens), atol=1e-5)


def test_sam_checkpoint_fills_every_decoder(tmp_path: Path) -> None:
    theirs, path = official_sam().eval(), tmp_path / "sam.pth"
    torch.save(theirs.state_dict(), path)
    model = network()
    load_sam_checkpoint(model, path)
    image = torch.rand(1, 3, 64, 64)
    tower = model.sam_image
    assert torch.allclose(tower(image), theirs.image_encoder((image - tower.mean) / tower.std), atol=1e-5)
    for module in model.interactions:
        for key, value in theirs.mask_decoder.state_dict().items():
            assert torch.equal(module.decoder.state_dict()[key], value)


def test_data_parallel_s_prefix_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    torch.save({f"module.{key}": value for key, value in official_clip().state_dict().items()}, path)
    load_clip_checkpoint(network(), path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("visual.ln_post.bias"), "missing: ln_post.bias"),
        (lambda s: s.update({"visual.new": torch.zeros(1)}), "not expected: new"),
        (lambda s: s.update({"visual.proj": torch.zeros(3, 8)}), r"proj \(3, 8\) instead of \(16, 8\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change, words: str) -> None:
    path, state = tmp_path / "clip.pt", dict(official_clip().state_dict())
    change(state)
    torch.save(state, path)
    with pytest.raises(WeightsError, match=words):
        load_clip_checkpoint(network(), path)


def test_weights_of_another_size_or_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    torch.save(official_clip(width=24).state_dict(), path)
    with pytest.raises(WeightsError, match="CLIP image encoder of this preset; of another shape"):
        load_clip_checkpoint(network(), path)
    with pytest.raises(WeightsError, match="not a checkpoint of segment-anything"):
        load_sam_checkpoint(network(), path)
    torch.save(official_sam().state_dict(), path)
    with pytest.raises(WeightsError, match="not a CLIP checkpoint"):
        load_clip_checkpoint(network(), path)


def test_a_program_is_refused_with_the_conversion(tmp_path: Path) -> None:
    path = tmp_path / "ViT-L-14.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(WeightsError, match=r"TorchScript archive.*safetensors.torch.save_file"):
        load_clip_checkpoint(network(), path)


class _Code:
    def __reduce__(self) -> tuple:
        return print, ("run",)


def test_code_in_a_pickle_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "clip.pt"
    torch.save({"visual.proj": _Code()}, path)
    with pytest.raises(WeightsError, match="not a plain state dict"):
        load_clip_checkpoint(network(), path)
    assert capsys.readouterr().out == ""


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load_sam_checkpoint(network(), tmp_path / "none.pth")
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        load_clip_checkpoint(network(), path)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CLIP:
    """A CLIP in open_clip's list of published weights, at a file:// address, with an empty cache."""
    from open_clip import pretrained

    theirs, path = official_clip(), tmp_path / "published.safetensors"
    save_file({key: value.clone() for key, value in theirs.state_dict().items()}, path)
    weights = {"url": path.as_uri(), "hf_hub": "", "quick_gelu": True}
    gone = {**weights, "url": (tmp_path / "gone.pt").as_uri()}
    monkeypatch.setitem(pretrained._PRETRAINED, "ViT-tiny", {"here": weights, "gone": gone})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return theirs


def test_a_tag_of_open_clip_is_fetched_by_open_clip(published: CLIP) -> None:
    model = network()
    loaded = load_clip_checkpoint(model, "open_clip:ViT-tiny/here")
    assert loaded.file == "open_clip:ViT-tiny/here" and len(loaded.sha256) == 64
    for key, value in published.visual.state_dict().items():
        assert torch.equal(model.clip_image.visual.state_dict()[key], value)


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("open_clip:ViT-tiny/there", "tags here, gone; write open_clip:MODEL/TAG"),
        ("open_clip:ViT-nothing/here", "no model of that name"),
        ("open_clip:ViT-tiny", "open_clip has tags"),
        ("open_clip:ViT-tiny/gone", "could not be fetched .*give its path"),
    ],
)
def test_a_tag_that_gives_nothing_says_what_to_do(published: CLIP, tag: str, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        load_clip_checkpoint(network(), tag)


def test_a_tag_of_the_other_activation_is_refused(published: CLIP) -> None:
    sizes = replace(CLIP_SIZES, vocabulary=None, quick_gelu=False)
    with pytest.raises(WeightsError, match=r"trained with QuickGELU.*quick_gelu=true"):
        load_clip_checkpoint(build_ich_scnet(frozen(clip=sizes)), "open_clip:ViT-tiny/here")


def test_the_presets_fit_what_open_clip_publishes_for_them() -> None:
    """The activation of OpenAI's weights by open_clip's own list."""
    from open_clip import pretrained

    for name, preset in (("ViT-B-16", BASE), ("ViT-L-14", PAPER)):
        facts = pretrained.get_pretrained_cfg(name, "openai")
        assert facts["quick_gelu"] is preset.clip.quick_gelu is True


@pytest.mark.parametrize("old_names", [False, True])
def test_densenet_takes_torchvision_s_file(tmp_path: Path, old_names: bool) -> None:
    """Its published files say "norm.1" for "norm1" and lack the counters of batch norm."""
    from torchvision.models import DenseNet

    theirs, path = DenseNet(4, (1, 1), 4, 2), tmp_path / "densenet.pth"
    state = theirs.state_dict()
    if old_names:
        state = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
            for key, value in state.items()
            if "num_batches" not in key
        }
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, path)
    model = build_ich_scnet(frozen(classifier=replace(CLASSIFIER, rgb_stem=True))).eval()
    assert load_densenet_checkpoint(model, path).tower == "densenet"
    image = torch.rand(1, 3, 64, 64)
    assert torch.allclose(model.classifier.features(image), theirs.eval().features(image), atol=1e-6)
    assert model(torch.rand(1, 3, 64, 64), PromptBatch.empty(1)).outcome.shape == (1, 2)
    with pytest.raises(WeightsError, match="rgb_stem"):
        load_densenet_checkpoint(network(), path)


def test_a_variant_without_a_tower_says_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no SAM"):
        load_sam_checkpoint(build_ich_scnet(frozen(interaction="clip")), tmp_path / "x.pth")
