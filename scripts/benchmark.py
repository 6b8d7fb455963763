#!/usr/bin/env python
"""Measure the speed of this package against a plain implementation.

    python scripts/benchmark.py --suite update --batch 128              # one update, the paper's network
    python scripts/benchmark.py --suite replay render --json now.json
    python scripts/benchmark.py --suite train --env cartpole-swingup    # frames per second, and the share of each part
    python scripts/benchmark.py --suite vision                          # pretraining on images, also with kornia
    python scripts/benchmark.py --suite policies --threads 1            # RandAugment and the like, also torchvision's
    python scripts/benchmark.py --suite objectives --threads 1          # the losses, also against other libraries
    python scripts/benchmark.py --suite text                            # the text encoder, and losses of texts
    python scripts/benchmark.py --suite detection --threads 1           # the detector, where torchvision's runs
    python scripts/benchmark.py --compare before.json now.json

The plain implementation (examples/curl_in_one_file.py) is eager float32 with each frame stack stored twice, as in
common codebases, and computes the same numbers; the one for images (examples/simclr_on_images.py) augments images one
by one; the one for texts is PyTorch's nn.TransformerEncoder. For the losses of the suite objectives it is PyTorch
Metric Learning or lightly, for k-means scikit-learn, for detection torchvision's Faster R-CNN, where they are
installed. All cases of a suite take turns in one run (those of train run one after the other); times are medians.
Leave the machine otherwise idle.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import (
    clustering,
    detection,
    libraries,
    objectives,
    policies,
    precision,
    pretrain,
    render,
    replay,
    timing,
    train,
    update,
)
from benchmarks import text as texts
from curl_rl.runs.command_line import check_writable, command_parser, refusals
from curl_rl.runs.compute import prepared_device
from curl_rl.runs.whole_numbers import whole_number
from envs.rendering import RenderingUnavailable

SUITES = ("update", "replay", "render", "train", "precision", "vision", "policies", "objectives", "text", "detection")


def main() -> int:
    """Measures the requested suites, prints a table, and writes the rows."""
    parser = _parser()
    options = parser.parse_args()
    with refusals(parser, RenderingUnavailable):
        if options.compare:
            print(timing.comparison(*(timing.read_rows(path) for path in options.compare)))
            return 0
        if options.json:
            check_writable(options.json)  # refuse it before measuring for minutes
        device = prepared_device(options.device)  # as in training; the plain implementations benefit too
        if options.threads:
            torch.set_num_threads(options.threads)
        measured_on = timing.machine(device)
        print(measured_on)
        rows: list[timing.Row] = []
        for suite in options.suite:
            rows += _measure(suite, device, options)
        print(timing.table(rows))
        if options.json:
            timing.write_rows(options.json, rows, measured_on)
    return 0


def _measure(suite: str, device: torch.device, options: argparse.Namespace) -> list[timing.Row]:
    if suite == "vision":
        return pretrain.measure(device, options.batch or 256, options.rounds)
    if suite == "policies":
        return policies.measure(device, options.batch or 256, options.rounds)
    if suite == "objectives":
        batch = options.batch or 256
        return [
            *objectives.measure(device, options.rounds, objectives.Sizes(batch)),
            *libraries.measure(device, batch, options.rounds),
            *clustering.measure(device, options.rounds, batch=batch),
        ]
    if suite == "detection":
        return detection.measure(device, options.batch or detection.SCENES, options.rounds)
    batch = options.batch or 128
    if suite == "update":
        return update.measure(device, batch, options.rounds)
    if suite == "replay":
        return replay.measure(device, batch, options.rounds)
    if suite == "render":
        return render.measure(options.rounds)
    if suite == "text":
        return texts.measure(device, batch, options.rounds)
    if suite == "precision":
        return precision.measure(device, batch)
    return train.measure(device, options.env, options.rounds)


def _parser() -> argparse.ArgumentParser:
    def positive(text: str) -> int:
        number = whole_number(text)
        if number < 1:
            raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
        return number

    parser = command_parser(__doc__)
    parser.add_argument("--suite", nargs="+", choices=SUITES, default=["update"], help="what to measure [update]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [auto]")
    parser.add_argument(
        "--batch", type=positive, help="samples in a step [128; vision, policies, objectives: 256; detection: 4]"
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        default=10,
        help="measurements per case; for train, the minimum number of agent steps [10]",
    )
    parser.add_argument("--threads", type=positive, help="CPU threads of PyTorch [PyTorch's default]")
    parser.add_argument("--env", default="cheetah-run", help="task of the suite train [cheetah-run]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="compare two such files instead of measuring"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
