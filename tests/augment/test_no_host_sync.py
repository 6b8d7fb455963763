"""No augmentation makes the host wait for the device, nor sends it anything but the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from curl_rl import augment

# Operators that hand a tensor's data to the host, give a shape that depends on data, or copy numbers from the host.
FORBIDDEN = {
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique2",
    "lift_fresh",
    "_pin_memory",
}


class NoHostSync(TorchDispatchMode):
    """Fails where an operator would make the host wait for a device, which on a CPU cannot be felt."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in FORBIDDEN, func
        indices = args[1] if func.overloadpacket.__name__ in ("index", "index_put", "index_put_") else ()
        assert all(index is None or index.dtype != torch.bool for index in indices), "a mask gives a shape by its data"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "offence",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).all()),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    ],
)
def test_the_watch_sees_offences(offence: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(AssertionError), NoHostSync():
        offence(torch.ones(3))


STRENGTHS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}


@pytest.mark.parametrize(
    "apply",
    [
        lambda images, generator: augment.random_resized_crop(images, 7, generator),
        lambda images, generator: augment.random_color_jitter(images, generator, **STRENGTHS, probability=0.5),
        lambda images, generator: augment.random_greyscale(images, generator, probability=0.5),
        lambda images, generator: augment.random_solarise(images, generator, probability=0.5),
        lambda images, generator: augment.random_gaussian_blur(
            images, generator, radius=2, sigma=(0.1, 2.0), probability=0.5
        ),
        lambda images, generator: augment.random_augment(images, generator),
    ],
    ids=["resized crop", "jitter", "greyscale", "solarise", "blur", "randaugment"],
)
def test_augmentations_never_wait(apply: Callable[[torch.Tensor, torch.Generator], torch.Tensor]) -> None:
    images, generator = torch.rand(4, 3, 9, 8), torch.Generator().manual_seed(0)
    with NoHostSync():
        apply(images, generator)
