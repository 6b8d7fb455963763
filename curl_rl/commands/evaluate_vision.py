"""Judge pretrained encoders by the field's protocols and print a table.

    python scripts/evaluate_vision.py runs/vision-digits/simclr-digits/seed1
    python scripts/evaluate_vision.py runs/vision-cifar10/simclr-cpu/seed* --untrained --raw_pixels --json row.json
    python scripts/evaluate_vision.py RUN --protocols knn linear fine_tune --labels 0.01 0.1 --transfer FOLDER

Runs that differ in their seeds alone share a row: mean ± standard deviation. What is judged is the encoder of the last
epoch, on the test images of the data that it was trained on (or --data). Nearest neighbours vote by cosine similarity,
weighted by exp(similarity / temperature). Linear evaluation is L2-regularised logistic regression on frozen features,
the regularisation chosen on a held-out part of the training set (SimCLR, appendix B.8). Fine-tuning trains the whole
network on the same few labels of each class every time: 60 epochs, or 30 for a tenth of the labels and more (B.5), on
crops like the run's views. The probe is the linear classifier that learnt beside the run, as the run's log has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.compute import prepared_device
from curl_rl.runs.files import write_json
from curl_rl.vision.evaluation.comparison import evaluate_runs, report, table
from curl_rl.vision.evaluation.protocols import EvaluationConfig


def main(argv: Sequence[str]) -> int:
    """Read the command line, judge, print the table."""
    default = EvaluationConfig()
    parser = command_parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="directories of runs")
    parser.add_argument(
        "--protocols",
        nargs="+",
        choices=("knn", "probe", "linear", "fine_tune"),
        default=list(default.protocols),
        help="which; fine_tune takes minutes [knn linear]",
    )
    parser.add_argument("--data", help="folder with train and test, or digits [what the run was trained on]")
    parser.add_argument("--transfer", metavar="DATA", help="judge on these data as well: a folder, or digits")
    parser.add_argument("--k", type=int, help="neighbours that vote [the run's knn.k, or all where there are fewer]")
    parser.add_argument("--temperature", type=float, help="of their votes [the run's knn.temperature]")
    parser.add_argument(
        "--labels",
        type=float,
        nargs="+",
        default=list(default.labels),
        help="shares of the labels to fine-tune on, the same number from each class (1 takes all), each in a training "
        "of its own [0.01 0.1]",
    )
    parser.add_argument("--untrained", action="store_true", help="add a row: the same backbone with random weights")
    parser.add_argument("--raw_pixels", action="store_true", help="add a row: nearest neighbours of the images")
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
        # Before judging, which takes minutes: a place that cannot be written to.
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
        print(table(rows, config))
        if arguments.json:
            write_json(arguments.json, report(rows, config))
    return 0
