"""The recipe: which augmentations, how strong and how often, turn an image into the views that a method compares.

Nothing is augmented here: the steps are those of :mod:`curl_rl.augment`, put in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from curl_rl.augment import (
    random_augment,
    random_color_jitter,
    random_crop,
    random_gaussian_blur,
    random_greyscale,
    random_resized_crop,
    random_solarise,
)
from curl_rl.objectives import ViewSpec
from curl_rl.ranges import Range, at_least, check_ranges, each, positive, within

# 100 is far beyond any use, and nothing overflows.
_FACTOR = within("[0, 100]", "be from 0 (unchanged) to 100")


def _rising(most: float) -> Range:
    return Range(
        f"be two rising positive numbers, at most {most}",
        lambda pair: each(positive).holds(pair) and len(pair) == 2 and pair[0] <= pair[1] <= most,
    )


@dataclass(frozen=True)
class AugmentConfig:
    """The views of an image. The defaults are SimCLR's for 32×32 images (arXiv 2002.05709, appendix B.9).

    ``blur`` and ``solarise`` may differ from view to view, as BYOL wants: one probability to a view, the last of them
    for all further views. Local views count on after the global ones.
    """

    views: Annotated[int, at_least(1)] = 2
    """Global views: large crops."""
    size: Annotated[int, at_least(2)] = 32
    """Side of a global view, in pixels."""
    crop: Literal["resized", "plain"] = "resized"
    """resized: windows of random area and shape, brought to the view's side. plain: windows of the view's side at
    random whole-pixel places, as the agent cuts them; scale, ratio and mirror are not used then."""
    scale: Annotated[tuple[float, float], _rising(1)] = (0.08, 1.0)
    """Smallest and largest share of the image's area that a global view shows."""
    local_views: Annotated[int, at_least(0)] = 0
    """Local views: small crops beside the global ones (multi-crop, SwAV, arXiv 2006.09882)."""
    local_size: Annotated[int, at_least(2)] = 16
    """Side of a local view, in pixels."""
    local_scale: Annotated[tuple[float, float], _rising(1)] = (0.05, 0.14)
    """Smallest and largest share of the image's area that a local view shows."""
    ratio: Annotated[tuple[float, float], _rising(100)] = (3 / 4, 4 / 3)
    """Smallest and largest width divided by height of what a view shows, before it is made square."""
    mirror: Annotated[float, within("[0, 1]")] = 0.5
    """Probability of flipping left to right."""
    randaugment: Annotated[int, at_least(0)] = 0
    """Operations of RandAugment; 0, none."""
    randaugment_magnitude: Annotated[int, within("[0, 30]")] = 9
    """Their magnitude, 0 to 30."""
    jitter: Annotated[float, within("[0, 1]")] = 0.8
    """Probability of colour jitter."""
    brightness: Annotated[float, _FACTOR] = 0.4
    """Colour jitter: brightness changes by a factor of up to 1 ± this."""
    contrast: Annotated[float, _FACTOR] = 0.4
    """Colour jitter: contrast changes by a factor of up to 1 ± this."""
    saturation: Annotated[float, _FACTOR] = 0.4
    """Colour jitter: saturation changes by a factor of up to 1 ± this."""
    hue: Annotated[float, within("[0, 0.5]", "be between 0 and 0.5 (half the circle)")] = 0.1
    """Colour jitter: hue turns by up to ± this share of the circle, at most 0.5."""
    greyscale: Annotated[float, within("[0, 1]")] = 0.2
    """Probability of greyscale."""
    blur: Annotated[tuple[float, ...], each(within("[0, 1]"))] = (0.0,)
    """Probability of Gaussian blur, for each view."""
    blur_sigma: Annotated[tuple[float, float], _rising(100)] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of the view."""
    blur_kernel: Annotated[float, within("(0, 1]")] = 0.1
    """Side of the blur's kernel as a share of the view's; three pixels at least."""
    solarise: Annotated[tuple[float, ...], each(within("[0, 1]"))] = (0.0,)
    """Probability of solarising, for each view."""
    solarise_threshold: Annotated[float, within("[0, 1]")] = 0.5
    """What is as bright as this or brighter is inverted; 0 to 1."""

    def __post_init__(self) -> None:
        check_ranges(self, "augment")
        for name in ("blur", "solarise"):
            probabilities = getattr(self, name)
            if not 1 <= len(probabilities) <= self.views + self.local_views:
                raise ValueError(
                    f"augment.{name} must name one probability, or one to each of up to "
                    f"{self.views + self.local_views} views, got {list(probabilities)}"
                )


def offset_of(spec: ViewSpec, positive_offset: int) -> int:
    """Agent steps from an observation to the one that a view is made of.

    All views but the first are ``positive_offset`` later than the method asks for.
    """
    return spec.future + (positive_offset if spec.index else 0)


@torch.no_grad()
def make_views(
    images: Tensor,
    config: AugmentConfig,
    generator: torch.Generator,
    specs: Sequence[ViewSpec] | None = None,
    *,
    later: Mapping[int, Tensor] | None = None,
    positive_offset: int = 0,
) -> dict[ViewSpec, Tensor]:
    """Differently augmented copies of every image.

    All frames of a stack are changed alike: they share a window, and the colours of one are turned as those of all.

    Args:
        images: ``(B, C, H, W)`` uint8, of one size, on the device where the views are wanted; C = 3, or 3·S for stacks
            of S frames.
        config: the recipe.
        generator: the source of all random numbers, on the images' device.
        specs: which views, in the order in which they are drawn; those of an index below ``config.views`` are global,
            the others local. None: one of each index, of the images themselves.
        later: of the same shape as the images, what the same places showed so many agent steps later; must have every
            offset of the views (:func:`offset_of`) but 0.
        positive_offset: as in :func:`offset_of`.

    Returns:
        For each view, in that order, ``(B, C, size, size)`` of a global one or ``(B, C, local_size, local_size)`` of a
        local one, float32 in [0, 1], in channels_last order.

    Raises:
        ValueError: the images have another type or shape, or are stacks and the recipe has RandAugment.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.shape[1] or images.shape[1] % 3:
        raise ValueError(
            f"views are made of uint8 images (B, 3, H, W) or stacks of them, got {images.dtype} {tuple(images.shape)}"
        )
    if config.randaugment and images.shape[1] != 3:
        raise ValueError(f"augment.randaugment {config.randaugment} takes single images, not stacks of frames: take 0")
    # Half precision would show in the pixels.
    with torch.autocast(images.device.type, enabled=False):
        if specs is None:
            specs = [ViewSpec(index) for index in range(config.views + config.local_views)]
        moments = {0: images, **(later or {})}
        return {spec: _view(moments[offset_of(spec, positive_offset)], spec.index, config, generator) for spec in specs}


