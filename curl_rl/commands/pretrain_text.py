"""Pretrain a text encoder on sentences without labels, or with an image encoder on images with captions.

    python scripts/pretrain_text.py                                    # built-in sentences: under a minute
    python scripts/pretrain_text.py --data sentences.txt               # one sentence a line; two CPU cores
    python scripts/pretrain_text.py --data pairs.tsv --objectives.simcse.head false   # sentence, tab, paraphrase
    python scripts/pretrain_text.py --data triples.tsv --objectives.simcse.hard_negatives true   # and a contradiction
    python scripts/pretrain_text.py --data sentences.txt --encoder.text.cutoff token  # more noise than dropout
    python scripts/pretrain_text.py --method clip --preset tiny        # built-in pictures with captions: a minute
    python scripts/pretrain_text.py --method clip --data FOLDER        # images, and captions.tsv in the folder
    torchrun --nproc_per_node 4 -- scripts/pretrain_text.py --data sentences.txt      # the same on four GPUs

It needs the extra `text` (pip install -e '.[text]'). The same command resumes a stopped run. A run keeps the encoder
and its tokenizer: curl_rl.text.load_sentence_encoder(RUN)(["a sentence", "another"]) gives their vectors.
Curves: tensorboard --logdir runs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.pretraining.distributed import is_first
from curl_rl.runs.command_line import exit_code_of
from curl_rl.runs.settings import read_yaml
from curl_rl.text import pair_config
from curl_rl.text.config import parse_command_line
from curl_rl.text.pair_pretraining import pretrain_pairs
from curl_rl.text.pretraining import pretrain


def main(argv: Sequence[str]) -> int:
    """Reads the command line, pretrains, and returns the exit code."""
    program = Path(sys.argv[0]).name

    def work() -> None:
        words, description = list(argv), (__doc__ or "").strip()
        if _compares_images(words):
            pairs, fresh = pair_config.parse_command_line(words, program=program, description=description)
            pretrain_pairs(pairs, fresh=fresh)
        else:
            config, fresh = parse_command_line(words, program=program, description=description)
            pretrain(config, fresh=fresh)

    return exit_code_of(program, work, tells_mistakes=is_first())  # all processes find the same mistake


def _compares_images(argv: list[str]) -> bool:
    """Whether the method is one for images with captions, whose settings are others than those for sentences."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--method", nargs="?")
    parser.add_argument("--config", type=Path)
    try:
        named = parser.parse_known_args(argv)[0]
    except argparse.ArgumentError:  # told when the whole line is parsed
        return False
    if named.method is None and named.config is not None:
        return read_yaml(named.config).get("method") in pair_config.methods_of_pairs()
    return named.method in pair_config.methods_of_pairs()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
