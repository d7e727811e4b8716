"""Warnings of the DICOM libraries quote what they dislike, a patient's name for one: none of them is shown."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_quoting_warnings() -> Iterator[None]:
    """Silence the user warnings of libraries; what matters to a reader is a finding or an error of this library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
