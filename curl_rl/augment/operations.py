"""The operations that augmentation policies choose from, each image with its own, at its own strength.

Ranges and pixels are those of torchvision's ``AutoAugment`` and ``RandAugment``; what moves in from outside is black.
Cutout is DeVries and Taylor's (2017, arXiv 1708.04552) with gray.

Operations that share their arithmetic form a family. On a CPU a family runs on the images that drew one of its
operations. On a GPU it runs on the whole batch, with parameters that leave all other images unchanged, so that the host
never reads the draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.augment.color import blend, solarize

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
    "invert",
    "cutout",
)
GRAY = 0.5  # what cutout leaves


class _Drawn(NamedTuple):
    """What each image drew, as in :func:`apply_operations`; the strength in the images' type."""

    operation: Tensor
    strength: Tensor
    place: Tensor

    def of(self, rows: Tensor) -> _Drawn:
        """What these images drew."""
        return _Drawn(*(part[rows] for part in self))

    def where(self, name: str, value: float | Tensor) -> Tensor:
        """``(B,)``: the value for images that drew the operation, 0 for all others."""
        return (self.operation == OPERATIONS.index(name)).to(self.strength.dtype) * value


def apply_operations(images: Tensor, operation: Tensor, strength: Tensor, place: Tensor | None = None) -> Tensor:
    """Applies one operation to each image.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1], floating point.
        operation: ``(B,)`` indices into OPERATIONS.
        strength: ``(B,)`` shares of the operation's range, in [−1, 1]: 1 is the strongest, a negative number reverses
            the direction. Operations without a direction ignore the sign; those without a strength ignore the number.
        place: ``(B, 2)`` in [0, 1), the row and the column of cutout's center as shares of the height and the width;
            None, the middle.

    Returns:
        ``(B, 3, H, W)`` in [0, 1].
    """
    place = images.new_full((len(images), 2), 0.5) if place is None else place
    drawn = _Drawn(operation, strength.to(images.dtype), place)
    return _in_subsets(images, drawn) if images.device.type == "cpu" else _in_full(images, drawn)


def _in_full(images: Tensor, drawn: _Drawn) -> Tensor:
    for change in _FAMILIES.values():
        images = change(images, drawn)
    return images


def _in_subsets(images: Tensor, drawn: _Drawn) -> Tensor:
    changed = torch.empty_like(images)  # every image belongs to one family
    for names, change in _FAMILIES.items():
        first, last = OPERATIONS.index(names[0]), OPERATIONS.index(names[-1])
        rows = ((drawn.operation >= first) & (drawn.operation <= last)).nonzero().squeeze(1)
        if len(rows):
            changed.index_copy_(0, rows, change(images.index_select(0, rows), drawn.of(rows)))
    return changed


def _identity(images: Tensor, drawn: _Drawn) -> Tensor:
    return images


def _warp(images: Tensor, drawn: _Drawn) -> Tensor:
    """Shears about the top left corner, translates, or rotates counterclockwise about the center.

    By up to 0.3, 150/331 of the side in whole pixels, and 30°. Samples the nearest pixel, like torchvision.
    """
    height, width = images.shape[-2:]
    shear_x, shear_y = (drawn.where(name, 0.3 * drawn.strength) for name in ("shear_x", "shear_y"))
    right = drawn.where("translate_x", _whole_pixels(drawn.strength, width))
    down = drawn.where("translate_y", _whole_pixels(drawn.strength, height))
    angle = drawn.where("rotate", math.radians(30) * drawn.strength)
    sine, cosine = angle.sin(), angle.cos()

    # The source of each output pixel. At most one parameter of an image is nonzero, so their order does not matter.
    # Coordinates are relative to the center; a shear keeps the corner in place.
    x = torch.arange(width, device=images.device, dtype=images.dtype) + (0.5 - width / 2)
    y = torch.arange(height, device=images.device, dtype=images.dtype) + (0.5 - height / 2)
    scale = images.new_full((2,), 2 / width)
    scale[1:].fill_(2 / height)
    per_column = torch.stack([cosine, shear_y + sine], 1) * scale  # (B, 2): how (x, y) of the source change along x
    per_row = torch.stack([shear_x - sine, cosine], 1) * scale
    shift = torch.stack([shear_x * (height / 2) - right, shear_y * (width / 2) - down], 1) * scale
    # The two coordinates as planes, which are added several times faster than pairs.
    planes = (per_column[..., None] * x)[:, :, None] + (per_row[..., None] * y + shift[..., None])[..., None]
    grid = planes.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _whole_pixels(strength: Tensor, side: int) -> Tensor:
    """The share of 150/331 of a side, towards zero.

    Levels are multiples of 1/9 or 1/30, so a shift that is not whole is at least 1/993 away from being so: the small
    number added only keeps the rounding of the product from losing a pixel.
    """
    return strength.sign() * (strength.abs() * (150 / 331 * side) + 1e-4).floor()


