"""Images per second of SimCLR on 32×32 images, and the share of augmentation."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from benchmarks.timing import Row, compared, side_by_side
from curl_rl.encoders import Precision
from curl_rl.objectives import BatchInfo
from curl_rl.pretraining.learner import Learner
from curl_rl.runs.compute import resolve_precision
from curl_rl.vision.config import VisionConfig, load_preset
from curl_rl.vision.data.image_sets import ResidentImages
from curl_rl.vision.networks import build_networks
from curl_rl.vision.views import make_views
from examples import simclr_on_images as plain_simclr

STEPS = 8  # per measurement; more for the plain pipeline with workers
_BATCHES_A_WORKER = 12


def measure(device: torch.device, batch: int, rounds: int) -> list[Row]:
    """Rows for the step of the preset `cpu` and for its augmentation, compared with the plain pipeline and with kornia.

    Times are per step. A measurement is eight steps, except for the plain pipeline with workers: there it is a whole
    pass of its loader, from the first image to the last step, because a loader works ahead and must neither get a head
    start nor leave work unfinished. A pass starts with no batch ready, so it has twelve batches per worker, which makes
    the wait for the first one small. In eight steps most of many workers would make one batch or none, and the plain
    pipeline would look slower than it is.
    """
    config = load_preset("cpu", "simclr", {"batch_size": batch})
    size = config.augment.size
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (STEPS * batch, 3, size, size), dtype=torch.uint8)
    images = ResidentImages("noise", pixels.to(device))
    generator = torch.Generator(device).manual_seed(0)
    precision = resolve_precision("auto", device)
    precisions: tuple[Precision, ...] = ("float32",) if precision == "float32" else (precision, "float32")

    plain = plain_simclr.SimCLR(
        round(64 * config.encoder.resnet.width),
        lr=config.optimizer.lr,
        temperature=config.objectives.simclr.temperature,
        device=device,
    )
    views = plain_simclr.Views(pixels.permute(0, 2, 3, 1).contiguous().numpy(), config.augment.scale)
    # Like the package's own streams: one core is left for the network.
    workers = max(1, len(os.sched_getaffinity(0)) - 1)
    repeats = math.ceil(_BATCHES_A_WORKER * workers / STEPS)
    loader = plain_simclr.batches(views, batch, workers=workers, device=device, repeats=repeats)

    cases: dict[str, Callable[[], object]] = {"plain": lambda: plain.pass_over(loader)}
    for name in precisions:
        cases[name] = _our_pass(config, images, device, generator, name)

    def augment() -> None:
        for part in images.batches(batch):
            make_views(part.images, config.augment, generator)

    cases["augmentation"] = augment
    alone = plain_simclr.batches(views, batch, workers=0, device=torch.device("cpu"))
    cases["plain augmentation"] = lambda: [None for _ in alone]
    kornia = importlib.util.find_spec("kornia") is not None
    if kornia:
        cases["kornia"] = _kornia_pass(config, images, batch)
    else:
        print("kornia is not installed: its augmentation is skipped")
    measured = side_by_side(cases, rounds=rounds, warm_up=1, device=device, description=f"vision, batch {batch}")
    steps = dict.fromkeys(cases, STEPS) | {"plain": len(loader)}
    seconds = {name: [value / steps[name] for value in values] for name, values in measured.items()}

    rows = []
    for name in precisions:
        rates = [batch / median(seconds[case]) for case in (name, "plain")]
        note = f"{rates[0]:,.0f} images a second, plain {rates[1]:,.0f}"
        rows.append(compared(f"SimCLR step, batch {batch}, {name}", seconds["plain"], seconds[name], note))
    share = median(seconds["augmentation"]) / median(seconds[precision])
    note = f"{share:.1%} of our step; plain without workers"
    rows.append(compared(f"augmentation, batch {batch}", seconds["plain augmentation"], seconds["augmentation"], note))
    if kornia:
        rows.append(
            compared(f"augmentation, batch {batch}, kornia as plain", seconds["kornia"], seconds["augmentation"])
        )
    return rows


def _our_pass(
    config: VisionConfig,
    images: ResidentImages,
    device: torch.device,
    generator: torch.Generator,
    precision: Precision,
) -> Callable[[], object]:
    """A pass of the package over the images: read, augment, step."""
    config = replace(config, encoder=replace(config.encoder, precision=precision))
    torch.manual_seed(0)
    encoder, objective = build_networks(config, 3, device)
    encoder = encoder.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    learner = Learner(
        encoder,
        objective.to(device),
        replace(config.optimizer, warmup_epochs=0),
        batch_size=config.batch_size,
        steps_per_epoch=STEPS,
        epochs=1000,
    )

    def work() -> None:
        for part in images.batches(config.batch_size):
            views = make_views(part.images, config.augment, generator)
            order = torch.randperm(config.batch_size, generator=generator, device=device)
            learner.step(views, BatchInfo(part.indices), order)

    return work


def _kornia_pass(config: VisionConfig, images: ResidentImages, batch: int) -> Callable[[], object]:
    """Two views of every image by kornia's batched augmentations, with parameters drawn per image."""
    import kornia.augmentation as K

    a = config.augment
    augmentation = torch.nn.Sequential(
        K.RandomResizedCrop((a.size, a.size), scale=a.scale, ratio=a.ratio),
        K.RandomHorizontalFlip(p=a.mirror),
        K.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue, p=a.jitter),
        K.RandomGrayscale(p=a.greyscale),
    )

    @torch.no_grad()
    def work() -> list[Tensor]:
        views: list[Tensor] = []
        for part in images.batches(batch):
            pixels = part.images.float() / 255
            views = [augmentation(pixels) for _ in range(2)]
        return views

    return work
