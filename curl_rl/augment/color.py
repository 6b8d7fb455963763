"""Color: brightness, contrast, saturation, hue, all four in random order, grayscale and solarization.

Images are ``(B, 3, H, W)`` RGB in [0, 1], floating point; results are too. Every image has its own parameters,
``(B,)``. Each operation changes a pixel exactly as in ``torchvision.transforms.functional``.

Brightness, contrast and saturation are one operation with different numbers, ``factor · image + (1 − factor) · other``
clamped to [0, 1], where other is black, the image's mean gray, or each pixel's own gray. Written as a 3×3 matrix and a
shift per image, the operation can differ between the images of a batch, as a random order requires.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curl_rl.augment.draws import chosen, uniform

RED, GREEN, BLUE = 0.2989, 0.587, 0.114  # weights of a pixel's gray: ITU-R BT.601, as torchvision rounds them

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies by ``factor`` ≥ 0, ``(B,)``: 0 gives black, 1 the image itself."""
    return (images * _each_image(factor, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the difference from the image's mean gray by ``factor`` ≥ 0, ``(B,)``: 0 gives that gray, 1 the image."""
    return blend(images, factor, towards_mean=1 - factor, towards_gray=torch.zeros_like(factor))


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the difference from each pixel's gray by ``factor`` ≥ 0, ``(B,)``: 0 gives grayscale, 1 the image."""
    return blend(images, factor, towards_mean=torch.zeros_like(factor), towards_gray=1 - factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotates the hue by ``shift`` in [−0.5, 0.5] turns, ``(B,)``; keeps HSV's value and saturation.

    With V and m a pixel's largest and smallest channel and C = V − m, the hue in sextants has the magnitude
    (G + B − R + V − 2m) / C and the sign of G − B. In each of the six sectors this equals the usual definition, without
    a case distinction (on a CPU, selecting with torch.where costs ten times as much as arithmetic). Back in RGB, a
    channel is m + C · clamp(6d − 1, 0, 1), where d is the distance, on a circle of circumference 1, of the hue from the
    channel's complementary color (cyan for red).
    """
    red, green, blue = images.split(1, dim=1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    smallest = torch.minimum(torch.minimum(red, green), blue)
    chroma = largest - smallest
    size = (green + blue).sub_(red).add_(largest).sub_(smallest, alpha=2)
    sextants = chroma * 6
    # A gray pixel has no hue: its size is 0 whatever the divisor, and 0 is as good a hue as any.
    hue = torch.copysign(size.div_(sextants.clamp_min(torch.finfo(images.dtype).tiny)), green - blue)
    # The complements of red, green and blue are at 1/2, 5/6 and 7/6.
    opposite = torch.arange(3, device=images.device, dtype=images.dtype).view(3, 1, 1) / 3 + 0.5
    turned = hue.add_(_each_image(shift, images)) - opposite
    distance = turned.sub_(turned.round()).abs_()
    # m + C · clamp(6d − 1, 0, 1), with the 6 and the 1 applied to one plane instead of three
    return torch.addcmul(smallest - chroma, sextants, distance.clamp_(1 / 6, 1 / 3)).clamp_(0, 1)


class Jitter(NamedTuple):
    """Parameters of :func:`color_jitter` for each image: ``(B,)`` factors and shift, ``(B, 4)`` order of the steps."""

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    order: Tensor
    """Each row is a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE, first step first."""


def draw_jitter(
    batch: int,
    generator: torch.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    probability: float = 1.0,
) -> Jitter:
    """Factors uniform on [max(0, 1 − strength), 1 + strength], hue on [−hue, hue], all orders equally likely.

    These are the distributions of torchvision's ``ColorJitter``, except that every image has its own order. An image
    left unchanged (with probability 1 − ``probability``) has factors 1 and shift 0.
    """
    alone = ~chosen(batch, probability, generator)
    brightness_factor, contrast_factor, saturation_factor = (
        uniform(batch, max(0.0, 1 - strength), 1 + strength, generator).masked_fill_(alone, 1)
        for strength in (brightness, contrast, saturation)
    )
    shift = uniform(batch, -hue, hue, generator).masked_fill_(alone, 0)
    order = torch.rand(batch, 4, generator=generator, device=generator.device).argsort(1)
    return Jitter(brightness_factor, contrast_factor, saturation_factor, shift, order)


def color_jitter(images: Tensor, jitter: Jitter) -> Tensor:
    """Changes brightness, contrast, saturation and hue one after the other, in each image's own order.

    Hue is expensive, so it is changed once for all images, between the steps that precede it in each image's order and
    those that follow it. A step that an image does not have at that place leaves the image unchanged.
    """
    order = jitter.order
    before = torch.arange(4, device=order.device) < (order == HUE).int().argmax(1, keepdim=True)
    after = ~before  # includes hue's own place, where the factor is 1
    factors = torch.stack([*jitter[:3], torch.ones_like(jitter.hue)], 1).gather(1, order).to(images.dtype)

    def steps(images: Tensor, active: Tensor, places: range) -> Tensor:
        factor = torch.where(active, factors, 1)
        away = 1 - factor
        matrix, mean_weights = _blend_weights(factor, away * (order == CONTRAST), away * (order == SATURATION))
        pixels = images.flatten(2)
        for place in places:
            pixels = _blend_pixels(pixels, matrix[:, place], mean_weights[:, place])
        return pixels.view_as(images)

    images = steps(images, before, range(3))
    images = adjust_hue(images, jitter.hue)
    return steps(images, after, range(1, 4))


def random_color_jitter(
    images: Tensor,
    generator: torch.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    probability: float = 1.0,
) -> Tensor:
    """Color jitter of each image (SimCLR, arXiv 2002.05709, appendix A); parameters as for :func:`draw_jitter`."""
    jitter = draw_jitter(
        len(images),
        generator,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        probability=probability,
    )
    return color_jitter(images, jitter)


def random_grayscale(images: Tensor, generator: torch.Generator, *, probability: float) -> Tensor:
    """Turns each image gray, with a probability; keeps three channels."""
    colored = ~chosen(len(images), probability, generator)
    return adjust_saturation(images, colored.to(images.dtype))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts values of at least the ``(B,)`` threshold; a threshold above 1 changes nothing."""
    inverted = (images >= _each_image(threshold, images)).to(images.dtype)
    return torch.lerp(images, 1 - images, inverted)


def random_solarize(
    images: Tensor, generator: torch.Generator, *, probability: float, threshold: float = 0.5
) -> Tensor:
    """Solarizes each image with a probability (BYOL, arXiv 2006.07733, appendix B)."""
    left_alone = ~chosen(len(images), probability, generator)
    return solarize(images, left_alone.to(images.dtype) * 2 + threshold)


def _each_image(parameter: Tensor, images: Tensor) -> Tensor:
    return parameter.to(images.dtype).view(-1, 1, 1, 1)


def blend(images: Tensor, factor: Tensor, towards_mean: Tensor, towards_gray: Tensor) -> Tensor:
    """``factor · image + towards_mean · mean gray + towards_gray · gray``, clamped to [0, 1]; parameters ``(B,)``.

    The operation behind brightness, contrast and saturation, for callers that mix them within one batch.
    """
    weights = _blend_weights(*(parameter.to(images.dtype) for parameter in (factor, towards_mean, towards_gray)))
    return _blend_pixels(images.flatten(2), *weights).view_as(images)


def _blend_weights(factor: Tensor, towards_mean: Tensor, towards_gray: Tensor) -> tuple[Tensor, Tensor]:
    """A blend as weights of a pixel's channels, ``(..., 3, 3)``, and of the mean pixel's, ``(..., 1, 3)``."""
    # Filled in on the device: a tensor built from a list would be copied there from the host.
    gray = torch.stack([factor.new_full((), weight) for weight in (RED, GREEN, BLUE)])
    identity = torch.eye(3, device=factor.device, dtype=factor.dtype)
    factor, towards_mean, towards_gray = (
        parameter[..., None, None] for parameter in (factor, towards_mean, towards_gray)
    )
    return factor * identity + towards_gray * gray, towards_mean * gray


def _blend_pixels(pixels: Tensor, matrix: Tensor, mean_weights: Tensor) -> Tensor:
    shift = mean_weights @ pixels.mean(2, keepdim=True)
    return torch.baddbmm(shift, matrix, pixels).clamp_(0, 1)
