"""Compressed image files: whether their bytes are those that were written."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from ICHAnalysisLib.errors import UsageError

_CHUNK = 1 << 22


def check_compressed(path: Path) -> None:
    """Raise UsageError where a .gz file is cut off or fails its checksum; other files and folders pass.

    Image readers stop at the last voxel, before the checksum, and give damaged voxels as if they were sound.
    """
    if path.suffix.lower() != ".gz" or not path.is_file():
        return
    try:
        with gzip.open(path) as file:
            while file.read(_CHUNK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: the file is damaged ({error}); copy it again.") from error
