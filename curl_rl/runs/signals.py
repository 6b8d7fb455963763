"""Leaving in good order on Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Stopped(Exception):
    """A signal ended the run after it had been saved; ``exit_code`` is what a shell expects of it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class StopRequest:
    """Whether a signal asked to stop; ``signal_number`` says which, None as long as there was none."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """In here the first SIGINT or SIGTERM only sets the request; a second one acts as it did before.

    Outside the main thread, which alone may handle signals, nothing is caught.
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
