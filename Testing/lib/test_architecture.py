"""Rules that machines hold: the arrows between packages, light imports, file sizes, and what a wheel contains."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ICHAnalysisLib", "Training")


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("ICHAnalysisLib", {"slicer", "qt", "ctk", "Training", "Testing", "ICHAnalysis", "ICHAnalysisPanel"}),
        ("Training", {"slicer", "qt", "ctk", "Testing", "ICHAnalysis", "ICHAnalysisPanel"}),
        ("ICHAnalysis", {"Testing", "Training"}),
    ],
)
def test_arrows_point_one_way(package, forbidden):
    wrong = {str(path.relative_to(ROOT)): sorted(imported(path) & forbidden) for path in sources(package)}
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize("package", [*PACKAGES, "ICHAnalysis", "Testing"])
def test_files_stay_below_400_lines(package):
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources(package)}
    assert {path: lines for path, lines in long.items() if lines > 400} == {}


@pytest.mark.parametrize("module", ["ICHAnalysisLib", "ICHAnalysisLib.cli", "ICHAnalysisLib.analysis"])
def test_light_imports(module):
    heavy = ("torch", "SimpleITK", "matplotlib", "monai", "pydicom", "scipy", "skimage", "open_clip", "highdicom")
    code = f"import {module}, sys; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_names_every_command_without_heavy_imports():
    code = (
        "import sys\nfrom ICHAnalysisLib.cli import COMMANDS, main\nstatus = main(['--help'])\n"
        "print(status, sorted(COMMANDS), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip().endswith("False")
    for command in ("analyze", "demo", "batch", "compare", "report", "info"):
        assert command in found.stdout


def test_top_level_holds_only_what_it_should():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    allowed = {
        "ICHAnalysis", "ICHAnalysisLib", "Training", "Testing", "CMakeLists.txt", "README.md", "ICHAnalysis.png",
        "pyproject.toml", "LICENSE",
    }  # fmt: skip
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= allowed


def test_wheel_holds_every_module_and_data_file(tmp_path):
    build = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if build.returncode:
        build = subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert build.returncode == 0, build.stderr[-2000:]
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    suffixes = {".py", ".safetensors", ".yaml", ".html", ".css", ".js"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in suffixes and "__pycache__" not in path.parts
    }
    assert wanted - names == set()
    assert not [name for name in names if name.startswith(("Testing", "ICHAnalysis/"))]
