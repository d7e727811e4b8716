"""One predictor a network: numpy in, numpy out. Devices, precision and batching live here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ICHAnalysisLib.analysis import Interval, WeightsInfo
from ICHAnalysisLib.candidate_crops import CandidateCrop, candidate_arrays, cut_crop
from ICHAnalysisLib.config.base import from_dict
from ICHAnalysisLib.config.candidate_net import CandidateNetConfig
from ICHAnalysisLib.config.dtvit import DTViTConfig
from ICHAnalysisLib.config.ich_scnet import ICHSCNetConfig
from ICHAnalysisLib.config.margin_net import MarginNetConfig
from ICHAnalysisLib.config.preprocess import PreprocessConfig
from ICHAnalysisLib.config.volume_net import VolumeNetConfig
from ICHAnalysisLib.device import choose_device, choose_dtype
from ICHAnalysisLib.errors import WeightsError
from ICHAnalysisLib.interval import SizeBands, volume_interval, volume_of_size
from ICHAnalysisLib.margin_crops import rectangle_around, square_around
from ICHAnalysisLib.networks.folding import fold_batch_norms
from ICHAnalysisLib.postprocess import Judge
from ICHAnalysisLib.preprocess import (
    SliceStack,
    channels_of,
    log_heights,
    planes_seen,
    scan_tensor,
    scan_to_stack,
    slice_channels,
    stack_to_native,
    unseen_slices,
)
from ICHAnalysisLib.prompts import SlicePrompts, drawn_boxes
from ICHAnalysisLib.quick_imports import collector_paused
from ICHAnalysisLib.segmentation_session import SegmentationSession
from ICHAnalysisLib.stretch import Stretch
from ICHAnalysisLib.variations import Variation
from ICHAnalysisLib.weights.registry import LoadedWeights, load_state, load_weights, weights_path

if TYPE_CHECKING:
    from ICHAnalysisLib.networks.candidate_net import CandidateNet
    from ICHAnalysisLib.networks.ich_scnet import ICHSCNet
    from ICHAnalysisLib.networks.margin_net import MarginNet

#: Slices a network sees at once; larger batches gain nothing on a CPU and cost memory.
BATCH = 8
#: Whole slices that the margin net sees at once: with more, single maps exceed what malloc keeps for the next.
_WHOLE = 3
#: How far beyond its boxes the margin net is listened to, pixels; and how much its pixels may differ from a stack's.
_REACH_PX, _ALIKE = 8, 0.02


class Predictor:
    """A network with its weights, on its device, in evaluation mode."""

    def __init__(self, network: torch.nn.Module, weights: LoadedWeights, device: torch.device) -> None:
        load_state(network, weights)
        self.device = device
        self.dtype = choose_dtype(device)
        self.network = network.eval().to(device)
        fold_batch_norms(self.network)
        if weights.preprocess.depth is None:  # slices; channels_last is a layout of four axes
            self.network = self.network.to(memory_format=torch.channels_last)
        self.weights = weights

    @property
    def preprocess(self) -> PreprocessConfig:
        """As trained."""
        return self.weights.preprocess

    def autocast(self) -> Any:
        """The context in which this device answers fastest with the same result."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def slices_tensor(self, hu: np.ndarray, indices: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Slices `indices` of a stack's HU (S, H, W) to (n, C, H, W) windows on the device."""
        channels = slice_channels(planes_seen(hu, indices, self.preprocess), self.preprocess)
        tensor = torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32)).to(self.device)
        return tensor.contiguous(memory_format=torch.channels_last)


