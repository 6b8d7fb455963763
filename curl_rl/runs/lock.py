"""The lock on a run's directory: one process per run."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

LOCK = "run.lock"
"""Name of the lock file in a run's directory."""


@contextlib.contextmanager
def lock_run(directory: Path) -> Iterator[None]:
    """Locks a run's directory for this process.

    The operating system releases the lock when the process ends, however it ends; the file `run.lock` remains. Children
    started by fork, unlike those started by spawn, also hold the lock as long as they live.

    Args:
        directory: the run's directory; created if missing.

    Raises:
        ValueError: another process holds the lock, or this one already does.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / LOCK, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise ValueError(
                f"run directory {directory} is in use by process {holder or '(unknown)'}: "
                "wait until it ends, stop it, or choose another directory"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
