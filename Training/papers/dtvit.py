"""Tables 2 and 3 and figures 1, 3 and 4 of paper 002 (DTViT)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ICHAnalysisLib.config.preprocess import LOCATIONS
from Training.papers.base import Column, PaperFigure, PaperTable, TableRow
from Training.papers.drawing import column, evaluation_rows, has_column, panels, task_state
from Training.papers.holder_figure import draw_holder_removal
from Training.watch import TRAIN_CSV, VALIDATION_CSV

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = (
    Column("Accuracy", "accuracy"),
    Column("Precision", "precision"),
    Column("Recall", "recall"),
    Column("F1 Score", "f1"),
    Column("Specificity", "specificity"),
)
_PRESENCE, _LOCATION = ("Classifier 1", "slice_"), ("Classifier 2", "location_")
_NOTE = (
    "Classifier 1: ICH (positive) or normal slice; classifier 2: deep, lobar or subtentorial, macro averages. Slices "
    "of patients that trained nothing (the paper's random split of replicated slices is not repeated)."
)


def _rows(methods: Sequence[tuple[str, str]]) -> tuple[TableRow, ...]:
    return tuple(
        TableRow((classifier, label), config, prefix)
        for classifier, prefix in (_PRESENCE, _LOCATION)
        for label, config in methods
    )


TABLES = {
    "2": PaperTable(
        "DTViT with and without data augmentation (paper 002, table 2)",
        ("Classifier", "DA"),
        _COLUMNS,
        _rows([("Yes", "dtvit/{size}"), ("No", "dtvit/{size}_plain")]),
        _NOTE,
    ),
    "3": PaperTable(
        "Two classifiers on different encoders (paper 002, table 3)",
        ("Classifier", "Encoder"),
        _COLUMNS,
        _rows(
            [
                ("ViT", "dtvit/{size}"),
                ("ResNet18", "dtvit/{size}_resnet18"),
                ("VGG16", "dtvit/{size}_vgg16"),
                ("ResNet34", "dtvit/{size}_resnet34"),
                ("AlexNet", "dtvit/{size}_alexnet"),
            ]
        ),
        _NOTE + " ResNet34 and AlexNet are named in the paper without numbers.",
    ),
}


def draw_training(folders: Sequence[Path], overrides: Sequence[str]) -> Figure:
    """Figure 3: loss and accuracy in training and validation, with and without augmentation."""
    figure, axes = panels(2, 2)
    for row, (folder, name) in enumerate(zip(folders, ("with augmentation", "without augmentation"), strict=True)):
        train, validation = folder / TRAIN_CSV, folder / VALIDATION_CSV
        loss, accuracy = axes[row]
        loss.plot(*column(train, "total"), label="training")
        if has_column(validation, "total"):
            loss.plot(*column(validation, "total"), marker=".", label="validation")
        loss.set(title=f"Loss {name}", xlabel="step", ylabel="loss", yscale="log")
        if has_column(train, "presence_accuracy"):
            accuracy.plot(*column(train, "presence_accuracy"), label="classifier 1, training")
        # At probability 0.5 as in training where the losses were validated too, else at the chosen threshold.
        presence = "presence_accuracy" if has_column(validation, "presence_accuracy") else "slice_accuracy"
        for key, label in ((presence, "classifier 1, validation"), ("location_accuracy", "classifier 2, validation")):
            accuracy.plot(*column(validation, key), marker=".", label=label)
        accuracy.set(title=f"Accuracy {name}", xlabel="step", ylabel="accuracy", ylim=(0, 1.02))
        for axis in (loss, accuracy):
            axis.legend(fontsize=7)
    return figure


def draw_confusion(folders: Sequence[Path], overrides: Sequence[str]) -> Figure:
    """Figure 4: confusion matrices of both classifiers on the held-out slices."""
    rows, state = evaluation_rows(folders[0]), task_state(folders[0])
    known = [row for row in rows if row["has_ich"] in ("0", "1")]
    logits = np.array([float(row["presence_logit"]) for row in known]) / state["temperature"]
    found = (1 / (1 + np.exp(-logits)) >= state["threshold"]).astype(int)
    placed = [row for row in rows if int(row["location"]) >= 0]
    chosen = (
        np.array([[float(row[f"logit_{name}"]) for name in LOCATIONS] for row in placed]).reshape(-1, 3).argmax(axis=1)
    )
    figure, axes = panels(1, 2, 4.0, 3.6)
    titles = ("(a) Classifier 1", "(b) Classifier 2, slices with blood")
    matrices = (
        confusion(np.array([int(row["has_ich"]) for row in known]), found, 2),
        confusion(np.array([int(row["location"]) for row in placed], dtype=int), chosen, 3),
    )
    for axis, matrix, names, title in zip(axes[0], matrices, (("normal", "ICH"), LOCATIONS), titles, strict=True):
        axis.imshow(matrix, cmap="Blues")
        for (i, j), count in np.ndenumerate(matrix):
            axis.text(
                j, i, str(count), ha="center", va="center", color="white" if count > matrix.max() / 2 else "black"
            )
        axis.set(xticks=range(len(names)), yticks=range(len(names)), xticklabels=names, yticklabels=names)
        axis.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def confusion(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes), true by predicted."""
    matrix = np.zeros((classes, classes), dtype=int)
    np.add.at(matrix, (truth, found), 1)
    return matrix


FIGURES = {
    "1": PaperFigure(
        "Head holder removed; scan=PATH for scans of your own (paper 002, figure 1)", (), draw_holder_removal
    ),
    "3": PaperFigure(
        "Training with and without augmentation (paper 002, figure 3)",
        ("dtvit/{size}", "dtvit/{size}_plain"),
        draw_training,
    ),
    "4": PaperFigure("Confusion matrices (paper 002, figure 4)", ("dtvit/{size}",), draw_confusion),
}
