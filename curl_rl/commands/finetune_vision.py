"""Fine-tune a pretraining run into a classifier, on a share of the labels.

    python scripts/finetune_vision.py runs/vision-digits/simclr-digits/seed1 --labels 0.1
    python scripts/finetune_vision.py RUN --labels 0.01 --from_layer 1 --out classifiers/few
    python scripts/finetune_vision.py RUN --labels 0.01 --unlabelled --annealing linear     # UDA

Trains the whole network, including the first --from_layer layers of the projection head (SimCLR v2's second stage,
arXiv 2006.10029). The classifier is written to --out as classifier.safetensors and classifier.json, which names its
classes; scripts/distill_vision.py uses it as a teacher. See docs/simclr_v2.md for the whole recipe.

With --unlabelled all training images, or those of a folder, take part without their labels: the prediction for a
strongly augmented view must agree with a confident one for a weakly augmented view (UDA, arXiv 1904.12848).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.compute import prepared_device
from curl_rl.runs.console import printable
from curl_rl.runs.errors import UserError
from curl_rl.runs.files import refuse_link
from curl_rl.vision.evaluation.consistency import ANNEALING, ConsistencyConfig
from curl_rl.vision.evaluation.finetuning import SupervisedConfig
from curl_rl.vision.evaluation.simclr_v2 import fine_tune_run

_UDA = ConsistencyConfig()


def main(argv: Sequence[str]) -> int:
    """Reads the command line, fine-tunes, and prints the test accuracy."""
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run of pretrain_vision.py")
    parser.add_argument(
        "--labels",
        type=float,
        default=0.1,
        help="share of the training labels, the same number from each class; 1 uses all [%(default)s]",
    )
    parser.add_argument(
        "--from_layer", type=int, default=0, help="layers of the projection head to keep on the encoder [0]"
    )
    parser.add_argument("--out", type=Path, help="directory of the classifier [RUN/finetuned-<labels>-layer<n>]")
    parser.add_argument(
        "--data", type=os.path.expanduser, help="folder with train and test, or digits [the run's training data]"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        help="over the labeled images [60; 30 for at least a tenth of the labels; 300 with --unlabelled]",
    )
    parser.add_argument(
        "--learning_rate", type=float, default=SupervisedConfig.learning_rate, help="peak learning rate [%(default)s]"
    )
    unlabeled = parser.add_argument_group("unlabeled images")
    unlabeled.add_argument(
        "--unlabelled",
        type=os.path.expanduser,
        nargs="?",
        const="",
        metavar="FOLDER",
        help="also learn from the images of this folder, or without one from all training images, without labels",
    )
    unlabeled.add_argument("--unlabelled_weight", type=float, help=f"weight of their loss [{_UDA.weight:g}]")
    unlabeled.add_argument(
        "--confidence", type=float, help=f"they count if their largest probability is above this [{_UDA.confidence:g}]"
    )
    unlabeled.add_argument(
        "--temperature", type=float, help=f"below 1 sharpens the prediction to agree with [{_UDA.temperature:g}]"
    )
    unlabeled.add_argument(
        "--annealing",
        choices=ANNEALING,
        help="leave out labeled images whose probability is above a threshold that rises to 1: exp, late, for very few "
        f"labels; linear; log, early [{_UDA.annealing}]",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the data order and the crops [%(default)s]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    a = parser.parse_args(argv)
    kind = "finetuned" if a.unlabelled is None else "uda"
    out: Path = a.out or a.run / f"{kind}-{a.labels:g}-layer{a.from_layer}"
    with refusals(parser):
        consistency = _consistency(a)
        if a.out is None:
            refuse_link(out)
        accuracy = fine_tune_run(
            a.run,
            out,
            labels=a.labels,
            from_layer=a.from_layer,
            data=a.data,
            epochs=a.epochs,
            learning_rate=a.learning_rate,
            unlabelled=a.unlabelled,
            consistency=consistency,
            seed=a.seed,
            device=prepared_device(a.device),
        )
    print(f"test accuracy {accuracy:.2%}; classifier: {printable(str(out))}")
    return 0


def _consistency(a: argparse.Namespace) -> ConsistencyConfig:
    flags = {
        "unlabelled_weight": "weight",
        "confidence": "confidence",
        "temperature": "temperature",
        "annealing": "annealing",
    }
    given = {field: getattr(a, flag) for flag, field in flags.items() if getattr(a, flag) is not None}
    if given and a.unlabelled is None:
        flag = next(flag for flag, field in flags.items() if field in given)
        raise UserError(f"--{flag} applies to unlabeled images only: add --unlabelled, or leave it out")
    return replace(_UDA, **given)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
