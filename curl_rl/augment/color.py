"""Colour: brightness, contrast, saturation, hue, all four in random order, greyscale and solarising.

Images are ``(B, 3, H, W)`` RGB in [0, 1], floating point; results are too. Every image has a parameter of its own,
``(B,)``. What each operation does to a pixel is what ``torchvision.transforms.functional`` does to it.

Brightness, contrast and saturation are one operation with different numbers, ``factor · image + (1 − factor) · other``
clamped to [0, 1], where other is black, the image's mean grey, or each pixel's own grey. As a 3×3 matrix and a shift
for each image they can differ from image to image within a batch, which is what a random order needs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curl_rl.augment.draws import chosen, uniform

RED, GREEN, BLUE = 0.2989, 0.587, 0.114  # weights of a pixel's grey, as torchvision rounds ITU-R BT.601's

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Times ``factor`` ≥ 0, ``(B,)``: 0 is black, 1 the image itself."""
    return (images * _each_image(factor, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Away from the image's mean grey by ``factor`` ≥ 0, ``(B,)``: 0 is that grey, 1 the image itself."""
    return blend(images, factor, towards_mean=1 - factor, towards_gray=torch.zeros_like(factor))


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Away from each pixel's grey by ``factor`` ≥ 0, ``(B,)``: 0 is greyscale, 1 the image itself."""
    return blend(images, factor, towards_mean=torch.zeros_like(factor), towards_gray=1 - factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue by ``shift`` in [−0.5, 0.5], ``(B,)``, a share of the circle; HSV's value and saturation stay.

    With V and m a pixel's largest and smallest channel and C = V − m, the hue in sextants has the size
    (G + B − R + V − 2m) / C and the sign of G − B: in each of the six sectors this is the usual definition, and it
    needs no case distinction (on a CPU, selecting with torch.where costs ten times as much as arithmetic). Back to RGB,
    a channel is m + C · clamp(6d − 1, 0, 1), where d is how far, on a circle of circumference 1, the hue lies from the
    channel's opposite colour (cyan for red).
    """
    red, green, blue = images.split(1, dim=1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    smallest = torch.minimum(torch.minimum(red, green), blue)
    chroma = largest - smallest
    size = (green + blue).sub_(red).add_(largest).sub_(smallest, alpha=2)
    sextants = chroma * 6
    # A grey pixel has no hue, and so has size 0: whatever it is divided by, 0 is as good as any.
    hue = torch.copysign(size.div_(sextants.clamp_min(torch.finfo(images.dtype).tiny)), green - blue)
    # The opposites of red, green and blue lie at 1/2, 5/6 and 7/6.
    opposite = torch.arange(3, device=images.device, dtype=images.dtype).view(3, 1, 1) / 3 + 0.5
    turned = hue.add_(_each_image(shift, images)) - opposite
    distance = turned.sub_(turned.round()).abs_()
    # m + C · clamp(6d − 1, 0, 1), with the factor 6 and the 1 where there is one plane instead of three
    return torch.addcmul(smallest - chroma, sextants, distance.clamp_(1 / 6, 1 / 3)).clamp_(0, 1)


class Jitter(NamedTuple):
    """What :func:`color_jitter` does to each image: ``(B,)`` factors and shift, and a ``(B, 4)`` order of the steps."""

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    order: Tensor
    """Each row a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE, the first one first."""


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

    These are the distributions of torchvision's ``ColorJitter``, but that every image has an order of its own. An image
    that is left alone (with 1 − ``probability``) has factors 1 and shift 0.
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
    """Brightness, contrast, saturation and hue, changed one after the other in each image's own order.

    Hue is the costly one, so it is done once for all images: what stands before it in an image's order is done before,
    what stands after it after, and where another image has a step the image rests.
    """
    order = jitter.order
    before = torch.arange(4, device=order.device) < (order == HUE).int().argmax(1, keepdim=True)
    after = ~before  # hue's own place among them, where the factor is 1
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
    """Colour jitter of each image (SimCLR, arXiv 2002.05709, appendix A); parameters as of :func:`draw_jitter`."""
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
    """Each image's grey in all three channels, with a probability."""
    colored = ~chosen(len(images), probability, generator)
    return adjust_saturation(images, colored.to(images.dtype))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts what is as bright as the ``(B,)`` threshold or brighter; a threshold above 1 changes nothing."""
    inverted = (images >= _each_image(threshold, images)).to(images.dtype)
    return torch.lerp(images, 1 - images, inverted)


def random_solarize(
    images: Tensor, generator: torch.Generator, *, probability: float, threshold: float = 0.5
) -> Tensor:
    """Solarising of each image with a probability (BYOL, arXiv 2006.07733, appendix B)."""
    left_alone = ~chosen(len(images), probability, generator)
    return solarize(images, left_alone.to(images.dtype) * 2 + threshold)


def _each_image(parameter: Tensor, images: Tensor) -> Tensor:
    return parameter.to(images.dtype).view(-1, 1, 1, 1)


def blend(images: Tensor, factor: Tensor, towards_mean: Tensor, towards_gray: Tensor) -> Tensor:
    """``factor · image + towards_mean · mean grey + towards_gray · grey``, clamped to [0, 1]; parameters ``(B,)``.

    The step that brightness, contrast and saturation are made of, for those who mix them within one batch.
    """
    weights = _blend_weights(*(parameter.to(images.dtype) for parameter in (factor, towards_mean, towards_gray)))
    return _blend_pixels(images.flatten(2), *weights).view_as(images)


def _blend_weights(factor: Tensor, towards_mean: Tensor, towards_gray: Tensor) -> tuple[Tensor, Tensor]:
    """A blend as weights of a pixel's channels, ``(..., 3, 3)``, and of the mean pixel's, ``(..., 1, 3)``."""
    # Numbers written on the device: a tensor made from a list would be copied there from the host.
    gray = torch.stack([factor.new_full((), weight) for weight in (RED, GREEN, BLUE)])
    identity = torch.eye(3, device=factor.device, dtype=factor.dtype)
    factor, towards_mean, towards_gray = (
        parameter[..., None, None] for parameter in (factor, towards_mean, towards_gray)
    )
    return factor * identity + towards_gray * gray, towards_mean * gray


def _blend_pixels(pixels: Tensor, matrix: Tensor, mean_weights: Tensor) -> Tensor:
    shift = mean_weights @ pixels.mean(2, keepdim=True)
    return torch.baddbmm(shift, matrix, pixels).clamp_(0, 1)
