"""Clean shutdown on Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Stopped(Exception):
    """A signal ended the run after it was saved; ``exit_code`` follows the shell convention, 128 + signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class StopRequest:
    """True once a signal has asked to stop; ``signal_number`` is that signal, None before."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


_waiting: list[str] = []  # handlers belong to the process, and so does what it waits for


@contextlib.contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Names the user code that runs inside the block, for the line that a signal prints."""
    _waiting.append(what)
    try:
        yield
    finally:
        _waiting.pop()


@contextlib.contextmanager
def stop_requests(*, tell: bool = False) -> Iterator[StopRequest]:
    """Inside the block, the first SIGINT or SIGTERM only sets the request; a second one has its usual effect.

    Outside the main thread, where Python cannot handle signals, nothing is caught.

    Args:
        tell: at the first signal, print at once what the stop waits for.
    """
    request = StopRequest()
    before: dict[int, Any] = {}
    note = _Note(request, before, tell)
    try:
        for caught in (signal.SIGINT, signal.SIGTERM):
            before[caught] = signal.signal(caught, note)
    except ValueError:
        before.clear()
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Removes the handlers of SIGINT and SIGTERM that user code installs inside the block."""
    entered = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in entered.items():
            right = _now(handler, number)
            if right is not None and signal.getsignal(number) is not right:
                with contextlib.suppress(ValueError):  # outside the main thread
                    signal.signal(number, right)


def interrupts(handler: Any) -> bool:
    """Whether SIGINT raises KeyboardInterrupt, where ``handler`` was its handler at an earlier moment."""
    return _now(handler, signal.SIGINT) is signal.default_int_handler


class _Note:
    """The handler that sets a request, and puts back the earlier handler."""

    def __init__(self, request: StopRequest, before: dict[int, Any], tell: bool) -> None:
        self._request, self._before, self._tell = request, before, tell
        self._noted: set[int] = set()

    def __call__(self, number: int, _: FrameType | None) -> None:
        self._request.signal_number = number
        self._noted.add(number)
        signal.signal(number, self._before[number])
        if self._tell:
            _tell(number)

    def successor(self, number: int) -> Any:
        """The handler that is right by now: this one until the signal has come."""
        return self._before[number] if number in self._noted else self


def _now(handler: Any, number: int) -> Any:
    """The handler that stands in the place of an earlier one: a signal may have come since."""
    return handler.successor(number) if isinstance(handler, _Note) else handler


def _tell(number: int) -> None:
    waits = f", once {_waiting[-1]} returns" if _waiting else ""
    line = (
        f"\n{signal.Signals(number).name}: saving and stopping after this step{waits}; again: exits at once, unsaved\n"
    )
    # Past Python's buffers, which the signal may have interrupted in the middle of a write.
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), line.encode())
