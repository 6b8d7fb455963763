"""Square crops of images at integer offsets, without resizing: the part of an observation that the agent sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from curl_rl.encoders.memory_format import channels_last

_TOGETHER = 3 << 19  # bytes of images: well within a core's L2 cache, yet enough to split among threads


def crop(images: Tensor, size: int, top: Tensor, left: Tensor) -> Tensor:
    """Cuts one ``size``×``size`` window out of each image.

    Args:
        images: ``(B, C, H, W)``, any type.
        size: side of the window, in pixels.
        top, left: ``(B,)`` integers, the first row and column of the window in each image.

    Returns:
        ``(B, C, size, size)`` in channels_last order, the fastest for convolutions. All channels of an image share its
        window, so a frame stack keeps its motion.

    Raises:
        ValueError: on a CPU, a window extends beyond its image. On a GPU this check would make the host wait: offsets
            that are too large trigger a device-side assertion later, and negative ones wrap around.
    """
    return _windows(images, size, [(top, left)])[0]


def _windows(images: Tensor, size: int, offsets: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """One window of each image per pair of ``(top, left)``."""
    if images.device.type == "cpu":
        height, width = images.shape[2:]
        for offset, span in [(own, span) for pair in offsets for own, span in zip(pair, (height, width), strict=True)]:
            if ((offset < 0) | (offset > span - size)).any():  # would wrap around, or read the next row or image
                raise ValueError(f"a window of {size}×{size} extends beyond its image of {height}×{width}")
        # Copying whole rows is many times faster than gathering single pixels, but has no gradient. (GPUs are good at
        # gathers; the two were not compared there.)
        if not images.requires_grad:
            return _gather_rows(images, size, offsets)
    return [channels_last(_gather_windows(images, size, top, left)) for top, left in offsets]


def _gather_rows(images: Tensor, size: int, offsets: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    batch, channels, height, width = images.shape
    # A few images at a time, so that all windows of an image are copied while its reordered pixels are in the cache.
    together = max(1, _TOGETHER // max(1, images[:1].nbytes))
    first = [((torch.arange(batch) % together) * height + top) * width + left for top, left in offsets]
    rows = [(of_image[:, None] + torch.arange(size) * width).flatten() for of_image in first]
    windows = [images.new_empty((batch, size, size, channels)) for _ in offsets]
    for begin in range(0, batch, together):
        some = slice(begin, begin + together)
        # A row of pixels with all channels is contiguous in memory; a row of a single channel would be a shorter piece.
        pixels = channels_last(images[some]).permute(0, 2, 3, 1)
        starts = max(len(pixels) * height * width - size + 1, 0)
        every_row = pixels.as_strided((starts, size * channels), (channels, 1))  # size pixels from each on, a view
        for row, window in zip(rows, windows, strict=True):
            its_rows = row[begin * size : (begin + together) * size]
            torch.index_select(every_row, 0, its_rows, out=window[some].view(len(its_rows), size * channels))
    return [window.permute(0, 3, 1, 2) for window in windows]


def _gather_windows(images: Tensor, size: int, top: Tensor, left: Tensor) -> Tensor:
    every_window = images.unfold(2, size, 1).unfold(3, size, 1)  # (B, C, H-size+1, W-size+1, size, size), a view
    return every_window[torch.arange(len(images), device=images.device), :, top, left]


def random_crop(images: Tensor, size: int, generator: torch.Generator, *, every_offset: bool = True) -> Tensor:
    """Cuts a window out of each image at a uniformly random position (CURL, arXiv 2004.04136, section 4.4).

    Args:
        images: ``(B, C, H, W)``, any type.
        size: side of the window, in pixels.
        generator: random generator of the offsets, on the images' device.
        every_offset: draw from all H − size + 1 offsets. False omits the last one, as the released CURL code does.

    Raises:
        ValueError: the window is larger than the image.
    """
    return random_crops(images, size, generator, 1, every_offset=every_offset)[0]


def random_crops(
    images: Tensor, size: int, generator: torch.Generator, count: int, *, every_offset: bool = True
) -> list[Tensor]:
    """``count`` crops of the same images, each drawn as by :func:`random_crop`; on a CPU faster than separate calls."""
    batch, _, height, width = images.shape
    _check_window(size, height, width)

    def draw(span: int) -> Tensor:
        return torch.randint(max(span - size + every_offset, 1), (batch,), generator=generator, device=images.device)

    return _windows(images, size, [(draw(height), draw(width)) for _ in range(count)])


def center_crop(images: Tensor, size: int) -> Tensor:
    """The middle ``size``×``size`` window of ``(..., H, W)`` images; an odd pixel stays at the bottom and the right.

    Raises:
        ValueError: the window is larger than the image.
    """
    height, width = images.shape[-2:]
    _check_window(size, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size]


def _check_window(size: int, height: int, width: int) -> None:
    if not 1 <= size <= min(height, width):
        raise ValueError(f"a crop of {size}×{size} does not fit in an image of {height}×{width}")
