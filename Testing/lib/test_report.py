"""The report: whole, self-contained, escaped, without identifiers; and the set of files around it."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import CHROMIUM, run_browser
from output_cases import bleed_labels, negative_analysis, positive_analysis, tilted_volume, upright_volume

from ICHAnalysisLib.analysis import (
    NEGATIVE_CAVEAT,
    PROGNOSIS_CAVEAT,
    RESEARCH_USE,
    SUSPICION_CAVEAT,
    Analysis,
    AnalysisArrays,
    Presence,
)
from ICHAnalysisLib.config.outputs import OutputOptions
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.outputs.files import NAMES, write_outputs
from ICHAnalysisLib.outputs.report import report_html, write_report
from ICHAnalysisLib.outputs.summary import summary_lines
from ICHAnalysisLib.scores import func_score, ich_score

CENTER = np.array([-20.0, 5.0, 0.0])
PDFTOTEXT = shutil.which("pdftotext")
HOSTILE = '<script>document.title="owned"</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'


@pytest.fixture(scope="module")
def case():
    volume = tilted_volume()
    labels = bleed_labels(volume, CENTER)
    labels[4, 30:33, 20:23] = 2
    heat = (labels > 0).astype(np.float32)
    return positive_analysis(volume, labels), AnalysisArrays(labels, heat), volume


class Page(HTMLParser):
    """Tags, attributes that could load something, and the visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data):
        self.text += data


def test_report_holds_every_part(case):
    analysis, arrays, volume = case
    page = Page(report_html(analysis, arrays, volume))
    for part in (
        f"{analysis.volumes_ml['segmentation']:.1f} mL", "95 % interval", "deep, left", "ABC/2", "ICH Score",
        "death within 30 days", PROGNOSIS_CAVEAT, RESEARCH_USE, "The gantry was tilted.", "dtvit_compact", "abababab",
        "Not given for a real scan.", "How each number was made", "All slices", "from the front", "case-1",
    ):  # fmt: skip
        assert part in page.text, part
    assert "SIMULATED" not in page.text


def test_report_shows_every_slice_once_and_loads_nothing(case):
    analysis, arrays, volume = case
    html = report_html(analysis, arrays, volume)
    page = Page(html)
    assert page.sources and all(source.startswith("data:image/") for source in page.sources)
    assert html.count('class="cell"') + html.count('class="cell main"') == volume.shape[0] + 3
    assert not re.search(r"https?://", html)
    assert "default-src 'none'" in html


def test_items_of_scores_stand_in_words_with_their_points(case):
    analysis, *_ = case
    record = {"age": 81, "gcs": 4, "volume_ml": 24.0}
    known = {
        "ich_score": ich_score(**record, ivh=True, infratentorial=False),
        "func": func_score(**record, location="deep", cognitive_impairment=None),
    }
    page = Page(report_html(replace(analysis, prognosis=known))).text
    for part in (
        "Glasgow Coma Scale: 4, 2 points", "blood in the ventricles: yes, 1 point", "volume in mL: 24.0, 0 points",
        "FUNC needs whether cognition was impaired before; without it only the range can be given.",
    ):  # fmt: skip
        assert part in page
    for raw in ("cognitive_impairment", "volume ml", "points: unknown"):
        assert raw not in page
    assert page.count(PROGNOSIS_CAVEAT) == 2  # over the table and at the foot


def test_negative_report_carries_the_caveat():
    volume = upright_volume()
    arrays = AnalysisArrays(np.zeros(volume.shape, np.uint8))
    page = Page(report_html(negative_analysis(), arrays, volume))
    assert NEGATIVE_CAVEAT in page.text and "No intraparenchymal hemorrhage found" in page.text
    assert "Prognosis" not in page.text


def test_a_suspicion_without_an_outline_is_no_clean_bill():
    doubtful = negative_analysis(presence=Presence(0.5, False, (), 0.45))
    page = Page(report_html(doubtful)).text
    assert "Hemorrhage suspected, none could be outlined" in page and SUSPICION_CAVEAT in page
    assert "No intraparenchymal hemorrhage found" not in page
    assert SUSPICION_CAVEAT in summary_lines(doubtful)
    assert NEGATIVE_CAVEAT in summary_lines(negative_analysis())


def test_blocked_report_says_why_without_numbers():
    finding = Finding("no_brain", Level.BLOCK, "No brain was found.", "Choose another series.", 34)
    page = Page(report_html(Analysis("blocked", (finding,), message="No brain was found inside a skull.")))
    assert "This scan was not analyzed" in page.text and "Choose another series." in page.text
    assert "mL" not in page.text


