"""No augmentation makes the host wait for the device, nor sends it anything but the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from curl_rl import augment
from curl_rl.augment import operations, pba


@pytest.mark.parametrize(
    "offence",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).all()),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    ],
)
def test_the_watch_sees_offenses(offence: Callable[[torch.Tensor], Any], no_host_sync: Any) -> None:
    with pytest.raises(AssertionError), no_host_sync():
        offence(torch.ones(3))


STRENGTHS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}


@pytest.mark.parametrize(
    "apply",
    [
        lambda images, generator: augment.random_resized_crop(images, 7, generator),
        lambda images, generator: augment.random_color_jitter(images, generator, **STRENGTHS, probability=0.5),
        lambda images, generator: augment.random_grayscale(images, generator, probability=0.5),
        lambda images, generator: augment.random_solarize(images, generator, probability=0.5),
        lambda images, generator: augment.random_gaussian_blur(
            images, generator, radius=2, sigma=(0.1, 2.0), probability=0.5
        ),
    ],
    ids=["resized crop", "jitter", "grayscale", "solarize", "blur"],
)
def test_augmentations_never_wait(
    apply: Callable[[torch.Tensor, torch.Generator], torch.Tensor], no_host_sync: Any
) -> None:
    images, generator = torch.rand(4, 3, 9, 8), torch.Generator().manual_seed(0)
    with no_host_sync():
        apply(images, generator)


@pytest.mark.parametrize(
    "apply",
    [
        lambda images, generator: augment.random_augment(images, generator),
        lambda images, generator: augment.auto_augment(images, generator, policy="cifar10"),
        lambda images, generator: augment.population_augment(
            images, generator, policy=tuple((name, 0.5, 5) for name in pba.SLOTS)
        ),
    ],
    ids=["randaugment", "autoaugment", "pba"],
)
def test_policies_never_wait_where_waiting_costs(
    monkeypatch: pytest.MonkeyPatch, apply: Callable[[torch.Tensor, torch.Generator], torch.Tensor], no_host_sync: Any
) -> None:
    monkeypatch.setattr(operations, "_in_subsets", operations._in_full)  # as on a GPU
    images, generator = torch.rand(40, 3, 9, 8), torch.Generator().manual_seed(0)
    apply(images, generator)  # copies the policy's table to the device, once
    with no_host_sync():
        apply(images, generator)
