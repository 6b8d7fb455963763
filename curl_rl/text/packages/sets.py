"""The table of data sets that can be prepared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from curl_rl.text.packages import emoji, gensim_data, made, stamps
from curl_rl.text.packages.prepared import PreparedSet


class Request(NamedTuple):
    """What a user asks for."""

    roots: Sequence[Path]
    """Folders with packages."""
    languages: Sequence[str]
    """Languages of the captions, English first."""
    size: int
    """Size of a made set."""
    seed: int
    """Seed of a made set."""


class DataSet(NamedTuple):
    """A data set by name."""

    summary: str
    prepare: Callable[[Request, PreparedSet], None]


SETS = {
    "emoji": DataSet(
        "Noto's emoji with their names and keywords", lambda r, into: emoji.prepare_noto(r.roots, into, r.languages)
    ),
    "emojione": DataSet(
        "EmojiOne's drawings of the same", lambda r, into: emoji.prepare_emojione(r.roots, into, r.languages)
    ),
    "stamps": DataSet(
        "Tux Paint's stamps with captions", lambda r, into: stamps.prepare_stamps(r.roots, into, r.languages)
    ),
    "sentences": DataSet(
        "sentences of Wikipedia and WordNet, and reworded ones",
        lambda r, into: gensim_data.prepare_sentences(r.roots, into),
    ),
    "lee": DataSet("50 texts, judged in pairs, and 300 others", lambda r, into: gensim_data.prepare_lee(r.roots, into)),
    "simlex": DataSet("SimLex-999, judged pairs of words", lambda r, into: gensim_data.prepare_simlex(r.roots, into)),
    "wordsim": DataSet(
        "WordSim-353, judged pairs of words", lambda r, into: gensim_data.prepare_wordsim(r.roots, into)
    ),
    "shapes": DataSet(
        "made: colored shapes with captions", lambda r, into: made.prepare_shapes(into, count=r.size, seed=r.seed)
    ),
    "grammar": DataSet(
        "made: sentences, reworded ones and judged pairs",
        lambda r, into: made.prepare_grammar(into, count=r.size, seed=r.seed),
    ),
}
"""Data sets by the name on the command line."""
