"""The command line that rewords sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curl_rl.text.augmentation.word_replacement import WordReplacement
from curl_rl.text.evaluation.words import words_of
from curl_rl.text.sentences import made_sentences, read_sentences


def test_pairs_are_read_by_the_trainer_and_keep_the_sentences(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "new" / "pairs.tsv"
    assert command("grammar", "--to", written, "--probability", "0.5", "--seed", "3") == 0
    first, second = read_sentences(written).columns
    known = made_sentences().columns[0]
    assert set(first) <= set(known)
    assert len(first) > 0.9 * len(known)
    assert all(one != other for one, other in zip(first, second, strict=True))
    words = set(WordReplacement(known).vocabulary)
    assert {word for text in second for word in words_of(text)} <= words
    assert f"{len(first):,} pairs of {len(known):,} sentences" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/none"], "{}/none, which does not exist"),
        (["grammar", "--probability", "2"], "probability must be in [0, 1], got 2"),
        (["grammar", "--probability", "0"], "no sentence of grammar has changed"),
        (["grammar", "--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["{}/pairs.tsv"], "--to must be another file than the sentences"),
        (["grammar", "--by", "back_translation"], "got no program apertium"),
    ],
)
def test_mistakes_are_told_in_one_line(
    command: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command(*(argument.format(tmp_path) for argument in arguments), "--to", tmp_path / "pairs.tsv") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.format(tmp_path) in line
    assert not (tmp_path / "pairs.tsv").exists()
