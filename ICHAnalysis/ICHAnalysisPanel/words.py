"""What the panel says: findings, outcomes and errors in plain words, as small HTML."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence

from ICHAnalysisLib.analysis import PROGNOSIS_CAVEAT, Analysis, Prognosis
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.outputs import words as report_words
from ICHAnalysisPanel.lesions import SPECK_ML, shown_lesions

COLORS = {Level.BLOCK: "#b3261e", Level.ASK: "#b26a00", Level.FIX: "#2e6da4", Level.NOTE: "#5f6368"}
TITLES = {Level.BLOCK: "Blocked", Level.ASK: "Please confirm", Level.FIX: "Mended", Level.NOTE: "Note"}

#: What to do about errors that are no finding about the scan, by the name of the exception.
REMEDIES = {
    "ModuleNotFoundError": "Press Apply again to install what is missing, or restart Slicer.",
    "WeightsError": "Choose another folder of weights under Advanced, or clear the field to use those that ship.",
    "MemoryError": "Close other programs, or crop the volume to the head.",
    "OutOfMemoryError": "Choose the device cpu under Advanced.",
}


def findings_html(findings: Sequence[Finding]) -> str:
    """One paragraph a finding, worst first as they come."""
    lines = []
    for finding in findings:
        remedy = "" if finding.remedy in ("", "None needed.") else f" <i>{html.escape(finding.remedy)}</i>"
        title = f'<b style="color:{COLORS[finding.level]}">{TITLES[finding.level]}.</b>'
        lines.append(f"<p style='margin:2px 0'>{title} {html.escape(finding.message)}{remedy}</p>")
    return "".join(lines)


def error_html(message: str, kind: str = "", remedy: str = "") -> str:
    """An error as one sentence with its remedy: the one given, else that of its kind."""
    remedy = remedy or REMEDIES.get(kind, "")
    return f"<p><b style='color:{COLORS[Level.BLOCK]}'>{html.escape(message)}</b> <i>{html.escape(remedy)}</i></p>"


def quiet_html(text: str) -> str:
    """A gray line; nothing for no text."""
    return f"<p style='margin:2px 0;color:#5f6368'>{html.escape(text)}</p>" if text else ""


def outcome_html(analysis: Analysis, told: Collection[str] = ()) -> str:
    """The answer in a few lines: found or not, how large, where, what the scores say, what was noticed on the way.

    told: sentences of findings that stand elsewhere on the panel.
    """
    if analysis.status != "ok":
        return error_html(analysis.message)
    lines = [f"<p style='font-size:large;margin:2px 0'><b>{html.escape(headline(analysis))}</b></p>"]
    lines += [f"<p style='margin:2px 0'>{line}</p>" for line in _prognosis_lines(analysis)]
    if not analysis.lesions:
        lines.append(f"<p style='margin:2px 0'>{html.escape(report_words.lead_sentence(analysis))}</p>")
    lines.append(findings_html([finding for finding in analysis.findings if finding.message not in told]))
    mode = {"automatic": "automatic", "prompted": "from your prompts", "edited": "edited by hand"}
    used = ", ".join(sorted({info.trained_on for info in analysis.weights if info.trained_on}))
    specks = len(analysis.lesions) - len(shown_lesions(analysis))
    if specks:
        name = "speck" if specks == 1 else "specks"
        lines.append(quiet_html(f"The volume includes {specks} outlined {name} below {SPECK_ML} mL."))
    how = f"Outline: {mode.get(analysis.mode, analysis.mode)}. Computed on: {analysis.device}."
    how += f" Networks trained on: {used}." if used else ""
    lines.append(f"<p style='margin:2px 0;color:#5f6368'>{html.escape(how)} Research use only.</p>")
    return "".join(lines)


def headline(analysis: Analysis) -> str:
    """Volume, number and place in one line; without a lesion what the report says, be it none found or suspected."""
    if not analysis.lesions:
        return report_words.headline(analysis)
    volume = analysis.volumes_ml.get("segmentation") or 0.0
    count = len(shown_lesions(analysis))
    text = f"Hemorrhage: {volume:.1f} mL" + (f" in {count} lesions" if count > 1 else "")
    location = analysis.location
    place = " ".join(part for part in (location.side, location.label) if part) if location is not None else ""
    ivh = analysis.volumes_ml.get("ivh") or 0.0
    text += f", {place}" if place else ""
    return text + (f"; {ivh:.1f} mL in the ventricles" if ivh > 0 else "")


#: Names of prognoses as the panel shows them, in this order.
PROGNOSES = {"ich_score": "ICH Score", "func": "FUNC", "slice_network": "ICH-SCNet", "scan_network": "Volume net"}


def _prognosis_lines(analysis: Analysis) -> list[str]:
    """One line of HTML a prognosis, and what holds for all of them."""
    known = {name: analysis.prognosis[key] for key, name in PROGNOSES.items() if key in analysis.prognosis}
    lines = [_prognosis_line(name, given) for name, given in known.items()]
    return [*lines, f"<b>{html.escape(PROGNOSIS_CAVEAT)}</b>"] if lines else []


def _prognosis_line(name: str, given: Prognosis) -> str:
    """Score, rate, source, what is missing, and the caveat of this prognosis."""
    score = "" if given.score is None else f" {given.score}"
    if given.score is None and given.score_range is not None:
        score = f" {given.score_range[0]} to {given.score_range[1]}"
    parts = []
    if given.probability is not None:
        parts.append(f"{given.event} {100 * given.probability:.0f} %.")
    elif given.probability_range is not None:
        low, high = (100 * value for value in given.probability_range)
        parts.append(f"{given.event} {low:.0f} to {high:.0f} %.")
    caveat = given.caveat.replace(PROGNOSIS_CAVEAT, "").strip() if parts else ""
    if parts:
        parts.append(f"Source: {given.origin.removeprefix(f'{name}, ')}.")
    parts.append(given.reason)
    text = html.escape(" ".join(part for part in parts if part))
    return f"<b>{html.escape(name + score)}:</b> {text} <i>{html.escape(caveat)}</i>"
