"""The weights of `CandidateModel`, fitted on simulated scans: `python -m Training.candidate_fit --out DIR --count N`.

Every candidate that the shipped networks outline becomes a row of candidates.csv, with what it is judged by and
whether it is hemorrhage; fitted.json holds the logistic regression, how well it tells the scans apart where it was not
fitted (cross-validation by scan), and both parts of `ICHAnalysisLib.config.analyze` to take over. A stopped run goes
on, and a run with another --seed adds its scans to those in the folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from ICHAnalysisLib.analysis import LABEL_ICH
from ICHAnalysisLib.candidate_facts import CandidateFacts, log_odds
from ICHAnalysisLib.config.analyze import AnalyzeOptions, CandidateModel
from ICHAnalysisLib.discrimination import auc
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.outputs.atomic import write_text
from ICHAnalysisLib.postprocess import Candidate
from ICHAnalysisLib.predict import Models
from ICHAnalysisLib.preprocess import native_to_stack
from ICHAnalysisLib.simulate.cohort import SimulatedCase
from ICHAnalysisLib.stages import Evidence, propose_lesions, see_scan, see_slices
from Training.data.candidate_pool import is_hemorrhage
from Training.data.pool import PoolConfig, analysis_command, load_backgrounds, plan_case
from Training.data.pool import simulate_plan as simulate
from Training.rows import read_rows, write_rows

logger = logging.getLogger(__name__)

#: Pull of the weights towards 0, on terms scaled to unit spread.
_RIDGE = 1.0
_FOLDS = 10
_FACTS = [field.name for field in fields(CandidateFacts)]
Row = dict[str, Any]


def case_rows(case: SimulatedCase, models: Models, options: AnalyzeOptions) -> list[Row]:
    """One row a candidate that no hard rule refuses, or a single row without facts for a scan without any."""
    evidence = Evidence.of(case.volume, models)
    slices = see_slices(evidence, models)
    scan = see_scan(evidence, models, want_heatmap=False)
    seen = propose_lesions(evidence, slices, scan, models, None, options)
    bled = native_to_stack((case.labels == LABEL_ICH).astype(np.float32), seen.session.stack) > 0.5
    return rows_of(case.truth, slices.scan_probability, seen.candidates, seen.components, bled)


def rows_of(
    truth: dict[str, Any], scan_probability: float, candidates: Sequence[Candidate], components: np.ndarray, bled: Any
) -> list[Row]:
    """`case_rows` of a scan already seen. bled: bool (S, H, W), the true hemorrhage on the stack."""
    scan = {
        "has_ich": int(truth["has_ich"]),
        "true_ml": round(float(truth["volume_ml"]), 3),
        "slice_probability": round(scan_probability, 5),
    }
    rows = []
    for candidate in candidates:
        if candidate.weighed:
            facts = {name: round(value, 5) for name, value in asdict(candidate.facts).items()}
            rows.append({**scan, "is_ich": int(is_hemorrhage(candidate, components, bled)), **facts})
    return rows or [{**scan, "is_ich": "", **dict.fromkeys(_FACTS, "")}]


def run(cfg: PoolConfig, weights: str | None = None) -> dict[str, Any]:
    """Look at what is missing of the pool, and fit on everything in the folder. Raises where it holds too little."""
    table = cfg.out / "candidates.csv"
    rows = read_rows(table)
    done = {row["scan"] for row in rows}
    load_backgrounds(cfg.backgrounds)
    models, options = Models.load(weights), AnalyzeOptions()
    for index in range(cfg.count):
        scan = f"{cfg.seed}-{index}"
        if scan in done:
            continue
        found = case_rows(simulate(plan_case(cfg, index)), models, options)
        rows += [{"scan": scan, **row} for row in found]
        write_rows(table, rows)
        logger.info("%d/%d", index + 1, cfg.count)
    fitted = fit(rows)
    write_text(cfg.out / "fitted.json", json.dumps(fitted, indent=2) + "\n")
    return fitted


def fit(rows: Sequence[Row]) -> dict[str, Any]:
    """The model on all rows, and what cross-validation says of it. Raises UsageError where one kind is missing."""
    held = [row for row in rows if row["is_ich"] != ""]
    kinds = {int(row["is_ich"]) for row in held}
    if kinds != {0, 1}:
        raise UsageError("Candidates: the scans hold no candidate of one kind; look at more of them (--count).")
    model = fit_model(held)
    scans = list(dict.fromkeys(str(row["scan"]) for row in rows))
    fold_of = {scan: n % _FOLDS for n, scan in enumerate(np.random.default_rng(0).permutation(scans))}
    likeliest = dict.fromkeys(scans, -np.inf)
    for fold in range(_FOLDS):
        others = [row for row in held if fold_of[str(row["scan"])] != fold]
        if len({int(row["is_ich"]) for row in others}) == 2:
            _keep_likeliest(likeliest, [row for row in held if fold_of[str(row["scan"])] == fold], fit_model(others))
    return {
        "scans": len(scans),
        "candidates": len(held),
        "presence_auc_cross_validated": _auc(rows, likeliest, lambda row: True),
        "the_same_above_1_ml": _auc(rows, likeliest, lambda row: not int(row["has_ich"]) or float(row["true_ml"]) > 1),
        "candidate_model": asdict(model),
    }


def fit_model(rows: Sequence[Row]) -> CandidateModel:
    """Logistic regression with a ridge on standardized terms, as weights of the terms themselves."""
    from scipy.optimize import minimize

    by_name = [_facts(row).terms() for row in rows]
    names = list(by_name[0])
    terms = np.array([list(values.values()) for values in by_name])
    truth = np.array([int(row["is_ich"]) for row in rows])
    mean, sd = terms.mean(axis=0), terms.std(axis=0) + 1e-9
    scaled = (terms - mean) / sd

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = scaled @ weights[1:] + weights[0]
        error = 1 / (1 + np.exp(-np.clip(score, -30, 30))) - truth
        value = np.logaddexp(0, np.where(truth == 1, -score, score)).sum() + 0.5 * _RIDGE * (weights[1:] ** 2).sum()
        return float(value), np.concatenate([[error.sum()], scaled.T @ error + _RIDGE * weights[1:]])

    found = minimize(loss, np.zeros(1 + len(names)), jac=True, method="L-BFGS-B").x
    weights = found[1:] / sd
    return CandidateModel(
        round(float(found[0] - weights @ mean), 4), **{n: round(float(w), 4) for n, w in zip(names, weights)}
    )


def _keep_likeliest(likeliest: dict[str, float], rows: Sequence[Row], model: CandidateModel) -> None:
    """Raise each scan's value to the log-odds of its likeliest candidate."""
    for row in rows:
        scan = str(row["scan"])
        likeliest[scan] = max(likeliest[scan], log_odds(_facts(row), model))


def _auc(rows: Sequence[Row], likeliest: dict[str, float], counts: Callable[[Row], bool]) -> float | None:
    """Of the scans whose row counts; a scan without a candidate is the least likely."""
    kept = {str(row["scan"]): row for row in rows if counts(row)}
    truth = np.array([int(row["has_ich"]) for row in kept.values()])
    if len(set(truth.tolist())) < 2:
        return None
    return round(float(auc(truth, np.maximum([likeliest[scan] for scan in kept], -1e3))), 4)


def _facts(row: Row) -> CandidateFacts:
    return CandidateFacts(**{name: float(row[name]) for name in _FACTS})


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 done, 2 wrong use."""
    return analysis_command(
        argv,
        prog="python -m Training.candidate_fit",
        description="The candidate model, fitted on simulated scans.",
        run=run,
        count=200,
        seed=880_000,
    )


if __name__ == "__main__":
    raise SystemExit(main())
