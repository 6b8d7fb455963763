"""Sentences to learn from: text files of one sentence a line, and a small grammar that makes some.

A line may hold several texts, separated by tabs: a sentence, another one of the same meaning (its positive), and one of
another meaning (its hard negative). An empty line ends a document: the sentence before has no next one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import NamedTuple

from curl_rl.runs.console import counted
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import open_regular
from curl_rl.text.data.pairs import SHAPES
from curl_rl.text.data.tables import CAPTIONS

GRAMMAR = "grammar"
"""Name of the built-in sentences."""
COLUMNS = 3
"""Most texts in a line."""


class Sentences(NamedTuple):
    """Sentences in order, with what belongs to each."""

    name: str
    """Name in messages."""
    columns: tuple[tuple[str, ...], ...]
    """The sentences, and then their positives and their hard negatives, if there are any: as many of each."""
    following: tuple[int, ...]
    """For each sentence, the position of the next one of its document; its own, if it is the last."""

    @property
    def identity(self) -> str:
        """SHA-256 of texts and order, as hexadecimal digits."""
        return hashlib.sha256(json.dumps([self.columns, self.following]).encode()).hexdigest()


def read_sentences(path: Path | str) -> Sentences:
    """Reads a text file in UTF-8, or makes the built-in sentences if ``path`` is ``grammar``.

    Raises:
        UserError: the file is missing, not such a file, or has lines with different numbers of texts.
    """
    if str(path) == GRAMMAR:
        return made_sentences()
    path = Path(path)
    rows: list[list[str]] = []
    ends: set[int] = set()
    try:
        with open_regular(path) as file:
            for number, line in enumerate(file, start=1):
                # A byte order mark, as some editors write it, is no part of the first sentence.
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                row = [column.strip() for column in text.rstrip("\r\n").split("\t")]
                if not any(row):
                    ends.add(len(rows) - 1)
                    continue
                _check(path, number, row, len(rows[0]) if rows else None)
                rows.append(row)
    except UnicodeDecodeError:
        raise UserError(f"data must be a text file in UTF-8, got {path}, which is not: convert it") from None
    except FileNotFoundError:
        remedy = "; these pictures take --method clip" if path.name == SHAPES else ""
        raise UserError(
            f"data must be a file of sentences, one a line, got {path}, which does not exist{remedy}"
        ) from None
    except OSError as error:
        reason = _of_folder(path) if path.is_dir() else error.strerror
        raise UserError(f"data must be a file of sentences, one a line, got {path}: {reason}") from None
    if not rows:
        raise UserError(f"data must be a file of sentences, one a line, got {path}, which is empty")
    return Sentences(path.name, tuple(zip(*rows, strict=True)), _following(len(rows), ends))


def _of_folder(path: Path) -> str:
    """What to name in the place of a folder."""
    if (path / CAPTIONS).is_file():
        return f"images with {CAPTIONS} take --method clip"
    files = sorted(file for file in path.iterdir() if file.suffix in (".txt", ".tsv"))
    return f"it is a folder: name a file in it{f', such as {files[0]}' if files else ''}"


def _check(path: Path, number: int, row: list[str], columns: int | None) -> None:
    where = f"line {number} of {path}"
    if len(row) > COLUMNS:
        raise UserError(
            f"{where} must have at most {COLUMNS} texts separated by tabs (a sentence, its positive, its hard "
            f"negative), got {len(row)}"
        )
    if columns is not None and len(row) != columns:
        raise UserError(
            f"{where} must have {counted(columns, 'text')}, as the first line, got {len(row)} separated by tabs"
        )
    if not all(row):
        raise UserError(f"{where} must have a text in each of its {len(row)} columns, got an empty one")


def _following(count: int, ends: set[int]) -> tuple[int, ...]:
    return tuple(place if place in ends or place == count - 1 else place + 1 for place in range(count))


def made_sentences() -> Sentences:
    """About 1,200 sentences on shapes, two or three to a scene, a document; each with a paraphrase and a contradiction.

    ``a red circle is above a blue square`` means the same as ``a blue square is below a red circle``, and not the same
    as ``a red circle is below a blue square``.
    """
    shapes, colors = ("circle", "square", "triangle", "star"), ("red", "green", "blue", "yellow", "white", "black")
    relations = {"above": "below", "left of": "right of", "in front of": "behind"}
    rows: list[tuple[str, str, str]] = []
    ends: set[int] = set()
    things = list(itertools.product(colors, shapes))
    for (color, shape), (its_color, its_shape) in itertools.permutations(things, 2):
        if shape == its_shape:
            continue
        one, other = f"{color} {shape}", f"{its_color} {its_shape}"
        there, back = list(relations.items())[(len(one) + len(other)) % len(relations)]
        rows.append((f"a {one} is {there} a {other}", f"a {other} is {back} a {one}", f"a {one} is {back} a {other}"))
        also = f"we see a {other} and also a {one}"
        rows.append((f"there is a {one} and a {other}", also, f"there is a {one} but no {other}"))
        if color != its_color:
            same = f"the {its_shape} is {its_color}, the {shape} {color}"
            swapped = f"the {shape} is {its_color}, the {its_shape} {color}"
            rows.append((f"the {shape} is {color}, the {its_shape} {its_color}", same, swapped))
        ends.add(len(rows) - 1)
    columns = tuple(zip(*rows, strict=True))
    return Sentences("the built-in grammar", columns, _following(len(rows), ends))
