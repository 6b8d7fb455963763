"""Where the jobs of a sweep come from: all are known at the start, or a search proposes them one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from curl_rl.sweep.job import Job
from curl_rl.sweep.progress import Progress


class Source(Protocol):
    """The jobs of a sweep."""

    @property
    def jobs(self) -> Sequence[Job]:
        """All jobs so far."""

    @property
    def closed(self) -> AbstractSet[str]:
        """Names of jobs that shall not start any more, and stop if they run."""

    def advance(self, progress: Mapping[str, Progress], room: int) -> None:
        """Takes note of how far the jobs are, by name, and may add jobs, about as many as there is ``room`` for."""

    @property
    def is_exhausted(self) -> bool:
        """Whether there will be no further jobs."""


class FixedJobs:
    """Jobs that are all known at the start.

    Args:
        jobs: the jobs; one that comes twice is one job.
    """

    closed: frozenset[str] = frozenset()
    is_exhausted = True

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = list(dict.fromkeys(jobs))

    def advance(self, progress: Mapping[str, Progress], room: int) -> None:
        """Nothing changes."""
