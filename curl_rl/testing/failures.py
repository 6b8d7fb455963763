"""How a check fails: its name, what it found, and the remedy, in one message."""

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
    """A class breaks a rule of its interface; the message names the check, what was found and the remedy."""


class CheckWarning(UserWarning):
    """Something that is allowed, and almost never meant."""


def require(holds: object, found: str, remedy: str) -> None:
    """Fails the check under way unless ``holds``. ``found`` is a clause without a full stop, ``remedy`` a sentence.

    Raises:
        CheckFailed: it does not hold.
    """
    if not holds:
        fail(found, remedy)


def fail(found: str, remedy: str, cause: Exception | None = None) -> NoReturn:
    """Fails the check under way: see :func:`require`."""
    raise CheckFailed(f"{found}. {remedy}") from cause


def run_checks(
    every: Mapping[str, Callable[[Case], None]], chosen: Iterable[str], case: Case, owner: Callable[[], str]
) -> None:
    """Runs the chosen checks on ``case`` in order, up to the first that fails.

    Args:
        every: all checks of this kind by name.
        chosen: names out of ``every``.
        case: what they are run on.
        owner: what the message calls the class that is checked; asked for only when a check fails.

    Raises:
        ValueError: a name is unknown.
        CheckFailed: a check failed, or what it ran raised something.
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
    """`` (file.py, line 12)``: the innermost line that is neither torch's nor this package's, if there is one."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(Path(frame.filename).is_relative_to(folder) for folder in _NOT_THE_USERS):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""
