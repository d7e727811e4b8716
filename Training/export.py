"""Checkpoint to library weights: `python -m Training.export CHECKPOINT --out FILE.safetensors [--evaluation DIR]
[--cohort DIR] [--mean-with FILE]`.

The file holds the network's config, preprocessing and card; FILE.md beside it is the model card for people.
Exit status: 0, or 2 where something does not fit.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch

from ICHAnalysisLib.config.base import to_dict
from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from ICHAnalysisLib.weights.registry import LoadedWeights, load_weights, save_weights
from Training.cohort_figures import as_markdown
from Training.distributed import World
from Training.run import load_trained, named_weights
from Training.tasks.base import Export
from Training.train import start_logging
from Training.watch import finite, git_state, write_text

log = logging.getLogger(__name__)


def export(
    checkpoint: Path,
    out: Path,
    name: str,
    weights: str = "auto",
    evaluation: Path | None = None,
    note: str = "",
    cohort: Path | None = None,
    mean_with: str | None = None,
) -> LoadedWeights:
    """Write the weights file and its model card; returns the file as read back.

    evaluation: folder of `Training.evaluate`, whose metrics and intervals go into the card. cohort: folder of
    `Training.cohort`, the figures of the whole analysis with these weights. mean_with: a weights file, or "default" for
    the shipped one, that these weights are averaged with.
    Raises UsageError where one of these does not belong to the checkpoint, WeightsError where the weights do not fit in
    fp16.
    """
    cfg, task, model, state = load_trained(checkpoint, weights, World(torch.device("cpu")))
    exported = task.export(model)
    averaged = weights != "last" and state["average"] is not None
    card = {
        "name": name,
        "trained_on": trained_on(state["data_facts"]),
        **exported.card,
        "training": {
            "task": cfg.task.name,
            "preset": cfg.task.preset,
            # The name alone: folders may name people.
            "started_from": None if cfg.task.initial is None else Path(cfg.task.initial).name,
            "step": state["progress"]["step"],
            "epochs": state["progress"]["epoch"],
            "hours": round(state["progress"]["seconds"] / 3600, 2),
            "items_seen": state["progress"]["items_seen"],
            "weights": "running average" if averaged else "last",
            **({} if mean_with is None else {"mean_with": Path(mean_with).name}),
            "seed": cfg.loop.seed,
            "optimizer": to_dict(cfg.optimizer),
            "code": git_state(),
        },
        "data": state["data_facts"],
        "data_fingerprint": state["data"],
        "evaluation": None if evaluation is None else _read_evaluation(evaluation, state),
        "cohort": None if cohort is None else _read_json(cohort / "summary.json", "Training.cohort"),
        "note": note,
    }
    tensors = task.export_state(model.state_dict())
    if mean_with is not None:
        tensors = mean_of(tensors, exported, named_weights(mean_with, exported.network))
    path = save_weights(out, exported.network, exported.config, exported.preprocess, tensors, finite(card))
    loaded = load_weights(path, exported.network)
    write_text(path.with_suffix(".md"), model_card(loaded))
    log.info("%s: %.2f MB, %d tensors", path, os.path.getsize(path) / 1e6, len(tensors))
    return loaded


def mean_of(tensors: dict[str, torch.Tensor], exported: Export, other: LoadedWeights) -> dict[str, torch.Tensor]:
    """The mean of what is exported and of other weights, both as a file holds them (fp16); counters are the first's.

    Between the weights before and after a further stage, what the stage teaches and what it loses are weighed evenly.
    Raises UsageError where the other weights are of another configuration or preprocessing.
    """
    config = json.loads(json.dumps(to_dict(exported.config)))  # as the other file's was read
    if (other.config, other.preprocess) != (config, exported.preprocess):
        raise UsageError(f"{other.path}: these weights are of another configuration or preprocessing; no mean is made.")
    return {
        key: 0.5 * (value.to(torch.float16).float() + other.state_dict[key]) if value.is_floating_point() else value
        for key, value in tensors.items()
    }


def trained_on(facts: dict[str, Any]) -> str:
    """One phrase: "simulated scans" where every training case is one, else the counts of each kind."""
    train = facts["train"]
    real = train["cases"] - train["simulated"]
    if not real:
        return f"{train['cases']} simulated scans"
    sources = ", ".join(name for name in train["sources"] if name != "simulated")
    return f"{real} real scans ({sources})" + (
        f" and {train['simulated']} simulated ones" if train["simulated"] else ""
    )


def _read_evaluation(folder: Path, state: dict[str, Any]) -> dict[str, Any]:
    """The parts of an evaluation's summary that a card holds."""
    summary = _read_json(folder / "summary.json", "Training.evaluate")
    if summary.get("step") != state["progress"]["step"]:
        raise UsageError(
            f"{folder} evaluated step {summary.get('step')}, the checkpoint is of step {state['progress']['step']}; "
            "evaluate this checkpoint."
        )
    kept = ("split", "seen_in_training", "rows", "cases", "patients", "interval", "metrics", "intervals", "calibration")
    return {key: summary[key] for key in kept}


