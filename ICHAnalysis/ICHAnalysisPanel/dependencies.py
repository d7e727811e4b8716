"""Python packages the networks need, installed when Apply is pressed for the first time and never earlier."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
from pathlib import Path

import slicer
from slicer.i18n import tr as _

REQUIREMENTS = Path(__file__).parents[1] / "Resources" / "requirements.txt"
TORCH_VERSION = ">=2.4"


class DependencyError(RuntimeError):
    """Something the networks need is missing; the message says how to get it."""


def ensure(requirements: Path = REQUIREMENTS) -> None:
    """Torch through the PyTorch extension, the rest by pip, both with the user's consent.

    Call from the main thread. Raises DependencyError where something is still missing.
    """
    ensure_torch()
    missing = missing_requirements(requirements)
    if not missing:
        return
    try:
        from slicer.packaging import load_requirements, pip_ensure
    except ImportError:
        _install_before_5_12(missing, requirements)
    else:
        try:
            pip_ensure(load_requirements(str(requirements)), requester="ICHAnalysis")
        except (RuntimeError, subprocess.CalledProcessError) as error:
            raise _not_installed(missing, requirements, error) from error
    importlib.invalidate_caches()
    missing = missing_requirements(requirements)
    if missing:  # as where a started Slicer still holds the older version
        names = ", ".join(missing)
        raise DependencyError(
            _("Python packages are missing or too old: {names}. Restart Slicer, and press Apply again.").format(
                names=names
            )
        )


def ensure_torch() -> None:
    """PyTorch, chosen for this computer by the PyTorch extension. Raises DependencyError where it is missing."""
    if is_met("torch" + TORCH_VERSION) and is_met("torchvision"):
        return
    try:
        import PyTorchUtils
    except ImportError as error:
        message = _("Install the PyTorch extension (Extensions Manager), restart Slicer, and press Apply again.")
        raise DependencyError(message) from error
    logic = PyTorchUtils.PyTorchUtilsLogic()
    try:
        torch = logic.installTorch(askConfirmation=True, torchVersionRequirement=TORCH_VERSION)
    except TypeError:  # other versions of the extension know fewer keywords
        torch = logic.installTorch(askConfirmation=True)
    if torch is None:
        raise DependencyError(_("PyTorch was not installed. Open the module PyTorch Util, install it, restart Slicer."))


def missing_requirements(requirements: Path = REQUIREMENTS) -> list[str]:
    """Lines of the requirements file that the installed packages do not meet."""
    lines = [line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not is_met(line)]


def is_met(requirement: str) -> bool:
    """Whether a package such as "scipy>=1.11" is installed in a version that will do."""
    version = _version(re.split(r"[<>=!~\[; ]", requirement)[0])
    if version is None:
        return False
    try:
        from packaging.requirements import Requirement
    except ImportError:  # only installed or not can be told
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _install_before_5_12(missing: list[str], requirements: Path) -> None:
    """The way of Slicer 5.10: ask, then pip."""
    names = ", ".join(missing)
    question = _("ICHAnalysis needs these Python packages: {names}. Install them now?").format(names=names)
    if not slicer.util.confirmOkCancelDisplay(question, windowTitle="ICHAnalysis"):
        raise DependencyError(
            _("Python packages are missing: {names}. Press Apply to be asked again.").format(names=names)
        )
    try:
        slicer.util.pip_install(missing)
    except subprocess.CalledProcessError as error:
        raise _not_installed(missing, requirements, error) from error


def _not_installed(missing: list[str], requirements: Path, reason: Exception) -> DependencyError:
    """The error of a pip that failed or was declined: mostly a proxy, no network, or no right to write."""
    text = _(
        "Python packages are missing ({names}), and they were not installed: {reason}. Check the network connection "
        "and the proxy; or install them into Slicer's Python from files: PythonSlicer -m pip install --no-index "
        "--find-links FOLDER -r {file}"
    )
    names = ", ".join(missing)
    return DependencyError(text.format(names=names, reason=str(reason).rstrip("."), file=requirements))


def _version(package: str) -> str | None:
    """The installed version, without importing the package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
