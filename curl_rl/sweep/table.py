"""The table of all jobs, and its place on a terminal."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from curl_rl.runs.console import printable, say
from curl_rl.sweep.progress import Progress, State, seconds_left

_ORDER: tuple[State, ...] = ("running", "failed", "waiting", "done", "pruned")


def table(jobs: Sequence[Progress], at_once: int, rows: int | None = None) -> list[str]:
    """Lines with every job's state, frames, newest return and time left, and a last line about all of them.

    Settings that all jobs share stand once above them.

    Args:
        jobs: the jobs.
        at_once: how many run at the same time, for the time left.
        rows: show at most this many jobs, those that run first.
    """
    header = ["job", "state", "frames", "return", "time left"]
    shown = list(jobs)
    shared = _shared(jobs)
    if rows is not None and len(shown) > rows:
        shown = sorted(shown, key=lambda one: _ORDER.index(one.state))[: max(rows - 1, 0)]
    cells = [header, *(_row(one, shared) for one in shown)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    if shared:
        lines.insert(0, printable(f"all with {', '.join(f'{name} {value}' for name, value in sorted(shared))}"))
    if len(shown) < len(jobs):
        lines.append(f"... and {len(jobs) - len(shown)} more; --status prints all")
    return [*lines, summary(jobs, at_once)]


def summary(jobs: Sequence[Progress], at_once: int) -> str:
    """One line: how many jobs are in each state, and the time left."""
    counts = Counter(one.state for one in jobs)
    parts = [f"{counts[state]} {state}" for state in _ORDER if counts[state]]
    left = seconds_left(jobs, at_once)
    if any(not one.is_over for one in jobs):
        parts.append(f"time left: {'not known yet' if left is None else duration(left)}")
    return f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}: {', '.join(parts) or 'nothing to do'}"


def duration(seconds: float) -> str:
    """``2 d 03 h``, ``3 h 05 min``, ``4 min`` or ``20 s``."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{hours // 24} d {hours % 24:02} h"


def _shared(jobs: Sequence[Progress]) -> set[tuple[str, str]]:
    """The settings that all of several jobs have."""
    return set.intersection(*(set(one.job.settings) for one in jobs)) if len(jobs) > 1 else set()


def _name(one: Progress, shared: AbstractSet[tuple[str, str]]) -> str:
    return printable(replace(one.job, settings=tuple(pair for pair in one.job.settings if pair not in shared)).name)


def _row(one: Progress, shared: AbstractSet[tuple[str, str]]) -> list[str]:
    left = "" if one.is_over or one.seconds_per_frame is None else duration(one.frames_left * one.seconds_per_frame)
    return [
        _name(one, shared),
        one.state,
        f"{one.frames:,}/{one.budget:,}",
        "" if one.returned is None else f"{one.returned:.1f}",
        left,
    ]


class Board:
    """Shows the table while a sweep runs: redrawn in place on a terminal, else one line whenever a state changes."""

    def __init__(self) -> None:
        self._height = 0
        self._before: dict[str, State] = {}
        self._is_terminal = sys.stderr.isatty()

    def show(self, jobs: Sequence[Progress], at_once: int) -> None:
        """Shows the present state of all jobs."""
        if self._is_terminal:
            size = shutil.get_terminal_size()
            lines = [line[: size.columns - 1] for line in table(jobs, at_once, rows=max(size.lines - 4, 1))]
            self.clear()
            print("\n".join(lines), file=sys.stderr, flush=True)
            self._height = len(lines)
            return
        states = {one.job.name: one.state for one in jobs}
        shared = _shared(jobs)
        for one in jobs:
            if self._before.get(one.job.name, "waiting") != one.state:
                say(f"{_name(one, shared)}: {one.state}")
        if states != self._before:
            say(summary(jobs, at_once))
        self._before = states

    def clear(self) -> None:
        """Removes the table from the terminal, so that lines can be printed."""
        if self._height:
            print(f"\x1b[{self._height}F\x1b[J", end="", file=sys.stderr, flush=True)
            self._height = 0
