"""Jobs run once, whoever dies meanwhile. The jobs are shell scripts that note each start and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.runs.lock import lock_run
from curl_rl.runs.signals import Stopped
from curl_rl.sweep import driver as loop
from curl_rl.sweep.files import JobFiles, Record, one_sweep
from helpers import stand_in_jobs
from helpers.stand_in_jobs import FAILS, WAITS, driver, jobs, notes

ONCE = Counter(f"{what} {seed}" for what in ("start", "end") for seed in (1, 2, 3))


def wait_until(holds: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def starts(folder: Path) -> int:
    return sum(note.startswith("start") for note in notes(folder))


def soon(*steps: Callable[[], object]) -> threading.Thread:
    """Takes these steps while the sweep runs."""
    thread = threading.Thread(target=lambda: [step() for step in steps])
    thread.start()
    return thread


def killed_program(folder: Path, script: str, started: int) -> subprocess.Popen[bytes]:
    """A sweep over three jobs that was killed once ``started`` of them had started."""
    program = subprocess.Popen([sys.executable, stand_in_jobs.__file__, str(folder), script], stderr=subprocess.DEVNULL)
    wait_until(lambda: starts(folder) == started)
    program.kill()
    program.wait()
    return program


def test_each_job_runs_once_and_never_again(tmp_path: Path) -> None:
    assert driver(tmp_path, jobs(3)).run() == 0
    assert Counter(notes(tmp_path)) == ONCE
    assert driver(tmp_path, jobs(3)).run() == 0
    assert Counter(notes(tmp_path)) == ONCE


def test_no_more_jobs_run_than_there_are_slots(tmp_path: Path) -> None:
    assert driver(tmp_path, jobs(3), "sleep 0.2", slots=1).run() == 0
    assert notes(tmp_path) == [f"{what} {seed}" for seed in (1, 2, 3) for what in ("start", "end")]


def test_killed_sweep_goes_on_with_jobs_that_still_run(tmp_path: Path) -> None:
    killed_program(tmp_path, WAITS, started=2)
    # Both slots are taken by the two that still run, so the third job starts only after they may end.
    helper = soon(lambda: time.sleep(1), (tmp_path / "go").touch)
    assert driver(tmp_path, jobs(3), WAITS).run() == 0
    helper.join()
    assert Counter(notes(tmp_path)) == ONCE
    assert [note for note in notes(tmp_path) if note.startswith("start")][2] == "start 3"
    assert notes(tmp_path).index("start 3") >= 3


def test_job_that_ends_while_no_sweep_runs_is_not_run_again(tmp_path: Path) -> None:
    killed_program(tmp_path, WAITS, started=2)
    (tmp_path / "go").touch()
    wait_until(lambda: all(JobFiles(tmp_path, job.name).read_record() for job in jobs(2)))
    assert driver(tmp_path, jobs(3), WAITS).run() == 0
    assert Counter(notes(tmp_path)) == ONCE


def worker_pids(folder: Path) -> list[int]:
    """The worker processes of this sweep, from the system's table."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"curl_rl.sweep.worker" in words and str(folder).encode() in words[-2]:
                found.append(int(entry.name))
    return found


def test_job_whose_worker_is_killed_is_watched_to_its_end(tmp_path: Path) -> None:
    def kill() -> None:
        wait_until(lambda: starts(tmp_path) == 1)
        for pid in worker_pids(tmp_path):
            os.kill(pid, signal.SIGKILL)

    helper = soon(kill, lambda: time.sleep(0.5), (tmp_path / "go").touch)
    assert driver(tmp_path, jobs(1), WAITS).run() == 0
    helper.join()
    # The command went on without its worker. As nobody could record its end, it is called again, to find itself done.
    assert notes(tmp_path) == ["start 1", "end 1"] * 2


def test_killed_command_is_started_again(tmp_path: Path) -> None:
    assert driver(tmp_path, jobs(1), "[ -e tried ] || { touch tried; kill -9 $$; }").run() == 0
    assert notes(tmp_path) == ["start 1", "start 1", "end 1"]


