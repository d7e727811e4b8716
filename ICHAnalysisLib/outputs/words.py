"""The sentences and numbers of a report, the same in pictures, HTML and DICOM."""

from __future__ import annotations

from dataclasses import dataclass

from ICHAnalysisLib.analysis import NEGATIVE_CAVEAT, SUSPICION_CAVEAT, Analysis, Interval, Prognosis

VOLUME_NAMES = {
    "segmentation": "Hemorrhage volume (ICH)",
    "ivh": "Intraventricular blood (IVH)",
    "network": "Volume by the volume network",
    "abc2": "ABC/2",
    "abc2_kothari": "ABC/2, Kothari's C",
    "abc2_4": "ABC/2.4",
    "abc3": "ABC/3",
    "two_thirds_sh": "2/3 Sh",
    "half_sh": "1/2 Sh",
    "edema": "Edema around it",
}
VOLUME_SOURCES = {
    "segmentation": "Sum of the outlined voxels, each slice with its true height.",
    "ivh": "Sum of the voxels outlined inside the ventricles; never part of the ICH volume.",
    "network": "The 3D network reads the whole scan at once; it does not use the outline.",
    "abc2": "A and B on the slice with the largest area, C as the full height: A x B x C / 2.",
    "abc2_kothari": "As ABC/2, with C weighted by slice area; it reads low on thick slices.",
    "abc2_4": "As ABC/2, divided by 2.4.",
    "abc3": "As ABC/2, divided by 3.",
    "two_thirds_sh": "Two thirds of the largest area times the full height.",
    "half_sh": "Half of the largest area times the full height.",
}
LOCATION_NAMES = {"deep": "deep", "lobar": "lobar", "subtentorial": "subtentorial (brain stem or cerebellum)"}
PROGNOSIS_NAMES = {
    "slice_network": "Outcome by the slice network (ICH-SCNet)",
    "scan_network": "Outcome by the scan network",
    "ich_score": "ICH Score",
    "func": "FUNC score",
}
ITEM_NAMES = {
    "gcs": "Glasgow Coma Scale",
    "volume_ml": "volume in mL",
    "ivh": "blood in the ventricles",
    "cognitive_impairment": "cognition impaired before",
    "survivors": "the same among survivors",
}
NETWORK_NAMES = {
    "ich_scnet": "ICH-SCNet",
    "dtvit": "DTViT",
    "volume_net": "Volume network",
    "candidate_net": "Candidate network",
    "margin_net": "Margin network",
}
MODE_NAMES = {
    "automatic": "automatic: no prompt was given",
    "prompted": "prompted: a user pointed to the place",
    "edited": "edited: a user changed the outline",
}


@dataclass(frozen=True)
class Row:
    """One line of a table: a label, its value as text, and how the number was made."""

    label: str
    value: str
    how: str = ""


def number(value: float | None, unit: str = "") -> str:
    """A number with the digits it deserves; "not given" for None."""
    if value is None:
        return "not given"
    if 0 < abs(value) < 0.005:
        return "< 0.01" + (f" {unit}" if unit else "")
    digits = 0 if abs(value) >= 100 or value == 0 else 1 if abs(value) >= 1 else 2
    return f"{value:.{digits}f}" + (f" {unit}" if unit else "")


