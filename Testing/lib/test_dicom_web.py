"""Sending over DICOMweb: a real Orthanc keeps every object; refusals become sentences, and no login is shown."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pydicom
import pytest
from dicom_cases import write_series
from orthanc_server import free_port, run_orthanc
from output_cases import bleed_labels, positive_analysis, tilted_volume

from ICHAnalysisLib.analysis import AnalysisArrays
from ICHAnalysisLib.config.outputs import OutputOptions
from ICHAnalysisLib.errors import SendError, UsageError
from ICHAnalysisLib.outputs.dicom_send import parse_destination, send
from ICHAnalysisLib.outputs.dicom_web import WebDestination
from ICHAnalysisLib.outputs.files import write_outputs

pytest.importorskip("highdicom", reason="the extra 'dicom' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The DICOM objects of one analysis on disk."""
    folder = tmp_path_factory.mktemp("web")
    volume = write_series(tilted_volume(), folder / "in")
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]))
    written = write_outputs(
        positive_analysis(volume, labels), AnalysisArrays(labels), volume, folder / "out", OutputOptions(dicom=True)
    )
    return [path for key, path in written.items() if key.startswith("dicom")]


def test_orthanc_returns_what_it_was_sent(files, tmp_path):
    with run_orthanc(tmp_path, web=True) as server:
        assert send(files, parse_destination(f"{server.web}/dicom-web/")) == 4
        sent = [pydicom.dcmread(path) for path in files]
        assert server.instances(tmp_path) == {str(header.SOPInstanceUID): header for header in sent}


def test_a_login_is_used_and_never_shown(files, tmp_path):
    with run_orthanc(tmp_path, web=True, login="ward:se%cret") as server:
        address = server.web.removeprefix("http://")
        wrong = parse_destination(f"http://ward:guessed@{address}/dicom-web")
        with pytest.raises(SendError, match=r"wants a login.*\(HTTP status 401\)") as refusal:
            send(files[:1], wrong)
        assert "guessed" not in str(refusal.value) and "guessed" not in repr(wrong)
        assert send(files[:1], parse_destination(f"http://ward:se%25cret@{address}/dicom-web")) == 1
        assert len(server.instances(tmp_path)) == 1


def test_a_wrong_path_on_a_real_server_is_explained(files, tmp_path):
    with (
        run_orthanc(tmp_path, web=True) as server,
        pytest.raises(SendError, match=r"no DICOMweb service at this path.*404"),
    ):
        send(files[:1], parse_destination(f"{server.web}/pacs"))


def failed_sop(code: int) -> bytes:
    """What a service answers about an object that it did not keep."""
    item = {"00081197": {"vr": "US", "Value": [code]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


@pytest.fixture
def service():
    """A web server on loopback: set `status`, `body` and `location`; it keeps what it got."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):  # a GET is answered 501
            self.server.got.append(
                (self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
            )
            if self.server.status == 0:
                self.connection.close()
                return
            self.send_response(self.server.status)
            if self.server.location:
                self.send_header("Location", self.server.location)
            self.send_header("Content-Length", str(len(self.server.body)))
            self.end_headers()
            self.wfile.write(self.server.body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.status, server.body, server.location = [], 200, b"{}", ""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def at(server) -> WebDestination:
    return WebDestination.parse(f"http://127.0.0.1:{server.server_address[1]}/dicom-web")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (409, failed_sop(0x0122), r"refused the Segmentation Storage: it takes no objects of this kind .*0x0122"),
        (409, b"<html>", r"took none of the objects \(HTTP status 409\)"),
        (202, failed_sop(0xA700), r"out of resources \(failure reason 0xA700\)"),
        (200, failed_sop(0xC00A), r"cannot understand it"),
        (413, b"", r"too large"),
        (503, b"", r"busy or out of storage"),
        (418, b"", r"HTTP status 418"),
        (0, b"", r"broke off or gave no answer"),
    ],
)
def test_refusals_are_explained(files, service, status, body, message):
    service.status, service.body = status, body
    with pytest.raises(SendError, match=message):
        send(files[:1], at(service), timeout_s=5)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_patient_data_follow_no_redirection(files, service, status):
    service.status, service.location = status, f"http://127.0.0.1:{service.server_address[1]}/elsewhere"
    with pytest.raises(SendError, match="not followed"):
        send(files[:1], at(service), timeout_s=5)
    assert [path for path, _, _ in service.got] == ["/dicom-web/studies"]


def test_the_request_is_a_multipart_of_the_file(files, service, monkeypatch):
    monkeypatch.setenv("ICHANALYSIS_DICOMWEB_TOKEN", "abc")
    send(files[:1], at(service), timeout_s=5)
    (path, headers, body), content = service.got[0], files[0].read_bytes()
    assert path == "/dicom-web/studies" and headers["Authorization"] == "Bearer abc"
    boundary = headers["Content-Type"].split("boundary=")[1]
    head, _, rest = body.partition(b"\r\n\r\n")
    assert head == f"--{boundary}\r\nContent-Type: application/dicom".encode()
    assert rest == content + f"\r\n--{boundary}--\r\n".encode()


def test_nobody_there_is_explained(files):
    with pytest.raises(SendError, match=r"No DICOMweb service answers at http://127\.0\.0\.1"):
        send(files[:1], WebDestination(f"http://127.0.0.1:{free_port()}/dicom-web"), timeout_s=5)


def test_a_server_without_tls_is_explained(files, service):
    with pytest.raises(SendError, match="speaks no TLS"):
        send(files[:1], WebDestination(str(at(service)).replace("http:", "https:")), timeout_s=5)


@pytest.mark.parametrize("text", ["http:", "https://", "http://:8042/x", "http://host:port/x", "https://host/x?a=1"])
def test_wrong_addresses_are_refused(text):
    with pytest.raises(UsageError, match="--send"):
        parse_destination(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://pacs.local:8443/dicom-web/", "https://pacs.local:8443/dicom-web"),
        ("http://host/rs/studies", "http://host/rs"),
        ("http://[::1]:8042/dicom-web", "http://[::1]:8042/dicom-web"),
        ("https://ward:pass@host/dicom-web", "https://host/dicom-web"),
    ],
)
def test_addresses_are_read(text, url):
    assert parse_destination(text).url == url


def test_options_show_no_login():
    assert "secret" not in repr(OutputOptions(dicom=True, send="https://ward:secret@host/dicom-web"))
