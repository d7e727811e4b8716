"""ICH-SCNet on one stack: the towers see each slice once, prompts may change as often as a user likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from ICHAnalysisLib.analysis import Interval
from ICHAnalysisLib.config.analyze import ProposalConfig
from ICHAnalysisLib.errors import WeightsError
from ICHAnalysisLib.margin_crops import boxes_around
from ICHAnalysisLib.networks.encoders import TowerFeatures
from ICHAnalysisLib.postprocess import CONNECTIVITY
from ICHAnalysisLib.preprocess import SliceStack
from ICHAnalysisLib.prompt_projection import StackPrompts, project_prompts
from ICHAnalysisLib.prompts import PromptBatch, Prompts, SlicePrompts, drawn_boxes, with_mask_prompts
from ICHAnalysisLib.variations import Variation

if TYPE_CHECKING:
    from ICHAnalysisLib.predict import ICHSCNetPredictor, MarginPredictor

#: Slices that are decoded at once. With more, single maps exceed 32 MiB, which malloc takes from the system and gives
#: back each time: filling new pages then takes longer than the arithmetic.
_BATCH = 6
#: A mask's volume at probabilities 0.5 -+ this bounds the interval of its margin.
_MARGIN = 0.35
#: How far, and how alike in density, tissue is added around a positive point that the network did not follow.
_POINT_REACH_PX, _POINT_HU = 22, 8.0
#: Probability from which a pixel is outlined, and the margin net's part in it, inside boxes and without any; chosen on
#: simulated scans alone.
_OUTLINED, _MARGIN_WEIGHT, _UNBOXED_WEIGHT = 0.5, 0.8, 0.65
_NO_BOXES = np.zeros((0, 4), np.float32)


class SegmentationSession:
    """Answers for the slices of one stack; features, text and images are kept between calls.

    predictor: network, device and precision. text: (1, 77) token ids or None. margin: the net that is asked beside
    ICH-SCNet. variation: how both see the slices; prompts and answers are those of the stack as it is.
    """

    def __init__(
        self,
        predictor: ICHSCNetPredictor,
        stack: SliceStack,
        text: torch.Tensor | None,
        margin: MarginPredictor | None = None,
        variation: Variation | None = None,
    ) -> None:
        self.predictor = predictor
        self.stack = stack
        self.text = text
        self.margin = margin
        self.variation = variation or Variation()
        self._features: dict[int, TowerFeatures] = {}
        self._images: dict[int, torch.Tensor] = {}
        self._outcome: dict[int, float] = {}
        self._seen: dict[int, torch.Tensor] = {}  # feature output of the unprompted pass, which the classifier reads

    def varied(self, variation: Variation) -> SegmentationSession:
        """A session on the same stack whose slices the network sees in another way."""
        return SegmentationSession(self.predictor, self.stack, self.text, self.margin, variation)

    def predict(
        self, indices: Sequence[int] | np.ndarray, prompts: StackPrompts | None = None, with_outcome: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """ICH and IVH probabilities, float32 (n, H, W) each, of stack slices `indices`.

        with_outcome: also keep the outcome of these slices for `poor_probability`.
        """
        ich, ivh = [], []
        for start in range(0, len(indices), _BATCH):
            part = [int(index) for index in indices[start : start + _BATCH]]
            probs, outcome = self._forward(part, prompts, with_outcome)
            ich.append(probs[:, 0])
            ivh.append(probs[:, 1] if probs.shape[1] > 1 else np.zeros_like(probs[:, 0]))
            if outcome is not None:
                self._outcome.update(zip(part, outcome.tolist(), strict=True))
        return np.concatenate(ich), np.concatenate(ivh)

    def unprompted(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ICH and IVH probabilities (n, H, W) of slices without a prompt, ICH joined with the margin net's."""
        ich, ivh = self.predict(indices)
        if self.margin is None or not self.margin.network.cfg.unboxed:
            return ich, ivh
        other = self.margin.everywhere(self.stack, [int(s) for s in indices], self.variation)
        return (1 - _UNBOXED_WEIGHT) * ich + _UNBOXED_WEIGHT * beside_ivh(other, ivh), ivh

    def prompted(self, prompts: Prompts, ich: np.ndarray, ivh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The automatic (S, H, W) answers with the user's prompts obeyed.

        Boxes restrict: blood outside every box is not outlined, on slices without a box nothing is, unless a positive
        point lies there. Points alone change their own slices and leave the others as they were; where a slice has
        negative points alone, its answer stays but for the regions they lie in.
        """
        projected = project_prompts(prompts, self.stack)
        ich, ivh = ich.copy(), ivh.copy()
        if projected.restricted:
            ich[:] = 0.0
        asked = []
        for s, item in enumerate(projected.slices):
            if projected.boxed[s] or (item.point_labels == 1).any() or item.mask is not None:
                asked.append(s)
            elif projected.pointed[s]:
                ich[s], ivh[s] = without_regions(ich[s], item), without_regions(ivh[s], item)
        if asked:
            ich[asked], ivh[asked] = self.obeying(asked, projected)
        return ich, ivh

    def obeying(self, indices: Sequence[int], projected: StackPrompts) -> tuple[np.ndarray, np.ndarray]:
        """ICH and IVH probabilities (n, H, W) of slices with every prompt on them obeyed.

        Negative points are a rule on the answer to the other prompts: the network that is given one often leaves a rim
        of the lesion, and takes others along.
        """
        kept = tuple(without_negatives(item) for item in projected.slices)
        ich, ivh = self.predict(indices, replace(projected, slices=kept))
        ich = self._with_margins(ich, indices, [given.boxes if given.mask is None else _NO_BOXES for given in kept])
        for n, s in enumerate(indices):
            given = projected.slices[s]
            allowed = within_boxes(ich[n], given) if projected.restricted else ich[n]
            ich[n] = obey_points(allowed, self.stack.hu[s], given)
            ivh[n] = without_regions(ivh[n], given)
        return ich, ivh

    def refined(
        self, ich: np.ndarray, ivh: np.ndarray, proposed: StackPrompts, cfg: ProposalConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        """The unprompted (S, H, W) answers raised towards those inside the proposed boxes, as far as these may grow."""
        asked = np.flatnonzero(proposed.boxed).tolist()
        if not asked:
            return ich, ivh
        ich, ivh = ich.copy(), ivh.copy()
        new_ich, new_ivh = self.predict(asked, proposed)
        for n, s in enumerate(asked):
            near = ndimage.binary_dilation(ich[s] > cfg.low, iterations=cfg.growth_px)
            more = within_boxes(new_ich[n], proposed.slices[s]) * near
            ich[s] += cfg.weight * np.maximum(0.0, more - ich[s])
            ivh[s] += cfg.weight * np.maximum(0.0, new_ivh[n] - ivh[s])
        return ich, ivh

    def settled(self, ich: np.ndarray, ivh: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """The automatic (S, H, W) answer `ich` where the margin net was also asked about what it outlines in `kept`.

        kept: bool (S, H, W), the surroundings of the lesions that are shown. Nothing is added that does not touch them.
        ivh: (S, H, W), what the margin net leaves alone.
        """
        result = ich * kept
        outline = result >= _OUTLINED
        if self.margin is None or not outline.any():
            return result
        boxes = boxes_around(outline)
        asked = [s for s, given in enumerate(boxes) if len(given)]
        result[asked] = self._with_margins(ich[asked], asked, boxes, elsewhere=result[asked], ivh=ivh[asked])
        regions, _ = ndimage.label(result >= _OUTLINED, structure=CONNECTIVITY)
        return np.where((regions == 0) | np.isin(regions, regions[outline]), result, 0.0).astype(np.float32)

    def _with_margins(
        self,
        ich: np.ndarray,
        indices: Sequence[int],
        boxes: Sequence[np.ndarray],
        elsewhere: np.ndarray | None = None,
        ivh: np.ndarray | None = None,
    ) -> np.ndarray:
        """ICH-SCNet's (n, H, W) answer on slices `indices` joined with the margin net's on the `boxes` of every slice.

        elsewhere: what stands where the margin net was not asked; `ich` where None. ivh: (n, H, W), ventricular blood;
        None where a user's box says that blood is hemorrhage.
        """
        chosen = [n for n, s in enumerate(indices) if len(boxes[s])]
        if self.margin is None or not chosen:
            return ich
        asked = [indices[n] for n in chosen]
        answer = self.margin.predict(self.stack, asked, [boxes[s] for s in asked], self.variation)
        if ivh is not None:
            answer = beside_ivh(answer, ivh[chosen])
        result = (ich if elsewhere is None else elsewhere).copy()
        result[chosen] = np.where(
            np.isnan(answer), result[chosen], (1 - _MARGIN_WEIGHT) * ich[chosen] + _MARGIN_WEIGHT * answer
        )
        return result

    def volume_interval(self, ich: np.ndarray, indices: Sequence[int], threshold: float) -> Interval:
        """The volume with the interval of an uncertain margin: how much it changes with the probability asked for."""
        pixel_ml = self.stack.pixel_volumes_ml

        def volume(level: float) -> float:
            return float(np.count_nonzero(ich >= level, axis=(1, 2)) @ pixel_ml)

        low, high = min(0.98, threshold + _MARGIN), max(0.02, threshold - _MARGIN)
        return Interval(
            round(volume(threshold), 3),
            round(volume(low), 3),
            round(volume(high), 3),
            "mL",
            f"margin between probabilities {low:.2f} and {high:.2f} on {len(indices)} slices; no confidence interval",
            "range of the outline's margin",
        )

    def poor_probability(self, indices: Sequence[int], mask: np.ndarray) -> float | None:
        """Probability of a poor outcome: mean logit of the slices weighted by lesion area (decision S27)."""
        wanted = [int(s) for s in indices if mask[s].any()]
        if not wanted:
            return None
        self._classify([s for s in wanted if s not in self._outcome and s in self._seen])
        missing = [s for s in wanted if s not in self._outcome]
        if missing:
            self.predict(missing, None, with_outcome=True)
        if any(s not in self._outcome for s in wanted):
            return None
        logits = np.array([self._outcome[s] for s in wanted])
        areas = np.array([np.count_nonzero(mask[s]) for s in wanted], dtype=float)
        temperature = float(self.predictor.weights.card.get("temperature", 1.0))
        return float(1 / (1 + np.exp(-np.average(logits, weights=areas) / temperature)))

    def _forward(
        self, part: list[int], prompts: StackPrompts | None, with_outcome: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities (n, K, H, W) and outcome logits (n,) of a few slices."""
        network, cfg = self.predictor.network, self.predictor.network.cfg
        given = [prompts.slices[s] for s in part] if prompts is not None else [SlicePrompts.empty()] * len(part)
        if not cfg.dense_prompts:  # SAM's own prompt encoder takes a rough mask as box and points, seeded by the slice
            given = [with_mask_prompts(item, np.random.default_rng(s)) for s, item in zip(part, given, strict=True)]
        given = [self.variation.prompts(item, self.stack.hu.shape[1:]) for item in given]
        batch = PromptBatch.from_slices(given, cfg.max_boxes, cfg.max_points).to(self.predictor.device)
        with torch.inference_mode(), self.predictor.autocast():
            image = self._image(part)
            features = None if cfg.per_scale else self._encoded(part, image)
            tokens = None if self.text is None else self.text.expand(len(part), -1)
            output = network(image, batch, tokens, features=features, with_outcome=with_outcome, deep=False)
            if output.segmentation is None:  # a predictor of masks refuses weights that make none
                raise WeightsError("These ICH-SCNet weights made no masks.")
            probs = self.variation.back(torch.sigmoid(output.segmentation.float()).cpu().numpy())
            outcome = None
            if output.outcome is not None:
                outcome = (output.outcome[:, 1] - output.outcome[:, 0]).float().cpu().numpy()
            elif prompts is None and network.classifier is not None:
                self._seen.update({s: output.feature[n : n + 1] for n, s in enumerate(part)})
        return probs, outcome

    def _classify(self, indices: list[int]) -> None:
        """Keep the outcome of slices whose features stand: the classifier alone, not the whole network again."""
        network = self.predictor.network
        if network.classifier is None:
            return  # nothing was seen for it
        for start in range(0, len(indices), _BATCH):
            part = indices[start : start + _BATCH]
            with torch.inference_mode(), self.predictor.autocast():
                text = network.encode_text(None if self.text is None else self.text.expand(len(part), -1), len(part))
                logits = network.classifier(torch.cat([self._seen[s] for s in part]), text).float().cpu().numpy()
            self._outcome.update(zip(part, (logits[:, 1] - logits[:, 0]).tolist(), strict=True))

    def _image(self, part: list[int]) -> torch.Tensor:
        """(n, C, H, W) windows of slices."""
        missing = [s for s in part if s not in self._images]
        if missing:
            tensor = self.variation.image(self.predictor.slices_tensor(self.stack.hu, missing))
            self._images.update({s: tensor[n : n + 1] for n, s in enumerate(missing)})
        joined = torch.cat([self._images[s] for s in part])
        return joined.contiguous(memory_format=torch.channels_last)

    def _encoded(self, part: list[int], image: torch.Tensor) -> TowerFeatures:
        """Tower features of slices, computed once."""
        missing = [n for n, s in enumerate(part) if s not in self._features]
        if missing:
            found = self.predictor.network.encode(image[missing])
            for row, n in enumerate(missing):
                self._features[part[n]] = TowerFeatures(
                    *(None if f is None else f[row : row + 1] for f in _both(found))
                )
        rows = [self._features[s] for s in part]
        return TowerFeatures(_joined([row.sam for row in rows]), _joined([row.clip for row in rows]))


def _both(features: TowerFeatures) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(sam, clip)."""
    return features.sam, features.clip


def _joined(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """A tower's features of several slices as one batch; None for a tower that is not built."""
    built = [part for part in parts if part is not None]
    return torch.cat(built) if built else None


def beside_ivh(ich: np.ndarray, ivh: np.ndarray) -> np.ndarray:
    """The margin net's ICH probability as far as ICH-SCNet's of IVH leaves room, NaN where it was not asked.

    A pixel's blood lies in tissue or in a ventricle, and the margin net does not know ventricles.
    """
    return np.minimum(ich, 1 - ivh)


def without_negatives(given: SlicePrompts) -> SlicePrompts:
    """The same prompts less the negative points."""
    keep = given.point_labels != 0
    return replace(given, points=given.points[keep], point_labels=given.point_labels[keep])


def obey_points(probability: np.ndarray, hu: np.ndarray, given: SlicePrompts) -> np.ndarray:
    """(H, W) probability in which every point is obeyed; that of the prompts without the negative points.

    A positive point that lies outside the outline adds the tissue of its own density around it; a negative point
    that lies inside removes the region of the slice it lies in. hu: (H, W) of the same slice.
    """
    result = probability.copy()
    for y, x in _pixels(given, 1, result.shape):
        if result[y, x] < 0.5:
            result[_alike(hu, y, x)] = 1.0
    return without_regions(result, given)


def without_regions(probability: np.ndarray, given: SlicePrompts) -> np.ndarray:
    """(H, W) probability, 0 in the regions of at least 0.5 that negative points lie in."""
    result = probability.copy()
    for y, x in _pixels(given, 0, result.shape):
        if result[y, x] >= 0.5:
            regions, _ = ndimage.label(result >= 0.5)
            result[regions == regions[y, x]] = 0.0
    return result


def _pixels(given: SlicePrompts, label: int, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Rows and columns of the points of one label, moved onto the slice."""
    height, width = shape
    points = given.points[given.point_labels == label]
    return [(int(np.clip(round(y), 0, height - 1)), int(np.clip(round(x), 0, width - 1))) for x, y in points]


def _alike(hu: np.ndarray, y: int, x: int) -> np.ndarray:
    """(H, W) bool: tissue connected to a pixel, of its density within 8 HU, at most 22 pixels away."""
    smooth = ndimage.uniform_filter(hu, 3)
    rows, columns = np.ogrid[: hu.shape[0], : hu.shape[1]]
    near = (rows - y) ** 2 + (columns - x) ** 2 <= _POINT_REACH_PX**2
    regions, _ = ndimage.label((np.abs(smooth - smooth[y, x]) <= _POINT_HU) & near)
    return regions == regions[y, x]


def within_boxes(probability: np.ndarray, given: SlicePrompts, margin_px: float = 2.0) -> np.ndarray:
    """(H, W) probability with components that reach into no box, and hold no positive point, set to 0.

    The network keeps a boxed lesion whole even where it sticks out of its box; what merely lies elsewhere is removed.
    """
    components, count = ndimage.label(probability >= 0.5)
    if not count:
        return probability
    reach = np.hstack([np.floor(given.boxes[:, :2] - margin_px), np.ceil(given.boxes[:, 2:] + margin_px)])
    allowed = drawn_boxes(reach, probability.shape) > 0
    inside = np.bincount(components[allowed], minlength=count + 1)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    keep = inside >= 0.5 * sizes
    height, width = probability.shape
    for (x, y), label in zip(given.points, given.point_labels, strict=True):
        if label == 1:
            keep[components[int(np.clip(round(y), 0, height - 1)), int(np.clip(round(x), 0, width - 1))]] = True
    keep[0] = True
    return np.where(keep[components], probability, 0.0)
