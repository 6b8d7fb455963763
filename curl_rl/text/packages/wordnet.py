"""WordNet's database: definitions and examples as sentences, and examples reworded by synonyms and antonyms as pairs.

The format is that of wndb(5WN): one synset per line, words and pointers first, then a gloss of definitions and quoted
examples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from curl_rl.text.packages.found import Found, Package, find

WORDNET = Package("wordnet-base", "Debian", "WordNet 3.0 license", "definitions, examples, synonyms and antonyms")
_FOLDER = "usr/share/wordnet"
_PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_ANTONYM = "!"


class Synset(NamedTuple):
    """Words of one meaning."""

    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    antonyms: tuple[tuple[str, str], ...]
    """Words of the synset with a word of the opposite meaning."""


class Triple(NamedTuple):
    """A sentence, another that means the same, and one that means the opposite or is empty."""

    sentence: str
    positive: str
    negative: str


def find_wordnet(roots: Sequence[Path]) -> Found:
    """Finds the package.

    Raises:
        UserError: no root holds it.
    """
    return find(WORDNET, f"{_FOLDER}/data.noun", roots)


def read_synsets(wordnet: Found) -> list[Synset]:
    """Reads all synsets, in the order of the files."""
    parsed = {
        (part, offset): line
        for name, part in _PARTS.items()
        for offset, line in _lines(wordnet.path(_FOLDER) / f"data.{name}")
    }
    return [
        Synset(
            line.words,
            line.definition,
            line.examples,
            tuple(
                (line.words[source - 1], other.words[target - 1])
                for part, offset, source, target in line.opposites
                if (other := parsed.get((part, offset))) is not None
            ),
        )
        for line in parsed.values()
    ]


def sentences_of(synsets: Sequence[Synset]) -> list[str]:
    """Definitions and examples of more than two words, each once, in order."""
    texts = (text for synset in synsets for text in (synset.definition, *synset.examples))
    return list(dict.fromkeys(text for text in texts if len(text.split()) > 2))


def reworded(synsets: Sequence[Synset]) -> list[Triple]:
    """Examples with a word of their synset replaced by a synonym, and by its antonym where it has one."""
    found: dict[str, Triple] = {}
    for synset in synsets:
        opposite = dict(synset.antonyms)
        for example in synset.examples:
            for word in synset.words:
                synonyms = [other for other in synset.words if other.lower() != word.lower()]
                if not synonyms or not (place := _word(word).search(example)):
                    continue
                negative = _put(example, place, opposite[word]) if word in opposite else ""
                best = found.get(example)
                if best is None or (negative and not best.negative):
                    found[example] = Triple(example, _put(example, place, synonyms[0]), negative)
    return list(found.values())


def first_definitions(wordnet: Found) -> dict[str, str]:
    """The definition of the most frequent sense of each word, by the word in lower case.

    Senses are counted over all parts of speech, as tagged in WordNet's texts (``cntlist.rev``); where nothing is
    tagged, the first noun counts, then the first verb, adjective and adverb.
    """
    best: dict[str, tuple[int, str]] = {}
    tagged = _tagged(wordnet.path(_FOLDER) / "cntlist.rev")
    for name, part in _PARTS.items():
        definitions = {offset: line.definition for offset, line in _lines(wordnet.path(_FOLDER) / f"data.{name}")}
        with (wordnet.path(_FOLDER) / f"index.{name}").open(encoding="latin-1") as file:
            for line in file:
                if line.startswith(" "):  # the license
                    continue
                fields = line.split()
                pointers = int(fields[3])
                first = fields[6 + pointers]
                count = tagged.get((fields[0], part), 0)
                word = fields[0].replace("_", " ")
                if word not in best or count > best[word][0]:
                    best[word] = (count, definitions[first])
    return {word: definition for word, (_, definition) in best.items()}


class _Line(NamedTuple):
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    opposites: tuple[tuple[str, str, int, int], ...]
    """Part of speech and offset of the other synset; numbers of this word and of that one, from 1."""


def _lines(path: Path) -> Iterator[tuple[str, _Line]]:
    """The synsets of a file by their offsets."""
    with path.open(encoding="latin-1") as file:
        for line in file:
            if line.startswith("  "):  # the license
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            count = int(fields[3], 16)
            # An adjective may be followed by a marker of its position, as in "galore(ip)".
            words = tuple(re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
            after = 4 + 2 * count
            pointers = [fields[after + 1 + 4 * i : after + 5 + 4 * i] for i in range(int(fields[after]))]
            opposites = tuple(
                ("a" if part == "s" else part, offset, int(ends[:2], 16), int(ends[2:], 16))
                for symbol, offset, part, ends in pointers
                if symbol == _ANTONYM and ends != "0000"
            )
            examples = tuple(text.strip() for text in re.findall(r'"([^"]+)"', gloss))
            yield fields[0], _Line(words, gloss.split('"')[0].strip(" ;\n"), examples, opposites)


def _tagged(path: Path) -> dict[tuple[str, str], int]:
    """How often the first sense of each word and part of speech is tagged; lines are ``sense_key number count``."""
    counts: dict[tuple[str, str], int] = {}
    parts = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
    with path.open(encoding="latin-1") as file:
        for line in file:
            key, number, count = line.split()
            word, _, rest = key.partition("%")
            if number == "1":
                counts[word, parts[rest[0]]] = int(count)
    return counts


def _word(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")


def _put(sentence: str, place: re.Match[str], word: str) -> str:
    """Replaces a word, and the article before it where one begins with a vowel and the other does not."""
    before = sentence[: place.start()]
    if (article := re.search(r"\b(an?) $", before)) and _is_vowel(place[0]) != _is_vowel(word):
        before = f"{before[: article.start()]}{'an' if _is_vowel(word) else 'a'} "
    return before + word + sentence[place.end() :]


def _is_vowel(word: str) -> bool:
    return word[:1].lower() in "aeiou"
