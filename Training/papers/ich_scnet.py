"""Tables I to III and figure 2 of paper 000 (ICH-SCNet)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ICHAnalysisLib.errors import UsageError
from Training.data.cache import CacheCase
from Training.papers.base import Column, PaperFigure, PaperTable, TableRow
from Training.papers.drawing import panels, task_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = (
    Column("Acc(%)", "outcome_accuracy", 100, 2),
    Column("Rec(%)", "outcome_recall", 100, 2),
    Column("Pre(%)", "outcome_precision", 100, 2),
    Column("AUC(10^-2)", "outcome_auc", 100, 2),
    Column("Without answer", "outcome_missed", 1, 1),
    Column("DSC(%)", "automatic_ich_dice", 100, 2),
    Column("Jaccard(%)", "automatic_ich_jaccard", 100, 2),
    Column("95HD(mm)", "automatic_ich_hd95_mm", 1, 2),
    Column("PRO(%)", "automatic_ich_pro", 100, 2),
    Column("DSC, box from the reference(%)", "oracle_box_ich_dice", 100, 2),
)
_NOTE = (
    "Classification a patient (mean logit weighted by lesion area, by the reference's where a variant has no masks), "
    "positive is the poor outcome; a patient in whom the network finds no lesion has no answer and counts in none of "
    "the four. Segmentation a scan without prompts, 95HD over the scans with an outline; beside it with a box drawn "
    "from the reference, which flatters."
)
_OURS = TableRow(("ICH-SCNet (Ours)",), "ich_scnet/{size}")
_BOXED = ("oracle_box_ich_dice",)  # what a network that needs a prompt can be asked
#: The paper's rows by number, with what stands in for those that a library offers.
_OTHERS = (
    TableRow(("1", "Image-based"), "ich_scnet/{size}_densenet"),
    TableRow(("2", "DL-PP")),
    TableRow(("3", "GCS-ICHNet")),
    TableRow(("4", "TOP-GPM")),
    TableRow(("5", "ICHPro")),
    TableRow(("6", "AMCons")),
    TableRow(("7", "IHA-Net")),
    TableRow(("8", "nnUNet (its network, our training)"), "ich_scnet/{size}_nnunet"),
    TableRow(("9", "SAM"), "ich_scnet/{size}_sam_box", only=_BOXED),
    TableRow(("10", "MedSAM"), "ich_scnet/{size}_medsam_box", only=_BOXED),
    TableRow(("11", "ResGANet")),
    TableRow(("12", "SelfMedMAE")),
    TableRow(("+", "U-Net"), "ich_scnet/{size}_unet"),
    TableRow(("+", "SegResNet"), "ich_scnet/{size}_segresnet"),
    TableRow(("+", "Image and words of the record"), "ich_scnet/{size}_densenet_text"),
    TableRow(("+", "Image and numbers of the record"), "ich_scnet/{size}_densenet_numbers"),
    TableRow(("+", "Logistic regression on the record"), "ich_scnet/{size}_logistic"),
    TableRow(("*", "ICH-SCNet (Ours)"), "ich_scnet/{size}"),
)

TABLES = {
    "1": PaperTable(
        "Comparison of single- and multi-task (paper 000, table I)",
        ("Method",),
        _COLUMNS,
        (
            TableRow(("Cla-only",), "ich_scnet/{size}_cla"),
            TableRow(("Seg-only",), "ich_scnet/{size}_seg"),
            TableRow(("ICH-SCNet (cla+seg)",), "ich_scnet/{size}"),
        ),
        _NOTE,
    ),
    "2": PaperTable(
        "Ablation studies of the key components (paper 000, table II)",
        ("Method",),
        _COLUMNS,
        (
            TableRow(("ICH-SCNet (SAM)",), "ich_scnet/{size}_sam_concat"),
            TableRow(("ICH-SCNet (CLIP)",), "ich_scnet/{size}_clip_concat"),
            TableRow(("ICH-SCNet (SAM-CLIP)",), "ich_scnet/{size}_concat"),
            TableRow(("ICH-SCNet (SAM+MTFF)",), "ich_scnet/{size}_sam"),
            TableRow(("ICH-SCNet (CLIP+MTFF)",), "ich_scnet/{size}_clip"),
            _OURS,
        ),
        _NOTE,
    ),
    "3": PaperTable(
        "Comparisons with other methods (paper 000, table III)",
        ("No.", "Method"),
        _COLUMNS,
        _OTHERS,
        f"{_NOTE} +: not in the paper's table. What a comparator is: ICHAnalysisLib/docs/ich_scnet.md.",
    ),
}


def draw_masks(folders: Sequence[Path], overrides: Sequence[str]) -> Figure:
    """Figure 2: masks without prompts on the largest slice of five held-out hematomas, from small to large."""
    names = ("reference", *(folder.name for folder in folders))
    chosen = _five_slices(task_on(folders[0], overrides)[0])
    figure, axes = panels(len(chosen), len(names), 1.9, 2.0)
    masks = [_masks(folder, overrides, chosen) for folder in folders]
    for row, (axes_row, (case, k)) in enumerate(zip(axes, chosen, strict=True)):
        for n, axis in enumerate(axes_row):
            axis.imshow(case.hu[k], cmap="gray", vmin=0, vmax=80)
            axis.contour(case.labels[k] == 1, levels=[0.5], colors="lime", linewidths=0.7)
            if n:
                axis.contour(masks[n - 1][row], levels=[0.5], colors="red", linewidths=0.7)
            axis.set_axis_off()
            if row == 0:
                axis.set_title(names[n], fontsize=7)
    return figure


def _five_slices(task: Any) -> list[tuple[CacheCase, int]]:
    """The largest slice of five held-out cases, by rising size of the hemorrhage. Raises UsageError without any."""
    cases = task.cases()
    sizes = {case.case_id: sum(case.meta["slices"]["ich"]) for case in (cases["test"] or cases["val"])}
    held_out = [case for case in (cases["test"] or cases["val"]) if sizes[case.case_id]]
    if not held_out:
        raise UsageError("No held-out case bleeds; look at data.val_fraction or data.folds.")
    held_out.sort(key=lambda case: sizes[case.case_id])
    places = np.unique(np.linspace(0, len(held_out) - 1, min(5, len(held_out))).round().astype(int))
    return [(held_out[n], int(np.argmax(held_out[n].meta["slices"]["ich"]))) for n in places]


def _masks(folder: Path, overrides: Sequence[str], chosen: Sequence[tuple[CacheCase, int]]) -> list[np.ndarray]:
    """Each chosen slice's mask by one run's network, without prompts; bool (H, W)."""
    from Training.tasks.slice_inputs import prompts_of

    task, model = task_on(folder, overrides)
    found = []
    for case, k in chosen:
        batch = task.collate([task.build_dataset([case], "test")[k]])
        with torch.inference_mode():
            output = model(batch["image"], prompts_of(batch), batch["text"])
        found.append((output.segmentation[0, 0].float() > 0).numpy())
    return found


FIGURES = {
    "2": PaperFigure(
        "Masks of the variants side by side (paper 000, figure 2)",
        ("ich_scnet/{size}_seg", "ich_scnet/{size}_sam", "ich_scnet/{size}_concat", "ich_scnet/{size}"),
        draw_masks,
    ),
}
