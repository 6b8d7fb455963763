"""TensorBoard's event file, written by the caller's thread.

TensorBoard's own ``EventFileWriter`` writes from a thread, whose error is printed as a traceback and then raised by a
later call. Here each event reaches the operating system, or raises, in the call that adds it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """A new event file in a directory. Its name, as TensorBoard expects it, cannot be guessed, so nobody can have
    prepared a link there.

    Raises:
        OSError: it cannot be created.
    """

    def __init__(self, directory: Path) -> None:
        now = time.time_ns()
        # TensorBoard reads the files of a directory in the order of their names.
        unique = f"{os.getpid()}.{now}.{secrets.token_hex(8)}"
        name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{unique}"
        self._file = open(directory / name, "xb")  # noqa: SIM115  # closed by close()
        self._records = RecordWriter(self._file)
        self.add(Event(wall_time=now / 1e9, file_version="brain.Event:2"))

    def add(self, event: Event) -> None:
        """Appends an event.

        Raises:
            OSError: it could not be written. TensorBoard skips what was written of it.
        """
        self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        with contextlib.suppress(OSError):  # of an event whose call has raised it
            self._records.close()
