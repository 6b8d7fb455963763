"""Reword sentences: a file of pairs for scripts/pretrain_text.py, a sentence and another that says nearly the same.

    python scripts/augment_text.py sentences.txt --to pairs.tsv
    python scripts/augment_text.py sentences.txt --by back_translation --to pairs.tsv    # through Spanish, by Apertium
    python scripts/pretrain_text.py --data pairs.tsv --objectives.simcse.head false

replacement is UDA's (arXiv 1904.12848): words of low TF-IDF give way to other words that say little, whatever the
grammar.
back_translation needs Apertium with a pair of languages (Debian: apt-get install apertium-eng-spa). Sentences that come
back unchanged are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.console import counted
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import write_text
from curl_rl.text.augmentation.back_translation import LANGUAGES, back_translate
from curl_rl.text.augmentation.word_replacement import WordReplacement
from curl_rl.text.data.tables import table_text
from curl_rl.text.sentences import read_sentences


def main(argv: Sequence[str]) -> int:
    """Reads the command line and the sentences, and writes the pairs."""
    parser = command_parser(__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="text file, one sentence a line; or grammar, built in")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="file of pairs to write")
    parser.add_argument(
        "--by", choices=("replacement", "back_translation"), default="replacement", help="[%(default)s]"
    )
    parser.add_argument(
        "--probability", type=float, default=0.3, help="mean probability of replacing a word; UDA: 0.7 [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the replaced words [%(default)s]")
    parser.add_argument(
        "--languages", nargs=2, default=list(LANGUAGES), help="the sentences' language and the other [eng spa]"
    )
    arguments = parser.parse_args(argv)
    if arguments.seed < 0:
        parser.error(f"--seed must be 0 or more, got {arguments.seed}")
    if arguments.to.resolve() == arguments.file.resolve():
        parser.error(f"--to must be another file than the sentences, got {arguments.to}, which would be overwritten")
    with refusals(parser):
        check_writable(arguments.to)
        sentences = read_sentences(arguments.file).columns[0]
        if arguments.by == "replacement":
            replace, rng = WordReplacement(sentences, arguments.probability), np.random.default_rng(arguments.seed)
            reworded = [replace(sentence, rng) for sentence in sentences]
        else:
            reworded = back_translate(sentences, tuple(arguments.languages))
        pairs = [(one, other) for one, other in zip(sentences, reworded, strict=True) if other not in ("", one)]
        if not pairs:
            raise UserError(f"no sentence of {arguments.file} has changed: raise --probability, or take the other --by")
        write_text(arguments.to, table_text(pairs))
        print(f"{arguments.to}: {counted(len(pairs), 'pair')} of {counted(len(sentences), 'sentence')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
