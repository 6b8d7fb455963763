"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719): operations drawn from a list, all at one magnitude.

The list, the ranges and the operations are those of torchvision's ``RandAugment``. Every image has its own operations:
each family of operations runs once over the whole batch, with parameters that leave unchanged the images that drew a
different one. The host never reads the draws.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.augment.color import blend, solarize
from curl_rl.augment.draws import chosen

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
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
    share = magnitude / STRONGEST
    sign = 1 - 2 * negative.to(images.dtype)

    def where_drawn(name: str, value: float | Tensor) -> Tensor:
        """``(B,)``: the value for images that drew the operation, 0 for all others."""
        return (operation == OPERATIONS.index(name)).to(images.dtype) * value

    images = _warp(
        images,
        shear_x=where_drawn("shear_x", sign * (0.3 * share)),
        shear_y=where_drawn("shear_y", sign * (0.3 * share)),
        right=where_drawn("translate_x", sign * math.floor(150 / 331 * images.shape[3] * share)),
        down=where_drawn("translate_y", sign * math.floor(150 / 331 * images.shape[2] * share)),
        angle=where_drawn("rotate", sign * math.radians(30 * share)),
    )
    away = sign * (0.9 * share)
    contrast, saturation = where_drawn("contrast", away), where_drawn("saturation", away)
    images = blend(images, 1 + where_drawn("brightness", away) + contrast + saturation, -contrast, -saturation)
    images = _sharpen(images, 1 + where_drawn("sharpness", away))
    images = _posterize(images, 8 - round(4 * share), where_drawn("posterize", 1))
    # A thousandth less, so that rounding cannot exclude a byte at the threshold itself.
    images = solarize(images, 2 - where_drawn("solarize", 1.001 + share))
    images = _stretch_contrast(images, where_drawn("autocontrast", 1))
    return _equalize(images, where_drawn("equalize", 1))


def _warp(images: Tensor, shear_x: Tensor, shear_y: Tensor, right: Tensor, down: Tensor, angle: Tensor) -> Tensor:
    """Shears about the top left corner, translates, or rotates counterclockwise about the center; fills with black.

    Parameters are ``(B,)``: shears as tangents, translations in pixels, the angle in radians. At most one of them is
    nonzero for an image, so their order does not matter. Samples the nearest pixel, like torchvision's ``RandAugment``.
    """
    height, width = images.shape[-2:]
    # The source of each output pixel. Coordinates are relative to the center; a shear keeps the corner in place.
    x = torch.arange(width, device=images.device, dtype=images.dtype) + (0.5 - width / 2)
    y = (torch.arange(height, device=images.device, dtype=images.dtype) + (0.5 - height / 2))[:, None]
    shear_x, shear_y, right, down, angle = (
        parameter.view(-1, 1, 1) for parameter in (shear_x, shear_y, right, down, angle)
    )
    sine, cosine = angle.sin(), angle.cos()
    source_x = cosine * x + (shear_x - sine) * y + (shear_x * (height / 2) - right)
    source_y = (shear_y + sine) * x + cosine * y + (shear_y * (width / 2) - down)
    grid = torch.stack([source_x / (width / 2), source_y / (height / 2)], -1)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _sharpen(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the difference from a slightly smoothed image by ``factor``, ``(B,)``; does not smooth border pixels."""
    if min(images.shape[-2:]) < 3:
        return images
    smooth = images.clone()
    # Pillow's SMOOTH filter: the eight neighbors weigh 1, the pixel itself 5.
    column_sums = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    inner = smooth[..., 1:-1, 1:-1]
    inner.mul_(4).add_(column_sums[..., :-2]).add_(column_sums[..., 1:-1]).add_(column_sums[..., 2:]).div_(13)
    return torch.lerp(smooth, images, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def _posterize(images: Tensor, bits: int, applied: Tensor) -> Tensor:
    """Keeps the highest ``bits`` bits of each byte, where ``applied``, ``(B,)``, is 1."""
    step = 2 ** (8 - bits)
    coarse = images.mul(255).round_().div_(step).floor_().mul_(step / 255)
    return torch.lerp(images, coarse, applied.view(-1, 1, 1, 1))


def _stretch_contrast(images: Tensor, applied: Tensor) -> Tensor:
    """Maps each channel's darkest pixel to 0 and its brightest to 1, where ``applied``, ``(B,)``, is 1."""
    darkest, brightest = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    # A constant channel stays unchanged.
    stretched = (brightest > darkest) & applied.bool().view(-1, 1, 1, 1)
    start = torch.where(stretched, darkest, 0)
    span = torch.where(stretched, brightest - darkest, 1)
    return ((images - start) / span).clamp_(0, 1)


def _equalize(images: Tensor, applied: Tensor) -> Tensor:
    """Equalizes each channel's histogram like Pillow's ``ImageOps.equalize``, where ``applied``, ``(B,)``, is 1."""
    byte = images.mul(255).round_().flatten(2).long()  # (B, 3, H·W)
    histogram = byte.new_zeros(*byte.shape[:2], 256).scatter_add_(2, byte, byte.new_ones(()).expand_as(byte))
    # The number of pixels that each value of the result should have, not counting those of the brightest byte.
    step = (byte.shape[2] - histogram.gather(2, byte.amax(2, keepdim=True))) // 255
    darker = histogram.cumsum(2) - histogram
    table = ((darker + step // 2) // step.clamp_min(1)).clamp_(0, 255)
    even = table.gather(2, byte).to(images.dtype).div_(255).view_as(images)
    return torch.lerp(images, even, (applied[:, None] * (step.squeeze(2) > 0))[..., None, None])
