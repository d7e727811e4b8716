"""What may tell who a patient is stays out of everything that is written: names of files and folders, high ages."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ICHAnalysisLib.analysis import Analysis

#: Names that say what a thing is, not whose it is; sentences need these words.
_GENERIC = {
    "brain", "case", "ct", "data", "dicom", "head", "image", "images", "input", "nifti", "scan", "scans", "series",
    "slice", "slices", "study", "volume",
}  # fmt: skip
_MOST_FILES = 20_000
_HIGH_AGE = "90 or older"
_WORD = re.compile(r"[^\s,;()\"']+")


def redacted(analysis: Analysis, scan: str | os.PathLike) -> Analysis:
    """The analysis without the names of the scan's folder and files in its sentences, and without an age above 89."""
    inner = _inner_names(Path(scan))
    findings = tuple(
        replace(
            finding,
            message=without_names(finding.message, scan, inner),
            remedy=without_names(finding.remedy, scan, inner),
        )
        for finding in analysis.findings
    )
    prognosis = {name: replace(item, items=_without_high_age(item.items)) for name, item in analysis.prognosis.items()}
    message = without_names(analysis.message, scan, inner)
    return replace(analysis, findings=findings, message=message, prognosis=prognosis)


def _without_high_age(items: dict[str, Any]) -> dict[str, Any]:
    """Items of a score; ages of 90 and more are so rare that they name people, and no score tells them apart."""
    age = items.get("age")
    return {**items, "age": _HIGH_AGE} if isinstance(age, (int, float)) and age >= 90 else items


def without_names(text: str, scan: str | os.PathLike, inner: frozenset[str] = frozenset()) -> str:
    """A sentence with the path and the name of the scan replaced by "the scan", names of its files by "a file"."""
    path = Path(scan)
    names = [os.fspath(scan), str(path.resolve()), path.name, path.name.split(".")[0], path.parent.name]
    for name in sorted(set(names), key=len, reverse=True):
        if len(name) > 1 and name.lower() not in _GENERIC:
            text = re.sub(rf"(?<![\w]){re.escape(name)}(?![\w])", "the scan", text)
    if inner:
        text = _WORD.sub(lambda match: _without(match.group(), inner), text)
    return text[0].upper() + text[1:] if text.startswith(("the scan", "a file")) else text


def _without(word: str, inner: frozenset[str]) -> str:
    """A word, or "a file" where it is the name or path of one; a full stop or colon after it stays."""
    bare = word.rstrip(".:")
    return f"a file{word[len(bare) :]}" if bare in inner or bare.split("/")[-1] in inner else word


def _inner_names(scan: Path) -> frozenset[str]:
    """Names of the files in a folder or a zip that hold letters enough to be somebody's name."""
    names: set[str] = set()
    for name in _names(scan):
        if re.search(r"[^\W\d_]{3}", name.rsplit(".", 1)[0]):
            names.add(name)
        if len(names) > _MOST_FILES:
            break
    return frozenset(name for name in names if name.lower() not in _GENERIC)


def _names(scan: Path) -> Iterator[str]:
    """Names of all folders and files below a folder, or in a zip."""
    if scan.is_dir():
        for _, folders, files in os.walk(scan):
            yield from (*folders, *files)
    elif scan.is_file() and zipfile.is_zipfile(scan):
        with contextlib.suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(scan) as archive:
            for member in archive.namelist():
                yield from filter(None, member.replace("\\", "/").split("/"))
