"""Distill a classifier into a student that learns its predictions on all images, most of them unlabeled.

    python scripts/distill_vision.py RUN/finetuned-0.1-layer1                       # a new network of the same shape
    python scripts/distill_vision.py RUN/finetuned-0.1-layer1 --student RUN         # from the pretrained encoder
    python scripts/distill_vision.py TEACHER --width 0.0625 --labelled 0.1 --alpha 0.5   # smaller, labels in the mix

SimCLR v2's third stage (arXiv 2006.10029): TEACHER is a classifier from scripts/finetune_vision.py or this command. The
student is written to --out in the same format. See docs/simclr_v2.md for the whole recipe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.compute import prepared_device
from curl_rl.runs.console import printable
from curl_rl.runs.files import refuse_link
from curl_rl.vision.evaluation.finetuning import SupervisedConfig
from curl_rl.vision.evaluation.simclr_v2 import distill_classifier


def main(argv: Sequence[str]) -> int:
    """Reads the command line, distills, and prints the student's accuracy."""
    parser = command_parser(__doc__)
    parser.add_argument("teacher", type=Path, metavar="TEACHER", help="directory of a classifier")
    parser.add_argument("--student", type=Path, metavar="RUN", help="pretraining run to start from [a new network]")
    parser.add_argument("--depth", type=int, choices=(18, 34, 50), help="of a new network [the teacher's]")
    parser.add_argument("--width", type=float, help="of a new network [the teacher's]")
    parser.add_argument(
        "--labelled",
        type=float,
        default=0.0,
        help="share of the training labels in the loss, the same number from each class; 1 uses all [0]",
    )
    parser.add_argument(
        "--alpha",
        type=float,
        default=1.0,
        help="weight of the teacher's predictions, on all images; the labels' is 1 - alpha, on those that have one: "
        "docs/simclr_v2.md gives the shares of the loss [1]",
    )
    parser.add_argument(
        "--temperature", type=float, help="of both softmaxes [0.1 for the teacher's architecture, else 1]"
    )
    parser.add_argument("--out", type=Path, help="directory of the student [TEACHER/student]")
    parser.add_argument(
        "--data", type=os.path.expanduser, help="folder with train and test, or digits [the teacher's training data]"
    )
    parser.add_argument("--epochs", type=int, default=100, help="[%(default)s]")
    parser.add_argument(
        "--learning_rate",
        type=float,
        help=f"peak learning rate [{SupervisedConfig.learning_rate}, times a temperature below 1, which scales the "
        "gradient up]",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of a new network, the data order and the crops [%(default)s]"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    a = parser.parse_args(argv)
    out: Path = a.out or a.teacher / "student"
    with refusals(parser):
        if a.out is None:
            refuse_link(out)
        accuracy = distill_classifier(
            a.teacher,
            out,
            student=a.student,
            depth=a.depth,
            width=a.width,
            labelled=a.labelled,
            alpha=a.alpha,
            temperature=a.temperature,
            data=a.data,
            epochs=a.epochs,
            learning_rate=a.learning_rate,
            seed=a.seed,
            device=prepared_device(a.device),
        )
    print(f"test accuracy {accuracy:.2%}; student: {printable(str(out))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