class DTViTPredictor(Predictor):
    """Presence and location of slices (DTViT)."""

    def predict(self, hu: np.ndarray, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slices `indices` of a stack's HU (S, H, W) to presence (n,) and location probabilities (n, 3)."""
        temperature = float(self.weights.card.get("temperature", 1.0))
        location_temperature = float(self.weights.card.get("location_temperature", 1.0))
        presence, location = [], []
        with torch.inference_mode(), self.autocast():
            for start in range(0, len(indices), BATCH):
                output = self.network(self.slices_tensor(hu, indices[start : start + BATCH]))
                presence.append(torch.sigmoid(output["presence_logits"].float() / temperature).cpu().numpy())
                location.append((output["location_logits"].float() / location_temperature).softmax(dim=1).cpu().numpy())
        return np.concatenate(presence), np.concatenate(location)


@dataclass(frozen=True, eq=False)
class VolumeAnswer:
    """The volume net's answer about `stack`. heatmap: (S, H, W) on it in [0, 1], or None. blood: (S, H, W), the blood
    fraction of the cell that each voxel lies in, NaN on slices that the network's grid does not reach; None where the
    network tells none."""

    stack: SliceStack
    volume_ml: float
    interval: Interval
    poor_probability: float
    heatmap: np.ndarray | None
    blood: np.ndarray | None

    def native_heatmap(self) -> np.ndarray | None:
        """The heatmap on the acquired slices (K, J, I)."""
        return None if self.heatmap is None else stack_to_native(self.heatmap, self.stack)


class VolumeNetPredictor(Predictor):
    """Volume and outcome of a scan (paper 003). Raises WeightsError for weights trained with one head alone."""

    def __init__(self, network: torch.nn.Module, weights: LoadedWeights, device: torch.device) -> None:
        super().__init__(network, weights, device)
        cfg: Any = self.network.cfg
        if not (cfg.regression and cfg.classification):
            raise WeightsError("These volume net weights hold one head; an analysis needs the size and the outcome.")

    def predict(self, stack: SliceStack, want_heatmap: bool) -> VolumeAnswer:
        """The answer for one stack, the mean of the scan's and of its mirror image's; the heatmap is the scan's."""
        cfg = self.preprocess
        spacing = float(stack.spacing_mm[0])
        stretch = None
        if cfg.layout == "stretch":
            stretch = Stretch.of(stack.hu, stack.positions_mm, stack.heights_mm, spacing, cfg)
        hu = stretch.apply(stack.hu) if stretch else scan_tensor(stack.hu, stack.positions_mm, spacing, cfg)
        voxel = torch.tensor([stretch.voxel_ml], device=self.device) if stretch else None
        channels = channels_of(hu, cfg).transpose(1, 0, 2, 3)  # (C, D, h, w)
        scan = torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32))[None].to(self.device)
        output, small = self._mirrored_mean(scan, voxel, want_heatmap)

        def on_stack(grid: np.ndarray) -> np.ndarray:
            if stretch:
                return stretch.back(grid)
            return scan_to_stack(grid, stack.positions_mm, spacing, stack.hu.shape[1], cfg)

        size = float(output["size_mm"][0])
        logits = output["outcome_logits"][0] / float(self.weights.card.get("temperature", 1.0))
        poor = float(logits.softmax(dim=0)[1])
        blood = None
        if "blood" in output:
            cells = torch.nn.functional.interpolate(output["blood"][:, None], size=scan.shape[2:], mode="nearest")
            blood = on_stack(cells[0, 0].cpu().numpy())
            if not stretch:
                blood[unseen_slices(stack.positions_mm, cfg)] = np.nan
        bands, error_sd = self.weights.card.get("bands"), float(self.weights.card.get("error_sd_mm") or 0.0)
        interval = volume_interval(size, None if bands is None else SizeBands.from_dict(bands), error_sd_mm=error_sd)
        heatmap = None if small is None else on_stack(small)
        return VolumeAnswer(stack, float(volume_of_size(size, error_sd)), interval, poor, heatmap, blood)

    def _mirrored_mean(
        self, scan: torch.Tensor, voxel: torch.Tensor | None, want_heatmap: bool
    ) -> tuple[dict[str, torch.Tensor], np.ndarray | None]:
        """size_mm (1,), outcome_logits (1, 2) and, where the network has them, the cells' blood fractions "blood"
        (1, d, h, w), of the scan (1, C, D, H, W) and its mirror image; and the scan's attention (D, H, W)."""
        besides, small = () if voxel is None else (voxel,), None
        with torch.inference_mode(), self.autocast():
            if want_heatmap:
                from ICHAnalysisLib.gradcam import volume_answer_and_heatmap

                first, small = volume_answer_and_heatmap(self.network, scan, voxel_ml=voxel)
            else:
                first = self.network(scan, *besides)
            second = self.network(scan.flip(-1), *besides)
            mean = {name: (first[name] + second[name]).float() / 2 for name in ("size_mm", "outcome_logits")}
            if "density_logits" in first:
                here, mirrored = (torch.sigmoid(output["density_logits"].float()) for output in (first, second))
                mean["blood"] = (here + mirrored.flip(-1)) / 2
        return mean, small


