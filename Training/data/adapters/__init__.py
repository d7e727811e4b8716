"""From public data sets, or a hospital's folder and table, to manifests. Adapters never invent a label.

An adapter is a function (root, options) -> rows whose paths are relative to `options.out`'s folder. It copies no
pixels; where a set needs regrouping or a vote of raters, it writes links or masks beside the manifest.
"""

from __future__ import annotations

import csv
import importlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ICHAnalysisLib.errors import UsageError
from Training.data.manifest import ManifestRow

#: Name on the command line -> "module:function".
REGISTRY: dict[str, str] = {
    "rsna": "Training.data.adapters.rsna:rsna",
    "cq500": "Training.data.adapters.cq500:cq500",
    "seg-cq500": "Training.data.adapters.cq500:seg_cq500",
    "ctich": "Training.data.adapters.ctich:ctich",
    "bhsd": "Training.data.adapters.bhsd:bhsd",
    "mbh25": "Training.data.adapters.bhsd:mbh25",
    "instance": "Training.data.adapters.single_masks:instance",
    "phe-sich": "Training.data.adapters.single_masks:phe_sich",
    "hemseg": "Training.data.adapters.hemseg:hemseg",
    "hospital": "Training.data.adapters.hospital:hospital",
}


@dataclass(frozen=True)
class Options:
    """What the command line gave. out: the manifest to be written; others serve the adapter that names them."""

    out: Path
    images: Path | None = None  # hemseg: rebuilt scans
    reads: Path | None = None  # cq500, seg-cq500: reads.csv where it is not in the root
    boxes: Path | None = None  # cq500: folder of the BHX tables
    table: Path | None = None  # hospital: spreadsheet
    columns: Path | None = None  # hospital: JSON that maps the spreadsheet's columns
    secret: str = ""  # hospital: key of the patients' pseudonyms

    def relative(self, path: Path) -> str:
        """A path as it stands in the manifest."""
        return Path(os.path.relpath(path.resolve(), self.out.resolve().parent)).as_posix()

    def beside(self, suffix: str) -> Path:
        """A folder beside the manifest for what an adapter must write."""
        return self.out.parent / f"{self.out.stem}_{suffix}"


Adapter = Callable[[Path, Options], Iterable[ManifestRow]]


def load_adapter(name: str) -> Adapter:
    """The adapter of a data set; raises UsageError for an unknown name."""
    target = REGISTRY.get(name)
    if target is None:
        raise UsageError(f"Adapter {name!r} is unknown; known are {', '.join(sorted(REGISTRY))}.")
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


def read_table(path: Path) -> list[dict[str, str]]:
    """A CSV table with a header, byte order mark or not; raises UsageError where it is missing or no text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a table ({error}).") from error
    return [
        {key: value or "" for key, value in row.items() if key} for row in csv.DictReader(io.StringIO(text, newline=""))
    ]


def need_columns(path: Path, records: Sequence[dict[str, str]], *names: str) -> None:
    """Raise UsageError where a table that has rows lacks a column that the data set's description promises."""
    missing = [name for name in names if records and name not in records[0]]
    if missing:
        raise UsageError(f"{path}: no column {', '.join(missing)}; is this the data set's own table?")


def find_one(root: Path, *patterns: str) -> Path:
    """The first match of the patterns below `root`, or UsageError that names the layout expected."""
    for pattern in patterns:
        matches = sorted(path for path in root.glob(pattern) if is_real(path))
        if matches:
            return matches[0]
    raise UsageError(f"{root}: found none of {', '.join(patterns)}; is this the data set's own folder?")


def is_real(path: Path) -> bool:
    """False for what archives of macOS leave behind."""
    return "__MACOSX" not in path.parts and not path.name.startswith("._")


def nifti_stem(path: Path) -> str:
    """File name without .nii or .nii.gz."""
    return path.name.removesuffix(".gz").removesuffix(".nii")
