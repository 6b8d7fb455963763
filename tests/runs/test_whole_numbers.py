"""Spellings of whole numbers, against digits written by hand, and in every integer setting of every kind of run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from curl_rl.rl import config as rl
from curl_rl.runs.settings import to_dict
from curl_rl.runs.whole_numbers import whole_number, with_whole_numbers
from curl_rl.vision import config as vision


@pytest.mark.parametrize(
    ("spelling", "digits"),
    [
        ("12", "12"),
        ("1e5", "100000"),
        ("6E2", "600"),
        ("2e+3", "2000"),
        ("1_000", "1000"),
        ("100.0", "100"),
        ("1.5e3", "1500"),
        ("-1e1", "-10"),
        ("9007199254740993.0", "9007199254740993"),  # not a float
        ("1.5", "1.5"),
        ("1e-3", "1e-3"),
        ("[2, 1e0, 2.5]", "[2, 1, 2.5]"),
        ("1e5x", "1e5x"),
        ("cuda:1", "cuda:1"),
        ("1.2.0", "1.2.0"),
        ("many", "many"),
    ],
)
def test_whole_numbers_are_respelled_and_all_else_stays(spelling: str, digits: str) -> None:
    assert with_whole_numbers(spelling) == digits


def test_values_read_from_yaml() -> None:
    assert with_whole_numbers([1e5, 1.5, True, None, {"a": 2.0}]) == [100_000, 1.5, True, None, {"a": 2}]
    assert type(with_whole_numbers(1e5)) is int
    assert with_whole_numbers(float("inf")) == float("inf")


def test_an_option_of_a_command() -> None:
    assert whole_number("1e3") == 1000
    for text in ("1.5", "many", ""):
        with pytest.raises(argparse.ArgumentTypeError, match=f"must be a whole number, got {text}"):
            whole_number(text)


def whole(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings whose value is an integer or a list of them, by full name."""
    found = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= whole(value, f"{prefix}{name}.")
        elif type(value) is int or (isinstance(value, list) and value and all(type(one) is int for one in value)):
            found[prefix + name] = value
    return found


@pytest.mark.parametrize(
    ("parse", "config"),
    [(rl.parse_command_line, rl.RunConfig()), (vision.parse_command_line, vision.VisionConfig())],
)
def test_every_integer_setting_takes_floats_that_are_whole(
    parse: Callable[..., tuple[Any, bool]], config: Any, tmp_path: Path
) -> None:
    expected = whole(to_dict(config))
    assert len(expected) > 30
    line, nested = [], {}
    for name, value in expected.items():
        line += [
            f"--{name}",
            str([f"{one}e0" for one in value]).replace("'", "") if isinstance(value, list) else f"{value}e0",
        ]
        place = nested
        *sections, last = name.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = [float(one) for one in value] if isinstance(value, list) else f"{value}e0"
    (tmp_path / "floats.yaml").write_text(yaml.safe_dump(nested))
    for argv in (line, ["--config", str(tmp_path / "floats.yaml")]):
        parsed = whole(to_dict(parse(argv, program="p", description="")[0]))
        assert {name: parsed[name] for name in expected} == expected
