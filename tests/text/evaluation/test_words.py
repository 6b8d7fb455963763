"""TF-IDF against scikit-learn, and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from curl_rl.text.evaluation.words import TfIdf, words_of

TEXTS = ["The cat sat.", "the dog sat on the mat", "A cat, a DOG!", "émigré naïve", "?"]


def test_words_are_letters_and_digits_in_lower_case() -> None:
    assert words_of("Émigré's 2nd-best: CAT") == ["émigré", "s", "2nd", "best", "cat"]


def test_by_hand() -> None:
    tfidf = TfIdf(["a b", "a c"])
    a, b = 1.0, math.log(3 / 2) + 1
    length = math.sqrt((2 * a) ** 2 + b**2)
    assert tfidf.weights("b a a") == {"b": pytest.approx(b / length), "a": pytest.approx(2 / length)}
    assert tfidf.rarity("new") == pytest.approx(math.log(3) + 1)
    assert tfidf.weights("?!") == {}


def test_scikit_learn_agrees() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    vectorizer = text.TfidfVectorizer(token_pattern=r"\w+").fit(TEXTS)
    expected = torch.tensor((vectorizer.transform(TEXTS) @ vectorizer.transform(TEXTS[:3]).T).toarray())
    tfidf = TfIdf(TEXTS)
    assert torch.allclose(tfidf.similarity(TEXTS, TEXTS[:3]).double(), expected, atol=1e-6)
    pairs = [(one, other) for one in TEXTS for other in TEXTS[:3]]
    found = tfidf.pair_similarity([one for one, _ in pairs], [other for _, other in pairs])
    assert torch.allclose(found.view(5, 3), expected, atol=1e-12)


def test_nothing_to_compare() -> None:
    assert TfIdf(TEXTS).similarity([], TEXTS).shape == (0, 5)
    assert TfIdf([]).similarity(["?"], ["?"]).tolist() == [[0.0]]
