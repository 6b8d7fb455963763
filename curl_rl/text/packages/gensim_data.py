"""gensim's test data: human judgments of similarity (Lee, SimLex-999, WordSim-353), and texts to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curl_rl.runs.errors import UserError
from curl_rl.text.data.tables import SCORED, ScoredPair, cell, scored_text, table_text
from curl_rl.text.packages import wordnet
from curl_rl.text.packages.found import Found, Package, find, find_if_there
from curl_rl.text.packages.prepared import PreparedSet
from curl_rl.text.packages.wikipedia import sentences_of_dump, split_sentences

# gensim's license covers its code; the text in its test data has other sources.
_LICENSE = "LGPL-2.1; Wikipedia's text in it CC BY-SA 3.0, judged pairs by their authors' terms"
GENSIM = Package("gensim", "PyPI", _LICENSE, "articles, and judged pairs")
_FOLDER = "gensim/test/test_data"
_WIKIPEDIA = f"{_FOLDER}/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SENTENCES, PAIRS, TRIPLES, GLOSSES = "sentences.txt", "pairs.tsv", "triples.tsv", "scored_definitions.tsv"


def prepare_sentences(roots: Sequence[Path], into: PreparedSet) -> None:
    """Writes Wikipedia's sentences and WordNet's definitions and examples, one per line, and reworded examples.

    ``pairs.tsv`` has a sentence and another of the same meaning in each line, ``triples.tsv`` those with a third one of
    the opposite meaning.

    Raises:
        UserError: a package is missing.
    """
    gensim, words = find(GENSIM, _WIKIPEDIA, roots), wordnet.find_wordnet(roots)
    synsets = wordnet.read_synsets(words)
    articles = sentences_of_dump(gensim.path(_WIKIPEDIA))
    others = [cell(text) for text in wordnet.sentences_of(synsets)]
    triples = wordnet.reworded(synsets)
    into.write(SENTENCES, "".join(f"{line}\n" for line in dict.fromkeys([*articles, *others])))
    opposites = [triple for triple in triples if triple.negative]
    into.write(PAIRS, table_text(triple[:2] for triple in triples))
    into.write(TRIPLES, table_text(opposites))
    into.facts |= {
        "sentences": {"Wikipedia": len(articles), "WordNet": len(others)},
        "pairs": len(triples),
        "triples": len(opposites),
    }
    into.describe([gensim, words], "sentences")


def prepare_lee(roots: Sequence[Path], into: PreparedSet) -> None:
    """Writes the 1,225 pairs of the 50 texts of Lee et al. (2005), judged by people from 0 to 1, and 300 other texts.

    Raises:
        UserError: the package is missing.
    """
    gensim = find(GENSIM, f"{_FOLDER}/lee.cor", roots)
    folder = gensim.path(_FOLDER)
    texts = [cell(line) for line in _lines(folder / "lee.cor") if line.strip()]
    rows = [[float(value) for value in line.split()] for line in _lines(folder / "similarities0-1.txt") if line.strip()]
    if len(rows) != len(texts) or any(len(row) != len(texts) for row in rows):
        raise UserError(f"{folder}: the judgments must be of {len(texts)} texts with each other, got {len(rows)} rows")
    # The judgments are in the upper triangle.
    pairs = [
        ScoredPair(row[second], texts[first], texts[second])
        for first, row in enumerate(rows)
        for second in range(first + 1, len(texts))
    ]
    into.write(SCORED, scored_text(pairs))
    background = [sentence for line in _lines(folder / "lee_background.cor") for sentence in split_sentences(line)]
    into.write(SENTENCES, "".join(f"{cell(line)}\n" for line in dict.fromkeys(background) if line.strip()))
    into.facts |= {"pairs": len(pairs), "sentences": len(background)}
    into.describe([gensim], "lee")


def prepare_simlex(roots: Sequence[Path], into: PreparedSet) -> None:
    """Writes SimLex-999 (Hill et al. 2015, arXiv 1408.3456): how similar pairs of words are, from 0 to 10.

    Raises:
        UserError: the package is missing.
    """
    _prepare_words(roots, into, "simlex", "simlex999.txt")


def prepare_wordsim(roots: Sequence[Path], into: PreparedSet) -> None:
    """Writes WordSim-353 (Finkelstein et al. 2002): how related pairs of words are, from 0 to 10.

    Raises:
        UserError: the package is missing.
    """
    _prepare_words(roots, into, "wordsim", "wordsim353.tsv")


def _prepare_words(roots: Sequence[Path], into: PreparedSet, name: str, file: str) -> None:
    """Writes judged pairs of words and, if WordNet is found, the same with each word replaced by its definition."""
    gensim = find(GENSIM, f"{_FOLDER}/{file}", roots)
    rows = [line.split("\t") for line in _lines(gensim.path(_FOLDER) / file) if line.strip() and line[0] != "#"]
    pairs = [ScoredPair(float(score), first.strip(), second.strip()) for first, second, score in rows]
    into.write(SCORED, scored_text(pairs))
    into.facts["pairs"] = len(pairs)
    packages: list[Found] = [gensim]
    if words := find_if_there(wordnet.WORDNET, "usr/share/wordnet/data.noun", roots):
        definitions = wordnet.first_definitions(words)
        known = [
            ScoredPair(score, definitions[first.lower()], definitions[second.lower()])
            for score, first, second in pairs
            if first.lower() in definitions and second.lower() in definitions
        ]
        into.write(GLOSSES, scored_text(known))
        into.facts["pairs of definitions"] = len(known)
        packages.append(words)
    into.describe(packages, name)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
