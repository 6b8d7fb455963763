"""TF-IDF word replacement (UDA, Xie et al. 2019, arXiv 1904.12848, appendix): keeps keywords, replaces other words.

A word that says little about its sentence is likely to be replaced, by a word that says little about any sentence.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from curl_rl.text.evaluation.words import words_of

_WORD = re.compile(r"\w+")


class WordReplacement:
    """Replaces words at random: ``replace(text, rng)``.

    With TF(w) the share of word w in the sentence, IDF(w) = ln(N / n) for n of N sentences that have it, and
    d(w) = max TF·IDF − TF(w)·IDF(w) over the sentence, each word is replaced with probability
    min(``probability`` · d(w) / mean d, 1). The new word is drawn with a probability in proportion to max S − S(w), for
    S(w) = freq(w)·IDF(w) over all sentences.

    Args:
        texts: the sentences that the words come from.
        probability: mean probability of replacing a word; 0.7 in the paper's experiments on DBpedia.

    Raises:
        ValueError: there are no words, or the probability is not in [0, 1].
    """

    def __init__(self, texts: Sequence[str], probability: float = 0.7) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be in [0, 1], got {probability:g}")
        sentences = [words_of(text) for text in texts]
        having = Counter(word for words in sentences for word in set(words))
        if not having:
            raise ValueError("texts must have words, got none")
        self.probability = probability
        self.rarity = {word: math.log(len(sentences) / count) for word, count in having.items()}
        """IDF of each word."""
        self.vocabulary = sorted(having)
        """All words."""
        frequency = Counter(word for words in sentences for word in words)
        scores = np.array([frequency[word] * self.rarity[word] for word in self.vocabulary])
        weights = scores.max() - scores
        # Where all words say the same, each is as good as another.
        total = weights.sum()
        self.weights = weights / total if total > 0 else np.full(len(weights), 1 / len(weights))
        """Probability of drawing each word of the vocabulary."""
        self._cumulative = self.weights.cumsum()
        self._rarest = math.log(len(sentences))

    def replacement_probabilities(self, words: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Probability of replacing each word, in lower case, of a sentence: ``(n,)``."""
        counts = Counter(words)
        scores = np.array([counts[word] / len(words) * self.rarity.get(word, self._rarest) for word in words])
        distances = scores.max(initial=0.0) - scores
        mean = distances.mean() if len(words) else 0.0
        if mean == 0:  # every word says the same
            return np.zeros(len(words))
        return np.minimum(self.probability * distances / mean, 1)

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        """The sentence with some words replaced; its punctuation stays, new words are in lower case."""
        words = words_of(text)
        chosen = rng.random(len(words)) < self.replacement_probabilities(words)
        places = self._cumulative.searchsorted(rng.random(len(words)) * self._cumulative[-1], side="right")
        pairs = iter(zip(chosen, places, strict=True))

        def put(match: re.Match[str]) -> str:
            replaced, place = next(pairs)
            return self.vocabulary[place] if replaced else match[0]

        return _WORD.sub(put, text)
