"""The whole analysis on a held-out simulated cohort: `python -m Training.cohort --out DIR --count N --seed S`.

Every case runs as a user's scan would, automatically and with a box around the truth, and becomes a row of cohort.csv;
summary.json and summary.md hold the figures of the model cards, and the coefficients of the presence rule fitted on
these scans, for `ICHAnalysisLib.config.analyze.FusionConfig`; failures/ shows what was missed, invented or outlined
badly. A stopped run goes on; another --seed is another cohort. Bleeds inserted into one real head, and mild variations
of that head as it is, are cohorts as well:

    python -m Training.cohort --out inserted --background HEAD --background-fraction 1 --positive-fraction 1 \\
        --confounders 0 --randomize 0.4
    python -m Training.cohort --out untouched --background HEAD --background-fraction 1 --positive-fraction 0 \\
        --confounders 0 --randomize 0.4
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ICHAnalysisLib.analysis import LABEL_ICH
from ICHAnalysisLib.config.analyze import AnalyzeOptions
from ICHAnalysisLib.config.preprocess import LOCATIONS
from ICHAnalysisLib.errors import ICHAnalysisError
from ICHAnalysisLib.outputs.atomic import write_text
from ICHAnalysisLib.overlap import dice
from ICHAnalysisLib.postprocess import find_evidence, native_labels
from ICHAnalysisLib.predict import Models
from ICHAnalysisLib.preprocess import native_to_stack
from ICHAnalysisLib.prompt_projection import StackPrompts
from ICHAnalysisLib.prompts import Box, Prompts, SlicePrompts, box_of
from ICHAnalysisLib.simulate.cohort import SimulatedCase
from ICHAnalysisLib.stages import Evidence, Proposed, propose_lesions, see_scan, see_slices, segment
from Training.cohort_figures import as_markdown, fit_fusion, summarize
from Training.data.pool import Plan, PoolConfig, analysis_command, keep_to_one_thread, load_backgrounds, plan_case
from Training.data.pool import simulate_plan as simulate
from Training.data.prompted_slices import clinical_record
from Training.pictures import montage, save_rgb
from Training.rows import read_rows, write_rows

logger = logging.getLogger(__name__)

#: An automatic outline below this Dice is worth a picture.
_POOR_DICE = 0.5
#: How much larger than the hemorrhage a box is drawn on each side.
_MARGIN_MM = 2.0


def case_row(case: SimulatedCase, models: Models, options: AnalyzeOptions) -> tuple[dict[str, Any], np.ndarray]:
    """Truth and answers of one case, and the automatic label map (K, J, I).

    Volumes in mL; Dice in 3-D on the acquired slices, automatic, with one box around the whole hemorrhage, and with a
    box on each slice that holds a part of it; `segment_poor` and `scan_poor` are ICH-SCNet's and the volume
    net's probability of a poor outcome, from the image alone; `record_poor` is ICH-SCNet's with the patient's record,
    which the boxed answer reads too. `poor_chance`: the simulation's own, which `poor_outcome` was one throw of.
    """
    evidence = Evidence.of(case.volume, models)
    slices = see_slices(evidence, models)
    scan = see_scan(evidence, models, want_heatmap=False)
    seen = propose_lesions(evidence, slices, scan, models, None, options)
    automatic = segment(evidence, slices, scan, models, None, None, None, options, seen)
    truth = case.labels == LABEL_ICH
    found = automatic.labels == LABEL_ICH
    row: dict[str, Any] = {
        "case_id": case.case_id,
        "kind": case.parameters["kind"],
        "has_ich": int(case.truth["has_ich"]),
        "volume_ml": round(float(case.truth["volume_ml"]), 3),
        "location": case.truth.get("location") or "",
        "look_alikes": " ".join(case.parameters["confounders"]),
        "thickness_mm": round(float(np.median(case.volume.slice_heights_mm)), 2),
        "noise_hu": round(float(case.parameters["acquisition"].get("noise_hu_at_5_mm", 0.0)), 2),
        "poor_outcome": case.outcome.get("poor_outcome", ""),
        "poor_chance": round(case.outcome["p_poor"], 4) if "p_poor" in case.outcome else "",
        "presence": round(automatic.presence, 5),
        "slice_probability": round(slices.scan_probability, 5),
        "evidence": round(find_evidence(automatic.candidates), 5),
        "found_ml": round(case.volume.mask_volume_ml(found), 3),
        "network_ml": round(scan.volume_ml, 3),
        "segment_poor": "" if automatic.poor_probability is None else round(automatic.poor_probability, 4),
        "scan_poor": round(scan.poor_probability, 4),
        "record_poor": "",
        "dice": "",
        "dice_box": "",
        "dice_slice_boxes": "",
        "found_location": "",
    }
    if truth.any():
        prompts = Prompts(boxes=(box_around(case),))
        boxed = segment(evidence, slices, scan, models, prompts, clinical_record(case.record), None, options)
        row["record_poor"] = "" if boxed.poor_probability is None else round(boxed.poor_probability, 4)
        row["dice"] = round(dice(found, truth), 4)
        row["dice_box"] = round(dice(boxed.labels == LABEL_ICH, truth), 4)
        row["dice_slice_boxes"] = round(dice(boxed_by_slice(seen, truth, options), truth), 4)
        areas = np.count_nonzero(boxed.labels == LABEL_ICH, axis=(1, 2)).astype(float)
        location = np.nan_to_num(slices.native_location())
        row["found_location"] = LOCATIONS[int((location * areas[:, None]).sum(axis=0).argmax())]
    return row, automatic.labels


def box_around(case: SimulatedCase, margin_mm: float = _MARGIN_MM) -> Box:
    """A box around the true hemorrhage, mm RAS, a little too large as a hand draws it."""
    k, j, i = np.nonzero(case.labels == LABEL_ICH)
    ras = case.volume.ijk_to_ras_points(np.stack([i, j, k], axis=1))
    low, high = ras.min(axis=0) - margin_mm, ras.max(axis=0) + margin_mm
    return Box(tuple(low.tolist()), tuple(high.tolist()))  # type: ignore[arg-type]


def boxed_by_slice(
    seen: Proposed, truth: np.ndarray, options: AnalyzeOptions, margin_mm: float = _MARGIN_MM
) -> np.ndarray:
    """Bool (K, J, I): the hemorrhage as found with a box of its own on every slice that holds some of `truth`."""
    stack = seen.session.stack
    bled = native_to_stack(truth.astype(np.float32), stack) > 0.5
    margin = margin_mm / np.array(stack.spacing_mm * 2) * (-1, -1, 1, 1)
    slices = []
    for plane in bled:
        slices.append(SlicePrompts.of_boxes([box_of(plane) + margin] if plane.any() else []))
    boxed = np.asarray(bled.any(axis=(1, 2)))
    asked = np.flatnonzero(boxed).tolist()
    ich = np.zeros(bled.shape, np.float32)
    if asked:
        ich[asked], _ = seen.session.obeying(asked, StackPrompts(tuple(slices), boxed, np.zeros_like(boxed), True))
    return native_labels(ich, None, stack, options.postprocess)[0] == LABEL_ICH


def run(cfg: PoolConfig, weights: str | None = None) -> dict[str, Any]:
    """Analyze what is missing of the cohort in `cfg.out`, and summarize all of it. Raises where no case worked."""
    table = cfg.out / "cohort.csv"
    rows = read_rows(table)
    done = {str(row["index"]) for row in rows}
    plans = [plan for plan in (plan_case(cfg, index) for index in range(cfg.count)) if str(plan.index) not in done]
    for number, row in enumerate(_analyzed(plans, cfg, weights), start=len(rows) + 1):
        if "error" in row:
            logger.warning("case %s: %s", row["index"], row["error"])
            continue
        rows.append(row)
        write_rows(table, rows)
        logger.info("%d/%d %s", number, cfg.count, row["case_id"])
    threshold = AnalyzeOptions().fusion.threshold
    summary = {"threshold": threshold, **summarize(rows, threshold)}
    if summary["presence_auc"] is not None:
        summary["fitted_fusion"] = fit_fusion(rows).__dict__
    write_text(cfg.out / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_text(cfg.out / "summary.md", as_markdown(summary))
    return summary


def _analyzed(plans: Sequence[Plan], cfg: PoolConfig, weights: str | None) -> Iterator[dict[str, Any]]:
    """Rows in any order, from this process or from `cfg.workers` others."""
    if cfg.workers == 1:
        _start(cfg, weights)
        yield from map(_analyze, plans)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(cfg.workers, _start, (cfg, weights)) as pool:
        yield from pool.imap_unordered(_analyze, plans)


_process: dict[str, Any] = {}


def _start(cfg: PoolConfig, weights: str | None) -> None:
    """What each process loads once."""
    load_backgrounds(cfg.backgrounds)
    _process.update(models=Models.load(weights), options=AnalyzeOptions(heatmap=False, intervals=False), out=cfg.out)
    if cfg.workers > 1:
        keep_to_one_thread()


def _analyze(plan: Plan) -> dict[str, Any]:
    """The row of one planned case, with "error" instead of an answer where it failed."""
    try:
        case = simulate(plan)
        row, labels = case_row(case, _process["models"], _process["options"])
    except (ICHAnalysisError, ValueError, ArithmeticError, IndexError) as error:
        return {"index": plan.index, "error": f"{type(error).__name__}: {error}"}
    reason = failure(row, _process["options"].fusion.threshold)
    if reason:
        save_rgb(_process["out"] / "failures" / f"{reason}-{case.case_id}.png", _picture(case, labels))
    return {"index": plan.index, **row}


def failure(row: dict[str, Any], threshold: float) -> str:
    """ "missed", "invented" or "poor" for a row that deserves a look, else an empty text."""
    positive = float(row["presence"]) >= threshold
    if int(row["has_ich"]) and not positive:
        return "missed"
    if not int(row["has_ich"]) and positive:
        return "invented"
    return "poor" if row["dice"] != "" and float(row["dice"]) < _POOR_DICE else ""


def _picture(case: SimulatedCase, labels: np.ndarray) -> np.ndarray:
    """The slices with true or found blood, the truth outlined in the upper row and the answer in the lower."""
    wanted = np.flatnonzero(((case.labels == LABEL_ICH) | (labels == LABEL_ICH)).any(axis=(1, 2)))
    if not wanted.size:
        wanted = np.arange(len(labels))
    wanted = wanted[np.linspace(0, len(wanted) - 1, min(8, len(wanted))).round().astype(int)]
    rows = [
        montage([{"hu": case.volume.hu[k], "labels": (source[k] == LABEL_ICH).astype(np.uint8)} for k in wanted])
        for source in (case.labels, labels)
    ]
    return np.concatenate([row for row in rows if row is not None])


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 done, 2 wrong use."""
    return analysis_command(
        argv,
        prog="python -m Training.cohort",
        description="Figures on a simulated cohort.",
        run=run,
        count=200,
        seed=900_000,
        positive_fraction=0.5,
    )


if __name__ == "__main__":
    raise SystemExit(main())
