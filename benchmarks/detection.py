"""The detector beside torchvision's Faster R-CNN: seconds of a training step, and what both learn from the same scenes.

    python -m benchmarks.detection --steps 1500                                     # digits
    python -m benchmarks.detection --data CUTOUTS --tasks tasks.yaml --steps 6000

trains both on the first task, on the same scenes in the same order with the same optimizer, and prints the mAP at 0.5
on the same test scenes. torchvision gets our backbone and anchors, and our numbers of proposals, regions and units, or
with ``--sizes default`` those that are its defaults. It must be installed with its compiled operators.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.timing import Row, compared, side_by_side
from curl_rl.optim.groups import parameter_groups
from curl_rl.optim.schedules import set_learning_rates, warmup_cosine
from curl_rl.runs.command_line import command_parser, refusals
from curl_rl.runs.errors import UserError
from curl_rl.vision.data import DIGITS
from curl_rl.vision.detection.config import SCHEMA, DetectionConfig
from curl_rl.vision.detection.cutouts import Cutouts, read_cutouts
from curl_rl.vision.detection.detector import Backbone, Detections, Detector, DetectorConfig
from curl_rl.vision.detection.evaluation import TEST_SEED, scenes_in_batches
from curl_rl.vision.detection.measures import measure as measured
from curl_rl.vision.detection.sampling import Truth
from curl_rl.vision.detection.scenes import Scenes, draw_scenes
from curl_rl.vision.detection.training import tasks_of
from curl_rl.vision.detection.unknowns import LabelingConfig

SCENES = 4
SIZES = {"default": "torchvision with its own sizes", "small": "torchvision with our sizes"}
"""By the numbers of proposals, regions and units that torchvision's detector has, its title."""

Losses = Callable[[Tensor, Truth], Tensor]
Find = Callable[[Tensor], list[Detections]]


def torchvision_detects() -> bool:
    """Whether torchvision is installed with its compiled operators for detection."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        from torchvision.extension import _has_ops
    except (ImportError, RuntimeError):
        return False
    return bool(_has_ops())


def torchvisions(classes: int, sizes: str, config: DetectorConfig, size: int) -> nn.Module:
    """torchvision's Faster R-CNN on our backbone and anchors.

    Args:
        classes: number of classes, without background.
        sizes: its numbers of proposals, regions and units, a key of ``SIZES``.
        config: ours.
        size: height and width of the scenes, in pixels.
    """
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    whole = Backbone(config.width)
    backbone = nn.Sequential(whole.stem, whole.stages)
    backbone.out_channels = whole.channels  # type: ignore[assignment]
    p, h = config.proposals, config.head
    own: dict[str, Any] = {"num_classes": classes + 1, "box_roi_pool": MultiScaleRoIAlign(["0"], 7, 2)}
    if sizes == "small":
        own = {
            "box_roi_pool": MultiScaleRoIAlign(["0"], h.bins, h.samples),
            "box_head": TwoMLPHead(whole.channels * h.bins**2, h.hidden),
            "box_predictor": FastRCNNPredictor(h.hidden, classes + 1),
            "box_batch_size_per_image": h.learned,
            "box_positive_fraction": h.share,
            "rpn_batch_size_per_image": p.learned,
            **{f"rpn_pre_nms_top_n_{mode}": p.considered for mode in ("train", "test")},
            **{f"rpn_post_nms_top_n_{mode}": p.kept for mode in ("train", "test")},
        }
    found: nn.Module = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator((p.sizes,), (p.ratios,)),
        min_size=size,
        max_size=size,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
        box_score_thresh=config.score,
        box_nms_thresh=config.overlap,
        box_detections_per_img=config.most,
        **own,
    )
    return found


def their_losses(detector: nn.Module) -> Losses:
    """The sum of torchvision's losses on a batch."""

    def losses(images: Tensor, truth: Truth) -> Tensor:
        targets = [
            {"boxes": boxes[labels >= 0], "labels": labels[labels >= 0] + 1}
            for boxes, labels in zip(*truth, strict=True)
        ]
        parts: dict[str, Tensor] = detector(list(images.float() / 255), targets)
        return torch.stack(list(parts.values())).sum()

    return losses


def our_losses(detector: Detector, classes: int) -> Losses:
    """The sum of our losses on a batch, without unknown objects and clustering."""
    generator = torch.Generator(next(detector.parameters()).device).manual_seed(0)
    none = LabelingConfig(per_image=0)

    def losses(images: Tensor, truth: Truth) -> Tensor:
        return detector.losses(images, truth, classes, generator, none, None, 0.0).loss

    return losses


