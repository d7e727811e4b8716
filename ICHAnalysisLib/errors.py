"""Errors that a user meets: each names the value, where it came from and what to do about it."""

from __future__ import annotations


class ICHAnalysisError(Exception):
    """Base of every expected error: shown as one sentence, never as a traceback."""


class UsageError(ICHAnalysisError, ValueError):
    """A wrong argument, prompt or clinical value (exit status 2)."""


class InputBlockedError(ICHAnalysisError):
    """The scan cannot be analyzed, or a question about it was left unanswered (exit status 3).

    `findings` holds what was seen, so that nothing learned before the block is lost.
    """

    def __init__(self, message: str, findings: tuple = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class SendError(ICHAnalysisError):
    """The PACS is away, refused the connection or refused an object."""


class WeightsError(ICHAnalysisError):
    """A weights file that is missing, damaged, of another network or that does not fit."""


class CancelledError(ICHAnalysisError):
    """The user cancelled; partial results were discarded."""
