"""RandAugment and AutoAugment on a batch, against torchvision's, image by image as in a data loader."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from statistics import median
from types import ModuleType

import torch

from benchmarks.timing import Row, alone, compared, side_by_side
from curl_rl.augment import auto_augment, random_augment
from curl_rl.runs.allocator import keep_freed_memory

_SMALL, _LARGE = 32, 224  # sides of CIFAR's images and of ImageNet's crops
POLICIES = ("RandAugment", "AutoAugment")
_FEWER = 8  # of the large ones in a batch


def import_torchvision() -> ModuleType | None:
    """torchvision; without its compiled operators where these do not match this torch; None if it is not installed."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:  # two operators are missing, but not needed here
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    with torch.library._scoped_library("torchvision", "FRAGMENT") as stub:
        stub.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        stub.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision")


def measure(device: torch.device, batch: int, rounds: int) -> list[Row]:
    """A row per policy and size of the images: two operations per image, from pixels in [0, 1] to such.

    torchvision takes bytes, on the CPU; copying the batch once is the least that any policy could cost.
    """
    if device.type == "cpu":
        keep_freed_memory()  # as in training
    torchvision = import_torchvision()
    if torchvision is None:
        print("torchvision is not installed: its policies are skipped")
    return [
        row
        for size, images in ((_SMALL, batch), (_LARGE, max(1, batch // _FEWER)))
        for row in _of_size(device, images, size, rounds, torchvision is not None)
    ]


def _of_size(device: torch.device, batch: int, size: int, rounds: int, torchvision: bool) -> list[Row]:
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    images = (pixels / 255).to(device)
    generator = torch.Generator(device).manual_seed(0)
    cases: dict[str, Callable[[], object]] = {
        "RandAugment": lambda: random_augment(images, generator),
        "AutoAugment": lambda: auto_augment(images, generator, policy="cifar10"),
        "copy": images.clone,
    }
    if torchvision:
        v2 = importlib.import_module("torchvision.transforms.v2")
        cases["RandAugment, torchvision"] = _one_by_one(v2.RandAugment(), pixels)
        cases["AutoAugment, torchvision"] = _one_by_one(v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10), pixels)
    seconds = side_by_side(cases, rounds=rounds, warm_up=1, device=device, description=f"policies, {size} pixels")
    rows = []
    for policy in POLICIES:
        note = f"{batch / median(seconds[policy]):,.0f} images a second; {_share(seconds, policy):.0f} copies"
        name = f"{policy}, {batch} images of {size}×{size}"
        if torchvision:
            plain = seconds[f"{policy}, torchvision"]
            rows.append(compared(f"{name}, torchvision as plain", plain, seconds[policy], note))
        else:
            rows.append(alone(name, seconds[policy], note))
    return rows


def _one_by_one(policy: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor) -> Callable[[], object]:
    return lambda: [policy(image) for image in pixels]


def _share(seconds: dict[str, list[float]], policy: str) -> float:
    return median(seconds[policy]) / median(seconds["copy"])
