"""Send DICOM files to a PACS: C-STORE here, DICOMweb in `dicom_web`.

With the download of weights this is the only network access of the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ICHAnalysisLib.errors import SendError, UsageError
from ICHAnalysisLib.outputs.dicom_web import WebDestination, store

_CALLING_TITLE = "ICHANALYSIS"
_TIMEOUT_S = 20


@dataclass(frozen=True)
class Destination:
    """A DICOM server."""

    host: str
    port: int
    title: str

    @classmethod
    def parse(cls, text: str) -> Destination:
        """From HOST:PORT:AET; raises UsageError on anything else."""
        parts = text.rsplit(":", 2)
        if len(parts) != 3 or not parts[0] or not parts[1].isdigit() or not 0 < int(parts[1]) < 65536:
            raise UsageError(
                f"--send {text}: expected HOST:PORT:AET, e.g. pacs.local:104:ARCHIVE, or the http(s) address of a "
                "DICOMweb service."
            )
        title = parts[2].strip()
        if not 0 < len(title) <= 16 or "\\" in title:
            raise UsageError(f"--send {text}: the AE title must have 1 to 16 characters.")
        return cls(parts[0].strip("[]"), int(parts[1]), title)

    def __str__(self) -> str:
        return f"{self.title} at {self.host}:{self.port}"


def parse_destination(text: str) -> Destination | WebDestination:
    """From HOST:PORT:AET or an http(s) address; raises UsageError on anything else."""
    return WebDestination.parse(text) if text.lower().startswith(("http:", "https:")) else Destination.parse(text)


def send(paths: Iterable[Path], destination: Destination | WebDestination, timeout_s: float = _TIMEOUT_S) -> int:
    """Send every file; returns how many. Raises SendError at the first that is not taken."""
    if isinstance(destination, WebDestination):
        return store(paths, destination, timeout_s)
    return _send_with_c_store(paths, destination, timeout_s)


def _send_with_c_store(paths: Iterable[Path], destination: Destination, timeout_s: float) -> int:
    """Send every file over one association."""
    try:
        from pynetdicom import AE
    except ImportError as error:
        raise UsageError("Sending needs pynetdicom: pip install 'ich-analysis[dicom]'.") from error
    from pydicom import dcmread

    datasets = [dcmread(path) for path in paths]
    if not datasets:
        return 0
    entity = AE(ae_title=_CALLING_TITLE)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_s
    for dataset in datasets:
        syntax = dataset.file_meta.TransferSyntaxUID
        if not any(item.abstract_syntax == dataset.SOPClassUID for item in entity.requested_contexts):
            entity.add_requested_context(dataset.SOPClassUID, syntax)
    association = entity.associate(destination.host, destination.port, ae_title=destination.title)
    if not association.is_established:
        raise SendError(_why_not(association, destination))
    try:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        for dataset in datasets:
            if dataset.SOPClassUID not in accepted:
                raise SendError(_takes_no(dataset.SOPClassUID.name, destination))
            status = association.send_c_store(dataset)
            _check(status, dataset.SOPClassUID.name, destination)
    finally:
        association.release()
    return len(datasets)


def _why_not(association: object, destination: Destination) -> str:
    """Why there is no association, in words."""
    if getattr(association, "is_rejected", False):
        primitive = getattr(getattr(association, "acceptor", None), "primitive", None)
        reason = getattr(primitive, "reason_str", "") or "no reason given"
        return (
            f"{destination} refused the connection ({reason}). Its AE title may be another, or it may not know "
            f"{_CALLING_TITLE} as a sender."
        )
    refused = getattr(association, "rejected_contexts", None)
    if refused:
        return _takes_no(refused[0].abstract_syntax.name, destination)
    return f"No DICOM server answers as {destination}. Check host, port and firewall; nothing was sent."


def _takes_no(kind: str, destination: Destination) -> str:
    return f"{destination} takes no {kind}; its operator can switch that on. Nothing was sent of that kind."


def _check(status: object, kind: str, destination: Destination) -> None:
    """Raise SendError unless the object was taken (warnings count as taken)."""
    code = getattr(status, "Status", None)
    if code is None:
        raise SendError(f"{destination} broke the connection while it received the {kind}; it may not have kept it.")
    if code == 0x0000 or code in (0xB000, 0xB006, 0xB007):
        return
    comment = str(getattr(status, "ErrorComment", "") or "")
    meaning = {0xA7: "out of resources", 0xA9: "the object does not match its class", 0xC0: "cannot understand it"}
    said = comment or meaning.get(code >> 8, meaning.get((code >> 8) & 0xF0, "no reason given"))
    raise SendError(f"{destination} refused the {kind}: {said} (status 0x{code:04X}).")
