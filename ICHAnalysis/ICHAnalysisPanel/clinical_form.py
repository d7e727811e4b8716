"""The clinical form: widgets to a validated record and back. Kept out of the scene unless the user asks for it."""

from __future__ import annotations

import json
from typing import Any

from ICHAnalysisLib.clinical import ClinicalRecord
from ICHAnalysisLib.errors import UsageError

#: Form field to record field; the lowest value of a number box means "unknown".
NUMBERS = {"age": "age_years", "gcs": "gcs", "onset": "onset_to_ct_hours"}
CHOICES = {"sex": "sex"}
FLAGS = {"ivh": "ivh", "cognition": "cognitive_impairment", "antithrombotics": "antithrombotics"}
FLAG_VALUES = {"unknown": None, "no": False, "yes": True}
PARAMETER = "clinicalRecord"


class ClinicalForm:
    """Reads and fills the widgets of the clinical section. `ui` names them as in ICHAnalysis.ui."""

    def __init__(self, ui: Any) -> None:
        self._numbers = {"age": ui.ageBox, "gcs": ui.gcsBox, "onset": ui.onsetBox}
        self._combos = {
            "sex": ui.sexBox,
            "ivh": ui.ivhBox,
            "cognition": ui.cognitionBox,
            "antithrombotics": ui.antithromboticsBox,
        }
        self._text = ui.clinicalText

    @property
    def widgets(self) -> tuple[tuple[Any, str], ...]:
        """Widgets with the signal that tells of a change."""
        return (
            (self._numbers["age"], "valueChanged(int)"),
            (self._numbers["gcs"], "valueChanged(int)"),
            (self._numbers["onset"], "valueChanged(double)"),
            *((widget, "currentIndexChanged(int)") for widget in self._combos.values()),
            (self._text, "textChanged()"),
        )

    @property
    def text(self) -> str | None:
        """The free text, None where there is none."""
        return self._text.toPlainText().strip() or None

    def values(self) -> dict[str, Any]:
        """Known fields under the names of the record, without the free text."""
        found: dict[str, Any] = {}
        for name, field in NUMBERS.items():
            widget = self._numbers[name]
            if widget.value > widget.minimum:
                found[field] = widget.value if name == "onset" else int(widget.value)
        for name, field in CHOICES.items():
            if self._combos[name].currentText != "unknown":
                found[field] = self._combos[name].currentText
        for name, field in FLAGS.items():
            flag = FLAG_VALUES[self._combos[name].currentText]
            if flag is not None:
                found[field] = flag
        return found

    def record(self) -> ClinicalRecord | None:
        """The validated record, None where nothing is known. Raises UsageError naming field, value and range."""
        values = self.values()
        return ClinicalRecord.from_dict(values) if values else None

    def problem(self) -> str:
        """What is wrong with the form, "" for nothing."""
        try:
            self.record()
        except UsageError as error:
            return str(error)
        return ""

    def fill(self, values: dict[str, Any]) -> None:
        """Show the values of a record; unknown where a field is missing."""
        for name, field in NUMBERS.items():
            widget = self._numbers[name]
            widget.value = values.get(field, widget.minimum)
        for name, field in CHOICES.items():
            combo = self._combos[name]
            combo.setCurrentIndex(max(0, combo.findText(values.get(field) or "unknown")))
        for name, field in FLAGS.items():
            shown = {value: key for key, value in FLAG_VALUES.items()}[values.get(field)]
            self._combos[name].setCurrentIndex(self._combos[name].findText(shown))
        self._text.setPlainText(values.get("text") or "")

    def store(self, parameter_node: Any, wanted: bool) -> None:
        """Keep the form in the scene where the user asked for it; otherwise make sure that nothing of it is there."""
        if wanted:
            parameter_node.SetParameter(PARAMETER, json.dumps({**self.values(), "text": self.text}))
        elif parameter_node.HasParameter(PARAMETER):
            parameter_node.UnsetParameter(PARAMETER)

    def restore(self, parameter_node: Any) -> None:
        """Show what the scene holds; an empty form where it holds nothing."""
        stored = parameter_node.GetParameter(PARAMETER)
        self.fill(json.loads(stored) if stored else {})
