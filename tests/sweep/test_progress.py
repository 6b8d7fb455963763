"""Progress, time left and the table, against numbers by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curl_rl.runs.lock import lock_run
from curl_rl.sweep.files import JobFiles, Record
from curl_rl.sweep.job import Job
from curl_rl.sweep.progress import Progress, newest_rows, progress_of, seconds_left
from curl_rl.sweep.table import duration, summary, table

JOB = Job("task", "cpu", (), 1)


def write_rows(run: Path, rows: list[dict[str, float]], end: str = "") -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + end)


def test_progress_is_read_from_a_runs_files(tmp_path: Path) -> None:
    files = JobFiles(tmp_path, JOB.name)
    assert progress_of(JOB, files, 100) == Progress(JOB, "waiting", 100)
    rows: list[dict[str, float]] = [
        {"frames": 0, "wall_time": 1000.0, "evaluation/return_mean": 1.5},
        {"frames": 10, "wall_time": 1020.0},
        {"frames": 20, "wall_time": 9000.0},  # resumed after a pause
        {"frames": 30, "wall_time": 9020.0, "evaluation/return_mean": 3.5},
        {"frames": 40, "wall_time": 9040.0},
    ]
    write_rows(files.run, rows, end='{"frames": 50, "wall')
    with lock_run(files.run):
        assert progress_of(JOB, files, 100) == Progress(JOB, "running", 100, 40, 3.5, 2.0)
    assert progress_of(JOB, files, 100).state == "waiting"
    files.write_record(Record("failed", "x", "no space left"))
    assert (progress_of(JOB, files, 100).state, progress_of(JOB, files, 100).reason) == ("failed", "no space left")
    files.write_record(Record("done", "x"))
    assert progress_of(JOB, files, 100).state == "done"


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"frames": i, "x": 0.123456789} for i in range(20_000)])
    rows = newest_rows(tmp_path)
    assert rows[-1]["frames"] == 19_999
    assert [row["frames"] for row in rows] == list(range(20_000 - len(rows), 20_000))
    assert 1000 < len(rows) < 20_000


def one(state: str, frames: int, pace: float | None, env: str = "a", budget: int = 100) -> Progress:
    return Progress(Job(env, "cpu", (), 1), state, budget, frames, None, pace)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("jobs", "at_once", "seconds"),
    [
        ([one("running", 50, 2.0), one("waiting", 0, None)], 2, 200.0),  # the longer of 100 and 200
        ([one("running", 50, 2.0), one("waiting", 0, None)], 1, 300.0),
        ([one("running", 50, 2.0), one("running", 0, 1.0, "b"), one("waiting", 0, None, "b")], 1, 300.0),
        ([one("done", 100, 2.0), one("waiting", 0, None, "b")], 1, 200.0),
        ([one("done", 100, 2.0), one("failed", 0, None)], 1, 0.0),
        ([one("waiting", 0, None)], 1, None),
    ],
)
def test_time_left_by_hand(jobs: list[Progress], at_once: int, seconds: float | None) -> None:
    assert seconds_left(jobs, at_once) == seconds


def test_table_by_hand() -> None:
    jobs = [
        Progress(Job("a", "cpu", (), 1), "done", 1000, 1000, 12.34, 1.0),
        Progress(Job("a", "cpu", (), 2), "running", 1000, 400, None, 2.0),
    ]
    assert table(jobs, 1) == [
        "job          state         frames  return  time left",
        "a/cpu/seed1  done     1,000/1,000    12.3",
        "a/cpu/seed2  running    400/1,000             20 min",
        "2 jobs: 1 running, 1 done, time left: 20 min",
    ]
    settings = [(("frames", "9"), ("x", "1")), (("frames", "9"), ("x", "2"))]
    many = table([Progress(Job("a", "cpu", one, 1), "waiting", 9) for one in settings], 1)
    assert [line.split("  ")[0] for line in many[:-1]] == [
        "all with frames 9",
        "job",
        "a/cpu,x=1/seed1",
        "a/cpu,x=2/seed1",
    ]
    shortened = table([*jobs, *[one("waiting", 0, None)] * 50], 1, rows=3)
    assert shortened[1].startswith("a/cpu/seed2  running")
    assert shortened[3:] == [
        "... and 50 more; --status prints all",
        summary([*jobs, *[one("waiting", 0, None)] * 50], 1),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (90, "2 min"), (3 * 3600 + 300, "3 h 05 min"), (51 * 3600, "2 d 03 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
