"""Evaluate pretrained encoders by the standard protocols and print a table.

    python scripts/evaluate_vision.py runs/vision-digits/simclr-digits/seed1
    python scripts/evaluate_vision.py runs/vision-cifar10/simclr-cpu/seed* --untrained --raw_pixels --json row.json
    python scripts/evaluate_vision.py RUN --protocols knn linear fine_tune --labels 0.01 0.1 --transfer FOLDER

Runs that differ only in their seeds share a row: mean ± standard deviation. Each row evaluates the encoder of the last
epoch on the test images of its training data (or --data). Nearest neighbors vote by cosine similarity, weighted by
exp(similarity / temperature). Linear evaluation is L2-regularized logistic regression on frozen features, with the
regularization chosen on a held-out part of the training set (SimCLR, appendix B.8). Fine-tuning trains the whole
network on the same few labels of each class every time: 60 epochs, or 30 for at least a tenth of the labels (B.5), on
crops like the run's views. The probe is the linear classifier trained during the run, as logged there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.compute import prepared_device
from curl_rl.runs.console import printable
from curl_rl.runs.files import write_json
from curl_rl.vision.evaluation.comparison import evaluate_runs, report, table
from curl_rl.vision.evaluation.protocols import EvaluationConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, evaluates, and prints the table."""
    default = EvaluationConfig()
    parser = command_parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="directories of runs")
    parser.add_argument(
        "--protocols",
        nargs="+",
        choices=("knn", "probe", "linear", "fine_tune"),
        default=list(default.protocols),
        help="protocols to run; fine_tune takes minutes [knn linear]",
    )
    parser.add_argument(
        "--data", type=os.path.expanduser, help="folder with train and test, or digits [the run's training data]"
    )
    parser.add_argument(
        "--transfer", type=os.path.expanduser, metavar="DATA", help="also evaluate on these data: a folder, or digits"
    )
    parser.add_argument("--k", type=int, help="number of voting neighbors [the run's knn.k, or all if there are fewer]")
    parser.add_argument("--temperature", type=float, help="of the votes [the run's knn.temperature]")
    parser.add_argument(
        "--labels",
        type=float,
        nargs="+",
        default=list(default.labels),
        help="shares of the labels to fine-tune on, the same number from each class (1 uses all), each in a separate "
        "training [0.01 0.1]",
    )
    parser.add_argument("--untrained", action="store_true", help="add a row: the same backbone with random weights")
    parser.add_argument("--raw_pixels", action="store_true", help="add a row: nearest neighbors of the images")
    parser.add_argument(
        "--seed", type=int, default=default.seed, help="of the protocols, not of the runs [%(default)s]"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every score here as well")
    arguments = parser.parse_args(argv)
    with refusals(parser):
        config = EvaluationConfig(
            protocols=tuple(dict.fromkeys(arguments.protocols)),
            k=arguments.k,
            temperature=arguments.temperature,
            labels=tuple(arguments.labels),
            seed=arguments.seed,
        )
        # Evaluating takes minutes: refuse an unwritable output first.
        if arguments.json:
            check_writable(arguments.json)
        rows = evaluate_runs(
            arguments.runs,
            config,
            data=arguments.data,
            transfer=arguments.transfer,
            untrained=arguments.untrained,
            raw_pixels=arguments.raw_pixels,
            device=prepared_device(arguments.device),
        )
        print("\n".join(map(printable, table(rows, config).splitlines())))
        if arguments.json:
            write_json(arguments.json, report(rows, config))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