def test_failing_job_is_tried_once_more_and_reported_while_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = f"[ $SEED = 2 ] && {{ {FAILS}; }}; :"
    assert driver(tmp_path, jobs(3), script).run() == 1
    assert Counter(notes(tmp_path)) == ONCE + Counter(["start 2"]) - Counter(["end 2"])
    log = tmp_path / "jobs" / "task" / "cpu" / "seed2.log"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " failed: " in line]
    assert line == f"task/cpu/seed2 failed: the disk is full; its log: {log}"
    assert log.read_text().count("the disk is full\n") == 2
    # A new sweep tries it again, and only it.
    assert driver(tmp_path, jobs(3)).run() == 0
    assert Counter(notes(tmp_path)) == ONCE + Counter(["start 2"] * 2)


def test_job_that_is_killed_again_and_again_goes_on_while_it_gets_further(tmp_path: Path) -> None:
    def stuck_at(frames: int) -> str:
        # Killed at 10, 20, ... frames; at `frames` it gets no further.
        return (
            'mkdir -p "$RUN"; at=$(($(cat at 2>/dev/null || echo 0) + 10)); '
            f"[ $at -gt {frames} ] && at={frames}; echo $at > at; "
            'echo "{\\"frames\\": $at}" >> "$RUN/metrics.jsonl"; [ $at -lt 40 ] && kill -9 $$'
        )

    assert driver(tmp_path, jobs(1), stuck_at(40)).run() == 0
    assert notes(tmp_path) == ["start 1"] * 4 + ["end 1"]
    other = tmp_path / "other"
    other.mkdir()
    assert driver(other, jobs(1), stuck_at(20)).run() == 1
    assert notes(other) == ["start 1"] * 3  # 10, 20, and 20 again


def test_run_that_somebody_else_trains_is_left_alone(tmp_path: Path) -> None:
    files = JobFiles(tmp_path, jobs(1)[0].name)
    taken = threading.Event()

    def train() -> None:
        with lock_run(files.run):
            taken.set()
            wait_until(lambda: "end 2" in notes(tmp_path))
            time.sleep(0.3)
            assert "start 1" not in notes(tmp_path)

    helper = soon(train)
    taken.wait()
    assert driver(tmp_path, jobs(2)).run() == 0
    helper.join()
    assert notes(tmp_path) == ["start 2", "end 2", "start 1", "end 1"]


def test_two_sweeps_in_one_folder_are_refused(tmp_path: Path) -> None:
    with (
        one_sweep(tmp_path),
        pytest.raises(UserError, match=f"^a sweep runs in {tmp_path} already: "),
        one_sweep(tmp_path),
    ):
        pass


def test_signal_stops_all_jobs_and_the_next_sweep_continues(tmp_path: Path) -> None:
    script = 'trap "echo saved >> notes; exit 143" TERM; [ -e go ] || while :; do sleep 0.05; done'
    helper = soon(lambda: wait_until(lambda: starts(tmp_path) == 2), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped) as stopped:
        driver(tmp_path, jobs(3), script).run()
    helper.join()
    assert stopped.value.exit_code == 143
    assert sorted(notes(tmp_path)) == ["saved", "saved", "start 1", "start 2"]
    assert not any(JobFiles(tmp_path, job.name).is_running for job in jobs(3))
    (tmp_path / "go").touch()
    assert driver(tmp_path, jobs(3), script).run() == 0
    assert Counter(notes(tmp_path))["end 1"] == 1


def test_signal_also_stops_the_jobs_that_a_killed_sweep_has_left(tmp_path: Path) -> None:
    script = 'trap "echo saved >> notes; exit 143" TERM; while :; do sleep 0.05; done'
    killed_program(tmp_path, script, started=2)
    helper = soon(lambda: time.sleep(0.5), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        driver(tmp_path, jobs(3), script).run()
    helper.join()
    wait_until(lambda: notes(tmp_path).count("saved") == 2)
    assert starts(tmp_path) == 2


def test_job_whose_run_was_just_taken_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_PAUSE", 0.1)
    message = "train: error: run directory x is in use by process 7: wait until it ends"
    script = f'echo once >> tries; [ $(wc -l < tries) -gt 3 ] || {{ echo "{message}"; exit 2; }}'
    assert driver(tmp_path, jobs(1), script).run() == 0
    assert notes(tmp_path) == ["start 1"] * 4 + ["end 1"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"state": "fine", "attempt": ""}', "[" * 50_000])
def test_damaged_record_counts_as_none(content: str, tmp_path: Path) -> None:
    files = JobFiles(tmp_path, "a/b/seed1")
    files.write_record(Record("done", "x"))
    (tmp_path / "jobs" / "a" / "b" / "seed1.json").write_text(content)
    assert files.read_record() is None
