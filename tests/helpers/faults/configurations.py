"""Settings that nobody should have to write: fuzzed files and command lines, for agents and pretraining.

A configuration is refused in one line, or it is one: it can be saved, read back equal, and holds no NaN.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from curl_rl.rl import config as rl_config
from curl_rl.runs.command_line import exit_code_of
from curl_rl.runs.errors import UserError
from curl_rl.runs.settings import to_dict
from curl_rl.vision import config as vision_config
from helpers.corridor import flat
from helpers.faults.attempts import ACCEPTED, REFUSED, Kind, Result, fail, in_child, ran, refusal

SCHEMAS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "an agent": (rl_config.SCHEMA, rl_config.parse_command_line),
    "pretraining": (vision_config.SCHEMA, vision_config.parse_command_line),
}

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 10**10, 10**400, -(10**30), 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"),
    -float("inf"), "", " ", "text", "NaN", "1e999", "1e3", "0x10", "null", "~", "\x00", "\u202e", "é" * 300,
    "a" * 10_000,
    "!!python/object:os.system", "$(touch mark)", "../..", [], [[]], [1, 2], [0], ["a"], [None], {}, {"a": 1}, {1: 2},
    [[[[[[1]]]]]], [1] * 1000, "2001-01-01",
)  # fmt: skip
"""Replacements for a setting's value."""

TEXTS: tuple[str, ...] = (
    "", " ", "\t", "\x00", "---\n---\n", "[]", "3", "a", "null", "frames: 100\nframes: [", "? a", "*a", "&a *a",
    "a: &a [*a]",
    "!!python/object/apply:os.system [touch mark]", "frames: !!python/name:os.system", "frames: !!binary aGk=",
    "frames: 2001-13-41", "<<: {seed: 1}", "seed: 1\nseed: 2", "[" * 3000, "a: " + "{b: " * 300 + "1" + "}" * 300,
    "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
    "kind: agent", "kind: pretraining", "kind: [1]", "log: &l {every: 5}\ncheckpoint: *l", "log.every: 5",
    "log: {every: {a: 1}}",
    "frames: 1_000", "frames: 0o17", "frames: .inf", "frames: 1:30", "frames: yes", "\ufefffra: 1",
    "%YAML 9.9\n---\na: 1",
)  # fmt: skip
"""Whole files."""


def _leaves(schema: Any) -> list[str]:
    return [place[1:].replace("/", ".") for place, _ in flat(to_dict(schema.config())) if not place.endswith("/length")]


def _mutated(schema: Any, source: random.Random) -> dict[str, Any]:
    """One to three settings with strange values, at a setting, a section or an unknown name."""
    settings: dict[str, Any] = {}
    for _ in range(source.randint(1, 3)):
        name = source.choice(_leaves(schema)).split(".")
        names = [part for part in name if not part.isdecimal()]
        names = names[: source.randint(1, len(names))]
        if source.random() < 0.1:
            names[-1] = source.choice([names[-1] + "s", "__class__", "", "self", "0", names[-1].upper()])
        place: dict[str, Any] = settings
        for part in names[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                break
            place = inner
        place[names[-1]] = source.choice(VALUES)
    return settings


def fuzzed_file(name: str, source: random.Random, folder: Path) -> Result:
    """A file for ``--config``."""
    path = folder / "settings.yaml"
    how = source.random()
    if how < 0.3:
        text = source.choice(TEXTS).encode(errors="surrogatepass")
    else:
        text = yaml.dump(_mutated(SCHEMAS[name][0], source), allow_unicode=source.random() < 0.5).encode(
            errors="replace"
        )
        if how > 0.85:  # a file that was cut or spoiled
            spoiled = bytearray(text)
            spoiled[source.randrange(len(spoiled))] = source.randrange(256)
            text = bytes(spoiled[: source.randrange(1, len(spoiled) + 1)])
    path.write_bytes(text)
    return _parsed(name, ["--config", str(path)], folder, repr(text[:300]))


def fuzzed_line(name: str, source: random.Random, folder: Path) -> Result:
    """Flags on the command line."""
    leaves = _leaves(SCHEMAS[name][0])
    argv: list[str] = []
    for _ in range(source.randint(1, 3)):
        flag, value = source.choice([*leaves, "config", "help_me", "fresh", "method", "preset"]), source.choice(VALUES)
        text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
        text = text.replace("\x00", "")  # the operating system passes none
        argv += [f"--{flag}={text}"] if source.random() < 0.6 else [f"--{flag}", text]
    return _parsed(name, argv, folder, repr(argv)[:600])


def _parsed(name: str, argv: list[str], folder: Path, what: str) -> Result:
    schema, parse = SCHEMAS[name]

    def work() -> str:
        configs: list[Any] = []
        ended = ran(
            lambda: exit_code_of("x.py", lambda: configs.append(parse(argv, program="x.py", description="")[0]))
        )
        if refusal(ended) is not None:
            return REFUSED
        if not configs:
            return REFUSED if ended.code else ACCEPTED  # --help and the like
        (config,) = configs
        for place, value in flat(to_dict(config)):
            if isinstance(value, float) and not math.isfinite(value):
                fail(f"{place} is {value}")
        try:
            schema.save(config, folder / "config.yaml")
            again = schema.read(folder / "config.yaml")
        except (UserError, OSError) as error:
            fail(f"accepted, and what it saves cannot be read: {error}")
        if again != config:
            fail("accepted, and read back different")
        return ACCEPTED

    outcome, detail = in_child(work)
    return Result(outcome, detail and f"{what}: {detail}")


def kinds() -> list[Kind]:
    """Files and command lines."""
    return [
        Kind(f"settings of {name}, {form}", lambda source, folder, n=name, f=fuzz: f(n, source, folder))
        for name in SCHEMAS
        for form, fuzz in (("a fuzzed file", fuzzed_file), ("a fuzzed command line", fuzzed_line))
    ]
