"""What a run tells its user while it goes on."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def say(line: str) -> None:
    """One line for the user, above the progress bar."""
    tqdm.write(line, file=sys.stderr)


def progress_bar(
    total: int, *, initial: int, unit: str, description: str, unit_scale: bool = False, hidden: bool = False
) -> tqdm[Any]:
    """The bar of a whole run, with the time that is left.

    Args:
        total: units in the run.
        initial: of which so many are done.
        unit: what is counted.
        description: what stands before the bar.
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
        # A log file wants a line now and then, a terminal a lively bar.
        mininterval=0.5 if interactive else 60,
        dynamic_ncols=interactive,
        disable=hidden,
    )
