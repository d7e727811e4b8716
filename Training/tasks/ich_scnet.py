"""Training of ICH-SCNet on slices (paper 000): masks, prognosis, and what prompts do to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ICHAnalysisLib.config.ich_scnet import PREPROCESS, PRESETS, ICHSCNetConfig
from ICHAnalysisLib.discrimination import auc, binary_measures, brier, fit_temperature
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.networks.ich_scnet import ICHSCNet, ICHSCNetOutput, build_ich_scnet
from ICHAnalysisLib.networks.tower_checkpoints import (
    load_clip_checkpoint,
    load_densenet_checkpoint,
    load_sam_checkpoint,
)
from Training.comparators import COMPARATORS, READ_NUMBERS
from Training.config import RunConfig, refine
from Training.data.augment import AugmentConfig
from Training.data.cache import CacheCase
from Training.data.datasets import SliceDataset
from Training.data.features import FeatureStore, build_features, open_store, towers_digest
from Training.data.prompt_simulation import PromptSimulationConfig
from Training.data.prompted_slices import PromptedSlices
from Training.distributed import is_sharded, unwrap_model
from Training.losses.ich_scnet import ICHSCNetLossConfig, class_weights_of, ich_scnet_losses
from Training.pictures import montage
from Training.tasks.base import Batch, Export, Row, Task, network_config, sigmoid
from Training.tasks.mask_rows import case_surfaces, found_mask, packed_masks
from Training.tasks.slice_inputs import features_of, oracle_prompts, prompts_of
from Training.widening import widened

#: What a published checkpoint fills, by the tower that its loader names.
TOWER_PARTS = {
    "clip": ("clip_image.visual.", "clip_text.text."),
    "sam": ("sam_image.image_encoder.", "prompt_encoder.", "interactions."),
    "densenet": ("classifier.features.",),
}
_OUTCOME_HEAD = "classifier"
#: Where slices and their neighbors enter; anything else that is wider would not answer alike, and stays refused.
_ENTRIES = ("stem.conv.weight", "down.0.conv.weight")
#: How each slice is predicted in evaluation: without prompts, and with a box drawn from the reference (decision S17).
MODES = ("automatic", "oracle_box")


@dataclass(frozen=True)
class ICHSCNetOptions:
    """What the task can vary."""

    event: Literal["poor_outcome", "dead_30d"] = "poor_outcome"  # class 1 of the outcome head (decision S30)
    loss: ICHSCNetLossConfig = field(default_factory=ICHSCNetLossConfig)
    prompts: PromptSimulationConfig = field(default_factory=PromptSimulationConfig)
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)  # None: slices as they are
    learns: Literal["all", "outcome"] = "all"  # "outcome": the outcome head alone, of weights that outline already
    retrospective: bool = False  # length of stay and treatment enter the text: they leak the outcome (decision S31)
    box_mode: bool = True  # evaluation also with boxes from the reference
    features: str | None = None  # folder for what frozen towers say about each slice; None: they run in every step
    feature_draws: int = 4  # augmentations of a slice that are encoded; training picks among them
    clip_checkpoint: str | None = None  # open_clip's file, or open_clip:MODEL/TAG, for the CLIP towers; None: random
    comparator: str | None = None  # a key of `COMPARATORS`, in ICH-SCNet's place
    sam_checkpoint: str | None = None  # segment-anything's (or MedSAM's) file for the SAM parts; None: random
    densenet_checkpoint: str | None = None  # torchvision's file for a classifier with rgb_stem; None: random


class ICHSCNetTask(Task):
    """Slices, prompts and text in; masks and outcome out."""

    name = "ich_scnet"
    Options: ClassVar[type] = ICHSCNetOptions
    monitor = "score"

    def __init__(self, cfg: RunConfig) -> None:
        super().__init__(cfg)
        self.network: ICHSCNetConfig = network_config(PRESETS, cfg.task)
        if self.options.comparator is not None:
            if self.options.comparator not in COMPARATORS:
                known = ", ".join(COMPARATORS)
                raise UsageError(f"task.options.comparator {self.options.comparator!r} is none of {known}.")
            tasks: Any = COMPARATORS[self.options.comparator][0]
            classes = 1 if self.options.comparator == "sam" else self.network.num_classes
            self.network = replace(self.network, tasks=tasks, num_classes=classes)
        if self.options.learns == "outcome" and (self.options.comparator or self.network.tasks == "seg"):
            raise UsageError("task.options.learns outcome needs ICH-SCNet with its outcome head, and no comparator.")
        self.preprocess = refine(PREPROCESS[cfg.task.preset], cfg.preprocess, "config.preprocess")
        if self.preprocess.channels != self.network.image_channels:
            raise UsageError(
                f"task.network.neighbor_channels {self.network.neighbor_channels}: the network reads "
                f"{self.network.image_channels} channels; preprocess.windows and, of two slices, "
                f"preprocess.neighbor_windows make {self.preprocess.channels}."
            )
        self.class_weights = [1.0, 1.0]
        self.temperature = 1.0
        self.towers: list[dict[str, str]] = []

    def fit_to_training_fold(self, cases: Sequence[CacheCase]) -> None:
        """Class weights of the outcome, by patients of the training fold (decision S29)."""
        outcomes = [(case.meta.get("outcome") or {}).get(self.options.event) for case in cases]
        counts = [sum(o is not None and int(o) == c for o in outcomes) for c in (0, 1)]
        self.class_weights = class_weights_of(counts)

    def state_dict(self) -> dict[str, Any]:
        """Class weights of the training fold, temperature of the outcome, and the files the towers came from."""
        return {"class_weights": self.class_weights, "temperature": self.temperature, "towers": self.towers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.class_weights = [float(weight) for weight in state["class_weights"]]
        self.temperature = float(state["temperature"])
        self.towers = [dict(tower) for tower in state.get("towers", [])]

    def build_model(self) -> nn.Module:
        """ICH-SCNet, a variant or a comparator, with published towers where the options name their files."""
        comparator = self.options.comparator
        model: Any = build_ich_scnet(self.network) if comparator is None else COMPARATORS[comparator][1](self.network)
        loaders = (
            (load_clip_checkpoint, self.options.clip_checkpoint),
            (load_sam_checkpoint, self.options.sam_checkpoint),
            (load_densenet_checkpoint, self.options.densenet_checkpoint),
        )
        loaded = [asdict(load(model, path)) for load, path in loaders if path is not None]
        known = {tower["tower"]: tower for tower in self.towers}
        for tower in loaded:
            then = known.get(tower["tower"], tower)
            if tower["sha256"] != then["sha256"]:
                raise UsageError(
                    f"{tower['file']} is not the file that the run began with ({then['file']}, sha256 "
                    f"{then['sha256']}); put that one back."
                )
        self.towers = loaded or self.towers
        if self.options.learns == "outcome":
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name.startswith(_OUTCOME_HEAD))
        return model

    def restored_elsewhere(self, model: nn.Module) -> set[str]:
        """Frozen parameters that a published checkpoint has filled."""
        if self.cfg.task.initial is not None:  # those weights came after the towers'
            return set()
        prefixes = tuple(prefix for tower in self.towers for prefix in TOWER_PARTS[tower["tower"]])
        frozen = (name for name, parameter in model.named_parameters() if not parameter.requires_grad)
        return {name for name in frozen if name.startswith(prefixes)}

    def initial_state(self, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights that saw no neighbors start a network that sees them, whose channels come last."""
        if not isinstance(model, ICHSCNet):
            return state
        entries = {name: state[name] for name in _ENTRIES if name in state}
        return {**state, **widened(entries, model.state_dict(), {})}

    def build_dataset(self, cases: Sequence[CacheCase], split: str) -> Dataset:
        """Slices with prompts and text."""
        return PromptedSlices(
            cases,
            self.preprocess,
            split,
            event=self.options.event,
            classes=self.network.num_classes,
            prompts=replace(self.options.prompts, max_boxes=self.network.max_boxes, max_points=self.network.max_points),
            augment=self.options.augment,
            retrospective=self.options.retrospective,
            seed=self.cfg.loop.seed,
            features=None if self.options.features is None else self._encoded,
            mask_prompts=self._reads_no_mask,
            bled_only=self.options.learns == "outcome",
        )

    @property
    def _reads_no_mask(self) -> bool:
        """Whether the prompts reach the network through SAM's prompt encoder alone, which takes no rough mask here."""
        if self.options.comparator is not None:
            return self.options.comparator == "sam"
        return not self.network.dense_prompts

    def _encoded(self, slices: SliceDataset) -> FeatureStore:
        """The store with what the frozen image towers say about these slices, made where it is missing."""
        if self.network.towers != "frozen" or self.network.per_scale:
            raise UsageError("task.options.features: only towers that are frozen and run once a slice can be cached.")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with torch.random.fork_rng(devices=()):  # the network that is trained is built next, with the same towers
            model: Any = self.build_model().to(device).eval()

        def encode(image: Tensor) -> dict[str, Tensor]:
            found = model.encode(image.to(device))
            return {name: value for name, value in (("sam", found.sam), ("clip", found.clip)) if value is not None}

        towers = [tower.state_dict() for tower in (model.sam_image, model.clip_image) if tower is not None]
        store = open_store(str(self.options.features), towers_digest(towers), slices, self.options.feature_draws)
        build_features(slices, store, encode)
        return store

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """segmentation_loss, outcome_loss and mta_loss, as the variant has outputs."""
        if self.options.learns == "outcome":
            _rest(unwrap_model(model))
        output = model(batch["image"], prompts_of(batch), self._record(batch), features=features_of(batch))
        weights = torch.tensor(self.class_weights, device=batch["image"].device)
        return ich_scnet_losses(
            output, batch["target"], batch["known"], batch["outcome"], weights, self.options.loss, epoch
        )

    def predict(self, model: nn.Module, batch: Batch) -> list[Row]:
        """One row a slice and mode: pixel counts of truth, prediction and overlap by class, and the outcome logit."""
        network: Any = model
        record = self._record(batch)
        features, text = features_of(batch), None
        if not is_sharded(model):  # its parameters are whole in a forward alone
            if features is None and not self.network.per_scale:
                features = network.encode(batch["image"])
            text = network.encode_text(record, len(batch["image"]))
        modes = MODES if self.options.box_mode and self.network.tasks != "cla" else MODES[:1]
        rows: list[Row] = []
        for mode in modes:
            prompts = prompts_of(batch) if mode == "automatic" else oracle_prompts(batch)
            output = network(batch["image"], prompts, record, features=features, text=text)
            rows.extend(self._rows(output, batch, mode))
        return rows

    def _record(self, batch: Batch) -> Tensor:
        """The record as the network reads it: token ids (B, 77), or numbers (B, WIDTH)."""
        return batch["numbers" if self.options.comparator in READ_NUMBERS else "text"]

    def _rows(self, output: ICHSCNetOutput, batch: Batch, mode: str) -> list[Row]:
        """One row a slice."""
        known = batch["known"] > 0
        truth = (batch["target"] > 0.5) & known
        none = torch.zeros_like(truth)
        found = none if output.segmentation is None else (output.segmentation.float() > 0) & known
        packed = packed_masks(truth[:, 0], found[:, 0])
        counts = {
            name: mask.sum(dim=(2, 3)).cpu().numpy()  # (B, K)
            for name, mask in (("truth", truth), ("found", found), ("both", truth & found))
        }
        logits = None
        if output.outcome is not None:
            logits = (output.outcome[:, 1] - output.outcome[:, 0]).double().cpu().numpy()
        rows = []
        for n, case_id in enumerate(batch["case_id"]):
            row: Row = {
                "case_id": case_id,
                "slice_index": int(batch["slice_index"][n]),
                "mode": mode,
                "split": batch["split"][n],
                "outcome": int(batch[self.options.event][n]),
                "outcome_logit": float("nan") if logits is None else float(logits[n]),
                "ich_masks": packed[n],
                "voxel_mm": batch["voxel_mm"][n].cpu().numpy(),
                "side_px": int(truth.shape[-1]),
            }
            for k, kind in enumerate(("ich", "ivh")[: self.network.num_classes]):
                row.update({f"{kind}_{name}": int(values[n, k]) for name, values in counts.items()})
            rows.append(row)
        return rows

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Mean Dice a scan and pooled by mode, false blood in scans without, and the outcome a patient."""
        joined = self.case_rows(rows)
        if rows and rows[0]["split"] == "val":
            self._calibrate(joined)
        found: dict[str, float] = {}
        for mode in dict.fromkeys(row["mode"] for row in joined):
            scans = [row for row in joined if row["mode"] == mode]
            found.update(self._overlap(scans, mode))
        automatic = [row for row in joined if row["mode"] == MODES[0]]
        found.update(self._outcome_metrics(automatic))
        found["score"] = self._score(found)
        return found

    def _overlap(self, scans: Sequence[Row], mode: str) -> dict[str, float]:
        """Dice of ICH and IVH; pixels of false blood in scans without."""
        if self.network.tasks == "cla":
            return {}
        found = {}
        for kind in ("ich", "ivh")[: self.network.num_classes]:
            bled = [row for row in scans if row[f"{kind}_truth"] > 0]
            clean = [row for row in scans if row[f"{kind}_truth"] == 0]
            if bled:
                found[f"{mode}_{kind}_dice"] = float(np.mean([row[f"{kind}_dice"] for row in bled]))
                found[f"{mode}_{kind}_dice_median"] = float(np.median([row[f"{kind}_dice"] for row in bled]))
                total = sum(row[f"{kind}_truth"] + row[f"{kind}_found"] for row in bled)
                found[f"{mode}_{kind}_dice_pooled"] = 2 * sum(row[f"{kind}_both"] for row in bled) / total
                found[f"{mode}_{kind}_jaccard"] = float(np.mean([row[f"{kind}_jaccard"] for row in bled]))
            if bled and kind == "ich":
                distances = np.array([row["ich_hd95_mm"] for row in bled])
                finite = distances[np.isfinite(distances)]
                found[f"{mode}_ich_hd95_mm"] = float(finite.mean()) if finite.size else float("nan")
                found[f"{mode}_ich_hd95_failures"] = float(len(distances) - finite.size)
                found[f"{mode}_ich_pro"] = float(np.mean([row["ich_pro"] for row in bled]))
            if clean:
                found[f"{mode}_{kind}_false_px"] = float(np.mean([row[f"{kind}_found"] for row in clean]))
        return found

    def _outcome_metrics(self, scans: Sequence[Row]) -> dict[str, float]:
        """AUC, Brier score and counts at 0.5, over patients with a known outcome, and how many have no answer: those
        in whom no lesion is found."""
        asked = [row for row in scans if row["outcome"] >= 0 and self.network.tasks != "seg"]
        if not asked:
            return {}
        known = [row for row in asked if np.isfinite(row["outcome_logit"])]
        truth, probability = np.array([row["outcome"] for row in known], dtype=int), self._probability(known)
        measures = {f"outcome_{key}": v for key, v in binary_measures(truth, probability >= 0.5).items()}
        return {
            "outcome_auc": auc(truth, probability),
            "outcome_brier": brier(truth, probability) if known else float("nan"),
            "outcome_missed": float(len(asked) - len(known)),
            **measures,
        }

    def _score(self, found: dict[str, float]) -> float:
        """The monitor: Dice without prompts, a third of that with a box, a tenth of the AUC; less for false blood."""
        parts = [
            weight * found[key]
            for key, weight in (
                ("automatic_ich_dice", 1.0),
                ("oracle_box_ich_dice", 1 / 3),
                ("outcome_auc", 0.1 if self.network.tasks == "both" else 1.0),
            )
            if np.isfinite(found.get(key, np.nan))
        ]
        false_px = found.get("automatic_ich_false_px", 0.0)
        return float(sum(parts) - 0.1 * min(1.0, false_px / 500.0)) if parts else float("nan")

    def _calibrate(self, joined: Sequence[Row]) -> None:
        """Temperature of the outcome on validation patients."""
        known = [r for r in joined if r["mode"] == MODES[0] and r["outcome"] >= 0 and np.isfinite(r["outcome_logit"])]
        if known:
            truth = np.array([row["outcome"] for row in known])
            self.temperature = fit_temperature(truth, np.array([row["outcome_logit"] for row in known]))

    def _probability(self, rows: Sequence[Row]) -> np.ndarray:
        """(N,) calibrated probability of the event."""
        logits = np.array([row["outcome_logit"] for row in rows]) / self.temperature
        return sigmoid(logits)

    def case_rows(self, rows: Sequence[Row]) -> list[Row]:
        """One row a scan and mode: counts summed, Dice in 3-D, mean logit weighted by lesion area (decision S27)."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            groups.setdefault((row["case_id"], row["mode"]), []).append(row)
        joined = []
        for (case_id, mode), members in groups.items():
            row = {"case_id": case_id, "mode": mode, "outcome": members[0]["outcome"], "split": members[0]["split"]}
            for key in members[0]:
                if key.startswith(("ich_", "ivh_")) and key != "ich_masks":
                    row[key] = int(sum(member[key] for member in members))
            for kind in ("ich", "ivh")[: self.network.num_classes]:
                total = row[f"{kind}_truth"] + row[f"{kind}_found"]
                row[f"{kind}_dice"] = 2 * row[f"{kind}_both"] / total if total else float("nan")
                union = total - row[f"{kind}_both"]
                row[f"{kind}_jaccard"] = row[f"{kind}_both"] / union if union else float("nan")
            row["ich_hd95_mm"], row["ich_pro"] = case_surfaces(members)
            area = "ich_truth" if self.network.tasks == "cla" else "ich_found"
            weights = np.array([member[area] for member in members], dtype=float)
            logits = np.array([member["outcome_logit"] for member in members])
            row["outcome_logit"] = float(np.average(logits, weights=weights)) if weights.sum() else float("nan")
            joined.append(row)
        return joined

    def failure_score(self, case_row: Row) -> float:
        """Lack of overlap without prompts; false blood in a scan without counts by its area."""
        if case_row["mode"] != MODES[0] or self.network.tasks == "cla":
            return 0.0
        if case_row["ich_truth"] == 0:
            return min(1.0, case_row["ich_found"] / 1000.0)
        return max(0.0, 0.8 - case_row["ich_dice"])

    def picture(self, items: Sequence[Batch], rows: Sequence[Row]) -> np.ndarray | None:
        """The slices with the reference and what was found without prompts."""
        found = {row["slice_index"]: found_mask(row) for row in rows if row["mode"] == MODES[0]}
        return montage([{**item, "found": found[k]} for item in items if (k := item["slice_index"]) in found])

    def calibration(self, case_rows: Sequence[Row]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The outcome, without prompts."""
        known = [
            row
            for row in case_rows
            if row["mode"] == MODES[0] and row["outcome"] >= 0 and np.isfinite(row["outcome_logit"])
        ]
        truth = np.array([row["outcome"] for row in known])
        return {"outcome": (self._probability(known), truth)} if known else {}

    def export(self, model: nn.Module) -> Export:
        """Config, preprocessing, event, temperature. Raises UsageError for a comparator, unknown to the library."""
        if self.options.comparator is not None:
            raise UsageError(f"{self.options.comparator} is trained for comparison only; it cannot be exported.")
        classes = ["ich", "ivh"][: self.network.num_classes]
        card = {"event": self.options.event, "classes": classes, "towers": self.towers, "temperature": self.temperature}
        return Export("ich_scnet", self.network, self.preprocess, card)


def _rest(network: nn.Module) -> None:
    """Everything but the outcome head as in use: what does not learn must not change its running statistics either."""
    for name, part in network.named_children():
        if name != _OUTCOME_HEAD:
            part.eval()
