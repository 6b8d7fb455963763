"""Errors with messages for users."""

from __future__ import annotations

from curl_rl.runs.console import printable


class UserError(ValueError):
    """A user error: shown as one line, exit code 2."""


class TrainingFault(RuntimeError):
    """A fault in mid-run. Saved files are intact, and the message tells the user what to do."""


def one_line(error: BaseException) -> str:
    """An error's message without line breaks and control characters, or its type if the message is empty."""
    return printable(" ".join(str(error).split())) or type(error).__name__
