"""What a user's prompts do to ICH-SCNet's masks, measured: `python -m Training.prompt_effects WEIGHTS CACHE`.

On slices with hemorrhage: a negative point in the middle of each predicted lesion must remove it, a positive point in
the middle of each missed one must add it, a box around the reference must not make the mask worse. Printed twice: the
network alone, and the library's answer, in which rules see to it that points are obeyed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.errors import ICHAnalysisError
from ICHAnalysisLib.overlap import dice
from ICHAnalysisLib.preprocess import with_neighbors
from ICHAnalysisLib.prompts import SlicePrompts, box_of
from ICHAnalysisLib.weights.registry import file_sha256
from Training.data.cache import ICH, CacheCase

log = logging.getLogger(__name__)

#: HU (3, H, W) of a slice between its neighbors and prompts to the slice's bool mask (H, W).
Predict = Callable[[np.ndarray, SlicePrompts], np.ndarray]
_SMALLEST_PX = 20
_MISSED = 0.5  # a lesion of which less than this share is found


def prompt_effects(slices: Iterable[tuple[np.ndarray, np.ndarray]], predict: Predict) -> dict[str, float]:
    """Means over lesions of pairs of what `predict` reads and the reference (H, W), and counts; NaN of none.

    negative_removed: share of a predicted lesion that a negative point takes away. negative_elsewhere: share of the
    other predicted pixels that go with it. positive_before, positive_after: share of a missed lesion that is found
    without and with a positive point. automatic_dice, box_dice: of slices.
    """
    removed, elsewhere, before, after, automatic_dice, box_dice = ([] for _ in range(6))
    for hu, truth in slices:
        automatic = predict(hu, SlicePrompts.empty())
        automatic_dice.append(dice(automatic, truth))
        box_dice.append(dice(predict(hu, _box(truth)), truth))
        for lesion in _lesions(automatic):
            corrected = predict(hu, _point(lesion, 0))
            removed.append(1 - (corrected & lesion).sum() / lesion.sum())
            others = automatic & ~lesion
            if others.any():
                elsewhere.append(1 - (corrected & others).sum() / others.sum())
        for lesion in _lesions(truth):
            found = (automatic & lesion).sum() / lesion.sum()
            if found < _MISSED:
                before.append(found)
                after.append((predict(hu, _point(lesion, 1)) & lesion).sum() / lesion.sum())
    return {
        "slices": len(automatic_dice),
        "automatic_dice": _mean(automatic_dice),
        "box_dice": _mean(box_dice),
        "predicted_lesions": len(removed),
        "negative_removed": _mean(removed),
        "negative_elsewhere": _mean(elsewhere),
        "missed_lesions": len(before),
        "positive_before": _mean(before),
        "positive_after": _mean(after),
    }


def largest_slices(cases: Sequence[CacheCase]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """HU (3, H, W), between its neighbors, and reference of each bleeding case's slice with most hemorrhage."""
    for case in cases:
        areas = np.asarray(case.meta["slices"]["ich"])
        if areas.max() >= _SMALLEST_PX:
            s = int(areas.argmax())
            yield with_neighbors(case.hu, [s])[0].astype(np.float32), np.asarray(case.labels[s]) == ICH


def load_predict(path: Path) -> tuple[Predict, Predict]:
    """The shipped or trained weights as functions of one slice: the network alone, and with points obeyed by rule.

    Raises WeightsError where they do not fit.
    """
    import torch

    from ICHAnalysisLib.config.base import from_dict
    from ICHAnalysisLib.config.ich_scnet import ICHSCNetConfig
    from ICHAnalysisLib.networks.ich_scnet import build_ich_scnet
    from ICHAnalysisLib.preprocess import slice_channels
    from ICHAnalysisLib.prompts import PromptBatch
    from ICHAnalysisLib.segmentation_session import obey_points, without_negatives
    from ICHAnalysisLib.weights.registry import load_state, load_weights

    weights = load_weights(path, "ich_scnet")
    network = build_ich_scnet(from_dict(ICHSCNetConfig, weights.config)).eval()
    load_state(network, weights)

    def probability(hu: np.ndarray, prompts: SlicePrompts) -> np.ndarray:
        image = torch.from_numpy(slice_channels(hu, weights.preprocess))[None]
        with torch.inference_mode():
            output = network(image, PromptBatch.from_slices([prompts]), with_outcome=False)
        return torch.sigmoid(output.segmentation[0, 0]).numpy()

    def alone(hu: np.ndarray, prompts: SlicePrompts) -> np.ndarray:
        return probability(hu, prompts) >= 0.5

    def obeying(hu: np.ndarray, prompts: SlicePrompts) -> np.ndarray:
        return obey_points(probability(hu, without_negatives(prompts)), hu[1], prompts) >= 0.5

    return alone, obeying


def markdown(columns: dict[str, dict[str, float]]) -> str:
    """Measures as rows, ways of answering as columns."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name in next(iter(columns.values())):
        values = [column[name] for column in columns.values()]
        cells = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in values]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _lesions(mask: np.ndarray) -> list[np.ndarray]:
    """Masks of the components that are not tiny."""
    labels, count = ndimage.label(mask, np.ones((3, 3), int))
    parts = [labels == number for number in range(1, count + 1)]
    return [part for part in parts if part.sum() >= _SMALLEST_PX]


def _point(lesion: np.ndarray, label: int) -> SlicePrompts:
    """One point at the pixel farthest from the lesion's edge."""
    depth = ndimage.distance_transform_edt(np.pad(lesion, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), lesion.shape)
    return SlicePrompts(np.zeros((0, 4), np.float32), np.array([[x, y]], np.float32), np.array([label]))


def _box(truth: np.ndarray) -> SlicePrompts:
    """A tight box around the reference."""
    return SlicePrompts.of_boxes([box_of(truth)])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    from Training.data.cache import open_cache

    parser = argparse.ArgumentParser(prog="python -m Training.prompt_effects", description=__doc__)
    parser.add_argument("weights", type=Path, help="weights file of ICH-SCNet (.safetensors)")
    parser.add_argument("cache", type=Path, help="folder of preprocessed cases that the weights were not trained on")
    parser.add_argument("--cases", type=int, default=30, help="at most this many bleeding cases")
    args = parser.parse_args(argv)
    try:
        alone, obeying = load_predict(args.weights)
        cases = [case for case in open_cache(args.cache) if case.meta.get("has_ich")][: args.cases]
        found = {
            name: prompt_effects(largest_slices(cases), predict)
            for name, predict in (("network alone", alone), ("library", obeying))
        }
        print(f"{args.weights.name}, sha256 {file_sha256(args.weights)[:12]}, {len(cases)} bleeding cases\n")
        print(markdown(found))
    except ICHAnalysisError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
