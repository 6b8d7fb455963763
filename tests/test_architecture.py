"""The rules of who may import whom: read from the sources, so that an import inside a function counts as well."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The parts of curl_rl from the top down. A part imports what lies on lower levels, never its own level or a higher one.
LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"training", "vision", "integrations", "curves", "state_probe"}),
    frozenset({"run_checks"}),
    frozenset({"run_agent"}),
    frozenset({"estimate", "learner", "starting_encoder"}),
    # config gathers the dataclasses that stand beside their things
    frozenset({"config", "evaluation", "pictures", "recording"}),
    frozenset({"agent", "auxiliary"}),
    frozenset({"run_directory", "replay", "deployment"}),
    frozenset(
        {"command_line", "sac", "episode_stream", "objectives", "checkpoint", "export", "logger", "settings", "frames"}
    ),
    frozenset({"network_file", "compute", "environments"}),
    frozenset(
        {
            *("console", "durable", "errors", "lars", "meters"),
            *("pretrained", "progress", "schedules", "seeds", "signals", "storage"),
        }
    ),
    frozenset({"losses", "augment", "encoders", "resnet", "heads", "memory", "conv_relu", "memory_format"}),
)
CORE = LEVELS[-1]


def imported_modules(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Full names of what `source`, the text of `module`, imports anywhere; `from a import b` gives a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def imports_of(path: Path) -> set[str]:
    """Full names of what a file of this repository imports."""
    names = path.relative_to(ROOT).with_suffix("").parts
    is_package = names[-1] == "__init__"
    module = ".".join(names[:-1] if is_package else names)
    return imported_modules(path.read_text(), module, is_package=is_package)


def part(module: str) -> str | None:
    """`objectives` for `curl_rl.objectives.curl`; None for the package itself and for what lies outside it."""
    names = module.split(".")
    return names[1] if names[0] == "curl_rl" and len(names) > 1 else None


def own_part(path: Path) -> str:
    """`objectives` for curl_rl/objectives/curl.py, `losses` for curl_rl/losses.py."""
    return path.relative_to(ROOT / "curl_rl").with_suffix("").parts[0]


def level(name: str) -> int:
    """Where a part of curl_rl lies in LEVELS, counted from the top."""
    for index, parts in enumerate(LEVELS):
        if name in parts:
            return index
    raise AssertionError(f"curl_rl/{name} has no place in LEVELS yet: decide what it may import")


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


PACKAGE = [path for path in files("curl_rl") if path != ROOT / "curl_rl" / "__init__.py"]
CORE_FILES = [path for path in PACKAGE if own_part(path) in CORE]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import curl_rl.rl.sac as s", {"curl_rl.rl.sac"}),
        ("from curl_rl import sac", {"curl_rl", "curl_rl.rl.sac"}),
        ("from curl_rl.rl.sac import Actor", {"curl_rl.rl.sac", "curl_rl.rl.sac.Actor"}),
        ("from .base import Result", {"curl_rl.objectives.base", "curl_rl.objectives.base.Result"}),
        ("from . import base", {"curl_rl.objectives", "curl_rl.objectives.base"}),
        ("from ..sac import Actor", {"curl_rl.rl.sac", "curl_rl.rl.sac.Actor"}),
        ("from .. import sac", {"curl_rl", "curl_rl.rl.sac"}),
        ("def later():\n    import envs", {"envs"}),
    ],
)
def test_every_form_of_import_is_seen(line: str, expected: set[str]) -> None:
    assert imported_modules(line, "curl_rl.objectives.curl") == expected


def test_relative_import_in_a_package_starts_at_the_package() -> None:
    found = imported_modules("from .curl import Curl", "curl_rl.objectives", is_package=True)
    assert "curl_rl.objectives.curl" in found


@pytest.mark.parametrize("path", PACKAGE, ids=names(PACKAGE))
def test_imports_point_downward(path: Path) -> None:
    own = own_part(path)
    for module in imports_of(path):
        other = part(module)
        if other is None or other == own or {own, other} <= CORE:
            continue
        assert level(own) < level(other), f"{own} imports {module}, which does not lie below it"


@pytest.mark.parametrize(("package", "stranger"), [("curl_rl", "envs"), ("envs", "curl_rl")])
def test_packages_do_not_know_each_other(package: str, stranger: str) -> None:
    paths = files(package)
    assert paths
    for path in paths:
        assert stranger not in {module.split(".")[0] for module in imports_of(path)}, path


def test_no_package_imports_scripts_or_tests() -> None:
    for path in files("curl_rl", "envs"):
        assert not {"scripts", "tests", "benchmarks"} & {module.split(".")[0] for module in imports_of(path)}, path


def test_core_has_all_its_files() -> None:
    assert {own_part(path) for path in CORE_FILES} == CORE


def test_files_of_a_core_package_are_in_the_core() -> None:
    assert ROOT / "curl_rl" / "augment" / "crops.py" in CORE_FILES


@pytest.mark.parametrize("path", CORE_FILES, ids=names(CORE_FILES))
def test_core_takes_tensors_only(path: Path) -> None:
    roots = {module.split(".")[0] for module in imports_of(path)}
    assert roots - sys.stdlib_module_names <= {"torch", "numpy", "curl_rl"}
    assert not roots & {"os", "pathlib", "io", "shutil", "json", "logging"}, "the core reads no file and logs nothing"
