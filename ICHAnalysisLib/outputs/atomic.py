"""Files appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Files that carry identifiers are readable by their owner alone.
PRIVATE_MODE = 0o600


@contextmanager
def atomic_path(path: Path, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path with the same endings; on success it replaces `path`, on failure it is removed.

    `private` gives the file mode 0600 before any content is written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        if private:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, PRIVATE_MODE))
            os.chmod(temporary, PRIVATE_MODE)
        yield temporary
        if private:
            os.chmod(temporary, PRIVATE_MODE)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, private: bool = False) -> Path:
    """Write UTF-8 text atomically."""
    with atomic_path(path, private) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_bytes(path: Path, data: bytes, private: bool = False) -> Path:
    """Write bytes atomically."""
    with atomic_path(path, private) as temporary:
        temporary.write_bytes(data)
    return Path(path)
