"""AutoAugment (Cubuk et al. 2018, arXiv 1805.09501): each image draws one of 25 learned pairs of operations.

The sub-policies are those of the paper's appendix (tables 7 to 9), with its figures. The ranges of the operations are
those of torchvision's ``AutoAugment``: the tenth level of ten is the strongest.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from curl_rl.augment.draws import chosen
from curl_rl.augment.operations import OPERATIONS, apply_operations
from curl_rl.augment.randaugment import directed

LEVELS = 10  # levels are integers from 0 to below this

LearnedOn = Literal["cifar10", "imagenet", "svhn"]
"""The images on which a policy was learned."""

Step = tuple[str, float, int]
"""Operation, probability, level; the level of an operation without a strength is 0."""

# fmt: off
SUB_POLICIES: dict[LearnedOn, tuple[tuple[Step, Step], ...]] = {
    "cifar10": (
        (("invert", 0.1, 0), ("contrast", 0.2, 6)),
        (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
        (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
        (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
        (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
        (("saturation", 0.4, 3), ("brightness", 0.6, 7)),
        (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
        (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
        (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
        (("saturation", 0.7, 7), ("translate_x", 0.5, 8)),
        (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
        (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
        (("brightness", 0.9, 6), ("saturation", 0.2, 8)),
        (("solarize", 0.5, 2), ("invert", 0.0, 0)),
        (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
        (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
        (("saturation", 0.9, 9), ("equalize", 0.6, 0)),
        (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
        (("brightness", 0.1, 3), ("saturation", 0.7, 0)),
        (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
        (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
        (("equalize", 0.8, 0), ("invert", 0.1, 0)),
        (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
    ),
    "imagenet": (
        (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
        (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
        (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
        (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
        (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
        (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
        (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
        (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
        (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
        (("rotate", 0.8, 8), ("saturation", 0.4, 0)),
        (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
        (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
        (("invert", 0.6, 0), ("equalize", 1.0, 0)),
        (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
        (("rotate", 0.8, 8), ("saturation", 1.0, 2)),
        (("saturation", 0.8, 8), ("solarize", 0.8, 7)),
        (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
        (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
        (("saturation", 0.4, 0), ("equalize", 0.6, 0)),
        (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
        (("invert", 0.6, 0), ("equalize", 1.0, 0)),
        (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
        (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    ),
    "svhn": (
        (("shear_x", 0.9, 4), ("invert", 0.2, 0)),
        (("shear_y", 0.9, 8), ("invert", 0.7, 0)),
        (("equalize", 0.6, 0), ("solarize", 0.6, 6)),
        (("invert", 0.9, 0), ("equalize", 0.6, 0)),
        (("equalize", 0.6, 0), ("rotate", 0.9, 3)),
        (("shear_x", 0.9, 4), ("autocontrast", 0.8, 0)),
        (("shear_y", 0.9, 8), ("invert", 0.4, 0)),
        (("shear_y", 0.9, 5), ("solarize", 0.2, 6)),
        (("invert", 0.9, 0), ("autocontrast", 0.8, 0)),
        (("equalize", 0.6, 0), ("rotate", 0.9, 3)),
        (("shear_x", 0.9, 4), ("solarize", 0.3, 3)),
        (("shear_y", 0.8, 8), ("invert", 0.7, 0)),
        (("equalize", 0.9, 0), ("translate_y", 0.6, 6)),
        (("invert", 0.9, 0), ("equalize", 0.6, 0)),
        (("contrast", 0.3, 3), ("rotate", 0.8, 4)),
        (("invert", 0.8, 0), ("translate_y", 0.0, 2)),
        (("shear_y", 0.7, 6), ("solarize", 0.4, 8)),
        (("invert", 0.6, 0), ("rotate", 0.8, 4)),
        (("shear_y", 0.3, 7), ("translate_x", 0.9, 3)),
        (("shear_x", 0.1, 6), ("invert", 0.6, 0)),
        (("solarize", 0.7, 2), ("translate_y", 0.6, 7)),
        (("shear_y", 0.8, 4), ("invert", 0.8, 0)),
        (("shear_x", 0.7, 9), ("translate_y", 0.8, 3)),
        (("shear_y", 0.8, 5), ("autocontrast", 0.7, 0)),
        (("shear_x", 0.7, 2), ("invert", 0.1, 0)),
    ),
}
# fmt: on


class SubPolicies(NamedTuple):
    """A table on a device: ``(N, 2)`` each, two steps to a sub-policy."""

    operation: Tensor
    """int64 indices into :data:`~curl_rl.augment.operations.OPERATIONS`."""
    probability: Tensor
    strength: Tensor
    """Shares of the operation's range, in [0, 1]."""


@functools.cache  # copied to each device once
def sub_policies(policy: LearnedOn, device: torch.device) -> SubPolicies:
    """The table of a policy; treat it as read-only."""
    table = SUB_POLICIES[policy]
    return SubPolicies(
        torch.tensor([[OPERATIONS.index(name) for name, _, _ in pair] for pair in table], device=device),
        torch.tensor([[probability for _, probability, _ in pair] for pair in table], device=device),
        torch.tensor([[level / (LEVELS - 1) for _, _, level in pair] for pair in table], device=device),
    )


def auto_augment(images: Tensor, generator: torch.Generator, *, policy: LearnedOn) -> Tensor:
    """Applies the two steps of a sub-policy drawn for each image, each step with its probability.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1], floating point.
        generator: random generator on the images' device.
        policy: the data on which the policy was learned. The direction of an operation, if it has one, is random.

    Returns:
        ``(B, 3, H, W)`` in [0, 1].
    """
    batch, device = len(images), generator.device
    table = sub_policies(policy, device)
    drawn = torch.randint(len(table.operation), (batch,), generator=generator, device=device)
    for operation, probability, strength in zip(*(column[drawn].unbind(1) for column in table), strict=True):
        applied = torch.rand(batch, generator=generator, device=device) < probability
        negative = chosen(batch, 0.5, generator)
        images = apply_operations(images, operation * applied, directed(strength, negative))
    return images
