"""Square windows of images at whole-pixel places, not resized: what the agent sees of an observation."""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.memory_format import channels_last


def crop(images: Tensor, size: int, top: Tensor, left: Tensor) -> Tensor:
    """One ``size``×``size`` window of each image.

    Args:
        images: ``(B, C, H, W)``, any type.
        size: side of the window, in pixels.
        top, left: ``(B,)`` integers, the window's first row and column in each image.

    Returns:
        ``(B, C, size, size)`` in channels_last order, which convolutions like. All channels of an image share its
        window, so a frame stack keeps its motion.

    Raises:
        ValueError: on a CPU, a window that is not inside its image. (A GPU checks its own indices, and later.)
    """
    # On a CPU, copies of whole rows are many times faster than a gather of single pixels; on a GPU they are not, nor
    # where a gradient would be scattered back.
    if images.device.type == "cpu" and not images.requires_grad:
        return _gather_rows(images, size, top, left)
    return channels_last(_gather_windows(images, size, top, left))


def _gather_rows(images: Tensor, size: int, top: Tensor, left: Tensor) -> Tensor:
    batch, channels, height, width = images.shape
    for offset, span in ((top, height), (left, width)):
        if ((offset < 0) | (offset > span - size)).any():  # it would read the next row, or the next image
            raise ValueError(f"a window of {size}×{size} leaves its image of {height}×{width}")
    # A row of pixels with all of their channels is one piece of memory; one of a single channel would be a short one.
    pixels = channels_last(images).permute(0, 2, 3, 1)
    starts = max(batch * height * width - size + 1, 0)
    every_row = pixels.as_strided((starts, size * channels), (channels, 1))  # size pixels from each pixel on, a view
    first = (torch.arange(batch) * height + top) * width + left
    rows = first[:, None] + torch.arange(size) * width
    return every_row.index_select(0, rows.flatten()).view(batch, size, size, channels).permute(0, 3, 1, 2)


def _gather_windows(images: Tensor, size: int, top: Tensor, left: Tensor) -> Tensor:
    every_window = images.unfold(2, size, 1).unfold(3, size, 1)  # (B, C, H-size+1, W-size+1, size, size), a view
    return every_window[torch.arange(len(images), device=images.device), :, top, left]


def random_crop(images: Tensor, size: int, generator: torch.Generator, *, every_offset: bool = True) -> Tensor:
    """A window of each image at a uniformly drawn place (CURL, arXiv 2004.04136, section 4.4).

    Args:
        images: ``(B, C, H, W)``, any type.
        size: side of the window.
        generator: the source of the offsets, on the images' device.
        every_offset: draw from all H − size + 1 offsets. False leaves the last one out, as the released CURL code does.

    Raises:
        ValueError: the window is larger than the image.
    """
    batch, _, height, width = images.shape
    _check_window(size, height, width)
    top, left = (
        torch.randint(max(span - size + every_offset, 1), (batch,), generator=generator, device=images.device)
        for span in (height, width)
    )
    return crop(images, size, top, left)


def center_crop(images: Tensor, size: int) -> Tensor:
    """The middle ``size``×``size`` window of ``(..., H, W)`` images; the odd pixel is left at the bottom and the right.

    Raises:
        ValueError: the window is larger than the image.
    """
    height, width = images.shape[-2:]
    _check_window(size, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size]


def _check_window(size: int, height: int, width: int) -> None:
    if not 1 <= size <= min(height, width):
        raise ValueError(f"a crop of {size}×{size} does not fit into an image of {height}×{width}")
