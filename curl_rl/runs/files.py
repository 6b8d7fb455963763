"""Writing a file so that a reader, a kill or a power cut finds the old content or the new, never half of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_durably(path: Path, parts: Iterable[bytes]) -> None:
    """Writes ``parts``, one after the other, as the file ``path``, in place of what was there.

    It is written under a temporary name in the same directory, synced, renamed, and the name synced too.

    Raises:
        OSError: the disk refused; what was there is intact, and the temporary file is gone.
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
    """Writes ``content`` as JSON, indented for people, as :func:`write_durably` does; to what a link points to.

    What is no file, such as ``/dev/stdout``, is written to as it is.
    """
    text = json.dumps(content, indent=2) + "\n"
    if path.exists() and not path.is_file():
        path.write_text(text)
    else:
        write_durably(path.resolve(), [text.encode()])


def sync_directory(directory: Path) -> None:
    """Puts the names in ``directory`` on the disk: a rename alone may be forgotten in a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
