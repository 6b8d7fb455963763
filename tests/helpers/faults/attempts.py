"""One fault at a time, each in a process of its own, and what came of it.

A *kind* of fault draws one of its many forms from a random generator, injects it, and looks at the outcome. An attempt
is repeated by its kind, seed and number. It runs in a forked child, so that a crash, a hang, a change of directory or a
gigabyte of memory is seen from outside and harms nobody.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

REFUSED = "refused in one line, exit code 2"
SAME = "worked, equal to the original"
OLDER = "an older checkpoint took over, with a word"
TOLD = "went on, and said what is different"
RESUMED = "resumed, equal bit for bit"
STOPPED = "stopped in one line, then resumed bit for bit"
ACCEPTED = "accepted, saved and read back equal"
DEFECT = "DEFECT"
OUTCOMES = (REFUSED, SAME, OLDER, TOLD, RESUMED, STOPPED, ACCEPTED, DEFECT)

_MEMORY = 2**29  # bytes that a child may take beyond what its parent has


class Defect(Exception):
    """What must never be the outcome."""


class Result(NamedTuple):
    """What came of a fault."""

    outcome: str
    detail: str = ""
    """Of a defect."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    name: str
    attempt: Callable[[random.Random, Path], Result]
    """Injects a fault in a new folder, and lets what may go wrong go wrong :func:`in_child`."""


def attempted(kind: Kind, number: int, seed: int = 0) -> Result:
    """The outcome of this attempt."""
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        source = random.Random(f"{seed} {kind.name} {number}")
        return kind.attempt(source, Path(folder))


def in_child(work: Callable[[], str], seconds: float = 60.0) -> Result:
    """The outcome that ``work`` returns, or the :class:`Defect` that it raises, in a forked child.

    It may neither hang, crash, nor swell, nor run what a file holds.
    """
    receive, report = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(receive)
        os.setsid()  # workers of its own are killed with it
        try:
            result = _result(work)
        except BaseException:  # also of the audit hook
            result = Result(DEFECT, traceback.format_exc())
        os.write(report, "\0".join(result).encode(errors="replace")[:60_000])
        os._exit(0)
    os.close(report)
    received, end = b"", time.monotonic() + seconds
    while True:
        if not select.select([receive], [], [], max(0.0, end - time.monotonic()))[0]:
            break
        part = os.read(receive, 65_536)
        received += part
        if not part:
            break
    hangs = time.monotonic() >= end and not received
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.close(receive)
    _, status = os.waitpid(child, 0)
    if hangs:
        return Result(DEFECT, f"hangs: it took more than {seconds:g} s")
    if not received:
        return Result(DEFECT, f"the process crashed with status {status}")
    outcome, _, detail = received.decode().partition("\0")
    return Result(outcome, detail)


def _result(work: Callable[[], str]) -> Result:
    _audit()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        outcome = work()
    except Defect as defect:
        return Result(DEFECT, str(defect))
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > _MEMORY:
        return Result(DEFECT, f"took {grown / 1e6:.0f} MB of memory")
    assert outcome in OUTCOMES
    return Result(outcome)


_allowed_programs = ("git", "nvidia-smi", "uname")


def _audit() -> None:
    """From now on, what only injected code would do is fatal: starting programs other than git, or connecting."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.system", "os.exec", "socket.connect", "webbrowser.open", "ctypes.dlopen/injected"):
            raise AssertionError(f"code of a file was run: {event} {arguments}")
        if event == "subprocess.Popen":
            program = arguments[1][0] if isinstance(arguments[1], (list, tuple)) else str(arguments[1])
            if Path(str(program)).name not in (*_allowed_programs, Path(sys.executable).name):
                raise AssertionError(f"code of a file was run: {event} {arguments[:2]}")

    sys.addaudithook(hook)


# ---- commands


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def ran(command: Callable[[], Any], *, traceback_allowed: bool = False) -> Ran:
    """Runs a command in this process, as :func:`sys.exit` ends it, and what it printed.

    ``traceback_allowed``: a worker prints that of a user's environment.

    Raises:
        Defect: it ended with an exception, which a user would see as a traceback.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    pipes = [os.pipe(), os.pipe()]  # a file would be subject to the limits that are tested
    printed = [io.BytesIO(), io.BytesIO()]
    for number, (_, end) in enumerate(pipes, start=1):
        os.dup2(end, number)
        os.close(end)
    readers = [
        threading.Thread(target=_drain, args=(pipe[0], into), daemon=True)
        for pipe, into in zip(pipes, printed, strict=True)
    ]
    for reader in readers:
        reader.start()
    code, trouble = 0, ""
    with _own_streams():
        try:
            code = command()
        except SystemExit as ended:
            code = ended.code  # type: ignore[assignment]
        except Exception:
            code, trouble = 1, traceback.format_exc()
    for number, descriptor in enumerate(kept, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for reader in readers:
        reader.join(5)  # a process that survives the command may hold the other end
    out, err = (into.getvalue().decode(errors="replace") for into in printed)
    if trouble or ("Traceback (most recent call last)" in err and not traceback_allowed):
        raise Defect(f"ends with a traceback: {trouble or err[-3000:]}")
    return Ran(code if isinstance(code, int) else 0, out, err)


def _drain(pipe: int, into: io.BytesIO) -> None:
    while part := os.read(pipe, 65_536):
        into.write(part)
    os.close(pipe)


@contextlib.contextmanager
def _own_streams() -> Iterator[None]:
    """Python's streams on the descriptors, not those with which pytest replaces them; warnings as a user sees them."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        try:
            yield
        finally:
            sys.stdout.close()
            sys.stderr.close()
            sys.stdout, sys.stderr = before


def refusal(ended: Ran) -> str | None:
    """The line with which a command has refused; None if it has done its work.

    Raises:
        Defect: it failed in another way than with one line and exit code 2.
    """
    if ended.code == 0:
        return None
    said = ended.err.strip().splitlines()
    if ended.code != 2:
        raise Defect(f"exit code {ended.code}: {ended.err[-2000:]}")
    errors = [line for line in said if ": error: " in line]
    if len(errors) != 1 or said[-1] != errors[0]:
        raise Defect(f"is not refused in one line: {ended.err[-2000:]}")
    return errors[0]


def fail(what: str) -> NoReturn:
    """Raises a Defect."""
    raise Defect(what)


def copied(folder: Path, to: Path) -> Path:
    """A copy of a subject that may be harmed; links stay links."""
    return Path(shutil.copytree(folder, to, symlinks=True))
