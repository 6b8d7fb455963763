"""Errors of the file system: a remedy for each, to complete a message of one line."""

from __future__ import annotations

import errno
from pathlib import Path

from curl_rl.runs.errors import one_line

_REMEDIES = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some space within your disk quota, or have it raised",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or use another file system",
    errno.EACCES: "change the permissions of the file or of its folder",
    errno.EPERM: "change the owner or the attributes (lsattr) of the file or of its folder",
    errno.EROFS: "mount the file system for writing",
    errno.ENAMETOOLONG: "choose shorter names for the folders",
    errno.EIO: "check the disk, which fails (see dmesg)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs: the machine has too many open files",
    errno.ENOENT: "put the missing file or folder back",
    errno.ENOTDIR: "move the file that is in the place of a folder",
    errno.ESTALE: "mount the network file system again",
    errno.ENOTCONN: "mount the file system again",
    errno.ENODEV: "mount the file system again",
    errno.ENOMEM: "free some memory",
    errno.ETXTBSY: "end the program that uses the file",
    errno.EBUSY: "end the program that uses the file",
}


def remedy(error: BaseException) -> str:
    """What to do about an error, as an imperative; ``fix this`` for errors that explain themselves."""
    number = error.errno if isinstance(error, OSError) else None
    return _REMEDIES.get(number or 0, "fix this")


def in_words(error: OSError) -> str:
    """The system's words for an error, and the remedy, if one is known."""
    reason = error.strerror or one_line(error)
    return f"{reason}: {_REMEDIES[error.errno]}" if error.errno in _REMEDIES else reason


def cannot_write(path: Path | str, error: OSError) -> str:
    """The message for a path that could not be written to."""
    return f"cannot write to {path}: {in_words(error)}"
