"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719): operations drawn from a list, all at one magnitude.

The list and the ranges are those of torchvision's ``RandAugment``. Every image has its own operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.augment import operations as ops
from curl_rl.augment.draws import chosen

OPERATIONS = ops.OPERATIONS[:14]  # without invert and cutout
STRONGEST = 30  # magnitudes are integers from 0 to this


def random_augment(images: Tensor, generator: torch.Generator, *, operations: int = 2, magnitude: int = 9) -> Tensor:
    """Applies operations drawn for each image with replacement, one after the other.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1], floating point.
        generator: random generator on the images' device.
        operations: number of operations, N in the paper.
        magnitude: from 0 to 30, M in the paper. The direction of an operation, if it has one, is random.

    Returns:
        ``(B, 3, H, W)`` in [0, 1].

    Raises:
        ValueError: the magnitude is out of range.
    """
    if not 0 <= magnitude <= STRONGEST:
        raise ValueError(f"magnitude must lie in [0, {STRONGEST}], got {magnitude}")
    batch = len(images)
    for _ in range(operations):
        operation = torch.randint(len(OPERATIONS), (batch,), generator=generator, device=generator.device)
        negative = chosen(batch, 0.5, generator)
        images = apply_operations(images, operation, negative, magnitude)
    return images


def apply_operations(images: Tensor, operation: Tensor, negative: Tensor, magnitude: int) -> Tensor:
    """Applies one operation to each image: ``(B,)`` indices into OPERATIONS, with ``(B,)`` bools to reverse them."""
    return ops.apply_operations(images, operation, directed(magnitude / STRONGEST, negative))


def directed(strength: float | Tensor, negative: Tensor) -> Tensor:
    """``(B,)`` strengths for :func:`~curl_rl.augment.operations.apply_operations`: negative where ``negative``."""
    return (1 - 2 * negative.float()) * strength
