"""Images in channels_last order, which convolutions like: a copy, made as fast as the device can."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(images: Tensor) -> Tensor:
    """The same ``(B, C, H, W)`` images, their channels innermost in memory; themselves where they lie so already."""
    fits = images.dtype == torch.uint8 and images.device.type == "cpu" and images.numel() > 0
    if not fits or torch.compiler.is_compiling() or images.is_contiguous(memory_format=torch.channels_last):
        return images.contiguous(memory_format=torch.channels_last)
    # PyTorch copies bytes in another order one by one. Shuffling C groups of H·W channels at a single pixel is the same
    # transposition, and has a kernel that moves whole vectors: seven times faster.
    batch, channels, height, width = images.shape
    numbers = channels * height * width
    pixels = images.contiguous().as_strided((batch, numbers, 1, 1), (numbers, 1, numbers, numbers))
    shuffled = torch.channel_shuffle(pixels, channels)
    return shuffled.as_strided(images.shape, (numbers, 1, width * channels, channels))
