"""ICH-SCNet whole: shapes, variants, who learns, and what a prompt, a text and a cache change."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from ICHAnalysisLib.config.ich_scnet import BASE, COMPACT, PAPER, PREPROCESS, PRESETS, SLICE_CHANNELS, ICHSCNetConfig  # noqa: E402
from ICHAnalysisLib.errors import UsageError  # noqa: E402
from ICHAnalysisLib.networks.ich_scnet import ICHSCNet, build_ich_scnet, part_of, state_of  # noqa: E402
from ICHAnalysisLib.networks.prompt_planes import prompt_planes  # noqa: E402
from ICHAnalysisLib.prompts import PromptBatch  # noqa: E402
from Testing.lib.scnet_sizes import frozen, trained  # noqa: E402

SIZE = 64
VARIANTS = {
    "whole": {},
    "cla": {"tasks": "cla"},
    "seg": {"tasks": "seg"},
    "sam": {"interaction": "sam", "tasks": "seg"},
    "clip": {"interaction": "clip", "tasks": "cla"},
    "concat": {"fusion": "concat"},
    "sam_concat": {"interaction": "sam", "tasks": "seg", "fusion": "concat"},
    "clip_concat": {"interaction": "clip", "tasks": "cla", "fusion": "concat"},
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def text(batch: int) -> torch.Tensor:
    tokens = torch.zeros(batch, 77, dtype=torch.long)
    tokens[:, :3] = torch.tensor([49406, 531, 49407])
    return tokens


def some_prompts(batch: int) -> PromptBatch:
    prompts = PromptBatch.empty(batch)
    prompts.boxes[:, 0] = torch.tensor([10.0, 12.0, 40.0, 30.0])
    prompts.box_valid[:, 0] = True
    prompts.points[:, 0] = torch.tensor([20.0, 20.0])
    prompts.point_labels[:, 0] = 1
    return prompts


def pictures(model: ICHSCNet, batch: int) -> torch.Tensor:
    return torch.rand(batch, model.cfg.image_channels, SIZE, SIZE)


def run(model: ICHSCNet, batch: int = 2, **kwargs: object):
    return model(pictures(model, batch), some_prompts(batch), text(batch), **kwargs)


@pytest.mark.parametrize("cfg", [trained(), frozen(), frozen(per_scale=True)], ids=["compact", "base", "paper"])
def test_shapes(cfg: ICHSCNetConfig) -> None:
    out = run(build_ich_scnet(cfg).eval())
    assert out.segmentation.shape == (2, cfg.num_classes, SIZE, SIZE)
    assert [tuple(stage.shape) for stage in out.stage_logits] == [(2, cfg.num_classes, SIZE, SIZE)] * 4
    assert out.segmentation is out.stage_logits[0]
    assert out.feature.shape == (2, 8, SIZE // cfg.fold, SIZE // cfg.fold)
    assert out.feature_logits.shape == (2, 2, SIZE, SIZE)
    assert [tuple(mask.shape) for mask in out.valid_masks] == [(2, 1, 16, 16)] * 4
    assert out.outcome.shape == (2, 2)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_takes_a_step(name: str) -> None:
    model = build_ich_scnet(trained(**VARIANTS[name]))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    before = {key: value.clone() for key, value in model.named_parameters()}
    out = run(model)
    parts = [t for t in (out.segmentation, out.feature_logits, out.outcome) if t is not None]
    assert (out.segmentation is None) == (model.cfg.tasks == "cla")
    assert (out.outcome is None) == (model.cfg.tasks == "seg")
    sum(part.square().mean() for part in parts).backward()
    optimizer.step()
    changed = [key for key, value in model.named_parameters() if not torch.equal(value, before[key])]
    assert len(changed) > len(before) / 2
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_a_classifier_can_be_skipped() -> None:
    assert run(build_ich_scnet(trained()).eval(), with_outcome=False).outcome is None


@pytest.mark.parametrize("cfg", [trained(), frozen(), frozen(per_scale=True)], ids=["compact", "base", "paper"])
def test_gradients_reach_exactly_what_is_to_learn(cfg: ICHSCNetConfig) -> None:
    model = build_ich_scnet(cfg)
    first, second = run(model), model(pictures(model, 2), PromptBatch.empty(2), None)
    negative = some_prompts(2)
    negative.point_labels[:, 0] = 0
    third = model(pictures(model, 2), negative, text(2))
    loss = sum(stage.square().mean() for out in (first, second, third) for stage in out.stage_logits)
    loss = loss + sum(out.outcome.square().sum() + out.feature_logits.square().mean() for out in (first, second, third))
    loss.backward()
    for name, parameter in model.named_parameters():
        learns = state_of(name, cfg) in ("trained", "fine-tuned")
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None) == learns, name
        if learns:
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_frozen_parts_are_the_paper_s() -> None:
    states = {part_of(name): state_of(name, PAPER) for name, _ in ICHSCNet(frozen(per_scale=True)).named_parameters()}
    assert states == {
        "clip_image": "frozen",
        "clip_text": "frozen",
        "sam_image": "frozen",
        "prompt_encoder": "frozen",
        "decoder": "fine-tuned",
        "unused": "unused",
        "rest": "trained",
    }


def test_features_once_encoded_give_the_same_answer() -> None:
    model = build_ich_scnet(trained()).eval()
    image, prompts = pictures(model, 2), some_prompts(2)
    whole = model(image, prompts, text(2))
    cached = model(image, prompts, features=model.encode(image), text=model.encode_text(text(2), 2))
    assert torch.equal(whole.segmentation, cached.segmentation) and torch.equal(whole.outcome, cached.outcome)


def test_towers_per_scale_cannot_be_cached() -> None:
    model = build_ich_scnet(frozen(per_scale=True)).eval()
    image = pictures(model, 1)
    with pytest.raises(ValueError, match="cannot be cached"):
        model(image, some_prompts(1), features=model.encode(image))


def test_gradients_pass_through_the_frozen_towers_per_scale() -> None:
    model = build_ich_scnet(frozen(per_scale=True))
    out = run(model)
    out.valid_masks[1].sum().backward()
    assert model.to_image[0].weight.grad.abs().sum() > 0
    assert model.sam_image.image_encoder.patch_embed.proj.weight.grad is None


def test_the_answer_does_not_depend_on_the_batch() -> None:
    model = build_ich_scnet(trained()).eval()
    image, prompts, tokens = pictures(model, 3), some_prompts(3), text(3)
    tokens[1] = 0
    prompts.box_valid[2] = False
    together = model(image, prompts, tokens)
    for b in range(3):
        alone = model(image[b : b + 1], prompts.slices(b, b + 1), tokens[b : b + 1])
        assert torch.allclose(alone.segmentation[0], together.segmentation[b], atol=1e-4)
        assert torch.allclose(alone.outcome[0], together.outcome[b], atol=1e-4)


def test_no_text_is_the_same_as_a_row_of_padding() -> None:
    model = build_ich_scnet(trained()).eval()
    image, prompts = pictures(model, 1), PromptBatch.empty(1)
    none = model(image, prompts, None)
    zeros = model(image, prompts, torch.zeros(1, 77, dtype=torch.long))
    assert torch.allclose(none.outcome, zeros.outcome, atol=1e-5)
    assert (model(image, prompts, text(1)).outcome - none.outcome).abs().max() > 1e-6


@pytest.mark.parametrize("cfg", [trained(), frozen()], ids=["compact", "base"])
def test_every_kind_of_prompt_reaches_the_masks(cfg: ICHSCNetConfig) -> None:
    model = build_ich_scnet(cfg).eval()
    image = pictures(model, 1)
    none = model(image, PromptBatch.empty(1)).segmentation
    box, plus, minus = PromptBatch.empty(1), PromptBatch.empty(1), PromptBatch.empty(1)
    box.boxes[0, 0], box.box_valid[0, 0] = torch.tensor([10.0, 12.0, 40.0, 30.0]), True
    for batch, label in ((plus, 1), (minus, 0)):
        batch.points[0, 0], batch.point_labels[0, 0] = torch.tensor([20.0, 20.0]), label
    answers = [none, *(model(image, batch).segmentation for batch in (box, plus, minus))]
    for n, first in enumerate(answers):
        for second in answers[:n]:
            assert (first - second).abs().max() > 1e-6


def test_prompts_as_planes() -> None:
    prompts = PromptBatch.empty(2)
    prompts.boxes[0, 0], prompts.box_valid[0, 0] = torch.tensor([2.0, 4.0, 6.0, 9.0]), True
    prompts.points[0, :2] = torch.tensor([[8.0, 3.0], [1.0, 12.0]])
    prompts.point_labels[0, :2] = torch.tensor([1, 0])
    planes = prompt_planes(replace(prompts, mask=torch.ones(2, 1, 16, 16)), torch.zeros(2, 3, 16, 16))
    assert planes.shape == (2, 4, 16, 16)
    assert (planes[0, 0] == 1).sum() == 5 * 6 and (planes[0, 0] == -1).sum() == 256 - 30
    assert planes[0, 0, 4, 2] == 1 and planes[0, 0, 9, 6] == 1 and planes[0, 0, 3, 2] == -1
    assert planes[0, 1, 3, 8] == 1 and planes[0, 1].argmax() == 3 * 16 + 8
    assert planes[0, 2, 12, 1] == 1 and planes[0, 1, 12, 1] < 1e-2
    assert (planes[1, :3] == 0).all() and (planes[:, 3] == 1).all()


def test_bfloat16_and_channels_last_train() -> None:
    model = build_ich_scnet(trained()).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    image = pictures(model, 2).to(memory_format=torch.channels_last)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(image, some_prompts(2), text(2))
        loss = out.segmentation.float().square().mean() + out.outcome.float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
        optimizer.step()
    assert torch.isfinite(loss)


def test_neighbors_reach_the_masks_and_not_the_towers() -> None:
    model = build_ich_scnet(trained()).eval()
    image = pictures(model, 2)
    other = image.clone()
    other[:, SLICE_CHANNELS:] = torch.rand_like(other[:, SLICE_CHANNELS:])
    prompts = some_prompts(2)
    assert (model(image, prompts).segmentation - model(other, prompts).segmentation).abs().max() > 1e-5
    for before, after in zip((model.encode(image).sam, model.encode(image).clip), vars(model.encode(other)).values()):
        assert torch.equal(before, after)
    with pytest.raises(ValueError, match="3 channels; this network reads 3 and 4"):
        model(image[:, :SLICE_CHANNELS], prompts)


def test_fold_keeps_the_image_size() -> None:
    out = run(build_ich_scnet(trained(fold=1)).eval())
    assert out.segmentation.shape == (2, 2, SIZE, SIZE) and out.feature.shape[-1] == SIZE


def test_presets_differ_as_the_docs_say() -> None:
    assert PAPER.per_scale and not BASE.per_scale and not COMPACT.per_scale
    assert (PAPER.clip.vision_layers, PAPER.clip.patch_size, PAPER.sam.depth) == (24, 14, 32)
    assert PAPER.sam.image_size == 1024 and PAPER.classifier.block_config == (6, 12, 24, 16)
    assert not PAPER.dense_prompts and not BASE.dense_prompts and COMPACT.dense_prompts
    assert not PAPER.classifier.late_text and COMPACT.classifier.late_text  # decision S26
    assert (PAPER.attention_dim, PAPER.attention_heads, PAPER.dilations) == (512, 8, (1, 3, 5, 7))  # S13, S21
    assert (PAPER.clip.vision_width, PAPER.clip.text_width, PAPER.clip.image_size) == (1024, 768, 224)  # S14, S7
    windows = [(window.lower, window.upper) for window in PREPROCESS["paper"].windows]
    assert windows == [(0, 80), (-20, 180), (-100, 300)] and PREPROCESS["paper"].layout == "square"  # S33
    for name, cfg in PRESETS.items():
        assert PREPROCESS[name].channels == cfg.image_channels
        assert bool(cfg.neighbor_channels) == (name == "tiny")


def test_scales_of_the_paper_start_from_the_image() -> None:
    """Decision S6: I^0 is the slice, I^1..I^3 come by stride 2 and go to the towers as three channels."""
    model = build_ich_scnet(frozen(per_scale=True))
    assert model.down[0].conv.in_channels == 3 and [block.conv.stride for block in model.down] == [(2, 2)] * 3
    assert [layer.out_channels for layer in model.to_image] == [3, 3, 3]
    sizes = [tuple(scale.shape[-2:]) for scale in model._scales(pictures(model, 1), PromptBatch.empty(1))]
    assert sizes == [(64, 64), (32, 32), (16, 16), (8, 8)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": (8, 8, 8, 9)}, "divisible by 4"),
        ({"attention_dim": 9}, "heads"),
        ({"num_classes": 3}, "num_classes"),
        ({"per_scale": True, "fold": 1}, "frozen"),
        ({"fold": 0}, "fold"),
        ({"neighbor_channels": -1}, "neighbor_channels"),
    ],
)
def test_impossible_sizes_are_refused(change: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(trained(), **change)
