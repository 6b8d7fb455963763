"""Back-translation by a program that stands in for Apertium, by Apertium where it is installed, and its refusals."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.text.augmentation.back_translation import back_translate

# Upper case stands for the other language; each call is noted.
STAND_IN = """#!/bin/sh
echo "$*" >> "{calls}"
case "$4" in
eng-spa) tr a-z A-Z ;;
spa-eng) sed "s/CAT/FELINE/" | tr A-Z a-z ;;
short-eng|eng-short) head -n 1 ;;
*) echo "Error: Mode $4 does not exist" >&2; echo "Try one of:" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program, calls = tmp_path / "bin" / "apertium", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(calls=calls))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return calls


def test_each_sentence_goes_there_and_back_in_one_call_each_way(calls: Path) -> None:
    assert back_translate(["a cat sat", "", "two\tlines\nof it; $(rm -rf x)"]) == [
        "a feline sat", "", "two lines of it; $(rm -rf x)"
    ]  # fmt: skip
    assert calls.read_text().splitlines() == ["-u -f line eng-spa", "-u -f line spa-eng"]


@pytest.mark.usefixtures("calls")
def test_an_unknown_pair_and_lost_sentences_are_told_in_one_line() -> None:
    with pytest.raises(UserError) as raised:
        back_translate(["a"], ("eng", "xxx"))
    assert str(raised.value) == (
        "apertium cannot translate from eng to xxx: Error: Mode eng-xxx does not exist Try one of:"
    )
    with pytest.raises(UserError, match="must translate each of 2 sentences, got 1 lines of it"):
        back_translate(["a", "b"], ("eng", "short"))


def test_without_apertium_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="got no program apertium: install them .*apt-get install apertium-eng-spa"):
        back_translate(["a"])


@pytest.mark.skipif(shutil.which("apertium") is None, reason="Apertium is not installed")
def test_apertium_rewords_a_sentence() -> None:
    try:
        (found,) = back_translate(["The rookie made a brief appearance in the first period."])
    except UserError as error:
        pytest.skip(str(error))
    assert found.startswith("The rookie ")
    assert "first period" in found
