"""ICH-SCNet's task on a tiny cache: every variant trains, rows become scans, nothing leaks between splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cached_heads import make_cache
from segment_anything.modeling import PromptEncoder

from ICHAnalysisLib.config.ich_scnet import COMPACT, PREPROCESS, PRESETS
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.networks.ich_scnet import build_ich_scnet
from ICHAnalysisLib.prompts import PromptBatch, SlicePrompts
from ICHAnalysisLib.weights.registry import load_weights, weights_path
from Training.comparators import COMPARATORS
from Training.config import config_from_dict, load_config
from Training.data.cache import CacheCase
from Training.distributed import start_world
from Training.run import build_run
from Training.tasks.base import build_task, total_loss
from Training.tasks.ich_scnet import ICHSCNetTask, case_surfaces, packed_masks
from Training.tasks.slice_inputs import oracle_prompts

VARIANTS = ("compact", "compact_cla", "compact_seg", "compact_sam", "compact_clip", "compact_concat")


def make_task(network: dict | None = None, **options: object) -> ICHSCNetTask:
    task = {"name": "ich_scnet", "preset": "tiny", "network": network or {}, "options": {"augment": None, **options}}
    return build_task(config_from_dict({"task": task}))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[CacheCase]:
    return make_cache(tmp_path_factory.mktemp("cache"), 4)


def batch_of(task: ICHSCNetTask, cases: list[CacheCase], split: str) -> dict:
    data = task.build_dataset(cases, split)
    return task.collate([data[n] for n in range(1, 11)])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_row_of_the_tables_takes_a_step_and_is_judged(name: str, cases: list[CacheCase]) -> None:
    task = make_task(load_config(f"ich_scnet/{name}").task.network)
    task.fit_to_training_fold(cases)
    model = task.build_model()
    losses = task.losses(model, batch_of(task, cases, "train"), 1)
    expected = {"both": {"segmentation_loss", "outcome_loss", "mta_loss"}, "cla": {"outcome_loss"}}
    assert set(losses) == expected.get(task.network.tasks, {"segmentation_loss"})
    total_loss(losses).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(torch.isfinite(g).all() for g in grads)
    with torch.inference_mode():
        rows = task.predict(model.eval(), batch_of(task, cases, "val"))
    assert np.isfinite(task.metrics(rows)["score"]) or task.network.tasks == "cla"


@pytest.mark.parametrize("name", list(COMPARATORS))
def test_comparators_train_and_are_judged_on_the_same_items(name: str, cases: list[CacheCase]) -> None:
    task = make_task(comparator=name)
    model = task.build_model()
    total_loss(task.losses(model, batch_of(task, cases, "train"), 1)).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with torch.inference_mode():
        metrics = task.metrics(task.predict(model.eval(), batch_of(task, cases, "val")))
    assert ("automatic_ich_dice" in metrics) == (task.network.tasks == "seg")
    with pytest.raises(UsageError, match=name):
        task.export(model)


def test_a_few_steps_learn_the_clot(cases: list[CacheCase]) -> None:
    torch.manual_seed(0)
    task = make_task({"tasks": "seg"}, loss={"alpha": 1.0, "bce_weight": 1.0, "overlap": "batch"})
    model = task.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    batch = batch_of(task, cases, "train")
    costs = []
    for _ in range(40):
        loss = total_loss(task.losses(model, batch, 0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        costs.append(loss.item())
    assert costs[-1] < 0.8 * costs[0]


def test_items_carry_what_the_network_needs(cases: list[CacheCase]) -> None:
    item = make_task().build_dataset(cases, "train")[2]
    assert item["target"].shape == (2, 64, 64) and item["known"].min() == 1
    assert item["boxes"].shape == (COMPACT.max_boxes, 4) and item["points"].shape == (COMPACT.max_points, 2)
    assert item["text"].shape == (77,) and item["voxel_mm"].tolist() == pytest.approx([5.0, 3.6, 3.6])


def test_only_slices_with_a_clot_teach_the_outcome(cases: list[CacheCase]) -> None:
    data = make_task().build_dataset(cases, "val")
    for n in range(6):
        item = data[n]
        assert item["outcome"] == (0 if (item["labels"] == 1).any() else -1)


def test_validation_has_no_prompts_but_an_oracle_box(cases: list[CacheCase]) -> None:
    task = make_task()
    batch = batch_of(task, cases, "val")
    assert not batch["box_valid"].any() and (batch["point_labels"] == -1).all()
    prompts = oracle_prompts(batch)
    bled = (batch["labels"] == 1).flatten(1).any(dim=1)
    assert torch.equal(prompts.box_valid[:, 0], bled) and not prompts.box_valid[:, 1:].any()


@pytest.mark.parametrize(
    ("network", "options", "expected"),
    [
        ({}, {}, False),  # compact draws the mask as a channel
        ({"dense_prompts": False}, {}, True),
        ({}, {"comparator": "sam"}, True),
        ({}, {"comparator": "unet"}, False),
    ],
)
def test_rough_masks_become_boxes_and_points_where_no_network_reads_them(
    network: dict, options: dict, expected: bool, cases: list[CacheCase]
) -> None:
    prompts = {"none": 0.0, "box": 0.0, "point": 0.0, "mask": 1.0, "empty_none": 0.0, "empty_box": 0.0}
    data = make_task(network, prompts=prompts, **options).build_dataset(cases, "train")
    bled = [item for item in (data[n] for n in range(12)) if item["prior"].any()]
    assert bled
    for item in bled:
        assert item["box_valid"].any() == expected
        assert ((item["point_labels"] == 1).sum() > 0) == expected


def test_training_draws_anew_every_epoch_and_visit_and_only_then(cases: list[CacheCase]) -> None:
    data = make_task(prompts={"none": 0.0, "point": 1.0, "empty_none": 0.0}).build_dataset(cases, "train")

    def points(epoch: int, index: int) -> np.ndarray:
        data.set_epoch(epoch)
        return data[index]["points"]

    assert np.array_equal(points(0, 2), points(0, 2))
    different = [points(epoch, 2 + visit * len(data)) for epoch in range(3) for visit in range(3)]
    assert len({item.tobytes() for item in different}) >= 6


def test_slices_become_scans_with_the_rules_as_stated(cases: list[CacheCase]) -> None:
    """Dice of summed counts; outcome the mean logit weighted by predicted area (decision S27)."""
    task = make_task()
    common = {"case_id": "a", "mode": "automatic", "split": "test", "outcome": 1, "voxel_mm": np.ones(3), "side_px": 4}
    none = np.zeros((2, 0), np.uint8)
    rows = [
        {
            **common,
            "slice_index": 0,
            "outcome_logit": 3.0,
            "ich_masks": none,
            **counts("ich", 10, 5, 5),
            **counts("ivh"),
        },
        {
            **common,
            "slice_index": 1,
            "outcome_logit": -1.0,
            "ich_masks": none,
            **counts("ich", 10, 15, 10),
            **counts("ivh"),
        },
        {**common, "slice_index": 2, "outcome_logit": 99.0, "ich_masks": none, **counts("ich"), **counts("ivh")},
    ]
    (scan,) = task.case_rows(rows)
    assert scan["ich_dice"] == pytest.approx(2 * 15 / 40) and scan["ich_jaccard"] == pytest.approx(15 / 25)
    assert scan["outcome_logit"] == pytest.approx((5 * 3 + 15 * -1) / 20)
    assert np.isnan(scan["ivh_dice"])
    assert task.metrics(rows)["automatic_ich_dice"] == pytest.approx(0.75)


def counts(kind: str, truth: int = 0, found: int = 0, both: int = 0) -> dict[str, int]:
    return {f"{kind}_truth": truth, f"{kind}_found": found, f"{kind}_both": both}


def test_surfaces_of_packed_masks_are_in_millimeters() -> None:
    """The prediction is the reference moved by two rows of 3 mm."""
    truth = torch.zeros(3, 16, 16, dtype=torch.bool)
    truth[1, 4:9, 4:9] = True
    packed = packed_masks(truth, truth.roll(2, dims=1))
    assert packed[0].shape == (2, 0) and packed[1].shape == (2, 32)
    rows = [{"ich_masks": bits, "voxel_mm": np.array([5.0, 3.0, 1.0]), "side_px": 16} for bits in packed]
    distance, covered = case_surfaces(rows)
    assert distance == pytest.approx(6.0) and covered == pytest.approx(3 / 5)


def test_a_failed_case_is_drawn_with_what_was_found(cases: list[CacheCase]) -> None:
    task = make_task()
    data = task.build_dataset(cases[:1], "val")
    items = [data[n] for n in range(len(data))]
    found = torch.zeros(len(items), 64, 64, dtype=torch.bool)
    found[1, 8:24, 8:24] = True
    packed = packed_masks(torch.zeros_like(found), found)
    rows = [
        {"slice_index": n, "mode": mode, "ich_masks": bits, "side_px": 64}
        for n, bits in enumerate(packed)
        for mode in ("automatic", "oracle_box")
    ]
    picture = task.picture(items, rows)
    assert picture is not None and picture.shape == (32, 32 * len(items), 3)
    blue = (picture == (64, 160, 255)).all(axis=2)
    assert blue[:, 32:64].any() and blue.sum() == blue[4:12, 36:44].sum()
    assert (picture == (255, 64, 64)).all(axis=2).any()


def test_what_the_fold_told_survives_a_checkpoint(cases: list[CacheCase]) -> None:
    task = make_task(event="dead_30d")
    task.fit_to_training_fold(cases)  # outcomes 0, 1, 0 and one unknown
    assert task.class_weights == pytest.approx([0.75, 1.5])
    other = make_task(event="dead_30d")
    other.load_state_dict(task.state_dict())
    assert other.class_weights == task.class_weights


def test_a_checkpoint_of_sam_is_loaded_and_its_hash_travels(tmp_path: Path) -> None:
    source = make_task().build_model()
    parts = {
        "image_encoder": source.sam_image.image_encoder,
        "prompt_encoder": source.prompt_encoder,
        "mask_decoder": source.interactions[0].decoder,
    }
    state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    torch.save(state, tmp_path / "sam.pth")
    task = make_task(sam_checkpoint=str(tmp_path / "sam.pth"))
    model = task.build_model()
    weight = model.sam_image.image_encoder.patch_embed.proj.weight
    assert torch.equal(weight, source.sam_image.image_encoder.patch_embed.proj.weight)
    (tower,) = task.export(model).card["towers"]
    assert tower["tower"] == "sam" and len(tower["sha256"]) == 64


def test_sam_by_a_box_answers_as_segment_anything_does() -> None:
    """Each image with its own prompts: a box, points, both; none of a batch's padding reaches the decoder."""
    torch.manual_seed(0)
    model = make_task(comparator="sam").build_model().eval()
    theirs = PromptEncoder(16, (4, 4), (64, 64), 4)
    theirs.load_state_dict(model.prompt_encoder.state_dict())
    decoder = model.interactions[0].decoder
    points, labels = torch.tensor([[20.0, 20.0], [31.0, 12.0]]), torch.tensor([1, 0])
    box = torch.tensor([[10.0, 12.0, 40.0, 30.0]])
    given = [
        SlicePrompts(box.numpy(), np.zeros((0, 2), np.float32), np.zeros(0, np.int64)),
        SlicePrompts(np.zeros((0, 4), np.float32), points.numpy(), labels.numpy()),
        SlicePrompts(box.numpy(), points.numpy(), labels.numpy()),
    ]
    image = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        found = model(image, PromptBatch.from_slices(given)).segmentation
        for n, (p, b) in enumerate(
            ((None, box), ((points[None], labels[None]), None), ((points[None], labels[None]), box))
        ):
            sparse, dense = theirs(p, b, None)
            expected = decoder.decode(model.sam_image(image[n : n + 1]), theirs.get_dense_pe(), sparse, dense)
            expected = torch.nn.functional.interpolate(expected, (64, 64), mode="bilinear")
            assert torch.allclose(found[n : n + 1], expected, atol=1e-5)


