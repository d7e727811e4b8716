"""Write the file lists of the CMake files anew: `python Testing/module/list_files.py`. A test compares them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("ICHAnalysis", "ICHAnalysisLib")
_LIST = re.compile(r"^set\((\w+_(?:SCRIPTS|RESOURCES))\n(.*?)^ *\)$", re.MULTILINE | re.DOTALL)


def files_of(folder: str) -> tuple[list[str], list[str]]:
    """(Python files, other files) that belong into the installed extension; docs do not."""
    root = ROOT / folder
    found = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    # Caches of tools lie in hidden folders, and are nothing that belongs to the extension.
    kept = [path.as_posix() for path in found if not _is_left_out(path.parts)]
    scripts = [name for name in kept if name.endswith(".py")]
    return scripts, [name for name in kept if name not in scripts]


def _is_left_out(parts: tuple[str, ...]) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    return hidden or parts[0] == "docs" or parts == ("CMakeLists.txt",)


def listed(folder: str) -> tuple[list[str], list[str]]:
    """The same, as the folder's CMakeLists.txt says."""
    text = (ROOT / folder / "CMakeLists.txt").read_text(encoding="utf-8")
    lists = {match[1].rpartition("_")[2]: match[2].split() for match in _LIST.finditer(text)}
    return lists["SCRIPTS"], lists["RESOURCES"]


def rewrite(folder: str) -> None:
    """Put the files of the tree into the folder's CMakeLists.txt."""
    path = ROOT / folder / "CMakeLists.txt"
    scripts, resources = files_of(folder)

    def body(match: re.Match) -> str:
        names = scripts if match[1].endswith("_SCRIPTS") else resources
        return "set(" + match[1] + "\n" + "".join(f"  {name}\n" for name in names) + "  )"

    path.write_text(_LIST.sub(body, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for one in FOLDERS:
        rewrite(one)
