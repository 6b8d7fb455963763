"""One process per run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curl_rl.runs.lock import is_locked, lock_run

HOLDER = """
import sys, time
from curl_rl.runs.lock import is_locked, lock_run
with lock_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        message = f"^run directory {run} is in use by process {holder.pid}: "
        with pytest.raises(ValueError, match=message), lock_run(run):
            pass
        holder.kill()
        holder.wait()
        with lock_run(run):
            assert (run / "run.lock").read_text() == f"{os.getpid()}\n"
            with pytest.raises(ValueError, match=f"process {os.getpid()}: "), lock_run(run):
                pass
        with lock_run(run):
            pass


def test_a_lock_is_seen_without_taking_or_writing_anything(tmp_path: Path) -> None:
    path = tmp_path / "run" / "run.lock"
    assert not is_locked(path)
    assert not path.parent.exists()
    with lock_run(path.parent):
        content = path.read_text()
        assert is_locked(path)
        assert path.read_text() == content
    assert not is_locked(path)
    with lock_run(path.parent):
        pass
