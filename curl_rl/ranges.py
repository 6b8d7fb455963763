"""Ranges of settings, declared once, in the annotation of the field that they limit.

A frozen dataclass declares its ranges in the annotations and checks them in one line::

    @dataclass(frozen=True)
    class AgentConfig:
        discount: Annotated[float, within("[0, 1]")] = 0.99
        hidden: Annotated[int | None, at_least(1)] = None

        def __post_init__(self) -> None:
            check_ranges(self, "agent")

``AgentConfig(discount=1.5)`` raises ``ValueError: agent.discount must lie in [0, 1], got 1.5``. A ``Literal`` field
needs no range: its values are the range. ``Annotated`` wraps the whole type, ``| None`` and ``tuple`` included, so that
``--help`` shows the plain type. Conditions that relate several fields follow this call in ``__post_init__``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """The values that a field may take, and their description in messages."""

    words: str
    """The description, as it follows "must" in a message: ``be at least 1``."""
    holds: Callable[[Any], bool]
    """Returns True if a value is allowed; accepts values of any type, and NaN."""

    def check(self, name: str, value: Any) -> None:
        """Refuses a value outside the range.

        Raises:
            ValueError: ``name must ..., got ...``.
        """
        if not self.holds(value):
            got = list(value) if isinstance(value, tuple) else repr(value) if isinstance(value, str) else value
            raise ValueError(f"{name} must {self.words}, got {got}")


def number(words: str, holds: Callable[[Any], bool]) -> Range:
    """A range of numbers. Refuses bools, and NaN provided that ``holds`` only compares with ``<`` and the like."""
    return Range(words, lambda value: isinstance(value, Real) and not isinstance(value, bool) and bool(holds(value)))


def at_least(least: float, words: str = "") -> Range:
    """Numbers of at least ``least``, infinity included."""
    return number(words or f"be at least {least}", lambda value: value >= least)


def zero_or_more(meaning: str) -> Range:
    """Numbers of at least 0, where 0 has a special meaning: ``zero_or_more("never")``."""
    return at_least(0, f"be 0 ({meaning}) or more")


def within(interval: str, words: str = "") -> Range:
    """Numbers in an interval in the usual notation: ``[0, 1)`` includes 0 and excludes 1."""
    parsed = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", interval)
    if parsed is None:
        raise ValueError(f"an interval must be like [0, 1), got {interval}")
    low, high = float(parsed[2]), float(parsed[3])
    has_low, has_high = parsed[1] == "[", parsed[4] == "]"
    return number(
        words or f"lie in {interval}",
        lambda value: (low <= value if has_low else low < value) and (value <= high if has_high else value < high),
    )


positive = within("(0, inf]", "be positive")
positive_finite = within("(0, inf)", "be positive and finite")
finite = within("(-inf, inf)", "be finite")


def one_of(*choices: object) -> Range:
    """Only these values."""
    *first, last = map(str, choices)
    return Range(f"be {', '.join(first)} or {last}" if first else f"be {last}", lambda value: value in choices)


def each(element: Range) -> Range:
    """Sequences whose elements all satisfy ``element``; they may be empty."""
    return Range(element.words, lambda values: isinstance(values, tuple | list) and all(map(element.holds, values)))


def one_or_more(element: Range, words: str) -> Range:
    """Sequences of at least one element whose elements all satisfy ``element``."""
    return Range(words, lambda values: each(element).holds(values) and len(values) > 0)


def one_or_each(element: Range) -> Range:
    """A value in ``element``, or a sequence of one or more such values."""
    many = one_or_more(element, "")
    return Range(f"{element.words}, or a list of such", lambda value: element.holds(value) or many.holds(value))


def check_ranges(settings: Any, section: str = "") -> None:
    """Refuses a dataclass with a field outside its declared range.

    Args:
        settings: the dataclass.
        section: its name on the command line, such as ``agent``; messages put it before the field's name.

    Raises:
        ValueError: ``section.field must ..., got ...``, for the first such field.
    """
    for name, declared in declared_ranges(type(settings)).items():
        declared.check(f"{section}.{name}" if section else name, getattr(settings, name))


def declared_ranges(settings: type) -> dict[str, Range]:
    """The ranges of a class's fields by name, for those that have one. They include None where the type allows it."""
    try:
        hints = get_type_hints(settings, include_extras=True)
    except NameError as error:  # names inside a function are out of reach of annotations that are strings
        raise TypeError(f"{settings.__name__} must be defined at the top level of its module, got {error}") from None
    found = {name: _declared(hint) for name, hint in hints.items()}
    return {name: declared for name, declared in found.items() if declared is not None}


def _declared(hint: Any) -> Range | None:
    kind, *metadata = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    alternatives = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    literals = [get_args(alternative) for alternative in alternatives if get_origin(alternative) is Literal]
    declared = next((item for item in metadata if isinstance(item, Range)), None)
    if declared is None and literals and len(literals) == len(alternatives) - (NoneType in alternatives):
        declared = one_of(*itertools.chain(*literals))
    if declared is None or NoneType not in alternatives:
        return declared
    holds = declared.holds
    return Range(declared.words, lambda value: value is None or holds(value))