def _read_json(path: Path, maker: str) -> dict[str, Any]:
    """The JSON that the module `maker` wrote."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.parent}: no {path.name} of {maker} there ({error}).") from error
    return found


def model_card(weights: LoadedWeights) -> str:
    """The card as Markdown, from what the file itself says."""
    card, training = weights.card, weights.card["training"]
    values = sum(tensor.numel() for tensor in weights.state_dict.values())
    head = [
        f"# {card['name']}",
        f"Weights of `{weights.network}` ({training['task']}, preset `{training['preset']}`): {values / 1e6:.2f} M "
        f"values in fp16. SHA-256 `{weights.sha256}`.",
        "Research use only; not a medical device. Not a basis for limiting care.",
    ]
    sections = {
        "Trained on": "\n".join(_data_lines(card)),
        "Measured": "\n".join(_evaluation_lines(card["evaluation"])),
        **({"The whole analysis on a simulated cohort": as_markdown(card["cohort"])} if card.get("cohort") else {}),
        "Input": f"```json\n{json.dumps(to_dict(weights.preprocess))}\n```",
        **({"Note": card["note"]} if card["note"] else {}),
    }
    return "\n\n".join(head + [f"## {title}\n\n{text}" for title, text in sections.items()]) + "\n"


def _data_lines(card: dict[str, Any]) -> list[str]:
    """Cases by split, and how the training went."""
    training = card["training"]
    lines = [
        f"{card['trained_on']}.",
        "",
        "| split | cases | patients | simulated | sources |",
        "|---|---|---|---|---|",
    ]
    for split, facts in card["data"].items():
        sources = ", ".join(f"{name} {count}" for name, count in facts["sources"].items())
        lines.append(f"| {split} | {facts['cases']} | {facts['patients']} | {facts['simulated']} | {sources} |")
    code = training["code"]["commit"] or "not under git"
    changed = ", with local changes" if training["code"]["changed"] else ""
    mean = f", their mean with those of {training['mean_with']}" if training.get("mean_with") else ""
    return [
        *lines,
        "",
        f"{training['items_seen']} items in {training['step']} steps, {training['hours']} hours; "
        f"{training['optimizer']['name']} with lr {training['optimizer']['lr']:g}; seed {training['seed']}; "
        f"weights: {training['weights']}{mean}; started from: {training.get('started_from') or 'random weights'}; "
        f"code: {code}{changed}.",
    ]


def _evaluation_lines(evaluation: dict[str, Any] | None) -> list[str]:
    if evaluation is None:
        return ["Not evaluated."]
    where = f"{evaluation['cases']} cases of {evaluation['patients']} patients, split `{evaluation['split']}`"
    if evaluation["seen_in_training"]:
        where += ", SEEN IN TRAINING"
    lines = [f"On {where}; {evaluation['interval']}.", "", "| metric | value | low | high |", "|---|---|---|---|"]
    for key, value in evaluation["metrics"].items():
        low, high = evaluation["intervals"][key]
        lines.append(f"| {key} | {_number(value)} | {_number(low)} | {_number(high)} |")
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m Training.export", description="Checkpoint to library weights.")
    parser.add_argument("checkpoint", type=Path, help="such as runs/dtvit/checkpoints/best.pt")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file; its card goes beside it")
    parser.add_argument("--name", help="of the weights (default: the file's name)")
    parser.add_argument("--weights", default="auto", choices=("auto", "average", "last"))
    parser.add_argument("--evaluation", type=Path, help="folder of Training.evaluate, for the card")
    parser.add_argument("--cohort", type=Path, help="folder of Training.cohort, for the card")
    parser.add_argument("--mean-with", metavar="FILE", help='weights to average with; "default": the shipped ones')
    parser.add_argument("--note", default="", help="a sentence for the card")
    args = parser.parse_args(argv)
    start_logging()
    try:
        name = args.name or args.out.stem
        loaded = export(
            args.checkpoint, args.out, name, args.weights, args.evaluation, args.note, args.cohort, args.mean_with
        )
    except ICHAnalysisError as error:
        log.error("%s", error)
        return 2
    print(f"{args.out}: {loaded.network}, sha256 {loaded.sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