def sentence(text: str) -> str:
    """A phrase as a sentence: its first letter large, a full stop at its end."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def percent(value: float | None) -> str:
    """A probability as a whole percentage, without promising certainty at either end."""
    if value is None:
        return "not given"
    if 0 < value < 0.01:
        return "< 1 %"
    if 0.99 < value < 1:
        return "> 99 %"
    return f"{100 * value:.0f} %"


def is_simulated(analysis: Analysis) -> bool:
    """True where the scan was made by the simulator."""
    return bool(analysis.input.get("simulated") or analysis.input.get("synthetic"))


def is_positive(analysis: Analysis) -> bool:
    """True where hemorrhage was found or outlined."""
    return bool(analysis.lesions) or bool(analysis.presence and analysis.presence.positive)


def is_suspected(analysis: Analysis) -> bool:
    """True where the probability says hemorrhage and yet nothing could be outlined: neither a yes nor a no."""
    presence = analysis.presence
    return not is_positive(analysis) and presence is not None and presence.probability >= presence.threshold


def headline(analysis: Analysis) -> str:
    """The first line of every report."""
    if analysis.status == "blocked":
        return "This scan was not analyzed"
    if is_suspected(analysis):
        return "Hemorrhage suspected, none could be outlined"
    if not is_positive(analysis):
        return "No intraparenchymal hemorrhage found"
    volume = analysis.volumes_ml.get("segmentation")
    if volume is None:
        return "Intracerebral hemorrhage suspected"
    place = place_text(analysis)
    return f"Intracerebral hemorrhage, {number(volume, 'mL')}" + (f", {place}" if place else "")


def lead_sentence(analysis: Analysis) -> str:
    """What stands under the headline: the reason of a block, the caveat of a negative, or the message."""
    if analysis.status == "blocked":
        return analysis.message or "The reasons stand below."
    if is_suspected(analysis):
        return SUSPICION_CAVEAT
    if not is_positive(analysis):
        return NEGATIVE_CAVEAT
    return analysis.message


def place_text(analysis: Analysis) -> str:
    """Location and side in words; "" where neither is known."""
    if analysis.location is None or analysis.location.label is None:
        return ""
    name = LOCATION_NAMES.get(analysis.location.label, analysis.location.label)
    side = analysis.location.side
    return f"{name}, {side}" if side else name


def interval_text(interval: Interval | None) -> str:
    """An interval in words; "" where it was not estimated."""
    if interval is None or interval.lower is None or interval.upper is None:
        return ""
    unit = f" {interval.unit}" if interval.unit else ""
    return f"{interval.kind} {number(interval.lower)} to {number(interval.upper)}{unit}"


def volume_rows(analysis: Analysis) -> list[Row]:
    """Every volume with its interval and how it was made, in a fixed order, unknown keys last.

    Without hemorrhage there is one: the others would only repeat the nought.
    """
    if not is_positive(analysis):
        zero = analysis.volumes_ml.get("segmentation")
        name = VOLUME_NAMES["segmentation"]
        return [] if zero is None else [Row(name, number(zero, "mL"), VOLUME_SOURCES["segmentation"])]
    keys = [key for key in VOLUME_NAMES if key in analysis.volumes_ml]
    keys += sorted(set(analysis.volumes_ml) - set(keys))
    rows = []
    for key in keys:
        interval = analysis.intervals.get(key)
        text = number(analysis.volumes_ml[key], "mL" if analysis.volumes_ml[key] is not None else "")
        if interval_text(interval):
            text += f" ({interval_text(interval)})"
        how = VOLUME_SOURCES.get(key, "")
        if interval is not None and interval.origin:
            how = f"{how} {sentence(interval.origin)}".strip()
        rows.append(Row(VOLUME_NAMES.get(key, key.replace("_", " ")), text, how))
    return rows


def prognosis_rows(analysis: Analysis) -> list[dict]:
    """Every prognosis as {name, value, event, score, items, caveat, origin, reason, given, note}.

    note: what must stand beside the bare number, however little room there is.
    """
    rows = []
    for key, item in analysis.prognosis.items():
        score = ""
        if item.score is not None:
            score = str(item.score)
        elif item.score_range is not None:
            score = f"{item.score_range[0]} to {item.score_range[1]}"
        value = percent(item.probability) if item.probability is not None else ""
        if not value and item.probability_range is not None:
            value = f"{percent(item.probability_range[0])} to {percent(item.probability_range[1])}"
        interval = analysis.intervals.get(key)
        if value and interval is not None and interval.lower is not None and interval.upper is not None:
            value += f" ({interval.kind} {percent(interval.lower)} to {percent(interval.upper)})"
        rows.append(
            {
                "name": PROGNOSIS_NAMES.get(key, key.replace("_", " ")),
                "value": value,
                "event": item.event,
                "score": score,
                "items": _item_rows(item.items),
                "caveat": item.caveat,
                "origin": item.origin,
                "reason": item.reason,
                "given": bool(value or score),
                "note": _prognosis_note(item),
            }
        )
    return rows


def _prognosis_note(item: Prognosis) -> str:
    if item.score is None and item.score_range is not None:
        return "items are missing"
    return "learned from simulated outcomes" if "simulated outcomes" in item.origin else ""


def _item_rows(items: dict) -> list[tuple[str, str]]:
    """(name, text) of each item of a score, with the points it gave where they are known."""
    points = items.get("points")
    points = points if isinstance(points, dict) else {}
    rows = []
    for key, entry in items.items():
        if key != "points" or entry is not points:
            pair = {"value": entry, "points": points[key]} if key in points else entry
            text = percent(entry) if key == "survivors" else item_text(pair)
            rows.append((ITEM_NAMES.get(key, key.replace("_", " ")), text))
    return rows


def item_text(entry: object) -> str:
    """One item of a score as text: a number, or {"value": ..., "points": ...}."""
    if isinstance(entry, dict):
        value, points = entry.get("value"), entry.get("points")
        if points is None:
            return item_text(value)
        return f"{item_text(value)}, {points} point{'' if points == 1 else 's'}"
    if entry is None:
        return "unknown"
    if isinstance(entry, bool):
        return "yes" if entry else "no"
    return f"{entry:.1f}" if isinstance(entry, float) else str(entry)