def _view(images: Tensor, index: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    is_global = index < config.views
    size, scale = (config.size, config.scale) if is_global else (config.local_size, config.local_scale)
    if config.crop == "plain":
        view = random_crop(images, size, generator).float().div_(255)
    else:
        view = random_resized_crop(images, size, generator, scale=scale, ratio=config.ratio, mirror=config.mirror)
    if config.randaugment:
        magnitude = config.randaugment_magnitude
        view = random_augment(view, generator, operations=config.randaugment, magnitude=magnitude)
    if config.jitter:
        view = _as_one_image(
            view,
            lambda colours: random_color_jitter(
                colours,
                generator,
                brightness=config.brightness,
                contrast=config.contrast,
                saturation=config.saturation,
                hue=config.hue,
                probability=config.jitter,
            ),
        )
    if config.greyscale:
        view = _as_one_image(view, lambda colours: random_greyscale(colours, generator, probability=config.greyscale))
    if blur := _of_view(config.blur, index):
        radius = max(1, int(size * config.blur_kernel / 2))
        view = random_gaussian_blur(view, generator, radius=radius, sigma=config.blur_sigma, probability=blur)
    if solarise := _of_view(config.solarise, index):
        view = random_solarise(view, generator, probability=solarise, threshold=config.solarise_threshold)
    return view.contiguous(memory_format=torch.channels_last)


def _as_one_image(stacks: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Changes the colours of ``(B, 3·S, H, W)`` stacks with their frames one below the other, ``(B, 3, S·H, W)``.

    So one parameter to an image is one to a stack, and the mean grey that contrast turns about is the whole stack's.
    """
    frames = stacks.shape[1] // 3
    if frames == 1:
        return change(stacks)
    tall = stacks.unflatten(1, (frames, 3)).transpose(1, 2).flatten(2, 3)
    return change(tall).unflatten(2, (frames, -1)).transpose(1, 2).flatten(1, 2)


def _of_view(probabilities: tuple[float, ...], index: int) -> float:
    return probabilities[min(index, len(probabilities) - 1)]
