"""Train an object detector that says "unknown" of what it was never taught, task by task.

    python scripts/train_detector.py                                         # digits: a first try
    python scripts/train_detector.py --data SCENES --tasks tasks.yaml        # a folder of cut-outs
    python scripts/train_detector.py --clustering.weight 0                   # without contrastive clustering

SCENES has a subfolder per class, with pictures whose background is transparent; scenes are made of them. tasks.yaml:

    tasks: [[animals, vehicles], [food]]    # taught one after the other
    unknown: [household]                    # in the scenes, and never taught

Every task ends with an evaluation, with and without energies, and a picture of it in RUN/gallery. The same command
resumes a stopped run. See docs/detection.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.runs.command_line import exit_code_of
from curl_rl.vision.detection.config import parse_command_line
from curl_rl.vision.detection.training import train_detector


def main(argv: Sequence[str]) -> int:
    """Reads the command line, trains, and returns the exit code."""
    program = Path(sys.argv[0]).name

    def work() -> None:
        config, fresh = parse_command_line(list(argv), program=program, description=(__doc__ or "").strip())
        train_detector(config, fresh=fresh)

    return exit_code_of(program, work)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
