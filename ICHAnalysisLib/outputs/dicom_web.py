"""Send DICOM files to a PACS over HTTP: DICOMweb's STOW-RS (PS3.18, 10.5)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import ssl
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib import error, parse, request

from ICHAnalysisLib.errors import SendError, UsageError

#: Environment variable with a bearer token for the server; a token on the command line could be read by others.
TOKEN_VARIABLE = "ICHANALYSIS_DICOMWEB_TOKEN"
_REASONS = {
    0xA700: "out of resources",
    0xA900: "the object does not match its class",
    0xC000: "cannot understand it",
    0x0110: "it failed while processing the object",
    0x0122: "it takes no objects of this kind",
    0x0124: "not authorized",
}
_STATUSES = {
    400: "it calls the request malformed",
    401: f"it wants a login: https://USER:PASSWORD@HOST/PATH, or a token in {TOKEN_VARIABLE}",
    403: "this login may not store",
    404: "there is no DICOMweb service at this path; often it ends in /dicom-web or /dicomweb",
    405: "the service does not take objects at this path",
    409: "it took none of the objects",
    413: "the object is too large for it",
    415: "it does not take DICOM files in this form",
    503: "it is busy or out of storage",
}


@dataclass(frozen=True)
class WebDestination:
    """A DICOMweb service. url: its root without login; authorization: the HTTP header's value, never shown."""

    url: str
    authorization: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> WebDestination:
        """From http(s)://[USER:PASSWORD@]HOST[:PORT]/PATH; raises UsageError on anything else."""
        try:
            parts = parse.urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as broken:
            raise UsageError(f"--send: this is no address of a DICOMweb service ({broken}).") from broken
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise UsageError("--send: expected http(s)://HOST[:PORT]/PATH, e.g. https://pacs.local:8443/dicom-web.")
        place = f"[{host}]" if ":" in host else host
        path = parts.path.rstrip("/").removesuffix("/studies")
        root = f"{parts.scheme}://{place}{f':{port}' if port else ''}{path}"
        if parts.username is not None:
            login = f"{parse.unquote(parts.username)}:{parse.unquote(parts.password or '')}"
            return cls(root, f"Basic {base64.b64encode(login.encode()).decode()}")
        token = os.environ.get(TOKEN_VARIABLE, "")
        return cls(root, f"Bearer {token}" if token else "")

    def __str__(self) -> str:
        return self.url


class _NoRedirect(request.HTTPRedirectHandler):
    """Redirections are refused: a POST would be repeated as a GET, or the patient's data sent to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


def store(paths: Iterable[Path], destination: WebDestination, timeout_s: float) -> int:
    """POST every file to the service's /studies, one a request; returns how many.

    Raises SendError at the first that is not taken.
    """
    from pydicom import dcmread

    opener = request.build_opener(_NoRedirect)
    count = 0
    for path in paths:
        kind = dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True).SOPClassUID.name
        _store_one(opener, Path(path).read_bytes(), kind, destination, timeout_s)
        count += 1
    return count


def _store_one(
    opener: request.OpenerDirector, content: bytes, kind: str, destination: WebDestination, timeout_s: float
) -> None:
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": "application/dicom+json",
    }
    if destination.authorization:
        headers["Authorization"] = destination.authorization
    body = head + content + f"\r\n--{boundary}--\r\n".encode()
    post = request.Request(f"{destination}/studies", data=body, headers=headers, method="POST")
    try:
        with opener.open(post, timeout=timeout_s) as answer:
            _check(answer.read(), kind, destination)
    except error.HTTPError as refusal:
        raise SendError(_refused(refusal, kind, destination)) from refusal
    except (OSError, HTTPException) as away:  # URLError, time-outs and broken answers
        raise SendError(_away(away, destination)) from away


def _refused(refusal: error.HTTPError, kind: str, destination: WebDestination) -> str:
    """What an HTTP status other than success means."""
    if 300 <= refusal.code < 400:
        return (
            f"{destination} sends visitors on to another address, which is not followed. "
            "Name that address, or https instead of http. Nothing was sent."
        )
    said = ""
    with contextlib.suppress(OSError, HTTPException):
        said = _failure(refusal.read())
    meaning = said or _STATUSES.get(refusal.code, refusal.reason or "no reason given")
    return f"{destination} refused the {kind}: {meaning} (HTTP status {refusal.code})."


def _away(failure: Exception, destination: WebDestination) -> str:
    """Why no answer came."""
    reason = getattr(failure, "reason", failure)
    if isinstance(reason, ssl.SSLError):
        return (
            f"{destination} cannot be trusted or speaks no TLS ({getattr(reason, 'reason', None) or reason}). For a "
            "certificate of the hospital's own, set SSL_CERT_FILE to its file. Nothing was sent."
        )
    if isinstance(reason, (TimeoutError, ConnectionResetError, BrokenPipeError, HTTPException)):
        return f"{destination} broke off or gave no answer in time; it may not have kept the object."
    return f"No DICOMweb service answers at {destination}. Check host, port and firewall; nothing was sent."


def _check(answer: bytes, kind: str, destination: WebDestination) -> None:
    """Raise SendError where a success (200, or 202 for a part) lists the object as failed."""
    said = _failure(answer)
    if said:
        raise SendError(f"{destination} refused the {kind}: {said}.")


def _failure(answer: bytes) -> str:
    """The reason that a STOW-RS answer (DICOM JSON) gives for an object that it did not keep, "" for none."""
    try:
        failed = json.loads(answer)["00081198"]["Value"]  # FailedSOPSequence
        code = int(failed[0].get("00081197", {}).get("Value", [0])[0])  # FailureReason
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return ""
    known = _REASONS.get(code) or _REASONS.get(code & 0xFF00) or _REASONS.get(code & 0xF000) or "no reason given"
    return f"{known} (failure reason 0x{code:04X})"
