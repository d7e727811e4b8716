"""Candidates of cached scans: `python -m Training.data.candidate_pool CACHE [CACHE ...] --out DIR`.

The shipped networks look at every scan of the caches; what they outline, hemorrhage or not, becomes a crop that the
candidate net learns from. A scan whose hemorrhage they miss gives a crop of its own. One folder a scan, as in a cache:

    KEY/hu.npy        int16 (n, slices, size, size) HU of n crops
    KEY/outlines.npy  bool, the same shape
    KEY/meta.json     the scan's facts, and for each crop whether it is hemorrhage

A stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.candidate_crops import CandidateCrop, cut_crop
from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.config.candidate_net import PREPROCESS, PRESETS, CandidateNetConfig
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from ICHAnalysisLib.postprocess import CONNECTIVITY, Candidate
from ICHAnalysisLib.preprocess import native_to_stack
from ICHAnalysisLib.stages import Evidence, propose_lesions, see_scan, see_slices
from Training.data.cache import ICH, CacheCase, is_cached, open_cache, stored_hu, write_entry

logger = logging.getLogger(__name__)

#: A candidate is hemorrhage where this share of it is.
_TRUE_SHARE = 0.2
#: What is cut: looser than what an analysis weighs, so that more is learned from.
_SEED_PROBABILITY, _SMALLEST_ML, _BRAIN_SHARE, _MOST = 0.5, 0.08, 0.4, 10
_KIND = "candidates"


@dataclass(frozen=True, eq=False)
class CropCase(CacheCase):
    """The crops of one scan."""

    @cached_property
    def outlines(self) -> np.ndarray:
        """bool (n, slices, size, size), read-only."""
        return np.load(self.folder / "outlines.npy", mmap_mode="r")

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Of each crop: is_ich, missed (nobody outlined it), volume_ml and log_height."""
        return list(self.meta["candidates"])

    def crop(self, n: int) -> CandidateCrop:
        """Crop n, as float32 HU."""
        return CandidateCrop(
            self.hu[n].astype(np.float32), np.array(self.outlines[n]), float(self.candidates[n]["log_height"])
        )


def open_crops(cases: list[CacheCase]) -> list[CropCase]:
    """The scans with any crop. Raises UsageError where a folder holds whole scans instead, or none has a crop."""
    wrong = [case for case in cases if case.meta.get("kind") != _KIND]
    if wrong:
        raise UsageError(
            f"{wrong[0].folder} is a scan, not its candidates; cut them with Training.data.candidate_pool first."
        )
    found = [CropCase(case.folder, case.meta) for case in cases if case.meta["candidates"]]
    if not found:
        raise UsageError("No scan of this split has a candidate; cut those of more scans.")
    return found


def fill(caches: list[Path], out: Path, weights: str | None = None) -> int:
    """Cut what is missing; returns the number of scans that were looked at."""
    from ICHAnalysisLib.predict import Models

    cfg, pixel_mm = PRESETS["compact"], PREPROCESS["compact"].spacing_mm
    cases = [case for cache in caches for case in open_cache(cache)]
    missing = [case for case in cases if not is_cached(out, case.folder.name)]
    logger.info("%d of %d scans are there", len(cases) - len(missing), len(cases))
    models = Models.load(weights)
    for done, case in enumerate(missing, start=1):
        found = look_at(case, models, cfg, pixel_mm)
        write_crops(out, case, found, cfg)
        if done % 10 == 0 or done == len(missing):
            logger.info("%d/%d scans", done, len(missing))
    return len(missing)


