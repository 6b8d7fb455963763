"""One process to a run: the lock on its directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

LOCK = "run.lock"
"""Name of the lock's file in a run's directory."""


@contextlib.contextmanager
def lock_run(directory: Path) -> Iterator[None]:
    """Hold a run's directory for this process alone.

    The operating system releases the lock when the process ends, however it ends; the file `run.lock` stays. Children
    made by fork, not by spawn, hold it too as long as they live.

    Args:
        directory: the run's directory; made if it is not there.

    Raises:
        ValueError: another process holds it, or this one does already.
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
