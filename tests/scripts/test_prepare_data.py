"""The command line that prepares data: what it writes and prints, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curl_rl.text.data.pairs import load_pairs
from curl_rl.text.packages import prepared
from helpers import packages


def test_a_made_set_is_a_folder_of_pairs(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("shapes", "--to", tmp_path / "new" / "shapes", "--count", 40) == 0
    folder = tmp_path / "new" / "shapes"
    assert len(load_pairs(folder)) + len(load_pairs(folder, "test")) == 40
    assert capsys.readouterr().out.startswith(f'{folder}: "images": ')
    assert [path.name for path in folder.parent.iterdir()] == ["shapes"], "nothing half-written is left"


def test_the_license_of_each_package_is_printed_and_kept(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packages.gensim(tmp_path / "p" / "gensim")
    packages.wordnet(tmp_path / "p" / "wordnet")
    assert command("simlex", "--from", tmp_path / "p", "--to", tmp_path / "simlex") == 0
    printed = capsys.readouterr().out
    for line in ("gensim 4.4.0 (PyPI), LGPL-2.1", "wordnet-base 1.2-3 (Debian), WordNet 3.0 license"):
        assert line in printed
        assert line in (tmp_path / "simlex" / "LICENSE.txt").read_text()
    assert "License of wordnet-base: everything" in (tmp_path / "simlex" / "LICENSE.txt").read_text()
    facts = json.loads((tmp_path / "simlex" / "provenance.json").read_text())
    assert (facts["set"], facts["pairs"], facts["pairs of definitions"]) == ("simlex", 3, 2)
    assert facts["sha256"].keys() == {"scored.tsv", "scored_definitions.tsv", "LICENSE.txt"}


def test_a_second_language_has_a_table_of_its_own(command: Any, tmp_path: Path) -> None:
    packages.stamps(tmp_path / "p")
    for language, tables in (("de", {"captions.tsv", "captions.de.tsv"}), ("en", {"captions.tsv"})):
        folder = tmp_path / language
        assert command("stamps", "--from", tmp_path / "p", "--to", folder, "--language", language) == 0
        assert {path.name for path in folder.glob("*.tsv")} == tables


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["emoji", "--from", "{}/empty", "--to", "{}/to"], "no fonts-noto-color-emoji (Debian"),
        (["emoji", "--from", "{}/none", "--to", "{}/to"], "no folder "),
        (["shapes", "--to", "{}/full"], "must be a new folder, and there is something already"),
        (["shapes", "--to", "{}/file"], "must be a new folder, and there is something already"),
        (
            ["shapes", "--to", "{}/to", "--language", "../../x"],
            "--language must be a code such as de or pt_BR",
        ),
        (["shapes", "--to", "{}/to", "--count", "3"], "--count must be at least 20, got 3"),
    ],
)
def test_mistakes_are_told_in_one_line_and_write_nothing(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    assert command(*(argument.format(tmp_path) for argument in arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "set"

    def interrupted() -> None:
        with prepared.prepared_set(folder) as into:
            into.write("a/b.txt", "text")
            assert not folder.exists()
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        interrupted()
    assert not list(tmp_path.iterdir())
    with prepared.prepared_set(folder) as into:
        into.write("a/b.txt", "text")
    assert (folder / "a" / "b.txt").read_text() == "text"
