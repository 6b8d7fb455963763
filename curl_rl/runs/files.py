"""Atomic, durable file writes: a reader, a kill or a power cut finds either the old content or the new."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_durably(path: Path, parts: Iterable[bytes]) -> None:
    """Writes the concatenated ``parts`` to the file ``path``, replacing an existing one.

    The file is written under a temporary name in the same directory, synced and renamed; then the directory is synced.

    Raises:
        OSError: the write failed; an existing file is intact, and the temporary file is deleted.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as indented JSON, as :func:`write_durably` does, following links.

    Anything but a regular file, such as ``/dev/stdout``, is written to directly.
    """
    text = json.dumps(content, indent=2) + "\n"
    if path.exists() and not path.is_file():
        path.write_text(text)
    else:
        write_durably(path.resolve(), [text.encode()])


def sync_directory(directory: Path) -> None:
    """Syncs the entries of ``directory`` to disk: a power cut may undo a rename that was not synced."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
