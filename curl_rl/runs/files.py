"""Reading and writing files that others may have prepared: what a run owns, and nothing outside it.

Runs, encoders and recordings are passed on, so a directory may hold anything: a link where a file of ours is expected,
a pipe that never ends, gigabytes in place of a description. Everything here holds for such a directory, too:

* A write reaches no file outside: it creates a new file and renames it, which replaces a link and leaves its target
  alone, and it enters no folder of a run through a link (:func:`own_folder`). The directory itself may be a link.
* A write is atomic and durable: a reader, a kill or a power cut finds either the old content or the new.
* A read takes regular files only, of a bounded size where the format is small.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from curl_rl.runs.errors import UserError

PARTIAL = ".partial"
"""Suffix of a file that is being written; what a killed process left is deleted."""


# ---- writing


def write_durably(path: Path, parts: Iterable[bytes]) -> None:
    """Writes the concatenated ``parts`` to the file ``path``, replacing an existing one.

    The file is written under a temporary name in the same directory, synced and renamed; then the directory is synced.
    Links are replaced, not followed: the temporary file is always a new one.

    Raises:
        OSError: the write failed; an existing file is intact, and the temporary file is deleted.
    """
    temporary = path.with_name(path.name + PARTIAL)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        with open(temporary, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` to a file that the user named.

    It is written as by :func:`write_durably`, but following links. Anything but a regular file, such as
    ``/dev/stdout``, is written to directly.
    """
    if path.exists() and not path.is_file():
        path.write_text(text)
    else:
        write_durably(path.resolve(), [text.encode()])


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as indented JSON to a file that the user named, as :func:`write_text` does."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def own_folder(directory: Path, inner: Path | str) -> Path:
    """Creates ``inner``, a folder of its own, in a run's or recording's directory, and returns its path.

    Raises:
        UserError: a folder on the way is a link: writing and deleting there would reach outside the directory.
        OSError: it cannot be created.
    """
    folder = directory
    folder.mkdir(parents=True, exist_ok=True)
    for name in Path(inner).parts:
        folder /= name
        refuse_link(folder)
        folder.mkdir(exist_ok=True)
    return folder


def refuse_link(path: Path) -> None:
    """Refuses a link in the place of a file or folder of a run.

    Raises:
        UserError: it is a link.
    """
    if path.is_symlink():
        raise UserError(
            f"{path} is a link, and a run writes only inside its own directory: replace it by what it points to (the "
            "run directory itself may be a link)"
        )


def open_own(path: Path, flags: int) -> FileIO:
    """Opens a file of a run for writing in place, creating it if missing; unbuffered.

    Args:
        path: the file, whose folder exists.
        flags: ``os.O_RDWR`` or ``os.O_WRONLY``, and ``os.O_APPEND``.

    Raises:
        UserError: it is a link, or not a regular file.
        OSError: it cannot be opened.
    """
    mode = "r+b" if flags & os.O_RDWR else "ab"
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its other end.
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # ENXIO: a pipe without a reader, or a socket
            refuse_link(path)
            raise _not_regular(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return FileIO(descriptor, mode)


def has_other_names(file: FileIO) -> bool:
    """Whether a file is also reached by another name, a hard link, so that writing in place would change that one."""
    return os.fstat(file.fileno()).st_nlink > 1


def open_to_append(path: Path) -> FileIO:
    """Opens a file of a run for appending, as :func:`open_own` does.

    Raises:
        UserError: it is a link, also a hard one, or not a regular file.
        OSError: it cannot be opened.
    """
    file = open_own(path, os.O_WRONLY | os.O_APPEND)
    if has_other_names(file):
        file.close()
        raise UserError(f"{path} has a hard link elsewhere, which writing would change: replace it by a copy")
    return file


def delete_file(path: Path) -> None:
    """Deletes a file, or a link but not what it points to; a folder of that name stays."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Syncs the entries of ``directory`` to disk: a power cut may undo a rename that was not synced."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- reading


def open_regular(path: Path) -> BinaryIO:
    """Opens an existing regular file for reading; links are followed.

    Raises:
        UserError: it is a pipe, a device or a socket.
        OSError: it cannot be opened, or is a folder.
    """
    # Without O_NONBLOCK, opening a pipe would wait for its other end.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _not_regular(path)
    return file


def read_file(path: Path, at_most: int) -> bytes:
    """The content of a regular file of at most ``at_most`` bytes.

    Raises:
        UserError: it is larger, or not a regular file.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(at_most + 1) if os.fstat(file.fileno()).st_size <= at_most else None
    if content is None or len(content) > at_most:
        raise UserError(f"{path} is damaged or not what it is named: it has more than {at_most:,} bytes")
    return content


def _not_regular(path: Path) -> UserError:
    return UserError(f"{path} must be a regular file, and is a pipe, a device or something else")
