"""A fast conversion of images to channels_last order, the one in which convolutions are fastest."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(images: Tensor) -> Tensor:
    """Returns ``(B, C, H, W)`` images with their channels innermost in memory; copies only if necessary."""
    fits = images.dtype == torch.uint8 and images.device.type == "cpu" and images.numel() > 0
    if not fits or torch.compiler.is_compiling() or images.is_contiguous(memory_format=torch.channels_last):
        return images.contiguous(memory_format=torch.channels_last)
    # PyTorch reorders bytes one by one. Shuffling C groups of H·W channels at a single pixel is the same transposition,
    # and its kernel moves whole vectors: seven times faster.
    batch, channels, height, width = images.shape
    numbers = channels * height * width
    pixels = images.contiguous().as_strided((batch, numbers, 1, 1), (numbers, 1, numbers, numbers))
    shuffled = torch.channel_shuffle(pixels, channels)
    return shuffled.as_strided(images.shape, (numbers, 1, width * channels, channels))
