"""Pretrain a text encoder on sentences without labels.

    python scripts/pretrain_text.py                                    # built-in sentences: under a minute
    python scripts/pretrain_text.py --data sentences.txt               # one sentence a line; two CPU cores
    python scripts/pretrain_text.py --data pairs.tsv --objectives.simcse.head false   # sentence, tab, paraphrase
    python scripts/pretrain_text.py --data triples.tsv --objectives.simcse.hard_negatives true   # and a contradiction
    python scripts/pretrain_text.py --data sentences.txt --encoder.text.cutoff token  # more noise than dropout
    torchrun --nproc_per_node 4 -- scripts/pretrain_text.py --data sentences.txt      # the same on four GPUs

It needs the extra `text` (pip install -e '.[text]'). The same command resumes a stopped run. A run keeps the encoder
and its tokenizer: curl_rl.text.load_sentence_encoder(RUN)(["a sentence", "another"]) gives their vectors.
Curves: tensorboard --logdir runs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.pretraining.distributed import is_first
from curl_rl.runs.command_line import exit_code_of
from curl_rl.text.config import parse_command_line
from curl_rl.text.pretraining import pretrain


def main(argv: Sequence[str]) -> int:
    """Reads the command line, pretrains, and returns the exit code."""
    program = Path(sys.argv[0]).name

    def work() -> None:
        config, fresh = parse_command_line(list(argv), program=program, description=(__doc__ or "").strip())
        pretrain(config, fresh=fresh)

    return exit_code_of(program, work, tells_mistakes=is_first())  # all processes find the same mistake


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
