"""Sending: a real Orthanc takes every object and gives it back identical; refusals become sentences."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_cases import write_series
from orthanc_server import free_port, run_orthanc
from output_cases import bleed_labels, positive_analysis, tilted_volume

from ICHAnalysisLib.analysis import AnalysisArrays
from ICHAnalysisLib.config.outputs import OutputOptions
from ICHAnalysisLib.errors import SendError, UsageError
from ICHAnalysisLib.outputs.dicom_send import Destination, send
from ICHAnalysisLib.outputs.files import write_outputs

pytest.importorskip("highdicom", reason="the extra 'dicom' is not installed")
pynetdicom = pytest.importorskip("pynetdicom", reason="the extra 'dicom' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("send")
    volume = write_series(tilted_volume(), folder / "in")
    labels = bleed_labels(volume, np.array([-20.0, 5.0, 0.0]))
    return positive_analysis(volume, labels), AnalysisArrays(labels), volume


@pytest.fixture(scope="module")
def seg_path(case, tmp_path_factory):
    """A SEG on disk."""
    from ICHAnalysisLib.outputs.dicom_seg import original_segmentation, write_dicom
    from ICHAnalysisLib.outputs.dicom_source import source_headers

    analysis, arrays, volume = case
    dataset = original_segmentation(analysis, arrays.labels, volume, source_headers(volume))
    return write_dicom(dataset, tmp_path_factory.mktemp("seg") / "segmentation.dcm")


@pytest.fixture
def orthanc(tmp_path):
    with run_orthanc(tmp_path) as server:
        yield server


def test_orthanc_returns_what_it_was_sent(case, tmp_path, orthanc):
    options = OutputOptions(dicom=True, send=f"127.0.0.1:{orthanc.port}:ARCHIVE")
    files = write_outputs(*case, tmp_path / "out", options)
    sent = {
        str(header.SOPInstanceUID): header
        for key, path in files.items()
        if key.startswith("dicom")
        for header in [pydicom.dcmread(path)]
    }
    assert len(sent) == 4
    assert orthanc.instances(tmp_path) == sent


def test_a_wrong_title_is_explained(seg_path, orthanc):
    with pytest.raises(SendError, match=r"refused the connection \(.*alled AE title"):
        send([seg_path], Destination("127.0.0.1", orthanc.port, "OTHER"))


def test_nobody_there_is_explained_and_the_files_stay(case, tmp_path):
    with pytest.raises(SendError, match="No DICOM server answers as NOBODY"):
        write_outputs(*case, tmp_path, OutputOptions(dicom=True, send=f"127.0.0.1:{free_port()}:NOBODY"))
    assert (tmp_path / "segmentation.dcm").is_file() and (tmp_path / "analysis.json").is_file()


def serve(classes, status: int):
    """A storage server that answers every object with `status`."""
    entity = pynetdicom.AE(ae_title="PICKY")
    for item in classes:
        entity.add_supported_context(item)
    handlers = [(pynetdicom.evt.EVT_C_STORE, lambda event: status)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    return server, server.server_address[1]


@pytest.mark.parametrize(
    ("classes", "status", "message"),
    [
        (["1.2.840.10008.5.1.4.1.1.7"], 0x0000, "takes no Segmentation Storage"),
        (["1.2.840.10008.5.1.4.1.1.66.4"], 0xA700, r"out of resources \(status 0xA700\)"),
        (["1.2.840.10008.5.1.4.1.1.66.4"], 0xC123, "cannot understand it"),
    ],
)
def test_refusals_are_explained(seg_path, classes, status, message):
    server, port = serve(classes, status)
    try:
        with pytest.raises(SendError, match=message):
            send([seg_path], Destination("127.0.0.1", port, "PICKY"), timeout_s=5)
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    "text", ["host", "host:104", "host:x:AET", "host:0:AET", ":104:AET", "h:104:" + "A" * 17, "h:104:"]
)
def test_wrong_destinations_are_refused(text):
    with pytest.raises(UsageError, match="--send"):
        Destination.parse(text)


def test_destinations_are_read():
    assert Destination.parse("pacs.local:104:ARCHIVE") == Destination("pacs.local", 104, "ARCHIVE")
    assert Destination.parse("[::1]:104:A").host == "::1"


def test_sending_needs_the_objects():
    with pytest.raises(UsageError, match="needs the DICOM objects"):
        OutputOptions(send="a:1:B")
