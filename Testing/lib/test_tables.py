"""Tables and the summary page: hostile texts stay texts, numbers stay numbers."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from output_cases import bleed_labels, negative_analysis, positive_analysis, upright_volume

from ICHAnalysisLib.analysis import PROGNOSIS_CAVEAT, RESEARCH_USE, Analysis
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.growth import growth_rows
from ICHAnalysisLib.outputs.rows import COLUMNS, analysis_row
from ICHAnalysisLib.outputs.summary_page import write_summary_page
from ICHAnalysisLib.outputs.tables import csv_text, read_csv, safe_cell, write_csv

CHROMIUM = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
HOSTILE = '=HYPERLINK("http://x")<script>document.title="owned"</script>'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"])
def test_formulas_are_quoted(text):
    assert safe_cell(text) == f"'{text}"


def test_numbers_stay_numbers():
    assert [safe_cell(value) for value in (-1.5, -3, True, None, float("nan"), "Jäger", 0)] == [
        -1.5, -3, 1, "", "", "Jäger", 0
    ]  # fmt: skip


def test_commas_quotes_and_lines_come_back(tmp_path):
    rows = [{"a": 'x,"y"\nz', "b": 1.25}]
    assert next(csv.DictReader(io.StringIO(csv_text(rows, ["a", "b"])))) == {"a": 'x,"y"\nz', "b": "1.25"}
    path = write_csv(tmp_path / "t.csv", rows, ["a", "b"])
    assert read_csv(path)[0]["a"] == 'x,"y"\nz'


def test_tables_of_other_countries_are_read_or_refused_in_a_sentence(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("case_id;image\r\na;x,1.nii\r\n", encoding="utf-8-sig")
    assert read_csv(path) == [{"case_id": "a", "image": "x,1.nii"}]
    path.write_bytes("case_id,image\nM\xfcller,1.nii\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"t\.csv: not UTF-8"):
        read_csv(path)


def test_row_of_a_positive_scan():
    volume = upright_volume()
    analysis = positive_analysis(volume, bleed_labels(volume, [-20.0, 5.0, 0.0]))
    row = analysis_row(analysis)
    assert set(row) == set(COLUMNS)
    assert row["volume_ml"] == analysis.volumes_ml["segmentation"] and row["volume_lower_ml"] < row["volume_ml"]
    assert (row["location"], row["side"], row["ich_score"], row["ich_score_mortality"]) == ("deep", "left", 1, 0.13)
    assert row["findings"] == "FIX:tilt" and row["func_score"] is None


def test_row_of_a_blocked_scan_has_no_numbers():
    row = analysis_row(Analysis("blocked", (Finding("mr", Level.BLOCK, "This is MR."),), message="This is MR."))
    assert row["status"] == "blocked" and row["findings"] == "BLOCK:mr"
    assert all(row[column] is None for column in COLUMNS if column.endswith(("_ml", "_probability", "_score")))


class Page(HTMLParser):
    """Tags, links and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page_path(tmp_path):
    volume = upright_volume()
    rows = []
    for n in range(3):
        analysis = positive_analysis(volume, bleed_labels(volume, [-20.0, 5.0, 0.0], 9.0 + 3 * n))
        rows.append(analysis_row(analysis) | {"case_id": f"case-{n}", "report": f"cases/case-{n}/report.html"})
    rows.append(analysis_row(negative_analysis(message=HOSTILE)) | {"case_id": HOSTILE})
    rows.append(analysis_row(Analysis("blocked", message="This is MR.")) | {"case_id": "mr"})
    stored = [{"row": row, "private": {"patient": "p", "acquired_h": float(n)}} for n, row in enumerate(rows[:2])]
    return write_summary_page(rows, growth_rows(stored), tmp_path / "summary.html")


def test_summary_page_counts_links_and_escapes(page_path):
    page = Page(page_path.read_text(encoding="utf-8"))
    assert page.links == [f"cases/case-{n}/report.html" for n in range(3)]
    assert page.tags.count("script") == 1 and '<script>document.title="owned"</script>' in page.text
    assert "Batch of 5 scans" in page.text and RESEARCH_USE in page.text and PROGNOSIS_CAVEAT in page.text
    assert "Growth between scans" in page.text and page.tags.count("figure") == 2


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_summary_page_runs_only_its_own_script(page_path, tmp_path):
    """The policy of the page admits its script by its hash: the table carries what the script sets."""
    probe = tmp_path / "probe.html"
    html = page_path.read_text(encoding="utf-8")
    probe.write_text(html.replace("</body>", "<script>document.title='injected'</script></body>"), encoding="utf-8")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", probe.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    assert "<title>ICH batch</title>" in dom


def test_numbers_are_shown_with_the_digits_they_deserve():
    from ICHAnalysisLib.outputs.words import number, percent

    assert [number(value, "mL") for value in (0.0, 0.002, 0.234, 1.26, 31.07, 123.4, None)] == [
        "0 mL", "< 0.01 mL", "0.23 mL", "1.3 mL", "31.1 mL", "123 mL", "not given"
    ]  # fmt: skip
    assert [percent(value) for value in (0.0, 0.004, 0.5, 0.996, 1.0)] == ["0 %", "< 1 %", "50 %", "> 99 %", "100 %"]
