"""Training curves of a run folder as one picture."""

from __future__ import annotations

from pathlib import Path

from Training.watch import TRAIN_CSV, VALIDATION_CSV, read_rows

_NOT_DRAWN = {"step", "epoch", "seconds", "items_per_second", "wait_share", "rows", "unread"}


def draw_curves(folder: Path) -> Path | None:
    """curves.png: every column of train.csv and validation.csv against the step. None where there is no row yet."""
    panels = []
    for name in (TRAIN_CSV, VALIDATION_CSV):
        if (folder / name).exists():
            panels += [(f"{Path(name).stem} {key}", x, y) for key, x, y in _series(folder / name)]
    if not panels:
        return None
    from matplotlib.figure import Figure

    across = min(4, len(panels))
    down = -(-len(panels) // across)
    width, height = 3.6 * across, 2.2 * down + 0.6
    figure = Figure(figsize=(width, height))
    for n, (title, x, y) in enumerate(panels):
        axes = figure.add_subplot(down, across, n + 1)
        axes.plot(x, y, marker="." if len(x) < 40 else None, linewidth=1)
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.supxlabel("step", fontsize=8)
    figure.subplots_adjust(0.6 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.25 / height, wspace=0.3, hspace=0.35)
    path = folder / "curves.png"
    temporary = folder / ".curves.tmp.png"
    figure.savefig(temporary, dpi=90)
    temporary.replace(path)
    return path


def _series(path: Path) -> list[tuple[str, list[float], list[float]]]:
    """Each numeric column with its steps, in the order of the file."""
    rows, columns = read_rows(path)
    series = []
    for key in (column for column in columns if column not in _NOT_DRAWN):
        pairs = [(float(row["step"]), float(row[key])) for row in rows if row[key]]
        if pairs:
            x, y = zip(*pairs, strict=True)
            series.append((key, list(x), list(y)))
    return series
