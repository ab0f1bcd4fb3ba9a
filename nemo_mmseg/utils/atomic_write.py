"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Open a temporary file; it gets its name when the block ends, and is removed where it fails.

    It lies in the same folder and ends in ``.tmp``; other processes and threads have others. Its
    rights are those of any new file of the user, whatever library writes it.

    Args:
        path: File to write; its folder is made.

    Yields:
        The temporary file, empty.

    Raises:
        OSError: The folder is not writable.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.tmp')
    try:
        part.touch()
        rights = part.stat().st_mode
        yield part
        part.chmod(rights)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file with :func:`atomic_write`."""
    with atomic_write(path) as part:
        part.write_bytes(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text in UTF-8 with :func:`atomic_write`."""
    write_bytes(path, text.encode())
