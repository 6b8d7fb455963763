"""The slice of English Wikipedia in gensim's test data, as plain sentences.

Wikitext is stripped to its prose by rules, not by a parser: what still shows signs of markup is left out.
"""

from __future__ import annotations

import bz2
import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

_REMOVED = (
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(
        r"<(ref|math|gallery|timeline|code|source|nowiki|pre|imagemap|table)\b[^>/]*>.*?</\1>", re.DOTALL | re.I
    ),
    re.compile(r"<[^<>]*>"),
)
_INNERMOST_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_INNERMOST_TABLE = re.compile(r"\{\|(?:(?!\{\|).)*?\|\}", re.DOTALL)
_INNERMOST_FILE = re.compile(r"\[\[(?:File|Image|Category|[a-z-]{2,12}):(?:(?!\[\[|\]\]).)*\]\]", re.DOTALL)
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_OUTER_LINK = re.compile(r"\[(?:https?|ftp):\S+\s*([^\]]*)\]")
_QUOTES = re.compile(r"'{2,}")
_PROSE = re.compile(r"^[A-Z\"“(]")
_MARKUP = re.compile(r"[{}|=<>\[\]*#~^_\\]|\s[,.;]|\(\s*[,;)]|http")
# A full stop, then a space and a capital; not after an initial or one of these abbreviations.
_END = re.compile(r"([.!?][\"”)]*)\s+(?=[A-Z\"“(])")
_NO_END = re.compile(
    r"(?:\b[A-Z]|\b(?:Mr|Mrs|Dr|St|Jr|Sr|vs|etc|ca|cf|No|Vol|Gen|Col|Prof|e\.g|i\.e|approx|Inc|Ltd))\.$"
)
_FEWEST, _MOST = 4, 60  # words


def sentences_of_dump(path: Path) -> list[str]:
    """The sentences of the articles in a compressed dump, each once, in order."""
    return list(dict.fromkeys(sentence for text in _articles(path) for sentence in sentences_of_wikitext(text)))


def sentences_of_wikitext(text: str) -> list[str]:
    """The sentences of the prose in an article."""
    return [sentence for line in plain(text).splitlines() if _PROSE.match(line) for sentence in _split(line)]


def plain(text: str) -> str:
    """An article without its markup: templates, tables, pictures and notes are gone, links are their words."""
    text = html.unescape(text)
    for pattern in _REMOVED:
        text = pattern.sub("", text)
    for pattern, replacement in (
        (_INNERMOST_TEMPLATE, ""),
        (_INNERMOST_TABLE, ""),
        (_INNERMOST_FILE, ""),
        (_LINK, r"\1"),
        (_INNERMOST_FILE, ""),
        (_OUTER_LINK, r"\1"),
    ):
        while (shorter := pattern.sub(replacement, text)) != text:
            text = shorter
    return html.unescape(_QUOTES.sub("", text)).replace("\xa0", " ")


def split_sentences(text: str) -> list[str]:
    """Divides prose into sentences."""
    sentences: list[str] = []
    pieces = _END.split(text)
    # Words and stops take turns, and the last words may have none.
    for piece in map("".join, zip(pieces[::2], [*pieces[1::2], ""], strict=True)):
        if sentences and _NO_END.search(sentences[-1]):
            sentences[-1] += f" {piece}"
        else:
            sentences.append(piece)
    return [" ".join(sentence.split()) for sentence in sentences]


def _split(line: str) -> Iterator[str]:
    for sentence in split_sentences(line):
        if sentence.endswith((".", "!", "?")) and not _MARKUP.search(sentence) and _is_prose(sentence):
            yield sentence


def _is_prose(sentence: str) -> bool:
    words = sentence.split()
    letters = sum(character.isalpha() or character.isspace() for character in sentence)
    return _FEWEST <= len(words) <= _MOST and letters > 0.85 * len(sentence) and _PROSE.match(sentence) is not None


def _articles(path: Path) -> Iterator[str]:
    """The text of each article, which is in the main namespace and no redirect."""
    with bz2.open(path) as file:
        title, text, namespace = "", "", "0"
        for _, node in ET.iterparse(file):
            name = node.tag.rpartition("}")[2]
            if name == "title":
                title = node.text or ""
            elif name == "ns":
                namespace = node.text or "0"
            elif name == "text":
                text = node.text or ""
            elif name == "page":
                if namespace == "0" and ":" not in title and not text.lstrip().lower().startswith("#redirect"):
                    yield text
                node.clear()
