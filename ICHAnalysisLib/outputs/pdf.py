"""report.pdf: the page printed by an installed browser, or drawn page by page where there is none."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from ICHAnalysisLib.analysis import RESEARCH_USE, Analysis, AnalysisArrays
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.outputs.atomic import atomic_path
from ICHAnalysisLib.outputs.facts import detail_rows
from ICHAnalysisLib.outputs.words import headline, lead_sentence, prognosis_rows, volume_rows

if TYPE_CHECKING:
    from matplotlib.backends.backend_pdf import PdfPages

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "msedge")
#: The page loads nothing, but a browser calls its maker for updates, word lists and sign-in: no name resolves, and
#: what goes by number ends at a proxy that is not there.
OFFLINE = (
    "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=http://127.0.0.1:9", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-domain-reliability", "--no-first-run",
    "--no-default-browser-check",
)  # fmt: skip
_TIMEOUT_S = 60
_LINES_A_PAGE, _WIDTH = 56, 98


def find_browser() -> str | None:
    """The path of an installed browser that prints, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def write_pdf(
    analysis: Analysis,
    arrays: AnalysisArrays | None,
    volume: CTVolume | None,
    html: str,
    path: Path,
    browser: str | None = None,
    private: bool = False,
) -> Path:
    """Write report.pdf from the text of report.html with `browser`, else with matplotlib: overview, then words."""
    with atomic_path(path, private) as temporary:
        if browser is None or not _print_page(browser, html, temporary):
            _draw_pages(analysis, arrays, volume, temporary)
    return Path(path)


def _print_page(browser: str, html: str, target: Path) -> bool:
    """Print the page; False where the browser did not manage, which is no reason to lose the report."""
    with tempfile.TemporaryDirectory() as folder:
        page, pdf = Path(folder) / "report.html", Path(folder) / "report.pdf"
        page.write_text(html, encoding="utf-8")
        # The sandbox needs rights that containers lack; the page is this library's own.
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", *OFFLINE,
            f"--user-data-dir={folder}/profile", "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri(),
        ]  # fmt: skip
        try:
            subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            logging.getLogger(__name__).warning("%s printed no PDF (%s).", Path(browser).name, type(error).__name__)
            return False
        if not pdf.is_file():
            return False
        target.write_bytes(pdf.read_bytes())
    return True


def _draw_pages(analysis: Analysis, arrays: AnalysisArrays | None, volume: CTVolume | None, target: Path) -> None:
    """Overview on the first page, then the words."""
    from matplotlib.backends.backend_pdf import PdfPages

    from ICHAnalysisLib.outputs.pictures import overview_figure

    with PdfPages(target, metadata={"Title": "ICH report", "Creator": "ICHAnalysis"}) as pages:
        if arrays is not None and volume is not None:
            figure = overview_figure(analysis, arrays.labels, volume)
            pages.savefig(figure, facecolor=figure.get_facecolor())
        lines = _lines(analysis)
        for start in range(0, len(lines), _LINES_A_PAGE):
            _text_page(pages, lines[start : start + _LINES_A_PAGE])


def _lines(analysis: Analysis) -> list[str]:
    """The report as wrapped lines of plain text."""
    lines = [headline(analysis), "", lead_sentence(analysis), ""]
    for row in volume_rows(analysis) + detail_rows(analysis):
        lines.append(f"{row.label}: {row.value}" + (f"  ({row.how})" if row.how else ""))
    for item in prognosis_rows(analysis):
        shown = ", ".join(part for part in (item["score"], item["value"], item["event"], item["note"]) if part)
        lines += ["", f"{item['name']}: {shown if item['given'] else 'not given'} {item['reason']}", item["caveat"]]
    lines += ["", *(f"{finding.level.value}: {finding.message} {finding.remedy}" for finding in analysis.findings)]
    lines += ["", *(f"{item.network}: {item.name}, {item.sha256[:16]}" for item in analysis.weights)]
    return [piece for line in lines for piece in (textwrap.wrap(line, _WIDTH) or [""])]


def _text_page(pages: PdfPages, lines: list[str]) -> None:
    """One A4 page of text with the line that stands on every page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.27, 11.69))
    for n, line in enumerate(lines):
        figure.text(0.08, 0.94 - n * 0.0155, line, fontsize=9, va="top", parse_math=False)
    figure.text(0.08, 0.03, RESEARCH_USE, fontsize=9, fontweight="bold")
    pages.savefig(figure)
