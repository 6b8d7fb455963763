"""Tables as text: one row per line, columns separated by tabs, the names of the columns in the first line.

There is no quoting: a cell holds neither tabs nor line breaks. Two tables have a fixed form:

- ``captions.tsv`` in a folder of images: ``file`` (relative to the folder) and ``caption``; an image may have several
  captions, the first of which names it.
- ``scored.tsv``: ``score``, ``first``, ``second``: two texts and how similar people found them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from curl_rl.runs.errors import UserError

CAPTIONS = "captions.tsv"
"""The table of captions in a folder of images."""
SCORED = "scored.tsv"
"""The table of judged pairs."""

_CAPTION_COLUMNS = ("file", "caption")
_SCORE_COLUMNS = ("score", "first", "second")


class ScoredPair(NamedTuple):
    """Two texts, and how similar people found them; the scale is the table's own."""

    score: float
    first: str
    second: str


def cell(text: str) -> str:
    """The text on one line, its whitespace collapsed."""
    return " ".join(text.split())


def table_text(rows: Iterable[Sequence[str]]) -> str:
    """Rows as the text of a file, each cell on one line."""
    return "".join("\t".join(map(cell, row)) + "\n" for row in rows)


def captions_text(captions: Iterable[tuple[str, str]]) -> str:
    """The text of a table of captions, from files and their captions."""
    return table_text([_CAPTION_COLUMNS, *captions])


def scored_text(pairs: Iterable[ScoredPair]) -> str:
    """The text of a table of judged pairs."""
    return table_text([_SCORE_COLUMNS, *((f"{score:g}", first, second) for score, first, second in pairs)])


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Reads the captions of each file, in the order of the table.

    Raises:
        UserError: the file cannot be read, is no such table, or has no captions.
    """
    found: dict[str, list[str]] = {}
    for file, caption in _rows(path, _CAPTION_COLUMNS):
        found.setdefault(file, []).append(caption)
    return {file: tuple(captions) for file, captions in found.items()}


def read_scored(path: Path) -> list[ScoredPair]:
    """Reads judged pairs.

    Raises:
        UserError: the file cannot be read, is no such table, or has no pairs or a score that is not a finite number.
    """
    pairs = []
    for number, (score, first, second) in enumerate(_rows(path, _SCORE_COLUMNS), 1):
        try:
            pairs.append(ScoredPair(float(score), first, second))
        except ValueError:
            raise UserError(f"{path}: the score of pair {number} must be a number, got {score!r}") from None
        if not math.isfinite(pairs[-1].score):
            raise UserError(f"{path}: the score of pair {number} must be finite, got {score!r}")
    return pairs


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8; the last one is empty if the file ends with a line break.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} must be text in UTF-8: convert it") from None


def _rows(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """The rows of a table with these columns; empty lines do not count."""
    lines = read_lines(path)
    cells = [line.rstrip("\r").split("\t") for line in lines]
    if tuple(cells[0]) != tuple(columns):
        raise UserError(
            f"the first line of {path} must be {' TAB '.join(columns)}, got {' TAB '.join(cells[0])[:80]!r}"
        )
    rows = []
    for number, row in enumerate(cells[1:], 2):
        if row == [""]:
            continue
        if len(row) != len(columns) or not all(value.strip() for value in row):
            raise UserError(f"line {number} of {path} must have {len(columns)} columns separated by tabs, none empty")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} has no rows")
    return rows
