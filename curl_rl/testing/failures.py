"""Failures of checks: one message with the check's name, its finding and the remedy."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

import torch

from curl_rl.runs.errors import one_line

Case = TypeVar("Case")

_NOT_THE_USERS = (Path(__file__).parent, Path(torch.__file__).parent)


class CheckFailed(AssertionError):
    """A class breaks a rule of its interface; the message gives the check, the finding and the remedy."""


class CheckWarning(UserWarning):
    """Something that is allowed but almost never intended."""


def require(holds: object, found: str, remedy: str) -> None:
    """Fails the current check unless ``holds``. ``found`` is a clause without a period, ``remedy`` a sentence.

    Raises:
        CheckFailed: ``holds`` is false.
    """
    if not holds:
        fail(found, remedy)


def fail(found: str, remedy: str, cause: Exception | None = None) -> NoReturn:
    """Fails the current check: see :func:`require`."""
    raise CheckFailed(f"{found}. {remedy}") from cause


def run_checks(
    every: Mapping[str, Callable[[Case], None]], chosen: Iterable[str], case: Case, owner: Callable[[], str]
) -> None:
    """Runs the chosen checks on ``case`` in order, up to the first that fails.

    Args:
        every: all checks of this kind by name.
        chosen: names from ``every``.
        case: the argument of the checks.
        owner: returns the name of the checked class for the message; called only when a check fails.

    Raises:
        ValueError: a name is unknown.
        CheckFailed: a check failed, or the checked code raised an exception.
    """
    for name in chosen:
        if name not in every:
            near = difflib.get_close_matches(name, every, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"checks must be some of {', '.join(every)}, got {name!r}{hint}")
        try:
            every[name](case)
        except CheckFailed as failure:
            raise CheckFailed(f"{owner()}, check {name}: {failure}") from failure.__cause__
        except Exception as error:
            raised = f"{type(error).__name__}: {one_line(error)}"
            raise CheckFailed(f"{owner()}, check {name}: it raised {raised}{where(error)}.") from error


def where(error: BaseException) -> str:
    """`` (file.py, line 12)``: the innermost line outside of torch and this package, or an empty string."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(Path(frame.filename).is_relative_to(folder) for folder in _NOT_THE_USERS):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""
