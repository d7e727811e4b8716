"""The extension configured, built and installed by CMake against stand-ins for Slicer's macros."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import list_files
import pytest

ROOT = Path(__file__).parents[2]
MODULES = Path("lib") / "Slicer-5.12" / "qt-scripted-modules"

NEEDED = [("cmake",), ("ctest",), ("cc", "gcc", "clang"), ("c++", "g++", "clang++"), ("make", "ninja")]
if not all(any(shutil.which(name) for name in names) for names in NEEDED):
    pytest.skip("cmake, a compiler and make are needed (a project of Slicer's asks for them)", allow_module_level=True)


def run(*arguments, folder):
    found = subprocess.run([*map(str, arguments)], cwd=folder, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The build folder, configured and built, with the extension installed into `installed` below it."""
    folder = tmp_path_factory.mktemp("build")
    fake = Path(__file__).parent / "fake_slicer"
    run("cmake", "-S", ROOT, "-B", folder, f"-DSlicer_DIR={fake}", "-DBUILD_TESTING=ON", folder=folder)
    run("cmake", "--build", folder, folder=folder)
    run("cmake", "--install", folder, "--prefix", folder / "installed", folder=folder)
    return folder


def test_installed_extension_holds_every_file_and_no_other(built):
    installed = built / "installed" / MODULES
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    scripts, resources = list_files.files_of("ICHAnalysis")
    expected = {*scripts, *resources}
    scripts, resources = list_files.files_of("ICHAnalysisLib")
    expected |= {f"ICHAnalysisLib/{name}" for name in (*scripts, *resources)}
    assert found == expected
    for name in found:
        source = ROOT / name if name.startswith("ICHAnalysisLib/") else ROOT / "ICHAnalysis" / name
        assert (installed / name).read_bytes() == source.read_bytes(), name
    # Slicer takes every Python file at the top for a module.
    assert [name for name in found if name.endswith(".py") and "/" not in name] == ["ICHAnalysis.py"]


def test_tests_are_registered(built):
    listed = run("ctest", "-N", folder=built)
    assert set(re.findall(r"Test +#\d+: (\w+)", listed)) == {
        "py_ICHAnalysis",
        "py_in_slicer",
        "py_nomainwindow_qSlicerICHAnalysisModuleGenericTest",
    }


def test_metadata_fits_the_extensions_index(built):
    """Its automatic checks: project name, depends, URLs over https, an icon, png screenshots; and no category."""
    text = (built / "description.txt").read_text(encoding="utf-8")
    facts = dict(line.split("=", 1) for line in text.splitlines())
    assert facts["NAME"] == "ICHAnalysis" and not facts["NAME"].startswith("Slicer")
    assert facts["DEPENDS"] == "PyTorch"
    assert facts["CATEGORY"] == ""
    assert 40 < len(facts["DESCRIPTION"]) < 250 and "Research use only" in facts["DESCRIPTION"]
    assert re.fullmatch(r"https://github\.com/[\w-]+/Slicer\w+", facts["HOMEPAGE"])
    raw = facts["HOMEPAGE"].replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
    for url in [facts["ICONURL"], *facts["SCREENSHOTURLS"].split()]:
        assert url.startswith(raw)
        file = ROOT / url.removeprefix(raw)
        assert file.read_bytes().startswith(b"\x89PNG"), f"{url} names no PNG of this repository"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_a_missing_file_stops_the_configuration(tmp_path):
    """The lists are checked: a name without its file is an error, as in Slicer."""
    copy = tmp_path / "source"
    ignore = shutil.ignore_patterns(".*", "__pycache__", "Training", "weights", "lib", "training", "benchmarks")
    shutil.copytree(ROOT, copy, ignore=ignore)
    fake = Path(__file__).parent / "fake_slicer"
    found = subprocess.run(
        ["cmake", "-S", str(copy), "-B", str(tmp_path / "build"), f"-DSlicer_DIR={fake}"],
        capture_output=True,
        text=True,
    )
    assert found.returncode != 0
    assert "listed and not there" in found.stderr and "weights" in found.stderr