class ICHSCNetPredictor(Predictor):
    """Masks and prognosis of slices (paper 000). Raises WeightsError for weights that make no masks."""

    network: ICHSCNet

    def __init__(self, network: ICHSCNet, weights: LoadedWeights, device: torch.device) -> None:
        super().__init__(network, weights, device)
        if self.network.cfg.tasks == "cla":
            raise WeightsError("These ICH-SCNet weights classify only; an analysis needs masks.")
        if weights.preprocess.channels != self.network.cfg.image_channels:
            raise WeightsError(
                f"These ICH-SCNet weights read {self.network.cfg.image_channels} channels and their preprocessing "
                f"makes {weights.preprocess.channels}; the file is damaged."
            )

    def text(self, clinical: Any, text: str | None) -> torch.Tensor | None:
        """(1, 77) token ids of the record's sentence or of free text; None where nothing is known."""
        from ICHAnalysisLib.clinical import tokenize

        sentence = (
            text if text is not None else (None if clinical is None or clinical.is_empty else clinical.sentence())
        )
        if not sentence:
            return None
        return torch.tensor([tokenize(sentence).ids], device=self.device)


class CandidatePredictor(Predictor):
    """Whether outlined regions are hemorrhage (candidate net)."""

    network: CandidateNet

    def predict(self, crops: Sequence[CandidateCrop]) -> np.ndarray:
        """(n,) log-odds, the mean of each crop's and of its mirror image's."""
        answers = []
        with torch.inference_mode():
            for start in range(0, len(crops), BATCH):
                tissue, outlines, height = (
                    torch.from_numpy(part).to(self.device)
                    for part in candidate_arrays(crops[start : start + BATCH], self.preprocess.windows)
                )
                both = self.network(
                    torch.cat([tissue, tissue.flip(-1)]), torch.cat([outlines, outlines.flip(-1)]), height.repeat(2)
                )
                answers.append(both.reshape(2, -1).mean(dim=0).cpu().numpy())
        return np.concatenate(answers) if answers else np.zeros(0, np.float32)

    def judge(self, stack: SliceStack) -> Judge:
        """What `find_candidates` asks about candidates on this stack."""
        cfg, pixel_mm = self.network.cfg, self.preprocess.spacing_mm
        return lambda components, asked: self.predict(
            [cut_crop(stack, components, label, box, cfg, pixel_mm) for label, box in asked]
        )


