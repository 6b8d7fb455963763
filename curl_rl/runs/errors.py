"""Errors that people read."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user's: shown as one line, exit code 2."""


class TrainingFault(RuntimeError):
    """Something broke in mid-run; what was saved is intact, and the message says what to do."""


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
