"""Random resized crops with mirroring: a window of random area and shape, resized to a square with antialiasing.

The windows have the distribution of torchvision's ``RandomResizedCrop`` (Szegedy et al. 2014, arXiv 1409.4842, section
6), and the pixels are those of its antialiased bilinear resize, which is Pillow's. Mirroring costs nothing: it is the
same resize with the output columns in reverse order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from curl_rl.augment.draws import chosen
from curl_rl.augment.separable import transform_axes

TRIES = 10  # windows drawn before falling back to the middle of the image, as in torchvision


class Windows(NamedTuple):
    """One window per image, in whole pixels: ``(B,)`` float32 each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def random_windows(
    batch: int,
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Windows:
    """Draws windows with uniform area and log-uniform aspect ratio at uniformly random positions.

    Of ten candidates the first that fits is used; if none fits, the middle of the image, cut to the nearest allowed
    ratio. This is the distribution of torchvision's ``RandomResizedCrop.get_params``.

    Args:
        batch: number of images.
        height, width: size of every image, in pixels.
        generator: random generator on the device where the windows are needed.
        scale: smallest and largest fraction of the image's area.
        ratio: smallest and largest width divided by height.
    """
    unit = torch.rand(2, batch, TRIES, generator=generator, device=generator.device)
    area = (scale[0] + (scale[1] - scale[0]) * unit[0]) * (height * width)
    aspect = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * unit[1])
    widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()

    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    earlier_is_better = torch.arange(TRIES, 0, -1, device=unit.device)
    first = (fits * earlier_is_better).argmax(1, keepdim=True)
    found = fits.any(1)
    middle_height, middle_width = _middle(height, width, ratio)
    window_height = torch.where(found, heights.gather(1, first).squeeze(1), middle_height)
    window_width = torch.where(found, widths.gather(1, first).squeeze(1), middle_width)

    place = torch.rand(2, batch, generator=generator, device=generator.device)
    # Rounding may raise the largest number below 1 to 1, hence the minimum.
    top = torch.minimum((place[0] * (height - window_height + 1)).floor(), height - window_height)
    left = torch.minimum((place[1] * (width - window_width + 1)).floor(), width - window_width)
    top = torch.where(found, top, (height - middle_height) // 2)
    left = torch.where(found, left, (width - middle_width) // 2)
    return Windows(top, left, window_height, window_width)


def _middle(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest window with an allowed ratio."""
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def resize_windows(images: Tensor, windows: Windows, size: int, mirror: Tensor | None = None) -> Tensor:
    """Resizes each image's window to ``size``×``size``, bilinearly with antialiasing.

    Args:
        images: ``(B, C, H, W)``, uint8 in [0, 255] or floating point in [0, 1].
        windows: ``(B,)`` each; every window must lie within the image.
        size: side of the result, in pixels.
        mirror: ``(B,)`` bools, True for the images to flip left to right.

    Returns:
        ``(B, C, size, size)`` in [0, 1], float32 or the input's floating type. Pixels outside the window have no
        influence, as if it were cut out first.
    """
    height, width = images.shape[-2:]
    dtype = images.dtype if images.is_floating_point() else torch.float32
    rows = _resize_matrix(windows.top.to(dtype), windows.height.to(dtype), height, size)
    columns = _resize_matrix(windows.left.to(dtype), windows.width.to(dtype), width, size, mirror)
    if images.dtype == torch.uint8:
        rows = rows / 255  # cheaper than scaling the many pixels
    return transform_axes(images.to(dtype), rows, columns).clamp_(0, 1)


def _resize_matrix(start: Tensor, length: Tensor, size_in: int, size_out: int, mirror: Tensor | None = None) -> Tensor:
    """``(B, size_out, size_in)``: each output pixel's weights on the input pixels of ``[start, start + length)``.

    The weights form a triangle around the output pixel's position in the input; if the image shrinks, the triangle
    widens by the same factor (as in Pillow's ``Image.resize`` with BILINEAR and ``interpolate(antialias=True)``).
    """
    pixel = torch.arange(size_in, device=start.device, dtype=start.dtype) + 0.5
    offset = torch.arange(size_out, device=start.device, dtype=start.dtype) + 0.5 - size_out / 2
    start, length = start[:, None, None], length[:, None, None]
    step = length / size_out
    signed_step = step if mirror is None else torch.where(mirror[:, None, None], -step, step)
    center = start + length / 2 + signed_step * offset[:, None]
    weights = (1 - (pixel - center).abs_().div_(step.clamp_min(1))).clamp_(min=0)
    weights *= (pixel > start) & (pixel < start + length)
    return weights.div_(weights.sum(-1, keepdim=True))


def random_resized_crop(
    images: Tensor,
    size: int,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    mirror: float = 0.5,
) -> Tensor:
    """Cuts a random window out of each image, resizes it to ``size``×``size`` and mirrors it with a probability.

    Args:
        images: ``(B, C, H, W)``, uint8 in [0, 255] or floating point in [0, 1].
        size: side of the result, in pixels.
        generator: random generator on the images' device.
        scale: smallest and largest fraction of the image's area.
        ratio: smallest and largest width divided by height.
        mirror: probability of flipping left to right.

    Returns:
        ``(B, C, size, size)`` in [0, 1], float32 or the input's floating type.
    """
    batch, _, height, width = images.shape
    windows = random_windows(batch, height, width, generator, scale=scale, ratio=ratio)
    return resize_windows(images, windows, size, chosen(batch, mirror, generator))