class MarginPredictor(Predictor):
    """What boxes on slices hold, and what there is to see without any (margin net)."""

    network: MarginNet

    def fits(self, stack: SliceStack) -> bool:
        """Whether the stack has the pixels and sides that the net knows."""
        known = np.allclose(stack.spacing_mm, self.preprocess.spacing_mm, rtol=_ALIKE)
        return known and not any(side % self.network.cfg.step for side in stack.hu.shape[1:])

    def predict(
        self, stack: SliceStack, indices: Sequence[int], boxes: Sequence[np.ndarray], variation: Variation
    ) -> np.ndarray:
        """ICH probabilities, float32 (n, H, W), of stack slices `indices` with (N, 4) boxes each, N at least 1.

        NaN where a pixel is further than 8 from every box. variation: how the net sees the slices; boxes and answers
        are those of the stack as it is.
        """
        shape, reach = stack.hu.shape[1:], np.array([-1, -1, 1, 1]) * _REACH_PX
        answers = np.full((len(indices), *shape), np.nan, np.float32)
        for start in range(0, len(indices), BATCH):
            part = range(start, min(start + BATCH, len(indices)))
            found = self._squares(stack, [indices[n] for n in part], [boxes[n] for n in part], variation)
            for n, answer in zip(part, variation.back(found), strict=True):
                near = drawn_boxes(boxes[n] + reach, shape) > 0
                answers[n][near] = answer[near]
        return answers

    def everywhere(self, stack: SliceStack, indices: Sequence[int], variation: Variation) -> np.ndarray:
        """ICH probabilities, float32 (n, H, W), of stack slices `indices` without a box; 0 outside the head."""
        shape = stack.hu.shape[1:]
        answers = np.zeros((len(indices), *shape), np.float32)
        for start in range(0, len(indices), _WHOLE):
            part = list(indices[start : start + _WHOLE])
            image = variation.image(self.slices_tensor(stack.hu, part))
            head = variation.image(torch.from_numpy(stack.head[part].any(axis=0))).numpy()
            rows, columns = rectangle_around(head, self.network.cfg.step)
            seen = image[..., rows, columns]
            drawn = torch.ones_like(seen[:, :1])
            shown = np.zeros((len(part), *shape), np.float32)
            shown[:, rows, columns] = self._probabilities(seen, drawn, stack, part)
            answers[start : start + _WHOLE] = variation.back(shown)
        return answers

    def _squares(self, stack: SliceStack, part: list[int], boxes: list[np.ndarray], variation: Variation) -> np.ndarray:
        """(n, H, W) probabilities of slices as `variation` shows them, NaN outside the squares that are seen."""
        cfg, shape = self.network.cfg, stack.hu.shape[1:]
        shown = [variation.prompts(SlicePrompts.of_boxes(given), shape).boxes for given in boxes]
        squares = [square_around(given, shape, cfg.size, cfg.step) for given in shown]
        side = max(rows.stop - rows.start for rows, _ in squares)
        squares = [square_around(given, shape, side, cfg.step) for given in shown]
        image = variation.image(self.slices_tensor(stack.hu, part))
        crops = torch.stack([image[n, :, rows, columns] for n, (rows, columns) in enumerate(squares)])
        drawn = np.stack([drawn_boxes(given, shape)[square] for given, square in zip(shown, squares, strict=True)])
        found = self._probabilities(crops, torch.from_numpy(drawn[:, None]), stack, part)
        answers = np.full((len(part), *shape), np.nan, np.float32)
        for n, square in enumerate(squares):
            answers[n][square] = found[n]
        return answers

    def _probabilities(
        self, image: torch.Tensor, drawn: torch.Tensor, stack: SliceStack, part: list[int]
    ) -> np.ndarray:
        """(n, H, W) of pictures (n, C, H, W) of stack slices `part` and the boxes (n, 1, H, W) drawn into them."""
        with torch.inference_mode(), self.autocast():
            logits = self.network(
                image.contiguous(memory_format=torch.channels_last),
                drawn.to(self.device),
                torch.from_numpy(log_heights(stack.heights_mm, part)).to(self.device),
            )
            return torch.sigmoid(logits[:, 0]).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Models:
    """The networks, loaded once and kept between scans.

    candidate_net, margin_net: the shipped ones where a folder of other weights has none: they look at the tissue anew,
    whoever outlined it.
    """

    ich_scnet: ICHSCNetPredictor
    dtvit: DTViTPredictor
    volume_net: VolumeNetPredictor
    candidate_net: CandidatePredictor
    margin_net: MarginPredictor

    @classmethod
    @collector_paused()
    def load(cls, folder: str | os.PathLike | None = None, device: str = "auto") -> Models:
        """The shipped weights, or those of another folder. Raises WeightsError where one is missing or does not fit."""
        from ICHAnalysisLib.networks.candidate_net import CandidateNet
        from ICHAnalysisLib.networks.dtvit import build_dtvit
        from ICHAnalysisLib.networks.ich_scnet import build_ich_scnet
        from ICHAnalysisLib.networks.margin_net import MarginNet
        from ICHAnalysisLib.networks.volume_net import build_volume_net

        chosen = choose_device(device)
        loaded = {name: load_weights(weights_path(name, folder), name) for name in ("ich_scnet", "dtvit", "volume_net")}
        scnet, dtvit, volume = loaded["ich_scnet"], loaded["dtvit"], loaded["volume_net"]
        candidate, margin = (_own_or_shipped(name, folder) for name in ("candidate_net", "margin_net"))
        return cls(
            ICHSCNetPredictor(build_ich_scnet(from_dict(ICHSCNetConfig, scnet.config)), scnet, chosen),
            DTViTPredictor(build_dtvit(from_dict(DTViTConfig, dtvit.config)), dtvit, chosen),
            VolumeNetPredictor(build_volume_net(from_dict(VolumeNetConfig, volume.config)), volume, chosen),
            CandidatePredictor(CandidateNet(from_dict(CandidateNetConfig, candidate.config)), candidate, chosen),
            MarginPredictor(MarginNet(from_dict(MarginNetConfig, margin.config)), margin, chosen),
        )

    def session(self, stack: SliceStack, text: torch.Tensor | None) -> SegmentationSession:
        """A session on one stack: ICH-SCNet's towers see each slice once, prompts may change."""
        margin = self.margin_net if self.margin_net.fits(stack) else None
        return SegmentationSession(self.ich_scnet, stack, text, margin)

    @property
    def networks(self) -> tuple[Predictor, ...]:
        """Those that read the scan, slice networks first: the scan network reuses their stack."""
        return (self.ich_scnet, self.dtvit, self.volume_net)

    @property
    def device(self) -> torch.device:
        """Where they run."""
        return self.ich_scnet.device

    def infos(self) -> tuple[WeightsInfo, ...]:
        """What analysis.json says about the weights."""
        return tuple(network.weights.info() for network in (*self.networks, self.candidate_net, self.margin_net))


def _own_or_shipped(name: str, folder: str | os.PathLike | None) -> LoadedWeights:
    """The weights of a network of ours in a folder, or where it holds none those beside this module."""
    own = weights_path(name, folder)
    return load_weights(own if own.is_file() else weights_path(name), name)
