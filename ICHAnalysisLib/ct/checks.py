"""All checks of a scan in their order, and the answer to what they ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from ICHAnalysisLib.ct.brain_checks import brain_findings
from ICHAnalysisLib.ct.geometry import axial_copy
from ICHAnalysisLib.ct.geometry_checks import geometry_findings
from ICHAnalysisLib.ct.head import coarse_head
from ICHAnalysisLib.ct.tissue_checks import tissue_findings
from ICHAnalysisLib.ct.values import constant_finding, mend_values, window_finding
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import InputBlockedError
from ICHAnalysisLib.findings import Finding, Level

FEW_GAPS = 2  # so many places with missing slices do no harm where the bleed is elsewhere, hazard 3
SOFTENING_MM = 0.85  # standard deviation of the smoothing of a sharp kernel, hazard 9: 0.7 to 1 mm
_LISTS = ("damaged_files",)  # unreadable files of the folder, and images that fail when they are decoded
_ACCEPTED = " Accepted by the user."
_ORDER = {Level.BLOCK: 0, Level.ASK: 1, Level.FIX: 2, Level.NOTE: 3}


def blocking(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that forbid numbers."""
    return [finding for finding in findings if finding.level is Level.BLOCK]


def unanswered(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that a user must accept before the scan is analyzed."""
    return [finding for finding in findings if finding.level is Level.ASK]


def prognosis_barrier(findings: Iterable[Finding], accept: bool = False) -> str:
    """Why no prognosis may be given automatically for a scan (hazards 17, 21 and 23), "" where it may.

    accept: True where the user accepts what is asked, which allows the prognosis of an operated head.
    """
    barred = ("contrast", "pediatric") if accept else ("contrast", "pediatric", "postoperative")
    return next((finding.message for finding in findings if finding.code in barred), "")


def by_level(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings in order of their weight, each code once and with its heaviest level.

    Blocks and lists of files stand as often as they say something else: they are found in several places.
    """
    unique: dict[tuple[str, str], Finding] = {}
    for finding in sorted(findings, key=lambda finding: _ORDER[finding.level]):
        lists = finding.level is Level.BLOCK or finding.code in _LISTS
        unique.setdefault((finding.code, finding.message if lists else ""), finding)
    return tuple(unique.values())


def accepted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings of a scan that was analyzed: what was asked was answered with yes, which is kept with it."""
    return tuple(
        replace(finding, message=finding.message + _ACCEPTED)
        if finding.level is Level.ASK and not finding.message.endswith(_ACCEPTED)
        else finding
        for finding in findings
    )


def gap_question_waits(volume: CTVolume) -> bool:
    """True where the question about missing slices can wait for the outline: one or two gaps (hazard 3)."""
    return 0 < len(volume.missing_after) <= FEW_GAPS


def require_clear(findings: Iterable[Finding], accept: bool = False, waiting: Iterable[str] = ()) -> None:
    """Stop unless nothing is blocked and every question is accepted.

    waiting: codes of questions that are put later.
    Raises: InputBlockedError with all findings; its message is the first block, or the questions left open.
    """
    found = by_level(findings)
    blocks = blocking(found)
    questions = [finding for finding in unanswered(found) if finding.code not in set(waiting)]
    if blocks:
        raise InputBlockedError(blocks[0].message, found)
    if questions and not accept:
        asked = " ".join(finding.message for finding in questions)
        raise InputBlockedError(f"To be confirmed before the analysis (--yes accepts): {asked}", found)


def clear_or_ask(
    findings: Iterable[Finding],
    accept: bool,
    ask: Callable[[Sequence[Finding]], bool] | None,
    settled: Iterable[str] = (),
) -> tuple[str, ...]:
    """`require_clear`, with somebody to put the open questions to: the codes that were answered with yes.

    settled: codes of questions that were answered before or are put later. Raises: InputBlockedError.
    """
    found, settled = by_level(findings), set(settled)
    try:
        require_clear(found, accept, settled)
    except InputBlockedError:
        questions = [finding for finding in unanswered(found) if finding.code not in settled]
        if blocking(found) or ask is None or not ask(questions):
            raise
        return tuple(finding.code for finding in questions)
    return ()


def check_pixels(volume: CTVolume, padding: np.ndarray | None = None, rescale_known: bool = True) -> CTVolume:
    """The volume mended, with the findings of its geometry and its voxels.

    padding: bool (K, J, I), where the file's padding value stood. rescale_known: False for DICOM without rescale tags.
    """
    empty = constant_finding(volume.hu)
    if empty is not None:
        return volume.with_findings(*geometry_findings(volume), empty)
    volume = mend_values(volume, padding, rescale_known)
    findings = geometry_findings(volume)
    if blocking(volume.findings):
        return volume.with_findings(*findings)
    axial = axial_copy(volume)
    coarse = coarse_head(axial)
    window = window_finding(coarse.mean, coarse.brain, bool(coarse.bone.any()))
    findings += [window] if window else []
    if not blocking(findings):
        findings += brain_findings(axial, coarse)
    if not blocking(findings):
        findings += tissue_findings(axial, coarse)
    return _softened(replace(volume, findings=by_level((*volume.findings, *findings))))


def _softened(volume: CTVolume) -> CTVolume:
    """A scan with a sharp kernel, smoothed in plane as its finding says (hazard 9)."""
    if not any(finding.code == "bone_kernel" for finding in volume.findings):
        return volume
    sigmas = (0.0, *(SOFTENING_MM / size for size in (volume.spacing_mm[1], volume.spacing_mm[0])))
    return replace(volume, hu=ndimage.gaussian_filter(volume.hu, sigmas))
