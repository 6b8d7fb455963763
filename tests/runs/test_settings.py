"""Layers of settings on a schema of three fields, against expected values written by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.runs.settings import Layer, Schema, merge, preset_layer, to_dict
from curl_rl.vision import config as vision


@dataclass(frozen=True)
class Oven:
    """An oven."""

    heat: int = 180
    """Degrees."""
    shelf: Literal[1, 2, 3] = 2
    """From below."""


@dataclass(frozen=True)
class Recipe:
    """A recipe."""

    cake: str = "plain"
    """Kind."""
    minutes: int = 30
    """Time."""
    oven: Oven = field(default_factory=Oven)
    """Oven."""


def layers(cake: str) -> list[Layer]:
    return [{"minutes": 40, "oven": {"heat": 200}}, {"oven": {"heat": 150}} if cake == "cheese" else {}]


SCHEMA = Schema(Recipe, "%(prog)s [--cake KIND]", ("cake",), layers, may_change={"minutes": "patience"})


def parse(line: str) -> Recipe:
    return SCHEMA.parse_command_line(line.split(), program="bake", description="")[0]


def test_selectors_choose_the_layers_and_flags_beat_them() -> None:
    assert parse("") == Recipe("plain", 40, Oven(200))
    assert parse("--cake cheese") == Recipe("cheese", 40, Oven(150))
    assert parse("--oven.heat 90 --cake cheese --minutes 5") == Recipe("cheese", 5, Oven(90))
    assert SCHEMA.build({"cake": "cheese"}, {"minutes": 6}) == Recipe("cheese", 6, Oven(150))


def test_unnamed_selectors_may_depend_on_named_fields(tmp_path: Path) -> None:
    def usual(named: dict[str, str]) -> dict[str, str]:
        return {"cake": "cheese"} if named.get("minutes") == "99" else {}

    schema = Schema(Recipe, "", ("cake",), layers, may_change={}, consulted=("minutes",), usual=usual)

    def made(line: str) -> Recipe:
        return schema.parse_command_line(line.split(), program="bake", description="")[0]

    assert made("--minutes 99") == Recipe("cheese", 99, Oven(150))
    assert made("--minutes 98") == Recipe("plain", 98, Oven(200))
    assert made("--minutes 99 --cake plain") == Recipe("plain", 99, Oven(200))
    (tmp_path / "my.yaml").write_text("minutes: 99\n")
    assert made(f"--config {tmp_path}/my.yaml") == Recipe("cheese", 99, Oven(150))


def test_a_file_selects_too_and_ranks_between_layers_and_flags(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("cake: cheese\nminutes: 7\n")
    assert parse(f"--config {tmp_path}/my.yaml") == Recipe("cheese", 7, Oven(150))
    assert parse(f"--cake plain --config {tmp_path}/my.yaml --minutes 8") == Recipe("plain", 8, Oven(200))


def test_saved_settings_are_read_and_compared(tmp_path: Path) -> None:
    old = Recipe("nut", 9, Oven(99, 3))
    SCHEMA.save(old, tmp_path / "c.yaml")
    assert SCHEMA.read(tmp_path / "c.yaml") == old
    assert SCHEMA.changed_fields(old, Recipe("nut", 10, Oven(99, 1))) == {"oven.shelf": (3, 1)}
    assert to_dict(old) == {"cake": "nut", "minutes": 9, "oven": {"heat": 99, "shelf": 3}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--oven.shelf 4", "oven.shelf must be 1 or 2 or 3, got 4"),
        ("--minutes soon", "minutes must be a whole number, got soon"),
        ("--oven.heet 4", "unrecognized arguments: --oven.heet 4; did you mean --oven.heat?"),
        ("--cake=", "--cake has no value"),
        ("--minutes 3 --oven.heat=", "--oven.heat has no value"),
        ("--config=", "--config has no value"),
        ("--oven 3", "oven must hold settings by name, such as --oven.heat, got 3"),
        ("--oven=null", "oven must hold settings by name, such as --oven.heat, got null"),
    ],
)
def test_a_mistake_is_one_line(line: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(line)
    assert str(error.value) == message


@pytest.mark.parametrize(("argv", "message"), [(["--cake", ""], "--cake has no value"), ([""], "an empty argument")])
def test_an_empty_argument_as_from_an_unset_variable_is_refused(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SCHEMA.parse_command_line(argv, program="bake", description="")


def test_presets_are_the_files_that_are_not_tables(tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text("minutes: 1\n")
    (tmp_path / "table.yaml").write_text("rules: []\n")
    assert preset_layer("quick", tmp_path, (tmp_path / "table.yaml",)) == {"minutes": 1, "preset": "quick"}
    with pytest.raises(UserError, match=r"unknown preset table; presets are quick$"):
        preset_layer("table", tmp_path, (tmp_path / "table.yaml",))


def test_merging_keeps_unnamed_settings() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}}) == {"a": {"b": 1, "c": 4}, "d": 3}


def test_the_kind_of_a_run_is_written_but_is_not_a_setting(tmp_path: Path) -> None:
    agent, encoder = (
        Schema(Recipe, "", ("cake",), layers, may_change={}, kind=kind)  # type: ignore[arg-type]
        for kind in ("agent", "pretraining")
    )
    path, line = tmp_path / "c.yaml", ["--config", str(tmp_path / "c.yaml")]
    agent.save(Recipe("cheese", 9), path)
    assert path.read_text().startswith("kind: agent\n# settings: 4\ncake: cheese\n")
    assert agent.read(path) == Recipe("cheese", 9)
    assert agent.parse_command_line(line, program="bake", description="")[0].minutes == 9
    with pytest.raises(UserError, match="unrecognized arguments: --kind"):
        agent.parse_command_line(["--kind", "agent"], program="bake", description="")
    for read in (lambda: encoder.read(path), lambda: encoder.parse_command_line(line, program="", description="")):
        with pytest.raises(UserError, match=r"c.yaml: kind must be pretraining, got agent: scripts/train_agent.py"):
            read()


# ---- paths


@dataclass(frozen=True)
class Book:
    """Where the recipes are."""

    title: str = "Cakes"
    """Name."""
    shelf: Path | None = None
    """Where it stands."""
    cover: str = "blank"
    """A picture."""
    cover_hash: str | None = None
    """Of its colors."""


LIBRARY = Schema(
    Book, "", ("title",), lambda title: [], {}, paths=("shelf", "cover"), identified_by={"cover": "cover_hash"}
)


def test_a_home_directory_is_expanded_wherever_a_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    def read(*argv: str) -> tuple[object, str]:
        book = LIBRARY.parse_command_line(list(argv), program="", description="")[0]
        return book.shelf, book.cover

    expected = (tmp_path / "a b", f"{tmp_path}/c.png")
    assert read("--shelf=~/a b", "--cover", "~/c.png") == expected
    (tmp_path / "book.yaml").write_text("shelf: ~/a b\ncover: ~/c.png\n")
    assert read("--config=~/book.yaml") == read("--config", str(tmp_path / "book.yaml")) == expected
    assert LIBRARY.build({"title": "Pies"}, {"shelf": "~/a b", "cover": "~/c.png"}) == Book("Pies", *expected)
    assert read("--title=~", "--cover", "a~") == (None, "a~")


def test_spellings_of_one_place_are_one_place_and_a_hash_counts_more(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    real, link, detour = Book(shelf=tmp_path / "real"), Book(shelf=tmp_path / "link"), tmp_path / "link" / ".." / "real"
    assert LIBRARY.changed_fields(real, link) == LIBRARY.changed_fields(link, Book(shelf=detour)) == {}
    assert LIBRARY.changed_fields(real, Book(shelf=tmp_path)).keys() == {"shelf"}
    assert LIBRARY.changed_fields(real, Book()).keys() == {"shelf"}
    assert LIBRARY.changed_fields(Book(cover="a", cover_hash="1"), Book(cover="b", cover_hash="1")) == {}
    assert LIBRARY.changed_fields(Book(cover="a", cover_hash="1"), Book(cover="b", cover_hash="2")).keys() == {
        *("cover", "cover_hash"),
    }
    assert LIBRARY.changed_fields(Book(cover="a"), Book(cover="b")).keys() == {"cover"}


def test_an_unknown_choice_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"\Amethod must be curl or .*, got SimCRL; did you mean simclr\?\Z"):
        vision.parse_command_line(["--method", "SimCRL"], program="", description="")
