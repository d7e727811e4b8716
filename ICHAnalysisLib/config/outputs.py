"""Which files an analysis leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field

from ICHAnalysisLib.errors import UsageError


@dataclass(frozen=True)
class OutputOptions:
    """What `write_outputs` writes beside analysis.json, the label maps and the pictures."""

    report: bool = True
    pdf: bool = False
    dicom: bool = False  # needs DICOM input and the extra `dicom`
    with_identifiers: bool = False  # name and id of the patient in the report; such files get mode 0600
    send: str | None = field(default=None, repr=False)  # HOST:PORT:AET or a DICOMweb address, which may hold a login

    def __post_init__(self) -> None:
        if self.send is not None and not self.dicom:
            raise UsageError("Sending to a DICOM server needs the DICOM objects: switch them on too.")
