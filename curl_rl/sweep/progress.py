"""How far a job is, by its files: nothing here asks the process that works on it."""

from __future__ import annotations

import itertools
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from curl_rl.runs.files import open_regular
from curl_rl.sweep.files import JobFiles
from curl_rl.sweep.job import Job

METRICS = "metrics.jsonl"
RETURN = "evaluation/return_mean"

State = Literal["waiting", "running", "done", "failed", "pruned"]

_TAIL = 2**18  # bytes: some hundred rows, which hold the newest evaluation


@dataclass(frozen=True)
class Progress:
    """A job's state, and how far its run is."""

    job: Job
    state: State
    budget: int
    """Environment frames that the run shall take."""
    frames: int = 0
    """Environment frames so far."""
    returned: float | None = None
    """Mean return of the newest evaluation."""
    seconds_per_frame: float | None = None
    """Speed over the newest rows of metrics; None if it cannot be told yet."""
    reason: str = ""
    """One line on a failure."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in ("done", "failed", "pruned")

    @property
    def frames_left(self) -> int:
        """Environment frames that are still to be taken."""
        return 0 if self.is_over else max(self.budget - self.frames, 0)


def progress_of(job: Job, files: JobFiles, budget: int, *, is_running: bool | None = None) -> Progress:
    """The progress of a job; ``is_running``, if the caller knows it, saves a look at the locks."""
    record = files.read_record()
    state: State = "waiting"
    reason = ""
    if record is not None and record.state in ("done", "pruned"):
        state = "done" if record.state == "done" else "pruned"
    elif files.is_running if is_running is None else is_running:
        state = "running"
    elif record is not None and record.state == "failed":
        state, reason = "failed", record.reason
    return Progress(job, state, budget, *_measured(newest_rows(files.run)), reason)


def newest_rows(run: Path) -> list[dict[str, Any]]:
    """The last rows of a run's metrics, without one that is still being written; empty if there are none."""
    try:
        with open_regular(run / METRICS) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL))
            lines = file.read(_TAIL).split(b"\n")[:-1]
    except (OSError, ValueError):
        return []
    rows = []
    for line in lines[1:] if size > _TAIL else lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("frames"), int):
            rows.append(row)
    return rows


def evaluations(rows: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Mean returns of the evaluations in these rows by environment frames."""
    return {row["frames"]: float(row[RETURN]) for row in rows if isinstance(row.get(RETURN), (int, float))}


def _measured(rows: Sequence[Mapping[str, Any]]) -> tuple[int, float | None, float | None]:
    """Frames, newest return and seconds per frame."""
    if not rows:
        return 0, None, None
    found = evaluations(rows)
    frames = int(rows[-1]["frames"])
    timed = [row for row in rows if isinstance(row.get("wall_time"), (int, float))]
    pace = None
    if timed and timed[-1]["frames"] > timed[0]["frames"]:
        # By the median over rows, so that a pause between two sessions of a run does not count.
        steps = [
            (later["wall_time"] - one["wall_time"]) / (later["frames"] - one["frames"])
            for one, later in itertools.pairwise(timed)
            if later["frames"] > one["frames"]
        ]
        pace = statistics.median(steps)
    return frames, found[max(found)] if found else None, pace


def seconds_left(all_jobs: Sequence[Progress], at_once: int) -> float | None:
    """An estimate of the time until all jobs are done; None if no speed is known yet.

    A job whose speed is not known counts as fast as the others on its task and preset, or else as all others.

    Args:
        all_jobs: the jobs.
        at_once: how many of them run at the same time.
    """
    known = [one for one in all_jobs if one.seconds_per_frame is not None]
    if not known:
        return None if any(one.frames_left for one in all_jobs) else 0.0

    def pace(one: Progress) -> float:
        if one.seconds_per_frame is not None:
            return one.seconds_per_frame
        kind = (one.job.env, one.job.preset)
        alike = [other for other in known if (other.job.env, other.job.preset) == kind] or known
        return statistics.fmean(other.seconds_per_frame or 0.0 for other in alike)

    left = [one.frames_left * pace(one) for one in all_jobs if not one.is_over]
    return max([sum(left) / max(at_once, 1), *left], default=0.0)