def test_medsam_reads_images_without_sam_s_normalization() -> None:
    task = build_task(load_config("ich_scnet/paper_medsam_box"))
    assert task.network.sam.mean == (0.0, 0.0, 0.0) and task.network.sam.std == (1.0, 1.0, 1.0)
    assert build_task(load_config("ich_scnet/paper_sam_box")).network.sam.mean[0] == pytest.approx(0.485, abs=1e-3)


def test_a_densenet_checkpoint_is_loaded_and_its_hash_travels(tmp_path: Path) -> None:
    from torchvision.models import DenseNet

    theirs = DenseNet(4, (1, 1), 4, 2)
    torch.save(theirs.state_dict(), tmp_path / "densenet.pth")
    task = make_task({"classifier": {"rgb_stem": True}}, densenet_checkpoint=str(tmp_path / "densenet.pth"))
    model = task.build_model()
    assert torch.equal(model.classifier.features.conv0.weight, theirs.features.conv0.weight)
    assert task.towers[0]["tower"] == "densenet"
    assert not any(name.startswith("classifier") for name in task.restored_elsewhere(model))  # it trains on


def test_export_says_what_the_weights_are() -> None:
    task = make_task()
    export = task.export(task.build_model())
    assert export.network == "ich_scnet" and export.card["classes"] == ["ich", "ivh"]
    assert export.config == task.network


