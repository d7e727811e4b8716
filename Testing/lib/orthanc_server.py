"""An Orthanc of its own on loopback, for tests of sending."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest

PLUGINS = Path("/usr/share/orthanc/plugins")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Orthanc:
    """port: of DICOM; web: address of the web service; login: USER:PASSWORD or ""."""

    port: int
    web: str
    login: str = ""

    def get(self, path: str) -> bytes:
        manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if self.login:
            manager.add_password(None, self.web, *self.login.split(":"))
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
        with opener.open(f"{self.web}/{path}", timeout=10) as answer:
            return answer.read()

    def instances(self, folder: Path) -> dict[str, pydicom.Dataset]:
        """Everything that is stored, by SOP instance UID."""
        stored = {}
        for number, instance in enumerate(json.loads(self.get("instances"))):
            path = folder / f"stored_{number}.dcm"
            path.write_bytes(self.get(f"instances/{instance}/file"))
            dataset = pydicom.dcmread(path)
            stored[str(dataset.SOPInstanceUID)] = dataset
        return stored


@contextlib.contextmanager
def run_orthanc(folder: Path, web: bool = False, login: str = "") -> Iterator[Orthanc]:
    """A server with its own database in `folder`; skips the test where Orthanc, or with `web` its plugin, is absent."""
    program = shutil.which("Orthanc") or shutil.which("orthanc") or "/usr/sbin/Orthanc"
    if not Path(program).exists():
        pytest.skip("Orthanc is not installed")
    plugins = sorted(PLUGINS.glob("libOrthancDicomWeb.so*"))[:1]
    if web and not plugins:
        pytest.skip("Orthanc's DICOMweb plugin is not installed")
    server = Orthanc(free_port(), f"http://127.0.0.1:{free_port()}", login)
    settings: dict[str, Any] = {
        "Name": "test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "RemoteAccessAllowed": False, "AuthenticationEnabled": bool(login), "HttpPort": int(server.web.split(":")[-1]),
        "HttpBindAddresses": ["127.0.0.1"], "DicomPort": server.port, "DicomAet": "ARCHIVE",
        "DicomCheckCalledAet": True, "Plugins": [str(path) for path in plugins] if web else [],
        "RegisteredUsers": dict([login.split(":")]) if login else {},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [program, str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            try:
                server.get("system")
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("Orthanc did not start within 20 s")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
