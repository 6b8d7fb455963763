"""Clean shutdown on Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import signal
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


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Inside the block, the first SIGINT or SIGTERM only sets the request; a second one has its usual effect.

    Outside the main thread, where Python cannot handle signals, nothing is caught.
    """
    request = StopRequest()
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        request.signal_number = number
        signal.signal(number, before[number])

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
