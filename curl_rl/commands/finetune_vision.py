"""Fine-tune a pretraining run into a classifier, on a share of the labels.

    python scripts/finetune_vision.py runs/vision-digits/simclr-digits/seed1 --labels 0.1
    python scripts/finetune_vision.py RUN --labels 0.01 --from_layer 1 --out classifiers/few

The whole network learns, and the first layers of the projection head with it where --from_layer says so (SimCLR v2's
second stage, arXiv 2006.10029). The classifier lies in --out as classifier.safetensors and classifier.json, which
names its classes; scripts/distill_vision.py makes it a teacher. docs/simclr_v2.md is the whole recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.compute import prepared_device
from curl_rl.vision.evaluation.finetuning import SupervisedConfig
from curl_rl.vision.evaluation.simclr_v2 import fine_tune_run


def main(argv: Sequence[str]) -> int:
    """Read the command line, fine-tune, say how good it became."""
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run of pretrain_vision.py")
    parser.add_argument(
        "--labels",
        type=float,
        default=0.1,
        help="share of the training labels, the same number from each class; 1 takes all [%(default)s]",
    )
    parser.add_argument(
        "--from_layer", type=int, default=0, help="layers of the projection head that stay on the encoder [0]"
    )
    parser.add_argument("--out", type=Path, help="directory of the classifier [RUN/finetuned-<labels>-layer<n>]")
    parser.add_argument("--data", help="folder with train and test, or digits [what the run was trained on]")
    parser.add_argument("--epochs", type=int, help="[60; 30 from a tenth of the labels on]")
    parser.add_argument(
        "--learning_rate", type=float, default=SupervisedConfig.learning_rate, help="the highest [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order and the crops [%(default)s]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    a = parser.parse_args(argv)
    out: Path = a.out or a.run / f"finetuned-{a.labels:g}-layer{a.from_layer}"
    with refusals(parser):
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
    print(f"right on {accuracy:.2%} of the test images; classifier: {out}")
    return 0