def look_at(
    case: CacheCase, models: Any, cfg: CandidateNetConfig, pixel_mm: float
) -> list[tuple[CandidateCrop, dict[str, Any]]]:
    """The crops of one scan and what each of them is."""
    evidence = Evidence.of(volume_of(case), models)
    slices, scan = see_slices(evidence, models), see_scan(evidence, models, want_heatmap=False)
    seen = propose_lesions(evidence, slices, scan, models, None, AnalyzeOptions())
    stack = seen.session.stack
    bled = native_to_stack((np.asarray(case.labels) == ICH).astype(np.float32), stack) > 0.5
    boxes = ndimage.find_objects(seen.components)
    found = []
    for candidate in _worth_learning(seen.candidates):
        crop = cut_crop(stack, seen.components, candidate.label, boxes[candidate.label - 1], cfg, pixel_mm)
        facts = {
            "is_ich": is_hemorrhage(candidate, seen.components, bled),
            "missed": False,
            "volume_ml": round(candidate.volume_ml, 4),
        }
        found.append((crop, facts))
    if bled.any() and not any(facts["is_ich"] for _, facts in found):
        regions, _ = ndimage.label(bled, structure=CONNECTIVITY)
        label = int(np.bincount(regions.ravel())[1:].argmax()) + 1
        box = ndimage.find_objects(regions)[label - 1]
        crop = cut_crop(stack, regions, label, box, cfg, pixel_mm)
        volume_ml = float((regions == label).sum(axis=(1, 2)) @ stack.pixel_volumes_ml)
        found.append((crop, {"is_ich": True, "missed": True, "volume_ml": round(volume_ml, 4)}))
    return found


def is_hemorrhage(candidate: Candidate, components: np.ndarray, bled: np.ndarray) -> bool:
    """Whether a fifth of the candidate, an entry of `components`, lies in the true hemorrhage; both (S, H, W)."""
    return float(bled[components == candidate.label].mean()) > _TRUE_SHARE


def _worth_learning(candidates: list[Candidate]) -> list[Candidate]:
    """The surest ones first, without specks and what lies outside the brain."""
    kept = [
        c
        for c in candidates
        if c.volume_ml >= _SMALLEST_ML
        and c.facts.peak_probability >= _SEED_PROBABILITY
        and c.facts.in_brain >= _BRAIN_SHARE
    ]
    return sorted(kept, key=lambda c: -c.facts.peak_probability)[:_MOST]


def volume_of(case: CacheCase) -> CTVolume:
    """A cached stack as a scan: x to the patient's left, y to the back, slices from below to above."""
    hu = np.asarray(case.hu, dtype=np.float32)
    dx, dy = (float(step) for step in case.meta["spacing_mm"])
    origins = np.zeros((len(hu), 3))
    origins[:, :2] = hu.shape[2] / 2 * dx, hu.shape[1] / 2 * dy
    origins[:, 2] = case.meta["positions_mm"]
    return CTVolume(
        hu, np.array([-dx, 0.0, 0.0]), np.array([0.0, -dy, 0.0]), origins, np.asarray(case.meta["heights_mm"], float)
    )


def write_crops(
    out: Path, case: CacheCase, found: list[tuple[CandidateCrop, dict[str, Any]]], cfg: CandidateNetConfig
) -> Path:
    """One scan's folder; the scan's own facts go with it, but for its slices'."""
    shape = (len(found), cfg.slices, cfg.size, cfg.size)
    hu, outlines = np.empty(shape, np.int16), np.empty(shape, dtype=bool)
    for n, (crop, _) in enumerate(found):
        hu[n], outlines[n] = stored_hu(crop.hu), crop.outline
    facts = {name: case.meta.get(name) for name in ("case_id", "patient_id", "synthetic", "source", "has_ich", "split")}
    facts["candidates"] = [{**told, "log_height": round(crop.log_height, 4)} for crop, told in found]
    return write_entry(out, case.folder.name, {"hu": hu, "outlines": outlines}, {**facts, "kind": _KIND})


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 done, 2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m Training.data.candidate_pool", description="Cut the candidates of cached scans."
    )
    parser.add_argument("caches", nargs="+", type=Path, metavar="CACHE")
    parser.add_argument("--out", type=Path, required=True, help="folder of the crops")
    parser.add_argument("--weights", help="folder of the networks that look (default: the shipped ones)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        looked = fill(args.caches, args.out, args.weights)
    except (ICHAnalysisError, json.JSONDecodeError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: {looked} scans looked at")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
