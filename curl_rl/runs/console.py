"""Console output of a run in progress: lines and the progress bar."""

from __future__ import annotations

import re
import sys
from typing import Any

from tqdm import tqdm

from curl_rl.runs.spelling import in_this_spelling

# Control characters, which a terminal would obey, line breaks, and bytes of file names that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    r"""``text`` as one line that prints and encodes: an escape becomes ``\x1b``, a byte that is not UTF-8 ``\xe9``."""
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as os.fsdecode represents it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def counted(number: int, noun: str) -> str:
    """``1 epoch``, ``1,224 epochs``: a number of things whose plural ends in s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say(line: str) -> None:
    """Prints one line to stderr, above the progress bar, with control characters escaped."""
    tqdm.write(printable(in_this_spelling(line)), file=sys.stderr)


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
