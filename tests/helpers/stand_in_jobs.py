"""A sweep whose jobs are shell scripts: each notes in FOLDER/notes when it starts and ends.

As a program it runs such a sweep, for tests that kill it: python stand_in_jobs.py FOLDER SCRIPT.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from curl_rl.sweep.driver import Driver, Engine
from curl_rl.sweep.job import Job
from curl_rl.sweep.local import LocalPool
from curl_rl.sweep.source import FixedJobs, Source

NOTED = 'echo "start $SEED" >> notes; %s; echo "end $SEED" >> notes'
WAITS = "while [ ! -e go ]; do sleep 0.05; done"
"""A script that waits for the file FOLDER/go."""
FAILS = "echo begin; echo the disk is full; exit 1"


def jobs(count: int, env: str = "task") -> list[Job]:
    """Jobs with the seeds 1 to ``count``."""
    return [Job(env, "cpu", (), seed) for seed in range(1, count + 1)]


def command(folder: Path, script: str) -> Callable[[Job], list[str]]:
    """The command of each job; ``$SEED`` is its seed, ``$RUN`` its run's directory, ``$VALUE`` its first setting."""

    def of(job: Job) -> list[str]:
        run = folder / "runs" / job.name
        value = job.settings[0][1] if job.settings else ""
        return ["sh", "-c", f"cd {folder}; SEED={job.seed}; VALUE={value}; RUN='{run}'; {NOTED % script}"]

    return of


def driver(
    folder: Path, source: Source | Sequence[Job], script: str = ":", engine: Engine | None = None, slots: int = 2
) -> Driver:
    """A sweep over jobs with a budget of 100 frames."""
    return Driver(
        folder,
        FixedJobs(source) if isinstance(source, Sequence) else source,
        engine or LocalPool([{}] * slots),
        command(folder, script),
        lambda job: 100,
        interval=0.05,
    )


def notes(folder: Path) -> list[str]:
    """What the jobs have noted, in order."""
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    raise SystemExit(driver(Path(sys.argv[1]), jobs(3), sys.argv[2]).run())
