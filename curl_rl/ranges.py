"""Ranges of settings, declared once, in the annotation of the field that they limit.

A frozen dataclass declares them and checks them in one line::

    @dataclass(frozen=True)
    class AgentConfig:
        discount: Annotated[float, within("[0, 1]")] = 0.99
        hidden: Annotated[int | None, at_least(1)] = None

        def __post_init__(self) -> None:
            check_ranges(self, "agent")

``AgentConfig(discount=1.5)`` raises ``ValueError: agent.discount must lie in [0, 1], got 1.5``. A field of ``Literal``
needs no range: its values are one. ``Annotated`` goes around the whole type, ``| None`` and ``tuple`` included; the
command line's help then shows the plain type. What relates two fields stays in ``__post_init__``, below this line.
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
    """Which values a field may take, and how a message says so."""

    words: str
    """What follows "must", such as ``be at least 1``."""
    holds: Callable[[Any], bool]
    """Whether a value is allowed; it is given values of any type, NaN too."""

    def check(self, name: str, value: Any) -> None:
        """Refuses a value outside.

        Raises:
            ValueError: ``name must ..., got ...``.
        """
        if not self.holds(value):
            got = list(value) if isinstance(value, tuple) else repr(value) if isinstance(value, str) else value
            raise ValueError(f"{name} must {self.words}, got {got}")


def number(words: str, holds: Callable[[Any], bool]) -> Range:
    """A range of numbers. A bool is none; NaN is refused as long as ``holds`` only compares by ``<`` and the like."""
    return Range(words, lambda value: isinstance(value, Real) and not isinstance(value, bool) and bool(holds(value)))


def at_least(least: float, words: str = "") -> Range:
    """Numbers from ``least`` on, infinity included."""
    return number(words or f"be at least {least}", lambda value: value >= least)


def zero_or_more(meaning: str) -> Range:
    """Numbers from 0 on, of which 0 has a meaning of its own: ``zero_or_more("never")``."""
    return at_least(0, f"be 0 ({meaning}) or more")


def within(interval: str, words: str = "") -> Range:
    """The numbers of an interval in the usual notation, such as ``[0, 1)``, which has 0 and not 1."""
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
    """These values and no others."""
    *first, last = map(str, choices)
    return Range(f"be {', '.join(first)} or {last}" if first else f"be {last}", lambda value: value in choices)


def each(element: Range) -> Range:
    """Sequences whose elements all lie in ``element``; the empty one too."""
    return Range(element.words, lambda values: isinstance(values, tuple | list) and all(map(element.holds, values)))


def one_or_more(element: Range, words: str) -> Range:
    """Sequences of at least one element whose elements all lie in ``element``."""
    return Range(words, lambda values: each(element).holds(values) and len(values) > 0)


def check_ranges(settings: Any, section: str = "") -> None:
    """Refuses a dataclass with a field outside the range that its annotation declares.

    Args:
        settings: the dataclass.
        section: what the command line calls it, such as ``agent``; it goes before the field's name.

    Raises:
        ValueError: ``section.field must ..., got ...``, on the first such field.
    """
    for name, declared in declared_ranges(type(settings)).items():
        declared.check(f"{section}.{name}" if section else name, getattr(settings, name))


def declared_ranges(settings: type) -> dict[str, Range]:
    """The range of each field of a class that has one, by name. None is in it where the annotation allows None."""
    found = {name: _declared(hint) for name, hint in get_type_hints(settings, include_extras=True).items()}
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
