"""The loop of a sweep: starts jobs while there is room, takes note of their ends, and stops with them.

All that must outlast this process is in files (:mod:`curl_rl.sweep.files`), so a sweep that was killed at any moment
continues with the same command. What is in memory only concerns this process: which attempts it has started and how
often a job has failed since.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from curl_rl.runs.console import say
from curl_rl.runs.signals import Stopped, StopRequest, stop_requests
from curl_rl.sweep.files import JobFiles, Record
from curl_rl.sweep.job import Job
from curl_rl.sweep.progress import Progress, progress_of
from curl_rl.sweep.source import Source
from curl_rl.sweep.table import Board
from curl_rl.sweep.worker import Task

_PAUSE = 5.0  # seconds before another try at a job whose run somebody else had just locked


class Engine(Protocol):
    """Runs workers somewhere."""

    outlives: bool
    """Whether its jobs go on when the sweep is interrupted, as those of a queue do."""

    @property
    def at_once(self) -> int:
        """How many jobs run at the same time, for the time left."""

    def room(self, elsewhere: int) -> int:
        """Jobs that can start now, while ``elsewhere`` others of the sweep run that this engine has not started."""

    def start(self, task: Task) -> None:
        """Starts a worker on a task."""

    def ended(self) -> dict[str, str]:
        """Names of the tasks whose workers have ended since the last call, with a line on what went wrong in them."""

    def close(self) -> None:
        """Releases what the engine holds; workers may go on."""


class Driver:
    """One sweep in progress.

    Args:
        folder: the sweep's folder, absolute.
        source: the jobs.
        engine: runs their workers.
        command: the command of a job.
        budget: the environment frames of a job.
        retries: how often a job that fails is tried again. One that was killed and had got further than ever before
            is not counted.
        interval: seconds between two looks at the jobs.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        engine: Engine,
        command: Callable[[Job], Sequence[str]],
        budget: Callable[[Job], int],
        *,
        retries: int = 1,
        interval: float = 1.0,
    ) -> None:
        self._folder, self._source, self._engine = folder, source, engine
        self._command, self._budget = command, budget
        self._retries, self._interval = retries, interval
        self._attempts: dict[str, str] = {}  # of the jobs that this process has started, by name
        self._failures: Counter[str] = Counter()
        self._furthest: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._earliest: dict[str, float] = {}
        self._over: dict[str, Progress] = {}
        self._board = Board()

    def run(self) -> int:
        """Runs all jobs; returns how many have failed.

        Raises:
            Stopped: SIGINT or SIGTERM was received; the jobs have saved and stopped, unless they are in a queue.
        """
        progress: list[Progress] = []
        with stop_requests() as stop:
            while not stop:
                self._settle()
                progress = self.look()
                running = sum(one.state == "running" for one in progress)
                room = self._engine.room(running - len(self._attempts.keys() & {one.job.name for one in progress}))
                waiting = [one.job for one in progress if one.state == "waiting"]
                self._board.clear()  # a search prints lines
                self._source.advance({one.job.name: one for one in progress}, room - len(waiting))
                self._close()
                for job in [job for job in waiting if self._may_start(job)][:room]:
                    self._start(job)
                known = len(progress) == len(self._source.jobs)
                if known and self._source.is_exhausted and all(one.is_over for one in progress):
                    break
                self._board.show(progress, self._engine.at_once)
                time.sleep(self._interval)
            if stop:
                self._stop(stop)
        self._board.clear()
        for name, reason in self._failed.items():
            say(f"{name} failed: {reason}; its log: {JobFiles(self._folder, name).log}")
        return len(self._failed)

    def look(self) -> list[Progress]:
        """The progress of all jobs."""
        return [self._progress(job) for job in self._source.jobs]

    def _progress(self, job: Job) -> Progress:
        if job.name not in self._over:
            is_running = True if job.name in self._attempts else None
            one = progress_of(job, self._files(job.name), self._budget(job), is_running=is_running)
            # A failure that an earlier sweep has left is tried again: whoever starts a sweep anew has mended something.
            if one.state == "failed" and job.name not in self._failed and job.name not in self._source.closed:
                return Progress(job, "waiting", one.budget, one.frames, one.returned, one.seconds_per_frame)
            if not one.is_over:
                return one
            self._over[job.name] = one
        return self._over[job.name]

    def _may_start(self, job: Job) -> bool:
        return job.name not in self._source.closed and time.monotonic() >= self._earliest.get(job.name, 0)

    def _start(self, job: Job) -> None:
        files = self._files(job.name)
        files.stop.unlink(missing_ok=True)
        self._furthest.setdefault(job.name, self._progress(job).frames)
        attempt = uuid.uuid4().hex
        self._attempts[job.name] = attempt
        command = tuple(self._command(job))
        self._engine.start(Task(str(self._folder), job.name, attempt, command, str(Path.cwd()), {}))

    def _settle(self) -> None:
        """Takes note of the workers that have ended."""
        for name, fault in self._engine.ended().items():
            attempt = self._attempts.pop(name)
            files = self._files(name)
            record = files.read_record()
            if record is not None and record.attempt == attempt:
                if record.state in ("failed", "stopped"):
                    self._count_failure(name, record.reason, by_signal=record.state == "stopped")
            elif (record is not None and record.state == "done") or files.is_running:
                pass  # somebody else has done it, or the worker was killed and its command goes on
            elif fault:
                self._count_failure(name, fault, by_signal=True)
            else:  # its run was in use
                self._earliest[name] = time.monotonic() + _PAUSE

    def _count_failure(self, name: str, reason: str, *, by_signal: bool) -> None:
        if name in self._source.closed:
            return
        job = next(one for one in self._source.jobs if one.name == name)
        frames = self._progress(job).frames
        got_further = frames > self._furthest.get(name, 0)
        self._furthest[name] = max(frames, self._furthest.get(name, 0))
        self._failures[name] = 1 if by_signal and got_further else self._failures[name] + 1
        self._board.clear()
        if self._failures[name] <= self._retries:
            say(f"{name}: {reason}; trying again")
        else:
            self._failed[name] = reason
            self._files(name).write_record(Record("failed", "", reason))

    def _close(self) -> None:
        """Stops the jobs that the source has closed."""
        for name in self._source.closed:
            if name in self._over:
                continue
            files = self._files(name)
            if name in self._attempts or files.is_running:
                if not files.stop.exists():
                    files.ask_to_stop()
                continue
            record = files.read_record()
            if record is None or record.state == "stopped":
                files.write_record(Record("pruned", ""))

    def _stop(self, stop: StopRequest) -> None:
        """Asks all jobs to save and stop, and waits for those that this process has started.

        Raises:
            Stopped: always.
        """
        self._board.clear()
        if self._engine.outlives:
            say("the jobs go on in their queue; the same command watches them again")
        else:
            working = [job.name for job in self._source.jobs if job.name in self._attempts or self._is_worked_on(job)]
            if working:
                say(f"{len(working)} jobs save and stop; the same command continues them")
            for name in working:
                self._files(name).ask_to_stop()
            while self._attempts:
                for name in self._engine.ended():
                    del self._attempts[name]
                time.sleep(min(self._interval, 0.2))
        raise Stopped(stop.signal_number or 0)

    def _is_worked_on(self, job: Job) -> bool:
        return self._files(job.name).is_worked_on

    def _files(self, name: str) -> JobFiles:
        return JobFiles(self._folder, name)
