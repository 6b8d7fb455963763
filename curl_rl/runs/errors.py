"""Errors with messages for users."""

from __future__ import annotations


class UserError(ValueError):
    """A user error: shown as one line, exit code 2."""


class TrainingFault(RuntimeError):
    """A fault in mid-run. Saved files are intact, and the message tells the user what to do."""


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, or its type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__
