"""Who may import whom: the table of docs/design.md against the sources. Imports inside functions count as well."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ("encoders", "losses", "optim", "augment", "objectives")
FOR_ALL = "ranges"


def table() -> dict[str, set[str]]:
    """The rooms from the top down, each with the rooms that it may import, from the table of docs/design.md."""
    page = (ROOT / "docs" / "design.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", page, flags=re.MULTILINE)
    rooms = [name for name, _ in rows]
    found: dict[str, set[str]] = {}
    for place, (name, allowed) in enumerate(rows):
        if allowed == "everything below":
            found[name] = set(rooms[place + 1 :])
        else:
            assert allowed == "nothing" or re.fullmatch(r"`\w+`(, `\w+`)*", allowed), f"{name}: {allowed}"
            found[name] = set(re.findall(r"`(\w+)`", allowed))
    return found


ROOMS = table()


def imported_modules(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Full names of all imports in `source`, the text of `module`; `from a import b` gives a and a.b."""
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
    """Full names of all imports in a file of this repository."""
    names = path.relative_to(ROOT).with_suffix("").parts
    is_package = names[-1] == "__init__"
    module = ".".join(names[:-1] if is_package else names)
    return imported_modules(path.read_text(), module, is_package=is_package)


def room_of(path: Path) -> str:
    """`objectives` for curl_rl/objectives/curl.py, `auxiliary` for curl_rl/auxiliary.py."""
    return path.relative_to(ROOT / "curl_rl").with_suffix("").parts[0]


def rooms_in(modules: set[str]) -> set[str]:
    """The rooms of imported modules, from their full names."""
    inside = [name.split(".") for name in modules if name.startswith("curl_rl.")]
    return {names[1] for names in inside} & {path.stem for path in (ROOT / "curl_rl").iterdir()}


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


PACKAGE = [path for path in files("curl_rl") if path != ROOT / "curl_rl" / "__init__.py"]
SOURCES = files("curl_rl", "envs", "scripts", "benchmarks", "examples", "tests")
CORE_FILES = [path for path in PACKAGE if room_of(path) in CORE]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import curl_rl.rl.sac as s", {"curl_rl.rl.sac"}),
        ("from curl_rl import rl", {"curl_rl", "curl_rl.rl"}),
        ("from curl_rl.rl.sac import Actor", {"curl_rl.rl.sac", "curl_rl.rl.sac.Actor"}),
        ("from .base import Result", {"curl_rl.objectives.base", "curl_rl.objectives.base.Result"}),
        ("from . import base", {"curl_rl.objectives", "curl_rl.objectives.base"}),
        ("from ..rl import sac", {"curl_rl.rl", "curl_rl.rl.sac"}),
        ("from .. import rl", {"curl_rl", "curl_rl.rl"}),
        ("def later():\n    import envs", {"envs"}),
    ],
)
def test_every_form_of_import_is_seen(line: str, expected: set[str]) -> None:
    assert imported_modules(line, "curl_rl.objectives.curl") == expected


def test_relative_import_in_a_package_starts_at_the_package() -> None:
    found = imported_modules("from .curl import Curl", "curl_rl.objectives", is_package=True)
    assert "curl_rl.objectives.curl" in found


def test_the_table_names_every_room_once_and_only_rooms() -> None:
    assert set(ROOMS) == {room_of(path) for path in PACKAGE}
    assert FOR_ALL in ROOMS
    for name, allowed in ROOMS.items():
        assert allowed <= set(ROOMS), name


def test_every_room_stands_above_what_it_imports() -> None:
    order = list(ROOMS)
    for name, allowed in ROOMS.items():
        assert all(order.index(name) < order.index(other) for other in allowed), name


@pytest.mark.parametrize("path", PACKAGE, ids=names(PACKAGE))
def test_a_file_imports_what_the_table_allows_its_room(path: Path) -> None:
    own = room_of(path)
    found = rooms_in(imports_of(path)) - {own, FOR_ALL}
    assert found <= ROOMS[own], f"curl_rl/{own} may not import {sorted(found - ROOMS[own])}: see docs/design.md"


def test_runs_import_only_the_precision_from_the_encoders() -> None:
    taken = {name for path in PACKAGE if room_of(path) == "runs" for name in imports_of(path) if ".encoders." in name}
    assert {name.split(".")[-1] for name in taken} <= {"base", "conv_relu", "Precision", "FUSES_BFLOAT16"}


@pytest.mark.parametrize(("package", "stranger"), [("curl_rl", "envs"), ("envs", "curl_rl")])
def test_packages_do_not_know_each_other(package: str, stranger: str) -> None:
    paths = files(package)
    assert paths
    for path in paths:
        assert stranger not in {module.split(".")[0] for module in imports_of(path)}, path


def test_no_package_imports_scripts_or_tests() -> None:
    outside = {"scripts", "tests", "benchmarks", "examples", "helpers"}
    for path in files("curl_rl", "envs"):
        assert not outside & {module.split(".")[0] for module in imports_of(path)}, path


def test_every_room_of_the_core_has_files() -> None:
    assert {room_of(path) for path in CORE_FILES} == set(CORE)


@pytest.mark.parametrize("path", CORE_FILES, ids=names(CORE_FILES))
def test_core_takes_tensors_only(path: Path) -> None:
    roots = {module.split(".")[0] for module in imports_of(path)}
    assert roots - sys.stdlib_module_names <= {"torch", "numpy", "curl_rl"}
    assert not roots & {"os", "pathlib", "io", "shutil", "json", "logging"}, "the core reads no file and logs nothing"


def test_tests_mirror_the_rooms() -> None:
    folders = {path.name for path in (ROOT / "curl_rl").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    tested = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert folders <= tested


@pytest.mark.parametrize("path", SOURCES, ids=names(SOURCES))
def test_a_file_is_short_enough_for_one_concept(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500, "two concepts, as a rule: split it by subject"