def test_hostile_text_stays_text(case):
    _, arrays, volume = case
    hostile = positive_analysis(
        volume, arrays.labels, case_id=HOSTILE, message=HOSTILE, findings=(Finding("x", Level.NOTE, HOSTILE, HOSTILE),)
    )
    html = report_html(hostile, arrays, volume, {"Patient": HOSTILE})
    page = Page(html)
    assert page.tags.count("script") == 1 and "onerror" in page.text and "{{ 7 * 7 }}" in page.text
    assert not any(source.startswith("x") for source in page.sources)


def test_identifiers_only_on_request_and_then_private(case, tmp_path):
    analysis, arrays, volume = case
    plain = write_report(analysis, arrays, volume, tmp_path / "plain.html")
    private = write_report(analysis, arrays, volume, tmp_path / "private.html", {"Patient": "Doe^Jane"})
    assert "Doe^Jane" not in plain.read_text() and "Doe^Jane" in private.read_text()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_write_outputs_leaves_the_files_of_the_contract(case, tmp_path):
    analysis, arrays, volume = case
    files = write_outputs(analysis, arrays, volume, tmp_path)
    assert list(files) == ["analysis", "segmentation", "segmentation_ras", "heatmap", "overview", "report"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES[key] for key in files)
    read = Analysis.from_json(files["analysis"].read_text())
    assert read.volumes_ml == analysis.volumes_ml
    assert any(finding.code == "rigid_header" for finding in read.findings)
    assert np.allclose(read.input["slice_origins_ras_mm"], volume.slice_origins_ras)


def test_regular_scan_needs_no_second_label_map_and_nothing_stale_remains(case, tmp_path):
    analysis, arrays, volume = case
    write_outputs(analysis, arrays, volume, tmp_path)
    upright = upright_volume()
    empty = AnalysisArrays(np.zeros(upright.shape, np.uint8))
    assert list(write_outputs(negative_analysis(), empty, upright, tmp_path)) == [
        "analysis", "segmentation", "overview", "report"
    ]  # fmt: skip
    blocked = Analysis("blocked", message="No brain was found.")
    assert list(write_outputs(blocked, None, None, tmp_path)) == ["analysis", "report"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["analysis.json", "report.html"]
    assert json.loads((tmp_path / "analysis.json").read_text())["status"] == "blocked"


def test_a_failing_writer_leaves_the_old_file(case, tmp_path, monkeypatch):
    from ICHAnalysisLib.outputs import atomic

    target = atomic.write_text(tmp_path / "a.json", "old")

    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), atomic.atomic_path(target) as temporary:
        fail(temporary)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def browse(*arguments: str) -> str:
    """Standard output of headless Chromium."""
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_scroller_works_and_hostile_text_does_not_run_in_chromium(case, tmp_path):
    _, arrays, volume = case
    hostile = positive_analysis(volume, arrays.labels, case_id="c", message=HOSTILE)
    path = write_report(hostile, arrays, volume, tmp_path / "report.html")
    dom = browse("--dump-dom", f"file://{path}")
    assert "<title>ICH report: c</title>" in dom
    stage = dom.split('<div class="stage"')[1].split('<div class="controls">')[0]
    assert 'class="ich"' in stage and "<img" in stage
    assert f"Slice {int(np.argmax((arrays.labels == 1).sum(axis=(1, 2)))) + 1}" in dom.split('class="caption"')[1][:60]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_scroller_answers_mouse_wheel_keys_and_finger_and_asks_no_network(case, tmp_path):
    analysis, arrays, volume = case
    path = write_report(analysis, arrays, volume, tmp_path / "report.html")
    first, last = int(np.argmax((arrays.labels == 1).sum(axis=(1, 2)))) + 1, volume.shape[0]
    with run_browser() as browser:

        def shown() -> int:
            return int(browser.value("document.querySelector('.caption').textContent").split(",")[0].split()[1])

        browser.open(path, 1280, 900)
        assert shown() == first
        for act, expected in (
            (lambda: browser.click("button[name=on]"), first + 1),
            (lambda: browser.click("button[name=back]"), first),
            (lambda: browser.wheel(".stage", 120), first + 1),
            (lambda: browser.wheel(".stage", 20), first + 1),  # a trackpad's small step waits for the next ones
            (lambda: browser.wheel(".stage", 40), first + 2),
            (lambda: browser.click(".grid .cell:nth-child(2)"), 2),
            (lambda: browser.press("ArrowUp"), 3),
            (lambda: browser.press("End"), last),
            (lambda: browser.press("Home"), 1),
        ):
            act()
            assert shown() == expected
        before = browser.value("(document.querySelector('.stage').scrollIntoView(), window.scrollY)")
        browser.wheel(".stage", -200)
        assert shown() == 1 and browser.value("window.scrollY") != before  # at its end the page scrolls on
        for name in ("heat", "outline"):
            browser.click(f"input[name={name}]")
        assert browser.value("document.getElementById('slices').className") == "live no-outline"
        assert [url for url in browser.requested() if not url.startswith("data:")] == [path.as_uri()]

        browser.open(path, 360, 780, mobile=True)
        browser.swipe(".stage", 100)
        assert shown() > first
        assert browser.value("document.documentElement.scrollWidth") == 360
        small = browser.value("[...document.querySelectorAll('.steps *')].map(e => e.clientHeight)")
        assert min(small) >= 40  # a finger needs about that
        assert not [event for event in browser.events if event.get("method") == "Log.entryAdded"]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 360])
