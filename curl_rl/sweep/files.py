"""A job's files in the folder of its sweep: the run, and next to it the log, the record, the lock and the stop request.

FOLDER/runs/NAME/       the run's directory
FOLDER/jobs/NAME.log    what its command printed, all attempts
FOLDER/jobs/NAME.json   how the last attempt ended
FOLDER/jobs/NAME.lock   locked while it runs
FOLDER/jobs/NAME.stop   exists if it shall save and stop
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Literal, get_args

from curl_rl.runs.errors import UserError
from curl_rl.runs.files import open_own, read_file, write_durably
from curl_rl.runs.lock import LOCK, is_locked

RUNS = "runs"  # as curl_rl.report.curves knows it
JOBS = "jobs"

Ended = Literal["done", "failed", "stopped", "pruned"]
"""How an attempt ended: its run is complete; it failed; a signal stopped it; the search for settings gave it up."""

_LARGEST = 2**16  # bytes of a record
_PATIENCE = 1.0  # seconds; a process that only looks at a lock holds it for an instant


@dataclass(frozen=True)
class Record:
    """How the last attempt of a job ended."""

    state: Ended
    attempt: str
    """Identifies the attempt among all of them."""
    reason: str = ""
    """One line on a failure."""
    seconds: float = 0.0
    """Duration of the attempt."""


@dataclass(frozen=True)
class JobFiles:
    """The files of the job ``name`` in a sweep's folder."""

    folder: Path
    name: str

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self.folder / RUNS / self.name

    @property
    def log(self) -> Path:
        """What its command printed."""
        return self._file(".log")

    @property
    def stop(self) -> Path:
        """Exists if the job shall save and stop."""
        return self._file(".stop")

    @property
    def is_running(self) -> bool:
        """Whether a process works on the job or on its run, whoever has started it."""
        return self.is_worked_on or is_locked(self.run / LOCK)

    @property
    def is_worked_on(self) -> bool:
        """Whether a worker of this or an earlier sweep, or the command that it has left, works on the job."""
        return is_locked(self._file(".lock"))

    def read_record(self) -> Record | None:
        """How the last attempt ended; None before the first one has, or if the file is damaged."""
        try:
            record = Record(**json.loads(read_file(self._file(".json"), _LARGEST)))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return record if record.state in get_args(Ended) else None

    def write_record(self, record: Record) -> None:
        """Replaces the record, atomically."""
        path = self._file(".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, [f"{json.dumps(asdict(record))}\n".encode()])

    def ask_to_stop(self) -> None:
        """Asks the process that works on the job to save and stop, wherever it runs."""
        self.stop.parent.mkdir(parents=True, exist_ok=True)
        self.stop.touch()

    @contextlib.contextmanager
    def locked(self) -> Iterator[FileIO | None]:
        """Locks the job and yields the lock's file; None if another process has it.

        The lock lasts until this process and all that inherit the file have ended, so a job whose worker was killed
        is still seen as long as its command runs.
        """
        path = self._file(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_own(path, os.O_RDWR) as file:
            end = time.monotonic() + _PATIENCE
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > end:
                        yield None
                        return
                    time.sleep(0.05)
                else:
                    yield file
                    return

    def _file(self, suffix: str) -> Path:
        return self.folder / JOBS / f"{self.name}{suffix}"


@contextlib.contextmanager
def one_sweep(folder: Path) -> Iterator[None]:
    """Locks the folder of a sweep for this process.

    Raises:
        UserError: another process runs a sweep there.
    """
    with JobFiles(folder, "sweep").locked() as lock:
        if lock is None:
            raise UserError(
                f"a sweep runs in {folder} already: wait until it ends, watch it with --status, or choose another "
                "--folder"
            )
        yield
