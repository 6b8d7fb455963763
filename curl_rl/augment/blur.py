"""Gaussian blur with a separate width for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from curl_rl.augment.draws import chosen, uniform
from curl_rl.augment.separable import transform_axes


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Convolves with a Gaussian that is truncated at ``radius`` and normalized; borders are reflected.

    Equals ``torchvision.transforms.functional.gaussian_blur`` with a kernel of ``2 · radius + 1`` pixels.

    Args:
        images: ``(B, C, H, W)``, floating point in [0, 1].
        sigma: ``(B,)`` standard deviations, in pixels; 0 leaves the image unchanged.
        radius: extent of the kernel to either side, in pixels.

    Raises:
        ValueError: the radius is not smaller than the image, so there is nothing to reflect.
    """
    height, width = images.shape[-2:]
    if not 0 <= radius < min(height, width):
        raise ValueError(f"images must be larger than the blur's radius of {radius}, got {height}×{width}")
    distance = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    # A thousandth of a pixel does not blur at all: every weight except the middle one is exactly 0.
    kernel = (distance / sigma.to(images.dtype).clamp_min(1e-3)[:, None]).square().mul_(-0.5).exp_()
    # Subnormal numbers would make the products many times slower and change no pixel.
    kernel.masked_fill_(kernel < 1e-9, 0)
    kernel = kernel / kernel.sum(1, keepdim=True)
    return transform_axes(images, _blur_matrix(kernel, height), _blur_matrix(kernel, width)).clamp_(0, 1)


def _blur_matrix(kernel: Tensor, size: int) -> Tensor:
    """``(B, size, size)``: convolves a line of pixels, reflected at its ends, with ``(B, 2 · radius + 1)`` kernels."""
    radius = kernel.shape[1] // 2
    pixel = torch.arange(size, device=kernel.device)
    source = pixel + torch.arange(-radius, radius + 1, device=kernel.device)[:, None]
    source = (size - 1) - (source.abs() - (size - 1)).abs()  # reflected, the pixel at the end not repeated
    taps = (source[..., None] == pixel).to(kernel.dtype)  # (2 · radius + 1, size, size): where each tap reads
    return (kernel @ taps.flatten(1)).unflatten(1, (size, size))


def random_gaussian_blur(
    images: Tensor, generator: torch.Generator, *, radius: int, sigma: tuple[float, float], probability: float
) -> Tensor:
    """Blurs each image with a probability and a uniform sigma (SimCLR, arXiv 2002.05709, appendix A)."""
    applied = chosen(len(images), probability, generator)
    return gaussian_blur(images, uniform(len(images), *sigma, generator) * applied, radius)
