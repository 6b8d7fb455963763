"""Search for a schedule of augmentation policies (PBA, arXiv 1905.05393), in minutes on the built-in digits.

    python scripts/search_augmentation.py --out searches/digits
    python scripts/pretrain_vision.py --augment.policy pba --augment.schedule searches/digits/schedule.yaml

A population of small classifiers trains in intervals. After each interval the worst quarter takes over the weights and
the augmentation of members of the best quarter, and changes that augmentation at random. The policies that led to the
best member are written to schedule.yaml in --out. A fifth of the training images compares the members; the test images
are not used. The same command resumes a stopped search. See docs/augmentation.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from curl_rl.artifacts.encoder_file import last_names
from curl_rl.encoders import ResNet
from curl_rl.encoders.base import weights_from
from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.compute import prepared_device, resolve_precision
from curl_rl.runs.console import printable
from curl_rl.runs.lock import lock_run
from curl_rl.runs.signals import StopRequest, stop_requests
from curl_rl.vision.config import load_preset
from curl_rl.vision.data import DIGITS, load, whole_path
from curl_rl.vision.evaluation.finetuning import SupervisedConfig
from curl_rl.vision.evaluation.policy_search import PolicySearch, SearchConfig
from curl_rl.vision.schedule_file import write_schedule

SCHEDULE = "schedule.yaml"


def main(argv: Sequence[str]) -> int:
    """Reads the command line, searches, writes the schedule, and returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    with refusals(parser), stop_requests() as stop:
        return _search(arguments, stop)


def _search(a: argparse.Namespace, stop: StopRequest) -> int:
    config = SearchConfig(a.population, a.intervals, a.epochs, a.seed)
    preset = load_preset(a.preset or ("digits" if a.data == DIGITS else "cpu"), "simclr")
    views, side = preset.augment, a.image_size or preset.image_size
    training = SupervisedConfig(
        epochs=a.epochs,
        batch_size=a.batch_size,
        learning_rate=a.learning_rate,
        crop_scale=views.scale[0],
        mirror=views.mirror,
    )
    device = prepared_device(a.device)
    images = load(whole_path(a.data), "train", side, device=device, storage="memory")
    size = min(views.size, images.size)
    with weights_from(a.seed):
        encoder = ResNet((3, size, size), preset.encoder.resnet, resolve_precision(preset.encoder.precision, device))
    with lock_run(a.out):
        search = PolicySearch(
            encoder.to(device),
            images.everything().images,
            images.required_labels(),
            classes=len(images.classes),
            size=size,
            training=training,
            config=config,
            directory=a.out,
            identity={"data": images.identity, "preset": preset.preset, "image_size": images.size},
        )
        if search.done:
            print(f"resuming after {search.done} of {search.total} trainings of an interval")
        if not search.run(lambda: bool(stop)):
            assert stop.signal_number is not None
            print(f"stopped after {search.done} of {search.total} trainings of an interval; the same command resumes")
            return 128 + stop.signal_number
        found = a.out / SCHEDULE
        provenance = {"data": last_names(a.data), "seed": a.seed, "population": a.population}
        write_schedule(found, search.schedule(), provenance={**provenance, "held_out_accuracy": search.accuracy})
    print(f"best accuracy on held-out training images {search.accuracy:.2%}; schedule: {printable(str(found))}")
    print(f"play it with: --augment.policy pba --augment.schedule {printable(str(found))}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument(
        "--data", type=os.path.expanduser, default=DIGITS, help="folder of labeled images, or digits [%(default)s]"
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the search and its schedule")
    parser.add_argument(
        "--preset", help="preset of pretrain_vision.py with the network and the crops [digits for digits, else cpu]"
    )
    parser.add_argument("--image_size", type=int, help="side that images are scaled to on loading [the preset's]")
    parser.add_argument(
        "--population", type=int, default=SearchConfig.population, help="classifiers, at least 4 [%(default)s]"
    )
    parser.add_argument(
        "--intervals", type=int, default=SearchConfig.intervals, help="policies in the schedule [%(default)s]"
    )
    parser.add_argument("--epochs", type=int, default=SearchConfig.epochs, help="epochs per interval [%(default)s]")
    parser.add_argument("--batch_size", type=int, default=64, help="images in a training step [%(default)s]")
    parser.add_argument(
        "--learning_rate", type=float, default=SupervisedConfig.learning_rate, help="peak in an interval [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=SearchConfig.seed, help="of all that is drawn [%(default)s]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n> [%(default)s]")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
