"""Questions about a scan at a terminal: put where somebody sits there, left open where nobody does."""

from __future__ import annotations

import io
import json
import os
import select
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from ICHAnalysisLib import cli
from ICHAnalysisLib.commands.analyze import ask_on_terminal
from ICHAnalysisLib.ct.headers import text
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.simulate import hazard_scans

QUESTION = Finding("bone_kernel", Level.ASK, "A sharp kernel.", "Prefer the soft one.", 9)

pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals of this kind on this system")


@contextmanager
def terminal(keys: str):
    """A real terminal as standard input and error, on which some keys were pressed: yields its screen.

    It is set within the test: the streams that a fixture sets are replaced before the test is called.
    """
    screen, line = os.openpty()
    usual = sys.stdin, sys.stderr
    os.write(screen, keys.encode())
    try:
        with open(os.dup(line)) as sys.stdin, open(line, "w") as sys.stderr:
            yield screen
    finally:
        sys.stdin, sys.stderr = usual
        os.close(screen)


def read_until(screen: int, last: str) -> str:
    """What a terminal shows, up to some last words; a terminal hands its text over piece by piece."""
    shown = ""
    while last not in shown and select.select([screen], [], [], 20.0)[0]:
        shown += os.read(screen, 65536).decode()
    return shown


@pytest.mark.parametrize(
    ("keys", "answer"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("maybe\n", False)]
)
def test_the_answer_counts(keys: str, answer: bool) -> None:
    with terminal(keys) as screen:
        said = ask_on_terminal([QUESTION])
        shown = read_until(screen, "[y/N] ")
    assert said is answer
    assert "ASK bone_kernel: A sharp kernel. Prefer the soft one." in shown


def test_nobody_is_asked_without_a_terminal(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert not ask_on_terminal([QUESTION])
    monkeypatch.setattr(sys, "stdin", None)
    assert not ask_on_terminal([QUESTION])


def test_no_at_the_terminal_blocks_the_scan(bench, tmp_path: Path) -> None:
    made = hazard_scans.bone_kernel(bench, tmp_path / "scan")
    with terminal("n\n") as screen:
        status = cli.main(["analyze", str(made.path), "--out", str(tmp_path / "out")])
        shown = read_until(screen, "Blocked: To be confirmed")
    assert status == 3
    assert "ASK bone_kernel" in shown and "Blocked: To be confirmed" in shown
    analysis = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert analysis["status"] == "blocked" and analysis["findings"][0]["level"] == "ASK"


def test_headers_cannot_steer_a_terminal() -> None:
    assert text("\x1b[31mBone\x07\x00\n5 mm") == "[31mBone 5 mm"
