"""Texts and judgments of gensim's test data, against the files of a small package."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.runs.errors import UserError
from curl_rl.text.data.tables import ScoredPair, read_scored
from curl_rl.text.packages import gensim_data
from curl_rl.text.packages.prepared import PreparedSet
from curl_rl.text.sentences import read_sentences
from helpers import packages


@pytest.fixture
def into(tmp_path: Path) -> PreparedSet:
    (tmp_path / "set").mkdir()
    return PreparedSet(tmp_path / "set")


def test_lees_texts_are_paired_with_the_judgments_above_the_diagonal(tmp_path: Path, into: PreparedSet) -> None:
    gensim_data.prepare_lee([packages.gensim(tmp_path / "p")], into)
    first, second, third = "First text here.", "Second text.", "Third."
    assert read_scored(into.folder / "scored.tsv") == [
        ScoredPair(0.25, first, second), ScoredPair(0.5, first, third), ScoredPair(0.75, second, third)
    ]  # fmt: skip
    assert (into.folder / "sentences.txt").read_text() == "A sentence.\nAnother one by Mr. Smith.\n"


def test_judgments_of_another_number_of_texts_are_refused(tmp_path: Path, into: PreparedSet) -> None:
    packages.gensim(tmp_path / "p")
    (tmp_path / "p" / packages.GENSIM / "lee.cor").write_text("One.\nTwo.\n")
    with pytest.raises(UserError, match="must be of 2 texts with each other, got 3 rows"):
        gensim_data.prepare_lee([tmp_path / "p"], into)


def test_words_come_with_their_definitions_where_wordnet_is_there(tmp_path: Path, into: PreparedSet) -> None:
    roots = [packages.gensim(tmp_path / "p"), packages.wordnet(tmp_path / "q")]
    gensim_data.prepare_simlex(roots, into)
    words = [ScoredPair(1.5, "able", "dog"), ScoredPair(10, "Dog", "dog"), ScoredPair(3, "able", "unknown")]
    assert read_scored(into.folder / "scored.tsv") == words
    able, dog = "having the means", "a member of the genus Canis"
    definitions = [ScoredPair(1.5, able, dog), ScoredPair(10, dog, dog)]
    assert read_scored(into.folder / "scored_definitions.tsv") == definitions


def test_words_alone_need_no_wordnet(tmp_path: Path, into: PreparedSet) -> None:
    gensim_data.prepare_wordsim([packages.gensim(tmp_path / "p")], into)
    assert read_scored(into.folder / "scored.tsv") == [ScoredPair(6.77, "love", "sex")]
    assert not (into.folder / "scored_definitions.tsv").exists()


def test_sentences_are_wikipedias_and_wordnets_with_reworded_ones(tmp_path: Path, into: PreparedSet) -> None:
    gensim_data.prepare_sentences([packages.gensim(tmp_path / "p"), packages.wordnet(tmp_path / "q")], into)
    sentences = (into.folder / "sentences.txt").read_text().splitlines()
    assert sentences[:2] == ["Anarchism is a political philosophy of many people.", "It has a history."]
    assert sentences[2] == "a member of the genus Canis"
    assert not any("talk" in sentence or "REDIRECT" in sentence for sentence in sentences)
    for name, columns, lines in (("pairs", 2, 3), ("triples", 3, 2)):
        assert len(read_sentences(into.folder / f"{name}.tsv").columns) == columns
        assert len((into.folder / f"{name}.tsv").read_text().splitlines()) == lines == into.facts[name]
