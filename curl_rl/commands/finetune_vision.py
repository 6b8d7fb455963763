"""Fine-tune a pretraining run into a classifier, on a share of the labels.

    python scripts/finetune_vision.py runs/vision-digits/simclr-digits/seed1 --labels 0.1
    python scripts/finetune_vision.py RUN --labels 0.01 --from_layer 1 --out classifiers/few

Trains the whole network, including the first --from_layer layers of the projection head (SimCLR v2's second stage,
arXiv 2006.10029). The classifier is written to --out as classifier.safetensors and classifier.json, which names its
classes; scripts/distill_vision.py uses it as a teacher. See docs/simclr_v2.md for the whole recipe.
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
from curl_rl.vision.evaluation.simclr_v2 import fine_tune_run


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
    parser.add_argument("--epochs", type=int, help="[60; 30 for at least a tenth of the labels]")
    parser.add_argument(
        "--learning_rate", type=float, default=SupervisedConfig.learning_rate, help="peak learning rate [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the data order and the crops [%(default)s]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    a = parser.parse_args(argv)
    out: Path = a.out or a.run / f"finetuned-{a.labels:g}-layer{a.from_layer}"
    with refusals(parser):
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
            seed=a.seed,
            device=prepared_device(a.device),
        )
    print(f"test accuracy {accuracy:.2%}; classifier: {printable(str(out))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
