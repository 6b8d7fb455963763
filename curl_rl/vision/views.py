"""The augmentation recipe that turns an image into the views a method compares.

It chains the augmentations of :mod:`curl_rl.augment` in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor

from curl_rl.augment import (
    auto_augment,
    pba,
    population_augment,
    random_augment,
    random_color_jitter,
    random_crop,
    random_gaussian_blur,
    random_grayscale,
    random_resized_crop,
    random_solarize,
)
from curl_rl.augment.autoaugment import LearnedOn
from curl_rl.objectives import ViewSpec
from curl_rl.ranges import Range, at_least, check_ranges, each, positive, within

# 100 is far beyond any use and still does not overflow.
_FACTOR = within("[0, 100]", "be from 0 (unchanged) to 100")


def _rising(most: float) -> Range:
    return Range(
        f"be two rising positive numbers, at most {most}",
        lambda pair: each(positive).holds(pair) and len(pair) == 2 and pair[0] <= pair[1] <= most,
    )


PolicyName = Literal["none", "randaugment", "autoaugment", "pba"]


@dataclass(frozen=True)
class AugmentConfig:
    """The views of an image. The defaults are SimCLR's for 32×32 images (arXiv 2002.05709, appendix B.9).

    ``blur`` and ``solarise`` may differ between views, as in BYOL: one probability per view, the last one for all
    further views. Local views are numbered after the global ones.
    """

    views: Annotated[int, at_least(1)] = 2
    """Global views: large crops."""
    size: Annotated[int, at_least(2)] = 32
    """Side of a global view, in pixels."""
    crop: Literal["resized", "plain"] = "resized"
    """resized: windows of random area and aspect ratio, resized to the view. plain: windows of the view's size at
    random whole-pixel positions, as in the agent; ignores scale, ratio and mirror."""
    scale: Annotated[tuple[float, float], _rising(1)] = (0.08, 1.0)
    """Smallest and largest share of the image's area that a global view shows."""
    local_views: Annotated[int, at_least(0)] = 0
    """Local views: small crops in addition to the global ones (multi-crop, SwAV, arXiv 2006.09882)."""
    local_size: Annotated[int, at_least(2)] = 16
    """Side of a local view, in pixels."""
    local_scale: Annotated[tuple[float, float], _rising(1)] = (0.05, 0.14)
    """Smallest and largest share of the image's area that a local view shows."""
    ratio: Annotated[tuple[float, float], _rising(100)] = (3 / 4, 4 / 3)
    """Smallest and largest aspect ratio (width / height) of a view's window, before it is resized to a square."""
    mirror: Annotated[float, within("[0, 1]")] = 0.5
    """Probability of a horizontal flip."""
    mirror_together: bool = False
    """Flip all views of an image or none, for methods that compare places (AMDIM). false: each view by itself."""
    policy: PolicyName = "none"
    """Operations on each view after its crop (docs/augmentation.md). randaugment: drawn from a list, at one magnitude.
    autoaugment: pairs that were learned on a set of images. pba: with probabilities and levels of a schedule."""
    autoaugment: LearnedOn = "cifar10"
    """Images that AutoAugment's pairs were learned on: cifar10, imagenet or svhn."""
    randaugment: Annotated[int, at_least(0)] = 0
    """RandAugment operations per view; 0: two with policy randaugment, else none. A number alone also chooses it."""
    randaugment_magnitude: Annotated[int, within("[0, 30]")] = 9
    """Magnitude of the RandAugment operations, 0 to 30."""
    schedule: Path | None = None
    """File of the schedule of policy pba, such as scripts/search_augmentation.py writes."""
    schedule_sha256: str | None = None
    """Hash of that schedule; recorded by the run, and checked if given."""
    jitter: Annotated[float, within("[0, 1]")] = 0.8
    """Probability of color jitter."""
    brightness: Annotated[float, _FACTOR] = 0.4
    """Color jitter: brightness changes by a factor of up to 1 ± this."""
    contrast: Annotated[float, _FACTOR] = 0.4
    """Color jitter: contrast changes by a factor of up to 1 ± this."""
    saturation: Annotated[float, _FACTOR] = 0.4
    """Color jitter: saturation changes by a factor of up to 1 ± this."""
    hue: Annotated[float, within("[0, 0.5]", "be between 0 and 0.5 (half the circle)")] = 0.1
    """Color jitter: hue rotates by up to ± this share of the circle, at most 0.5."""
    greyscale: Annotated[float, within("[0, 1]")] = 0.2
    """Probability of converting to grayscale."""
    blur: Annotated[tuple[float, ...], each(within("[0, 1]"))] = (0.0,)
    """Probability of Gaussian blur, for each view."""
    blur_sigma: Annotated[tuple[float, float], _rising(100)] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of the view."""
    blur_kernel: Annotated[float, within("(0, 1]")] = 0.1
    """Side of the blur's kernel as a share of the view's side; at least three pixels."""
    solarise: Annotated[tuple[float, ...], each(within("[0, 1]"))] = (0.0,)
    """Probability of solarization, for each view."""
    solarise_threshold: Annotated[float, within("[0, 1]")] = 0.5
    """Solarization inverts values at or above this; 0 to 1."""

    def __post_init__(self) -> None:
        check_ranges(self, "augment")
        if self.randaugment and self.policy not in ("none", "randaugment"):
            raise ValueError(
                f"augment.randaugment must be 0 with augment.policy {self.policy}, got {self.randaugment}: choose one"
            )
        if (self.policy == "pba") != (self.schedule is not None):
            raise ValueError(
                f"augment.schedule must be a file with augment.policy pba and unset otherwise, got {self.schedule} "
                f"with policy {self.policy}: scripts/search_augmentation.py writes one"
            )
        if self.schedule_sha256 is not None and self.schedule is None:
            raise ValueError("augment.schedule_sha256 is the hash of augment.schedule, which is not set")
        for name in ("blur", "solarise"):
            probabilities = getattr(self, name)
            if not 1 <= len(probabilities) <= self.views + self.local_views:
                raise ValueError(
                    f"augment.{name} must be one probability, or one for each of up to "
                    f"{self.views + self.local_views} views, got {list(probabilities)}"
                )

    @property
    def chosen_policy(self) -> PolicyName:
        """The policy, also where runs from before it had a name ask for it by a number of operations."""
        return "randaugment" if self.randaugment else self.policy


def refusal_of_stacks(config: AugmentConfig) -> str:
    """Why the recipe does not take stacks of frames, as a message; empty if it does."""
    if (policy := config.chosen_policy) == "none":
        return ""
    setting = f"augment.randaugment {config.randaugment}" if config.randaugment else f"augment.policy {policy}"
    off = "0" if config.randaugment else "none"
    return f"{setting} takes single images, not stacks of frames: set it to {off}"


def offset_of(spec: ViewSpec, positive_offset: int) -> int:
    """Agent steps from an observation to the one a view shows.

    ``positive_offset`` is added for every view but the first.
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
    policy: pba.Policy | None = None,
) -> dict[ViewSpec, Tensor]:
    """Makes randomly augmented views of every image.

    All frames of a stack are augmented identically: they share the window and the color changes.

    Args:
        images: ``(B, C, H, W)`` uint8, on the device of the views; C = 3, or 3·S for stacks of S frames.
        config: the recipe.
        generator: the source of all random numbers, on the images' device.
        specs: the views to make, in the order they are drawn; those with an index below ``config.views`` are global,
            the others local. None: one per index, of the images themselves.
        later: later observations by number of agent steps, each of the images' shape; must have every offset of the
            views (:func:`offset_of`) except 0.
        positive_offset: as in :func:`offset_of`.
        policy: that of the schedule at this time, if ``config.policy`` is pba.

    Returns:
        The views in that order, ``(B, C, size, size)`` for global and ``(B, C, local_size, local_size)`` for local
        ones, float32 in [0, 1], in channels_last memory format.

    Raises:
        ValueError: the images have another dtype or shape, or are stacks and the recipe has a policy; or the
            schedule's policy is missing.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.shape[1] or images.shape[1] % 3:
        raise ValueError(
            f"images must be (B, 3, H, W) uint8, or stacks of such, got {tuple(images.shape)} {images.dtype}"
        )
    if images.shape[1] != 3 and (reason := refusal_of_stacks(config)):
        raise ValueError(reason)
    if config.policy == "pba" and policy is None:
        raise ValueError("policy must be that of the schedule with augment.policy pba, got None")
    # Half precision would visibly degrade the pixels.
    with torch.autocast(images.device.type, enabled=False):
        if specs is None:
            specs = [ViewSpec(index) for index in range(config.views + config.local_views)]
        moments = {0: images, **(later or {})}
        if config.mirror_together and config.crop == "resized":
            flip = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < config.mirror
            moments = {offset: torch.where(flip, frames.flip(-1), frames) for offset, frames in moments.items()}
        return {
            spec: _view(moments[offset_of(spec, positive_offset)], spec.index, config, generator, policy)
            for spec in specs
        }


def _view(
    images: Tensor, index: int, config: AugmentConfig, generator: torch.Generator, scheduled: pba.Policy | None
) -> Tensor:
    is_global = index < config.views
    size, scale = (config.size, config.scale) if is_global else (config.local_size, config.local_scale)
    if config.crop == "plain":
        view = random_crop(images, size, generator).float().div_(255)
    else:
        mirror = 0.0 if config.mirror_together else config.mirror
        view = random_resized_crop(images, size, generator, scale=scale, ratio=config.ratio, mirror=mirror)
    if (policy := config.chosen_policy) == "randaugment":
        magnitude = config.randaugment_magnitude
        view = random_augment(view, generator, operations=config.randaugment or 2, magnitude=magnitude)
    elif policy == "autoaugment":
        view = auto_augment(view, generator, policy=config.autoaugment)
    elif policy == "pba" and scheduled is not None:
        view = population_augment(view, generator, policy=scheduled)
    if config.jitter:
        view = _as_one_image(
            view,
            lambda colors: random_color_jitter(
                colors,
                generator,
                brightness=config.brightness,
                contrast=config.contrast,
                saturation=config.saturation,
                hue=config.hue,
                probability=config.jitter,
            ),
        )
    if config.greyscale:
        view = _as_one_image(view, lambda colors: random_grayscale(colors, generator, probability=config.greyscale))
    if blur := _of_view(config.blur, index):
        radius = max(1, int(size * config.blur_kernel / 2))
        view = random_gaussian_blur(view, generator, radius=radius, sigma=config.blur_sigma, probability=blur)
    if solarise := _of_view(config.solarise, index):
        view = random_solarize(view, generator, probability=solarise, threshold=config.solarise_threshold)
    return view.contiguous(memory_format=torch.channels_last)


def _as_one_image(stacks: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies a color change to ``(B, 3·S, H, W)`` stacks with their frames stacked vertically, ``(B, 3, S·H, W)``.

    All frames of a stack then share one parameter and, for contrast, one mean gray level.
    """
    frames = stacks.shape[1] // 3
    if frames == 1:
        return change(stacks)
    tall = stacks.unflatten(1, (frames, 3)).transpose(1, 2).flatten(2, 3)
    return change(tall).unflatten(2, (frames, -1)).transpose(1, 2).flatten(1, 2)


def _of_view(probabilities: tuple[float, ...], index: int) -> float:
    return probabilities[min(index, len(probabilities) - 1)]
