"""Ranges of settings: each kind by hand, then every range that a configuration of the package declares."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Optional, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import curl_rl
from curl_rl.ranges import (
    Range,
    at_least,
    check_ranges,
    declared_ranges,
    each,
    finite,
    number,
    one_of,
    one_or_more,
    positive,
    positive_finite,
    within,
    zero_or_more,
)
from curl_rl.rl import config as agents
from curl_rl.runs.settings import Schema
from curl_rl.text.config import TextConfig
from curl_rl.text.pair_config import PairConfig
from curl_rl.vision import config as images
from curl_rl.vision.detection.config import DetectionConfig

INF, NAN = math.inf, math.nan
EVEN = number("be even", lambda value: value % 2 == 0)
NO_NUMBERS = (True, False, None, "1", (1,), [1], 1j)  # outside of every range of numbers


@pytest.mark.parametrize(
    ("declared", "words", "inside", "outside"),
    [
        (at_least(1), "be at least 1", [1, 1.0, 2, INF, np.float32(1), np.int64(1)], [0, 0.999, -1, -INF, NAN]),
        (at_least(0.5), "be at least 0.5", [0.5, 1], [0.499, NAN]),
        (at_least(1, "be at least 1 pixel"), "be at least 1 pixel", [1], [0]),
        (zero_or_more("never"), "be 0 (never) or more", [0, 1, INF], [-1, -1e-300, NAN]),
        (within("[0, 1]"), "lie in [0, 1]", [0, 0.5, 1], [-1e-300, 1 + 1e-15, INF, NAN]),
        (within("[0, 1)"), "lie in [0, 1)", [0, 1 - 1e-15], [-1e-300, 1, NAN]),
        (within("(0, 1]"), "lie in (0, 1]", [1e-300, 1], [0, -0.0, 1 + 1e-15, NAN]),
        (within("(0, 1)"), "lie in (0, 1)", [1e-300, 1 - 1e-15], [0, 1, NAN]),
        (within("[-2, 1e6]"), "lie in [-2, 1e6]", [-2, 1_000_000], [-2.001, 1_000_001]),
        (within("[0, 9]", "be a digit"), "be a digit", [0, 9], [-1, 10]),
        (within("[0, 4294967296)"), "lie in [0, 4294967296)", [2**32 - 1], [2**32, -1]),
        (positive, "be positive", [1e-300, 1, INF], [0, -1, NAN]),
        (positive_finite, "be positive and finite", [1e-300, 1e300], [0, -1, INF, NAN]),
        (finite, "be finite", [0, -1e300, 1e300], [INF, -INF, NAN]),
        (EVEN, "be even", [0, 2], [1, 0.5, NAN, INF]),
    ],
    ids=lambda value: value.words if isinstance(value, Range) else "",
)
def test_ranges_of_numbers(declared: Range, words: str, inside: list[Any], outside: list[Any]) -> None:
    assert declared.words == words
    for value in inside:
        assert declared.holds(value) is True, value
    for value in (*outside, *NO_NUMBERS):
        assert declared.holds(value) is False, value


@pytest.mark.parametrize("interval", ["0, 1", "[0, 1", "[0; 1]", "[0,1]", "]0, 1[", "[0, 1] ", ""])
def test_an_invalid_interval_is_refused_when_it_is_declared(interval: str) -> None:
    with pytest.raises(ValueError, match="an interval must be like"):
        within(interval)


def test_choices() -> None:
    assert one_of("CHW", "HWC").words == "be CHW or HWC"
    assert one_of(18, 34, 50).words == "be 18, 34 or 50"
    assert one_of("alone").words == "be alone"
    assert all(one_of("CHW", "HWC").holds(value) for value in ("CHW", "HWC"))
    assert not any(one_of("CHW", "HWC").holds(value) for value in ("chw", "CH", "", None, 1, ["CHW"]))


def test_tuples() -> None:
    shares, some = each(within("[0, 1]")), one_or_more(at_least(1), "be positive integers")
    assert shares.words == "lie in [0, 1]"
    assert some.words == "be positive integers"
    assert all(shares.holds(value) for value in ((), (0,), (0.5, 1), [0.5]))
    assert not any(shares.holds(value) for value in ((2,), (0.5, -1), (0.5, NAN), (None,), (True,), 0.5, "", None))
    assert all(some.holds(value) for value in ((1,), (1, 2), [1]))
    assert not any(some.holds(value) for value in ((), [], (0,), (1, 0), (1, NAN), 1, None))


@dataclass(frozen=True)
class Oven:
    heat: Annotated[float, within("[0, 1]")] = 0.5
    timer: Annotated[int | None, at_least(1)] = None
    older: Annotated[Optional[int], at_least(1)] = None  # noqa: UP045 (the older form counts as well)
    trays: Annotated[tuple[int, ...], one_or_more(at_least(1), "be one or more positive integers")] = (1,)
    mode: Literal["grill", "bake"] = "bake"
    fan: Literal["low"] | Literal["high"] | None = None
    shelf: Annotated[Literal[1, 2, 3], at_least(2, "be above the floor")] = 2
    note: Annotated[str, "no range"] = ""
    name: str = ""
    level: int | Literal["auto"] = 1

    def __post_init__(self) -> None:
        check_ranges(self, "kitchen.oven")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heat": 1.5}, "kitchen.oven.heat must lie in [0, 1], got 1.5"),
        ({"heat": NAN}, "kitchen.oven.heat must lie in [0, 1], got nan"),
        ({"heat": True}, "kitchen.oven.heat must lie in [0, 1], got True"),
        ({"heat": "hot"}, "kitchen.oven.heat must lie in [0, 1], got 'hot'"),
        ({"heat": None}, "kitchen.oven.heat must lie in [0, 1], got None"),
        ({"timer": 0}, "kitchen.oven.timer must be at least 1, got 0"),
        ({"older": 0}, "kitchen.oven.older must be at least 1, got 0"),
        ({"trays": (1, 0)}, "kitchen.oven.trays must be one or more positive integers, got [1, 0]"),
        ({"trays": ()}, "kitchen.oven.trays must be one or more positive integers, got []"),
        ({"mode": "boil"}, "kitchen.oven.mode must be grill or bake, got 'boil'"),
        ({"mode": None}, "kitchen.oven.mode must be grill or bake, got None"),
        ({"fan": "off"}, "kitchen.oven.fan must be low or high, got 'off'"),
        ({"shelf": 1}, "kitchen.oven.shelf must be above the floor, got 1"),
        ({"timer": 0, "heat": 2}, "kitchen.oven.heat must lie in [0, 1], got 2"),
    ],
)
def test_a_dataclass_refuses_in_one_line_that_names_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared below, whole)
        Oven(**changes)
    assert str(error.value) == message


def test_a_dataclass_accepts_values_in_range() -> None:
    assert Oven(heat=0, timer=1, older=3, trays=(1, 7), mode="grill", fan="high", shelf=3).timer == 1
    assert Oven(note="anything", name="at all", level="auto").fan is None
    assert list(declared_ranges(Oven)) == ["heat", "timer", "older", "trays", "mode", "fan", "shelf"]


def test_without_a_section_the_name_stands_alone() -> None:
    @dataclass(frozen=True)
    class Lamp:
        watts: Annotated[float, positive] = 1.0

        def __post_init__(self) -> None:
            check_ranges(self)

    with pytest.raises(ValueError, match="^watts must be positive, got 0$"):
        Lamp(watts=0)


# ---------------------------------------------------------------------- every configuration of the package

# Values just inside a range, including its ends if they belong to it, and just outside, by the words of its message.
EDGES: dict[str, tuple[list[Any], list[Any]]] = {
    "be at least 0": ([0], [-1, NAN]),
    "be at least 1": ([1], [0, NAN]),
    "be at least 2": ([2], [1, NAN]),
    "be at least 3": ([3], [2, NAN]),
    "be at least 4": ([4], [3, NAN]),
    "be at least 8": ([8], [7, NAN]),
    "be at least 259": ([259], [258, NAN]),
    "be at least 1 pixel": ([1], [0, NAN]),
    "be 0 (never) or more": ([0], [-1, NAN]),
    "be 0 (none) or more": ([0], [-1, NAN]),
    "be 0 (no clustering) or more": ([0], [-1, NAN]),
    "be 0 (none are kept) or more": ([0], [-1, NAN]),
    "be 0 (no head) or more": ([0], [-1, NAN]),
    "be 0 (whole images) or more": ([0], [-1, NAN]),
    "be 0 (the same observation) or more": ([0], [-1, NAN]),
    "be positive": ([1e-30], [0, -1, NAN]),
    "be positive and finite": ([1e-30, 1e30], [0, INF, NAN]),
    "be positive and finite, or a list of such": ([1e-30, (1e30,)], [0, INF, NAN, (), (1, 0)]),
    "lie in [0, 1]": ([0, 1], [-1e-9, 1 + 1e-9, NAN]),
    "lie in [0, 1)": ([0, 1 - 1e-9], [-1e-9, 1, NAN]),
    "lie in (0, 1]": ([1e-9, 1], [0, 1 + 1e-9, NAN]),
    "lie in (0, 1)": ([1e-9, 1 - 1e-9], [0, 1, NAN]),
    "lie in (0, 4]": ([1e-9, 4], [0, 4 + 1e-9, NAN]),
    "lie in [0, 30]": ([0, 30], [-1, 31, NAN]),
    "be between 0 and 0.5 (half the circle)": ([0, 0.5], [-1e-9, 0.5 + 1e-9, NAN]),
    "be from 0 (unchanged) to 100": ([0, 100], [-1e-9, 100.1, NAN]),
    "be from 0 (automatic) to 4096": ([0, 4096], [-1, 4097, NAN]),
    "be from 32 to 1024": ([32, 1024], [31, 1025, NAN]),
    "be from 0 to 1,000,000": ([0, 1e6], [-1e-9, 1_000_001, NAN]),
    "be at least 1 and have at most ten digits": ([1, 9_999_999_999], [0, 10_000_000_000, NAN]),
    "be 0 or more and below 2**32": ([0, 4_294_967_295], [-1, 4_294_967_296, NAN]),
    "be a positive multiple of 1/64 and at most 64": ([1 / 64, 64], [0, 1 / 128, 64 + 1 / 64, NAN]),
    "be two rising positive numbers, at most 1": (
        [(1e-9, 1e-9), (0.5, 1)],
        [(0, 1), (0.5, 0.4), (0.5, 1.1), (0.5,), (0.1, 0.2, 0.3), (0.5, NAN), (NAN, 0.5)],
    ),
    "be two rising positive numbers, at most 100": ([(1e-9, 100)], [(0, 1), (2, 1), (0.5, 101), (NAN, 0.5)]),
    "be one or more positive integers": ([(1,), (1, 2)], [(), (0,), (1, 0)]),
    "be one or more positive numbers": ([(1e-9,)], [(), (0,), (1, -1), (NAN,)]),
    "be one or more positive numbers of pixels": ([(1e-9,)], [(), (0,), (1, -1), (NAN,)]),
    "be one or more different odd sizes, such as [1, 3, 5]": ([(1,), (5, 3)], [(), (2,), (1, 1), (-1,)]),
    "be one or more finite numbers": ([(0,), (-1, 1)], [(), (NAN,), (INF,)]),
    "be shares above 0 and at most 1": ([(1e-9, 1)], [(), (0,), (0.5, 1.1), (NAN,)]),
    "be some of knn, probe, linear and fine_tune": ([("knn",), ("fine_tune", "linear")], [(), ("magic",)]),
    "be auto, cpu, cuda or cuda:<n>": (["auto", "cpu", "cuda", "cuda:1"], ["", "gpu", "cuda:", "cuda:x", "cpu:0"]),
}

# Other fields that a value needs beside it.
COMPANIONS: dict[tuple[str, Any], dict[str, Any]] = {
    ("DIMConfig.local_weight", 0): {"global_weight": 1.0},
    ("AugmentConfig.policy", "pba"): {"schedule": Path("schedule.yaml")},
    ("CLIPConfig.largest_scale", 1): {"temperature": 1.0},
    ("CLIPConfig.temperature", 1e-30): {"largest_scale": 1e30},
    ("ProposalConfig.considered", 1): {"kept": 1},
    ("ScenesConfig.largest", 8): {"smallest": 8},
    ("ScenesConfig.size", 32): {"smallest": 8, "largest": 8},
    ("TextEncoderConfig.width", 1): {"heads": 1},
}

# Their messages have only the field's name, because encoders are also used outside of runs.
NAMELESS = ("EncoderConfig", "ResNetConfig")


def configurations() -> list[type]:
    """Every dataclass of the package that declares a range, and every Config whose fields are Literals."""
    found = []
    for module in pkgutil.walk_packages(curl_rl.__path__, "curl_rl."):
        if not module.name.startswith("curl_rl.integrations."):  # their libraries are optional
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and value.__module__ == module.name and dataclasses.is_dataclass(value):
                    found.append(value)
    return [kind for kind in found if annotated(kind) or (declared_ranges(kind) and kind.__name__.endswith("Config"))]


def annotated(kind: type) -> bool:
    hints = get_type_hints(kind, include_extras=True).values()
    return any(isinstance(item, Range) for hint in hints for item in getattr(hint, "__metadata__", ()))


def sections(config: Any, name: str = "") -> Iterator[tuple[type, str]]:
    """The name of each section of a run's configuration on the command line."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield type(value), f"{name}{field.name}."
            yield from sections(value, f"{name}{field.name}.")


