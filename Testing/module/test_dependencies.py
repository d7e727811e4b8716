"""Packages on the first Apply: what is missing or too old, how it is installed on 5.12 and on 5.10, and what fails."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture
def dependencies(slicer, monkeypatch):
    from ICHAnalysisPanel import dependencies

    monkeypatch.setattr(dependencies, "ensure_torch", lambda: None)
    return dependencies


@pytest.fixture
def requirements(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("# packages\nnumpy>=1\nno-such-package-anywhere>=1\nscipy>=900  # too new\n")
    return file


@pytest.fixture
def before_5_12(slicer, monkeypatch):
    """Slicer 5.10: no slicer.packaging; the user's answer and what pip was given."""
    asked, installed = [], []
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_options: asked.append(text) or True)
    monkeypatch.setattr(slicer.util, "pip_install", installed.append)
    return asked, installed


def test_requirements_leave_slicers_packages_alone(slicer):
    import re

    from ICHAnalysisPanel import dependencies

    text = dependencies.REQUIREMENTS.read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    names = {re.split(r"[<>=]", line)[0].lower() for line in lines}
    assert not names & {"vtk", "numpy", "simpleitk", "torch", "torchvision"}


def test_absent_and_old_packages_are_missing(dependencies, requirements):
    assert dependencies.missing_requirements(requirements) == ["no-such-package-anywhere>=1", "scipy>=900"]
    assert dependencies.is_met("numpy") and dependencies.is_met("numpy>=1.2")
    assert not dependencies.is_met("numpy<1")


def test_nothing_is_asked_where_all_is_there(dependencies, tmp_path, before_5_12):
    file = tmp_path / "requirements.txt"
    file.write_text("numpy>=1\nscipy\n")
    dependencies.ensure(file)
    assert before_5_12 == ([], [])


def test_pip_ensure_is_given_the_whole_file(dependencies, requirements):
    """What is still missing afterwards is said, as where a test run installs nothing."""
    from Testing.bed import scripted

    scripted.installs.clear()
    with pytest.raises(dependencies.DependencyError, match=r"scipy>=900\. Restart Slicer"):
        dependencies.ensure(requirements)
    assert scripted.installs == [["numpy>=1", "no-such-package-anywhere>=1", "scipy>=900"]]


def test_declined_or_failed_pip_is_told_with_the_remedy(dependencies, requirements, monkeypatch):
    import slicer.packaging

    def declined(*_arguments, **_options):
        raise RuntimeError("User declined package installation.")

    monkeypatch.setattr(slicer.packaging, "pip_ensure", declined)
    with pytest.raises(dependencies.DependencyError, match=r"User declined.*proxy.*--no-index"):
        dependencies.ensure(requirements)


def test_5_10_asks_and_then_uses_pip(dependencies, requirements, before_5_12):
    asked, installed = before_5_12
    with pytest.raises(dependencies.DependencyError, match="Restart Slicer"):
        dependencies.ensure(requirements)
    assert len(asked) == 1 and "no-such-package-anywhere>=1, scipy>=900" in asked[0]
    assert installed == [["no-such-package-anywhere>=1", "scipy>=900"]]


def test_5_10_installs_nothing_against_the_users_will(slicer, dependencies, requirements, before_5_12, monkeypatch):
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_arguments, **_options: False)
    with pytest.raises(dependencies.DependencyError, match="Press Apply to be asked again"):
        dependencies.ensure(requirements)
    assert before_5_12[1] == []


def test_5_10_failed_pip_is_told_with_the_remedy(slicer, dependencies, requirements, before_5_12, monkeypatch):
    def failed(requirements):
        raise subprocess.CalledProcessError(1, ["pip", *requirements])

    monkeypatch.setattr(slicer.util, "pip_install", failed)
    with pytest.raises(dependencies.DependencyError, match=r"exit status 1.*proxy.*--no-index"):
        dependencies.ensure(requirements)


def test_torch_is_asked_of_the_pytorch_extension(slicer, monkeypatch):
    from ICHAnalysisPanel import dependencies

    monkeypatch.setattr(dependencies, "_version", lambda _package: None)
    with pytest.raises(dependencies.DependencyError, match="PyTorch extension"):
        dependencies.ensure_torch()


@pytest.mark.parametrize("knows_keyword", [True, False])
def test_both_forms_of_the_extension_are_called(slicer, monkeypatch, knows_keyword):
    import types

    from ICHAnalysisPanel import dependencies

    calls = []

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation=False, **more):
            if more and not knows_keyword:
                raise TypeError("unexpected keyword argument 'torchVersionRequirement'")
            calls.append((askConfirmation, more))

    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=PyTorchUtilsLogic))
    monkeypatch.setattr(dependencies, "_version", lambda _package: None)
    with pytest.raises(dependencies.DependencyError, match="PyTorch was not installed"):
        dependencies.ensure_torch()
    assert calls == [(True, {"torchVersionRequirement": ">=2.4"} if knows_keyword else {})]
