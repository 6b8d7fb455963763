"""The process that works on one job: it starts the job's command, follows a stop request and records the end.

It runs on whatever machine the engine chooses, sees the sweep's folder there, and outlives the sweep: a job that ends
while no sweep is running is recorded all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from curl_rl.runs.console import printable
from curl_rl.runs.files import open_to_append
from curl_rl.sweep.files import Ended, JobFiles, Record

IN_USE = "is in use by process"
"""In the message of a command whose run another process has locked."""

_TAIL = 2**14  # bytes of a log in which its last line lies
_INTERVAL = 0.2  # seconds between looks for a stop request


@dataclass(frozen=True)
class Task:
    """One attempt at a job, as an engine passes it on: texts only."""

    folder: str
    """The sweep's folder, absolute."""
    name: str
    """The job's name."""
    attempt: str
    """Identifies the attempt."""
    command: Sequence[str]
    """What to run."""
    directory: str
    """Where to run it."""
    variables: Mapping[str, str]
    """Variables of its environment, besides those of the worker."""


def work(task: Task) -> None:
    """Runs the job's command to its end and records how it ended.

    Does nothing if the job is done already, or if another process works on it.
    """
    files = JobFiles(Path(task.folder), task.name)
    with files.locked() as lock:
        if lock is None or _is_over(files) or files.stop.exists():
            return
        started = time.time()
        with open_to_append(files.log) as log:
            log.write(f"$ {shlex.join(task.command)}\n".encode())
            begin = os.fstat(log.fileno()).st_size
            try:
                process = subprocess.Popen(
                    task.command,
                    cwd=task.directory,
                    env={**os.environ, **task.variables},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock.fileno(),),
                    start_new_session=True,  # Ctrl-C in a terminal is for the sweep, which then asks its jobs to stop
                )
            except OSError as error:
                log.write(f"cannot start {task.command[0]}: {error.strerror}\n".encode())
                code = 1
            else:
                code = _end_of(process, files)
        state, reason = _outcome(code, files.log, begin)
        if IN_USE not in reason:  # otherwise the attempt has not begun
            files.write_record(Record(state, task.attempt, reason, time.time() - started))


def _is_over(files: JobFiles) -> bool:
    record = files.read_record()
    return record is not None and record.state == "done"


def _end_of(process: subprocess.Popen[bytes], files: JobFiles) -> int:
    """Waits for a process and passes requests to stop on to it; returns its exit code."""

    def pass_on(number: int, _: object) -> None:
        process.send_signal(number)

    with contextlib.suppress(ValueError):  # outside the main thread
        signal.signal(signal.SIGTERM, pass_on)
    asked = False
    while True:
        try:
            return process.wait(_INTERVAL)
        except subprocess.TimeoutExpired:
            if not asked and files.stop.exists():
                asked = True
                process.terminate()


def _outcome(code: int, log: Path, begin: int) -> tuple[Ended, str]:
    """How a command ended, with a line on anything but success: of its log, which it began to write at ``begin``."""
    if code == 0:
        return "done", ""
    number = -code if code < 0 else code - 128  # the shell's convention, which the commands follow
    if number in {one.value for one in signal.Signals}:
        return "stopped", f"{'killed' if code < 0 else 'stopped'} by {signal.Signals(number).name}"
    return "failed", _last_line(log, begin) or f"exit code {code}"


def _last_line(log: Path, begin: int) -> str:
    with open(log, "rb") as file:
        file.seek(max(begin, os.fstat(file.fileno()).st_size - _TAIL))
        lines = re.split(r"[\r\n]+", file.read(_TAIL).decode(errors="replace"))
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), ""))


def main(argv: Sequence[str]) -> int:
    """Works on the task that the only argument describes, as JSON."""
    work(Task(**json.loads(argv[0])))
    return 0


def command_for(task: Task) -> list[str]:
    """The command of a worker process for ``task``."""
    return [sys.executable, "-m", "curl_rl.sweep.worker", json.dumps(asdict(task))]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
