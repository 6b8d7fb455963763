"""Whole numbers as people write them: ``1e5``, ``6e2``, ``100000.0`` and ``1_000`` are whole, ``1.5`` is not.

YAML and Python's ``int`` read only some of these spellings as integers, and not the same ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

_NUMBER = re.compile(r"(?<![\w.+-])[+-]?\d[\d_]*(?:\.[\d_]*)?(?:[eE][+-]?\d{1,3})?(?![\w.])")


def whole_number(text: str) -> int:
    """The whole number that ``text`` spells; the type of whole-number options.

    Raises:
        argparse.ArgumentTypeError: it spells none.
    """
    try:
        return int(with_whole_numbers(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text}") from None


def with_whole_numbers(value: Any) -> Any:
    """``value``, a setting as YAML or a command line has it, with every whole number in it as an integer.

    Args:
        value: a float becomes an int if it is whole. In a text, which may spell a number or a list or mapping of them,
            every whole number is respelled by its digits. Lists and mappings are converted throughout.
    """
    if isinstance(value, dict):
        return {key: with_whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_whole_numbers(item) for item in value]
    if isinstance(value, str):
        return _NUMBER.sub(_digits, value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digits(found: re.Match[str]) -> str:
    text = found[0].replace("_", "")
    if text.lstrip("+-").isdigit():
        return text
    number = Decimal(text)  # exact, unlike a float above 2**53
    return str(int(number)) if number == number.to_integral_value() else found[0]


def whole_number_settings(config: type) -> set[str]:
    """Names of the settings of a dataclass that hold whole numbers only, such as ``agent.batch_size``."""
    try:
        hints = get_type_hints(config, include_extras=True)
    except NameError:  # a class defined inside a function: its annotations cannot be looked up
        return set()
    names = set()
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            names |= {f"{field.name}.{name}" for name in whole_number_settings(hint)}
        elif _kinds(hint) - {type(None)} == {int}:
            names.add(field.name)
    return names


def _kinds(hint: Any) -> set[type]:
    """The types of the values that an annotation allows, inside of tuples and lists as well."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _kinds(get_args(hint)[0])
    if origin is Literal:
        return {type(value) for value in get_args(hint)}
    if origin in (Union, UnionType, tuple, list):
        return set().union(*(_kinds(part) for part in get_args(hint) if part is not Ellipsis))
    return {hint}
