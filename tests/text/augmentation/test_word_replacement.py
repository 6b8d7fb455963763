"""UDA's word replacement: probabilities by hand, draws counted, and what stays as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from curl_rl.text.augmentation.word_replacement import WordReplacement
from curl_rl.text.evaluation.words import words_of

TEXTS = ["the cat sat", "the dog ran", "the cat ran away", "the end"]


def test_probabilities_by_hand() -> None:
    replace = WordReplacement(TEXTS, 0.5)
    # IDF: the 0, cat ln 2, sat ln 4; each is a third of the sentence.
    cat, sat = math.log(2) / 3, math.log(4) / 3
    distances = np.array([sat, sat - cat, 0])
    expected = 0.5 * distances / distances.mean()
    assert replace.replacement_probabilities(["the", "cat", "sat"]) == pytest.approx(np.minimum(expected, 1))
    assert replace.replacement_probabilities(["the", "cat", "sat"])[2] == 0, "the keyword stays"
    assert replace.replacement_probabilities(["the", "cat", "new"])[2] == 0, "a word never seen is the rarest"


def test_the_mean_probability_is_that_asked_for_unless_one_is_certain() -> None:
    replace = WordReplacement(TEXTS, 0.3)
    for text in TEXTS[:3]:
        assert replace.replacement_probabilities(words_of(text)).mean() == pytest.approx(0.3)
    certain = WordReplacement(TEXTS, 1.0).replacement_probabilities(words_of(TEXTS[0]))
    assert certain.max() == 1


def test_new_words_are_drawn_by_how_little_they_say() -> None:
    replace = WordReplacement(TEXTS)
    scores = {
        "the": 0.0, "cat": 2 * math.log(2), "ran": 2 * math.log(2),
        **dict.fromkeys(("sat", "dog", "away", "end"), math.log(4)),
    }  # fmt: skip
    largest = max(scores.values())
    weights = np.array([largest - scores[word] for word in replace.vocabulary])
    assert replace.weights == pytest.approx(weights / weights.sum())


def test_draws_follow_the_probabilities() -> None:
    texts = ["the cat sat", "the dog ran", "a cat a dog", "the end of it all", "of a cat"]
    replace, rng, count = WordReplacement(texts, 0.6), np.random.default_rng(0), 4000
    text = "the cat ran"
    probabilities = replace.replacement_probabilities(words_of(text))
    drawn = [words_of(replace(text, rng)) for _ in range(count)]
    for place, (word, probability) in enumerate(zip(words_of(text), probabilities, strict=True)):
        # A word that is replaced may be drawn again.
        expected = probability * (1 - replace.weights[replace.vocabulary.index(word)])
        share = sum(words[place] != word for words in drawn) / count
        assert abs(share - expected) < 4 * math.sqrt(0.25 / count), word


def test_punctuation_stays_and_the_generator_decides_everything() -> None:
    replace = WordReplacement(TEXTS, 1.0)
    text = "The cat, (the dog) ran!"
    found = replace(text, np.random.default_rng(1))
    assert [character for character in found if not character.isalnum()] == [c for c in text if not c.isalnum()]
    assert found == replace(text, np.random.default_rng(1))
    assert len({replace(text, np.random.default_rng(seed)) for seed in range(9)}) > 1


@pytest.mark.parametrize("text", ["", "?!", "the", "the the"])
def test_a_sentence_whose_words_all_say_the_same_stays(text: str) -> None:
    assert WordReplacement(TEXTS, 1.0)(text, np.random.default_rng(0)) == text


def test_probability_0_changes_nothing() -> None:
    replace = WordReplacement(TEXTS, 0.0)
    assert [replace(text, np.random.default_rng(0)) for text in TEXTS] == TEXTS


@pytest.mark.parametrize(
    ("texts", "probability", "message"), [([], 0.5, "got none"), (TEXTS, 1.5, r"\[0, 1\], got 1.5")]
)
def test_arguments_are_checked(texts: list[str], probability: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordReplacement(texts, probability)
