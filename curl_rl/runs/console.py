"""Console output of a run in progress: lines and the progress bar."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from curl_rl.runs.errors import printable


def say(line: str) -> None:
    """Prints one line to stderr, above the progress bar."""
    tqdm.write(printable(line), file=sys.stderr)


def progress_bar(
    total: int, *, initial: int, unit: str, description: str, unit_scale: bool = False, hidden: bool = False
) -> tqdm[Any]:
    """A progress bar for a whole run, with the time remaining.

    Args:
        total: units in the run.
        initial: units already done.
        unit: name of the unit.
        description: text before the bar.
        unit_scale: 12.3k for 12300.
        hidden: show nothing.
    """
    interactive = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=min(initial, total),
        unit=unit,
        unit_scale=unit_scale,
        desc=description,
        # An occasional line in a log file, frequent updates in a terminal.
        mininterval=0.5 if interactive else 60,
        dynamic_ncols=interactive,
        disable=hidden,
    )
