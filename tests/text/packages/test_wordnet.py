"""WordNet's database: its lines, reworded examples, and definitions of the most frequent sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from curl_rl.text.packages.found import Found
from curl_rl.text.packages.wordnet import (
    WORDNET,
    Triple,
    find_wordnet,
    first_definitions,
    read_synsets,
    reworded,
    sentences_of,
)
from helpers import packages


@pytest.fixture
def wordnet(tmp_path: Path) -> Found:
    return find_wordnet([packages.wordnet(tmp_path)])


def test_synsets_have_words_definition_examples_and_antonyms(wordnet: Found) -> None:
    dog, able, unable = read_synsets(wordnet)
    assert dog.words == ("dog", "domestic dog")
    assert (dog.definition, dog.examples) == ("a member of the genus Canis", ("the dog barked all night",))
    assert able.words == ("able", "capable"), "a marker of position is no part of a word"
    assert able.examples == ("she was able to swim", "unusable")
    assert (able.antonyms, unable.antonyms, dog.antonyms) == ((("able", "unable"),), (("unable", "able"),), ())


def test_sentences_have_more_than_two_words(wordnet: Found) -> None:
    assert sentences_of(read_synsets(wordnet)) == [
        "a member of the genus Canis", "the dog barked all night", "having the means", "she was able to swim",
        "not having the means", "an unable person",
    ]  # fmt: skip


def test_examples_are_reworded_by_a_synonym_and_an_antonym_as_whole_words(wordnet: Found) -> None:
    assert reworded(read_synsets(wordnet)) == [
        Triple("the dog barked all night", "the domestic dog barked all night", ""),
        Triple("she was able to swim", "she was capable to swim", "she was unable to swim"),
        Triple("an unable person", "an incapable person", "an able person"),
    ]


def test_an_article_fits_the_word_put_in(tmp_path: Path) -> None:
    packages.wordnet(tmp_path)
    path = tmp_path / packages.WORDNET / "data.noun"
    path.write_text('00000003 05 n 02 dog 0 animal 0 000 | a friend; "he was a dog"; "a big dog"  \n')
    triples = reworded(read_synsets(find_wordnet([tmp_path])))
    assert [triple.positive for triple in triples] == [
        "he was an animal",
        "a big animal",
        *(t.positive for t in triples[2:]),
    ]


def test_the_definition_is_that_of_the_sense_tagged_most_often(wordnet: Found) -> None:
    found = first_definitions(wordnet)
    assert found["dog"] == "a member of the genus Canis", "and not the adjective's, which is tagged less"
    assert found["domestic dog"] == "a member of the genus Canis"
    assert found["unable"] == "not having the means"


@pytest.mark.skipif(not Path("/usr/share/wordnet/data.noun").exists(), reason="wordnet-base is not installed")
@pytest.mark.slow
def test_the_real_database_has_117659_synsets_as_its_documentation_says() -> None:
    assert len(read_synsets(Found(WORDNET, Path("/")))) == 117659
