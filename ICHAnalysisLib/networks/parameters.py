"""How many parameters each part of ICH-SCNet has: `python -m ICHAnalysisLib.networks.parameters`.

Built without memory for the weights, so that the largest preset is counted on any machine.
"""

from __future__ import annotations

import torch

from ICHAnalysisLib.config.ich_scnet import PRESETS, ICHSCNetConfig
from ICHAnalysisLib.networks.ich_scnet import ICHSCNet, build_ich_scnet, state_of

SHOWN = ("compact", "base", "paper")

#: Part of the paper's figure -> attributes of the network.
_PARTS: dict[str, tuple[str, ...]] = {
    "down-sampling layers": ("stem", "down", "to_image"),
    "CLIP image encoder": ("clip_image",),
    "CLIP text encoder": ("clip_text", "no_text"),
    "SAM image encoder": ("sam_image",),
    "SAM prompt encoder": ("prompt_encoder",),
    "interaction: attention": ("interactions",),
    "interaction: mask decoders": ("interactions.decoder",),
    "MTFF": ("fusion",),
    "mask and feature heads": ("stage_heads", "feature_head"),
    "DenseNet classifier": ("classifier",),
}


def count_parameters(cfg: ICHSCNetConfig) -> dict[str, tuple[int, int]]:
    """Part -> (all, trainable) parameters; a shared decoder counts once."""
    with torch.device("meta"):
        model = build_ich_scnet(cfg)
    counts = {part: [0, 0] for part in _PARTS}
    for name, parameter in model.named_parameters():
        counts[_part(name)][0] += parameter.numel()
        if state_of(name, cfg) in ("trained", "fine-tuned"):
            counts[_part(name)][1] += parameter.numel()
    _check(model, counts)
    return {part: (total, learns) for part, (total, learns) in counts.items()}


def table() -> str:
    """Markdown: parts as rows, "all / trainable" of each preset as columns, in thousands."""
    columns = [count_parameters(PRESETS[name]) for name in SHOWN]
    lines = ["| part | " + " | ".join(SHOWN) + " |", "|---|" + "---:|" * len(SHOWN)]
    for part in _PARTS:
        lines.append(f"| {part} | " + " | ".join(_cell(column[part]) for column in columns) + " |")
    totals = [tuple(map(sum, zip(*column.values()))) for column in columns]
    lines.append("| **all** | " + " | ".join(f"**{_cell(total)}**" for total in totals) + " |")  # type: ignore[arg-type]
    return "\n".join(lines)


def _part(name: str) -> str:
    """Which row a parameter belongs to."""
    if name.startswith("interactions.") and ".decoder." in name:
        return "interaction: mask decoders"
    top = name.partition(".")[0]
    return next(part for part, attributes in _PARTS.items() if top in attributes)


def _check(model: ICHSCNet, counts: dict[str, list[int]]) -> None:
    """Raise RuntimeError where a parameter was counted twice or not at all."""
    total = sum(parameter.numel() for parameter in model.parameters())
    if total != sum(count[0] for count in counts.values()):
        raise RuntimeError(f"Counted {counts}, but the network has {total} parameters.")


def _cell(counts: tuple[int, int]) -> str:
    """ "all / trainable" in thousands."""
    total, learns = counts
    return "-" if not total else f"{total / 1e3:,.0f}k / {learns / 1e3:,.0f}k"


if __name__ == "__main__":
    print(table())