def test_the_shipped_weights_start_a_network_that_sees_neighbors(tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", 4)
    small = ["preprocess.spacing_mm=3.6", "preprocess.size=64"]
    cfg = load_config(
        "ich_scnet/compact_neighbors", [f"data.cache={tmp_path / 'cache'}", "task.initial=default", *small]
    )
    stem = build_run(cfg, start_world("cpu"), None).network.stem.conv.weight
    shipped = load_weights(weights_path("ich_scnet")).state_dict["stem.conv.weight"]
    kept = shipped.shape[1]
    assert torch.equal(stem[:, :kept], shipped) and stem.shape[1] == kept + 4 * 2**2 and not stem[:, kept:].any()


def test_a_network_that_sees_neighbors_answers_as_the_one_before_it_learns() -> None:
    alone = build_ich_scnet(replace(PRESETS["tiny"], neighbor_channels=0)).eval()
    model = build_ich_scnet(replace(PRESETS["tiny"], neighbor_channels=4)).eval()
    task = make_task()
    model.load_state_dict(task.initial_state(model, alone.state_dict()))
    own = model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in task.initial_state(model, own).items())
    side = PREPROCESS["tiny"].size
    slices, prompts = torch.rand(2, 3, side, side), PromptBatch.empty(2)
    expected = alone(slices, prompts).segmentation
    for beside in (torch.zeros(2, 4, side, side), torch.rand(2, 4, side, side)):
        found = model(torch.cat([slices, beside], dim=1), prompts).segmentation
        assert torch.allclose(found, expected, atol=1e-5)


def test_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"reads 3 channels; .* make 7"):
        make_task({"neighbor_channels": 0})


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gamma"):
        make_task(loss={"gamma": 1})