def measure(device: torch.device, batch: int, rounds: int) -> list[Row]:
    """Rows for a training step, forward and backward, on scenes of digits."""
    if not torchvision_detects():
        print("torchvision is not installed with its operators: the detector is not compared with its Faster R-CNN")
        return []
    config = DetectionConfig()
    cutouts = read_cutouts(DIGITS, [str(digit) for digit in range(10)])["train"]
    scenes = draw_scenes(cutouts, config.scenes, range(batch), seed=1, purpose="training scenes").to(device)
    torch.manual_seed(0)
    ours = Detector(10, config.detector).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    cases = {"ours": _step(ours, our_losses(ours, 10), scenes)}
    for sizes in SIZES:
        theirs = torchvisions(10, sizes, config.detector, config.scenes.size).to(device)
        cases[sizes] = _step(theirs, their_losses(theirs), scenes)
    seconds = side_by_side(cases, rounds=rounds, warm_up=2, device=device, description="detector")
    return [
        compared(f"detector's step, {batch} scenes, {title} as plain", seconds[sizes], seconds["ours"])
        for sizes, title in SIZES.items()
    ]


def _step(detector: nn.Module, losses: Losses, scenes: Scenes) -> Callable[[], object]:
    parameters = list(detector.parameters())
    return lambda: torch.autograd.grad(losses(scenes.images, scenes.truth), parameters)


# -------------------------------------------------------------- what both learn


def train(
    detector: nn.Module, losses: Losses, config: DetectionConfig, cutouts: Cutouts, taught: range, name: str
) -> float:
    """Takes ``config.steps`` steps on the first task, as ``train_detector.py`` does, and returns seconds per step."""
    groups = parameter_groups([{"params": detector.parameters()}], config.optimizer.weight_decay)
    optimizer = torch.optim.AdamW(groups, config.optimizer.lr, foreach=True)
    seconds = 0.0
    for number in tqdm(range(config.steps), desc=name, leave=False):
        images, truth = draw_scenes(
            cutouts,
            config.scenes,
            range(number * config.batch_size, (number + 1) * config.batch_size),
            seed=config.seed,
            purpose="training scenes",
            taught=taught,
        )
        labels = torch.where(truth.labels < len(taught), truth.labels, -1)
        share = warmup_cosine(number + 1, round(config.optimizer.warmup * config.steps), config.steps + 1)
        set_learning_rates(optimizer, share)
        begin = time.perf_counter()
        loss = losses(images, Truth(truth.boxes, labels))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), config.optimizer.clip)
        optimizer.step()
        seconds += time.perf_counter() - begin
    return seconds / config.steps


@torch.no_grad()
def mean_precision(find: Find, config: DetectionConfig, cutouts: Cutouts, taught: range) -> float:
    """mAP at 0.5 on the test scenes."""
    found: list[Detections] = []
    truths: list[Truth] = []
    for batch in scenes_in_batches(cutouts, config.scenes, config.test_scenes, seed=TEST_SEED, purpose="test scenes"):
        found += find(batch.images)
        truths += [Truth(boxes[None], labels[None]) for boxes, labels in zip(*batch.truth, strict=True)]
    return measured(found, truths, len(taught), len(cutouts.classes)).mean(taught)


def learned(config: DetectionConfig, sizes: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """Of ours and of torchvision's in these sizes, keys of ``SIZES``: name, mAP and seconds per step.

    Raises:
        UserError: the data or the tasks cannot be read.
    """
    tasks = tasks_of(config)
    parts = read_cutouts(config.data, tasks.classes)
    taught = range(tasks.known(0))
    torch.manual_seed(config.seed)
    ours = Detector(len(taught), config.detector).to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    seconds = train(ours, our_losses(ours, len(taught)), config, parts["train"], taught, "ours")
    ours.eval()
    precision = mean_precision(
        lambda images: ours.decide(ours.see(images, len(taught)), None), config, parts["test"], taught
    )
    yield "ours", precision, seconds
    for name in sizes:
        torch.manual_seed(config.seed)
        theirs = torchvisions(len(taught), name, config.detector, config.scenes.size)
        seconds = train(theirs, their_losses(theirs), config, parts["train"], taught, SIZES[name])
        theirs.eval()
        yield SIZES[name], mean_precision(_finding(theirs), config, parts["test"], taught), seconds


def _finding(detector: nn.Module) -> Find:
    def find(images: Tensor) -> list[Detections]:
        found: list[dict[str, Tensor]] = detector(list(images.float() / 255))
        return [Detections(one["boxes"], one["labels"] - 1, one["scores"]) for one in found]

    return find


def main() -> int:
    """Trains ours and torchvision's, and prints what they have learned."""
    parser = command_parser(__doc__)
    parser.add_argument("--data", default=DIGITS, help="folder of cut-outs, or digits [digits]")
    parser.add_argument("--tasks", type=Path, help="YAML file with the tasks, of which the first is learned")
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps [1500]")
    parser.add_argument("--seed", type=int, default=1, help="seed of networks and scenes [1]")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small"], help="torchvision's sizes [small]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch [1]")
    options: argparse.Namespace = parser.parse_args()
    torch.set_num_threads(options.threads)
    with refusals(parser):
        if not torchvision_detects():
            raise UserError("torchvision must be installed with its compiled operators, which fit the PyTorch here")
        preset = "digits" if options.data == DIGITS else "cpu"
        config = SCHEMA.build({"preset": preset})
        config = replace(config, data=options.data, tasks=options.tasks, steps=options.steps, seed=options.seed)
        for name, precision, seconds in learned(config, options.sizes):
            print(f"{name:32} mAP {precision:.1%}  {seconds * 1e3:,.0f} ms a step", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
