"""What a run tells its user while it goes on."""

from __future__ import annotations

import sys

from tqdm import tqdm


def say(line: str) -> None:
    """One line for the user, above the progress bar."""
    tqdm.write(line, file=sys.stderr)
