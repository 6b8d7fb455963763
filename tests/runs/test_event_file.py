"""TensorBoard's event file: written, and failing, in the call that adds an event; test_logger.py reads the content."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event

from curl_rl.runs.event_file import EventFile


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_of_the_call_and_of_no_thread(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    threads = threading.active_count()
    events = EventFile(tmp_path)
    assert threading.active_count() == threads
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, events._file.fileno())
    os.close(full)
    with pytest.raises(OSError) as raised:  # noqa: PT011  # the number tells it
        events.add(Event(step=1))
    assert raised.value.errno == errno.ENOSPC
    events.close()
    events.close()
    assert capfd.readouterr().err == ""


def test_later_files_of_a_directory_come_later_by_name(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        EventFile(tmp_path).close()
        names.append(next(name for name in os.listdir(tmp_path) if name not in names))
    assert names == sorted(names)
