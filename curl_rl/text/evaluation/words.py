"""Texts by their words: TF-IDF, the baseline that a sentence encoder has to beat."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case and in order."""
    return _WORD.findall(text.lower())


class TfIdf:
    """Texts as bags of words, each word weighted by how rare it is in a collection, scaled to length 1.

    The weight of a word is its number in the text times ln((1 + N) / (1 + n)) + 1, for n of the collection's N texts
    that have it (scikit-learn's default). Words that the collection does not have count as in none.

    Args:
        texts: the collection.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = 0
        """Size of the collection."""
        self.counts: Counter[str] = Counter()
        """Number of its texts that have each word."""
        for text in texts:
            self.counts.update(set(words_of(text)))
            self.texts += 1

    def rarity(self, word: str) -> float:
        """The inverse document frequency of a word in lower case."""
        return math.log((1 + self.texts) / (1 + self.counts[word])) + 1

    def weights(self, text: str) -> dict[str, float]:
        """The weights of a text's words; their squares add up to 1, or there are none."""
        weights = {word: count * self.rarity(word) for word, count in Counter(words_of(text)).items()}
        length = math.sqrt(sum(weight**2 for weight in weights.values()))
        return {word: weight / length for word, weight in weights.items()}

    def pair_similarity(self, first: Sequence[str], second: Sequence[str]) -> Tensor:
        """``(N,)`` cosines of N pairs of texts, float64."""
        vectors = {text: self.weights(text) for text in {*first, *second}}
        pairs = zip(first, second, strict=True)
        return torch.tensor([_dot(vectors[one], vectors[other]) for one, other in pairs], dtype=torch.float64)

    def similarity(self, first: Sequence[str], second: Sequence[str]) -> Tensor:
        """``(M, N)`` cosines of every text of the one to every text of the other, float32."""
        matrices = self._matrices(first, second)
        return (
            (matrices[0] @ matrices[1].T.to_dense())
            if len(first) and len(second)
            else torch.zeros(len(first), len(second))
        )

    def _matrices(self, *collections: Sequence[str]) -> list[Tensor]:
        """Each collection as a sparse matrix over the words of all."""
        vectors = [[self.weights(text) for text in texts] for texts in collections]
        words = {
            word: place for place, word in enumerate(dict.fromkeys(w for some in vectors for v in some for w in v))
        }
        found = []
        for some in vectors:
            entries = [(row, words[word], weight) for row, vector in enumerate(some) for word, weight in vector.items()]
            places = torch.tensor([entry[:2] for entry in entries], dtype=torch.int64).reshape(-1, 2).T
            values = torch.tensor([entry[2] for entry in entries])
            found.append(torch.sparse_coo_tensor(places, values, (len(some), len(words)), check_invariants=False))
        return found


def _dot(first: dict[str, float], second: dict[str, float]) -> float:
    return sum(weight * second[word] for word, weight in first.items() if word in second)