def _blend(images: Tensor, drawn: _Drawn) -> Tensor:
    """Brightness, saturation, contrast: by a factor of up to 1 ± 0.9."""
    away = 0.9 * drawn.strength
    contrast, saturation = drawn.where("contrast", away), drawn.where("saturation", away)
    return blend(images, 1 + drawn.where("brightness", away) + contrast + saturation, -contrast, -saturation)


def _sharpness(images: Tensor, drawn: _Drawn) -> Tensor:
    """Scales the difference from a slightly smoothed image by up to 1 ± 0.9; does not smooth border pixels."""
    if min(images.shape[-2:]) < 3:
        return images
    smooth = images.clone()
    # Pillow's SMOOTH filter: the eight neighbors weigh 1, the pixel itself 5.
    column_sums = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    inner = smooth[..., 1:-1, 1:-1]
    inner.mul_(4).add_(column_sums[..., :-2]).add_(column_sums[..., 1:-1]).add_(column_sums[..., 2:]).div_(13)
    factor = 1 + drawn.where("sharpness", 0.9 * drawn.strength)
    return torch.lerp(smooth, images, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def _posterize(images: Tensor, drawn: _Drawn) -> Tensor:
    """Keeps the highest 8 to 4 bits of each byte."""
    step = torch.exp2((4 * drawn.strength.abs()).round_()).view(-1, 1, 1, 1)
    coarse = images.mul(255).round_().div_(step).floor_().mul_(step / 255)
    return torch.lerp(images, coarse, drawn.where("posterize", 1).view(-1, 1, 1, 1))


def _solarize(images: Tensor, drawn: _Drawn) -> Tensor:
    """Inverts values from a threshold of 1 down to 0 on."""
    # A thousandth less, so that rounding cannot exclude a byte at the threshold itself.
    return solarize(images, 2 - drawn.where("solarize", 1.001 + drawn.strength.abs()))


def _autocontrast(images: Tensor, drawn: _Drawn) -> Tensor:
    """Maps each channel's darkest pixel to 0 and its brightest to 1."""
    darkest, brightest = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    # A constant channel stays unchanged.
    stretched = (brightest > darkest) & drawn.where("autocontrast", 1).bool().view(-1, 1, 1, 1)
    start = torch.where(stretched, darkest, 0)
    span = torch.where(stretched, brightest - darkest, 1)
    return ((images - start) / span).clamp_(0, 1)


def _equalize(images: Tensor, drawn: _Drawn) -> Tensor:
    """Equalizes each channel's histogram like Pillow's ``ImageOps.equalize``."""
    byte = images.mul(255).round_().flatten(2).long()  # (B, 3, H·W)
    histogram = byte.new_zeros(*byte.shape[:2], 256).scatter_add_(2, byte, byte.new_ones(()).expand_as(byte))
    # The number of pixels that each value of the result should have, not counting those of the brightest byte.
    step = (byte.shape[2] - histogram.gather(2, byte.amax(2, keepdim=True))) // 255
    darker = histogram.cumsum(2) - histogram
    table = ((darker + step // 2) // step.clamp_min(1)).clamp_(0, 255)
    even = table.gather(2, byte).to(images.dtype).div_(255).view_as(images)
    applied = drawn.where("equalize", 1)[:, None] * (step.squeeze(2) > 0)
    return torch.lerp(images, even, applied[..., None, None])


def _invert(images: Tensor, drawn: _Drawn) -> Tensor:
    """Maps each value v to 1 − v."""
    return torch.lerp(images, 1 - images, drawn.where("invert", 1).view(-1, 1, 1, 1))


def _cutout(images: Tensor, drawn: _Drawn) -> Tensor:
    """Covers a square of up to 20/32 of the shorter side with gray; its part outside the image is lost."""
    height, width = images.shape[-2:]
    reach = drawn.where("cutout", (drawn.strength.abs() * (10 / 32 * min(height, width))).round_())[:, None]
    rows, columns = (
        _covered((share * side).floor_()[:, None], reach, side)
        for share, side in zip(drawn.place.unbind(1), (height, width), strict=True)
    )
    covered = (rows[:, :, None] & columns[:, None]).unsqueeze(1).to(images.dtype)
    return torch.lerp(images, images.new_full((), GRAY).expand_as(images), covered)


def _covered(center: Tensor, reach: Tensor, side: int) -> Tensor:
    """``(B, side)``: whether each line is one of the ``2 · reach`` around the upper edge of the center's."""
    line = torch.arange(side, device=center.device)
    return (line >= center - reach) & (line < center + reach)


_FAMILIES: dict[tuple[str, ...], Callable[[Tensor, _Drawn], Tensor]] = {
    ("identity",): _identity,
    OPERATIONS[1:6]: _warp,
    OPERATIONS[6:9]: _blend,
    ("sharpness",): _sharpness,
    ("posterize",): _posterize,
    ("solarize",): _solarize,
    ("autocontrast",): _autocontrast,
    ("equalize",): _equalize,
    ("invert",): _invert,
    ("cutout",): _cutout,
}
"""Every operation is in one family, beside its neighbors in OPERATIONS."""
