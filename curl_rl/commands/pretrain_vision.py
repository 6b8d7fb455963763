"""Pretrain an image encoder without labels.

    python scripts/pretrain_vision.py                                                # digits: about a minute
    python scripts/pretrain_vision.py --method moco --data cifar10/ --preset cpu     # on two CPU cores
    python scripts/pretrain_vision.py --method simclr --data cifar10/ --preset cifar10   # ResNet-18, for a GPU
    python scripts/pretrain_vision.py --method curl --data frames/cartpole --preset frames   # of record_frames.py
    torchrun --nproc_per_node 4 -- scripts/pretrain_vision.py --data cifar10/ --preset cifar10   # the same on four

Without --preset, a folder uses cifar10 on a GPU and cpu otherwise. The same command resumes a stopped run.
Curves: tensorboard --logdir runs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.pretraining.distributed import is_first
from curl_rl.runs.command_line import exit_code_of
from curl_rl.vision.config import parse_command_line
from curl_rl.vision.pretraining import pretrain


def main(argv: Sequence[str]) -> int:
    """Reads the command line, pretrains, and returns the exit code."""
    program = Path(sys.argv[0]).name

    def work() -> None:
        config, fresh = parse_command_line(list(argv), program=program, description=(__doc__ or "").strip())
        pretrain(config, fresh=fresh)

    return exit_code_of(program, work, tells_mistakes=is_first())  # all processes find the same mistake


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
