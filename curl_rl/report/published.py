"""Published returns of agents that learn from pixels, from the table published.csv, which names the source of each row.

Methods repeat each action a different number of times, and so take a different number of decisions in the same
environment frames. Only results with the same action repeat are comparable, so each row carries its repeats: ``planet``
(PlaNet's, which CURL uses: 8 for cartpole, 2 for finger and walker, 4 otherwise), ``2`` (2 on all tasks, as in DrQ-v2),
or nothing where the source does not state them.
"""

from __future__ import annotations

import csv
import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from curl_rl.runs.errors import UserError
from curl_rl.runs.settings import nearest

_PLANET = {"cartpole-*": 8, "finger-*": 2, "walker-*": 2, "*": 4}


@dataclass(frozen=True)
class Published:
    """One figure of a publication."""

    method: str
    task: str
    frames: int
    """Environment frames."""
    mean: float
    """Return, mean over seeds."""
    std: float | None
    """Its standard deviation over seeds, if published."""
    seeds: str
    """The number of seeds, such as 10 or 8-10; empty if not stated."""
    repeats: str
    """``planet``, ``2`` or empty: see the head of this file."""
    source: str

    @property
    def action_repeat(self) -> int | None:
        """Environment steps per action on this task; None if not stated."""
        return repeat_on(self.task, self.repeats)


def repeat_on(task: str, repeats: str) -> int | None:
    """Environment steps per action on a task by one of the conventions named at the head of this file."""
    if repeats == "planet":
        return next(repeat for tasks, repeat in _PLANET.items() if fnmatch.fnmatchcase(task, tasks))
    return int(repeats) if repeats else None


@lru_cache
def published_results() -> tuple[Published, ...]:
    """All rows of the table, by method, frames and task."""
    text = resources.files("curl_rl.report").joinpath("published.csv").read_text()
    return tuple(
        Published(
            method=row["method"],
            task=row["task"],
            frames=int(row["environment_frames"]),
            mean=float(row["return_mean"]),
            std=float(row["return_std"]) if row["return_std"] else None,
            seeds=row["seeds"],
            repeats=row["action_repeat"],
            source=row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def methods() -> list[str]:
    """The names of all methods, in the order of the table."""
    return list(dict.fromkeys(row.method for row in published_results()))


def check_methods(names: Collection[str]) -> None:
    """Checks that the table has these methods.

    Raises:
        UserError: it lacks one.
    """
    for name in names:
        if name not in methods():
            raise UserError(
                f"published must be methods out of {', '.join(methods())}, got {name}{nearest(name, methods())}"
            )