def test_report_fits_the_width_in_chromium(case, tmp_path, width):
    from PIL import Image

    analysis, arrays, volume = case
    path = write_report(analysis, arrays, volume, tmp_path / "report.html")
    with run_browser() as browser:
        browser.open(path, width, 1400, mobile=width < 500)
        assert browser.value("document.documentElement.scrollWidth") == width  # nothing scrolls sideways
        shot = browser.picture(tmp_path / "shot.png")
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert picture.shape[1] == width
    red = (picture[..., 0] > 220) & (picture[..., 1] < 130) & (picture[..., 2] < 100)
    assert red.sum() > 20


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_printing_the_page_asks_no_network(case, tmp_path):
    """Browsers call their maker when they start: none of that leaves the machine."""
    from ICHAnalysisLib.outputs.pdf import write_pdf

    analysis, arrays, volume = case
    log, wrapper = tmp_path / "net.json", tmp_path / "browser"
    wrapper.write_text(f'#!/bin/sh\nexec {CHROMIUM} --log-net-log="{log}" "$@"\n')
    wrapper.chmod(0o755)
    html = report_html(analysis, arrays, volume)
    pdf = write_pdf(analysis, arrays, volume, html, tmp_path / "report.pdf", browser=str(wrapper))
    assert b"Skia" in pdf.read_bytes()  # the browser did print it
    text = log.read_text().rstrip().rstrip(",")
    record = json.loads(text if text.endswith("}") and '"polledData"' in text else text + "]}")
    names = {value: name for name, value in record["constants"]["logEventTypes"].items()}
    happened = {names[event["type"]] for event in record["events"]}
    assert "REQUEST_ALIVE" in happened
    assert not happened & {"UDP_BYTES_SENT", "HOST_RESOLVER_MANAGER_JOB", "TCP_CONNECT_ATTEMPT"}


@pytest.mark.skipif(CHROMIUM is None or PDFTOTEXT is None, reason="Chromium or poppler-utils is not installed")
def test_the_first_printed_page_holds_all_that_matters(case, tmp_path):
    analysis, arrays, volume = case
    files = write_outputs(analysis, arrays, volume, tmp_path, OutputOptions(pdf=True))
    command = [PDFTOTEXT, "-l", "1", str(files["pdf"]), "-"]
    first = " ".join(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split())
    for part in ("Intracerebral hemorrhage,", "95 % interval", "Prognosis", PROGNOSIS_CAVEAT, "About the scan",
                 "Software and weights", RESEARCH_USE):  # fmt: skip
        assert part in first, part


def test_pdf_has_pages(case, tmp_path):
    analysis, arrays, volume = case
    files = write_outputs(analysis, arrays, volume, tmp_path, OutputOptions(pdf=True))
    data = files["pdf"].read_bytes()
    assert data.startswith(b"%PDF") and len(data) > 20_000


def test_pdf_without_a_browser_holds_the_same_words(case, tmp_path):
    from ICHAnalysisLib.outputs.pdf import write_pdf

    analysis, arrays, volume = case
    path = write_pdf(analysis, arrays, volume, "", tmp_path / "report.pdf", browser=None)
    data = path.read_bytes()
    assert data.startswith(b"%PDF") and data.count(b"/Type /Page ") >= 2
