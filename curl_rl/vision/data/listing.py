"""Finds the image files below a folder.

Left out are hidden files and folders, what systems leave behind (``__MACOSX``, ``Thumbs.db``), directories of runs,
which hold pictures of their own, and files with other suffixes, which are counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from curl_rl.runs.directory import is_run
from curl_rl.runs.errors import UserError
from curl_rl.vision.data.decoding import SUFFIXES

_OF_THE_SYSTEM = {
    "__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini",
}  # fmt: skip


@dataclass
class LeftOut:
    """What a search for images has left out."""

    suffixes: Counter[str] = field(default_factory=Counter)
    """Number of files by suffix, in lower case; "" for those without one."""
    runs: list[str] = field(default_factory=list)
    """Directories of runs."""

    def add(self, other: LeftOut) -> None:
        """Adds what another search has left out."""
        self.suffixes += other.suffixes
        self.runs += other.runs


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name belongs to the user."""
    return not name.startswith(".") and name.lower() not in _OF_THE_SYSTEM


def folders_in(directory: str) -> list[str]:
    """Names of the visible folders in a directory, sorted.

    Raises:
        UserError: the directory cannot be read.
    """
    return [entry.name for entry in _entries(directory) if _is_folder(entry)]


def images_below(directory: str, left_out: LeftOut | None = None, *, nested: bool = True) -> Iterator[str]:
    """Yields the paths of image files, sorted folder by folder, so that their order is the same on every machine.

    Follows links to folders, except those that lead back to a folder on the way.

    Args:
        directory: the folder to search.
        left_out: notes what is left out.
        nested: search the folders in it, too.

    Raises:
        UserError: a folder cannot be read.
    """
    return _below(directory, LeftOut() if left_out is None else left_out, nested, (os.path.realpath(directory),))


def _below(directory: str, left_out: LeftOut, nested: bool, way: tuple[str, ...]) -> Iterator[str]:
    """:func:`images_below`; ``way`` holds the real paths of the folders passed, this one included."""
    entries = _entries(directory)
    if is_run([entry.name for entry in entries]):
        left_out.runs.append(directory)
        return
    folders = []
    for entry in entries:
        if _is_folder(entry):
            folders.append(entry)
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry.path
        else:
            suffix = os.path.splitext(entry.name)[1].lower()
            left_out.suffixes[suffix if suffix[1:].isalnum() else ""] += 1
    for entry in folders if nested else []:
        if entry.is_symlink():
            real = os.path.realpath(entry.path)
            if any(os.path.commonpath((real, passed)) == real for passed in way):
                continue
        else:
            real = os.path.join(way[-1], entry.name)
        yield from _below(entry.path, left_out, nested, (*way, real))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(directory: str) -> list[os.DirEntry[str]]:
    """What is visible in a directory, sorted by name."""
    try:
        with os.scandir(directory) as entries:
            return sorted((entry for entry in entries if is_visible(entry.name)), key=lambda entry: entry.name)
    except FileNotFoundError:  # a class present only in the other split
        return []
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