RUNS = (DetectionConfig(), PairConfig(), TextConfig(), agents.RunConfig(), images.VisionConfig())
SECTIONS = dict(section for config in RUNS for section in sections(config))
DECLARED = [(kind, field) for kind in configurations() for field in declared_ranges(kind)]


def edges(kind: type, field: str) -> tuple[list[Any], list[Any]]:
    """Values just inside and just outside."""
    hint = get_type_hints(kind)[field]
    parts = (hint,) if get_origin(hint) in (Literal, tuple) else get_args(hint)
    if options := [option for part in parts if get_origin(part) is Literal for option in get_args(part)]:
        return options, ["", "no such thing", 0, None]
    inside, outside = EDGES[declared_ranges(kind)[field].words]
    if get_origin(hint) is tuple and not isinstance(inside[0], tuple):  # the range of each element
        inside, outside = [(value,) for value in inside], [(value, inside[0]) for value in outside]
    return inside, outside


def test_the_configurations_are_found() -> None:
    names = {kind.__name__ for kind, _ in DECLARED}
    assert names >= {*NAMELESS, "AgentConfig", "AugmentConfig", "MoCoConfig", "ProgramInput", "RunConfig"}
    assert len(DECLARED) > 130


@pytest.mark.parametrize(("kind", "field"), DECLARED, ids=[f"{kind.__name__}.{field}" for kind, field in DECLARED])
def test_a_field_accepts_the_ends_of_its_range_and_refuses_values_beyond(kind: type, field: str) -> None:
    inside, outside = edges(kind, field)
    if NoneType in get_args(get_type_hints(kind)[field]):
        inside = [*inside, None]
    for value in inside:
        others = COMPANIONS.get((f"{kind.__name__}.{field}", value), {})
        assert getattr(kind(**{field: value}, **others), field) == value
    section = "" if kind.__name__ in NAMELESS else SECTIONS.get(kind, "")
    for value in outside:
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the text is compared below)
            kind(**{field: value})
        assert str(error.value).startswith(f"{section}{field} must {declared_ranges(kind)[field].words}, got "), value
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("schema", [agents.SCHEMA, images.SCHEMA], ids=["agent", "vision"])
def test_the_help_shows_the_plain_types(schema: Schema[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        schema.parse_command_line(["--help"], program="program", description="")
    text = " ".join(capsys.readouterr().out.split())
    assert "Annotated" not in text
    assert "Temperature of the similarities, not used by margin_triplet;" in text
    assert "Temperature of the similarities, not used by margin_triplet; the paper uses 0.5 for CIFAR-10." in text
    assert re.search(r"--objectives.simclr.dim DIM [^()]* \(type: int, default: 128\)", text)
    assert re.search(r"--seed SEED [^()]* \(type: int, default: 1\)", text)
