"""The lock on a run's directory: one process per run."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from curl_rl.runs.files import has_other_names, open_own

LOCK = "run.lock"
"""Name of the lock file in a run's directory."""

_LONGEST_HOLDER = 32  # bytes; a process number


@contextlib.contextmanager
def lock_run(directory: Path) -> Iterator[None]:
    """Locks a run's directory for this process.

    The operating system releases the lock when the process ends, however it ends; the file `run.lock` remains. Children
    started by fork, unlike those started by spawn, also hold the lock as long as they live.

    Args:
        directory: the run's directory; created if missing.

    Raises:
        ValueError: another process holds the lock, or this one already does; or `run.lock` is a link or not a file.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with open_own(directory / LOCK, os.O_RDWR) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(_LONGEST_HOLDER).decode(errors="replace").strip()
            raise ValueError(
                f"run directory {directory} is in use by process {holder if holder.isdecimal() else '(unknown)'}: "
                "wait until it ends, stop it, or choose another directory"
            ) from None
        if not has_other_names(file):  # a hard-linked copy of the directory keeps its content
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on this file, which need not exist; nothing is written.

    For an instant, a process that locks the file meanwhile may find it taken.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False
