"""Errors with messages for users."""

from __future__ import annotations


class UserError(ValueError):
    """A user error: shown as one line, exit code 2."""


class TrainingFault(RuntimeError):
    """A fault in mid-run. Saved files are intact, and the message tells the user what to do."""


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, or its type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """Escapes what would control a terminal: names of files and settings may come from anywhere. Line breaks stay."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
