"""Scenes: cut-outs pasted on a background, with the exact boxes of what is in them.

A scene depends on the cut-outs, the settings, the run's seed and its number alone, so none is ever stored, and a stored
number is as good as a stored image.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from curl_rl.installation import installation_of
from curl_rl.ranges import at_least, check_ranges, within
from curl_rl.runs.errors import UserError
from curl_rl.runs.seeds import Purpose, derived_seed
from curl_rl.vision.detection.cutouts import Cutouts
from curl_rl.vision.detection.sampling import Truth

Background = Literal["photographs", "plain"]

_MOST_COVERED = 0.2  # share of an object that a later one may hide, by their boxes
_TRIES = 10
_ALPHA_OF_OBJECT = 128


@dataclass(frozen=True)
class ScenesConfig:
    """What a scene looks like."""

    size: Annotated[int, within("[32, 1024]", "be from 32 to 1024")] = 96
    """Height and width in pixels."""
    most: Annotated[int, at_least(1)] = 4
    """Objects in a scene, at most; at least one."""
    smallest: Annotated[int, at_least(8)] = 24
    """Longer side of the smallest objects, in pixels."""
    largest: Annotated[int, at_least(8)] = 44
    """Longer side of the largest."""
    taught: Annotated[float, within("[0, 1]")] = 0.6
    """Probability that an object of a training scene, besides the first, is of the classes that the task teaches. The
    others are there without a word about them, as in ordinary photographs."""
    background: Background = "photographs"
    """photographs: crops of scikit-learn's two, and plain ones. plain: gradients and noise."""

    def __post_init__(self) -> None:
        check_ranges(self, "scenes")
        if not self.smallest <= self.largest <= self.size:
            raise ValueError(
                f"scenes.smallest, largest and size must not decrease, got {self.smallest}, {self.largest}, {self.size}"
            )


class Scenes(NamedTuple):
    """A batch of scenes."""

    images: Tensor
    """``(B, 3, S, S)`` uint8."""
    truth: Truth
    """All objects, annotated or not, with the cut-outs' classes as labels."""

    def to(self, device: torch.device) -> Scenes:
        """The scenes on a device."""
        return Scenes(self.images.to(device), Truth(*(part.to(device) for part in self.truth)))


def draw_scenes(
    cutouts: Cutouts,
    config: ScenesConfig,
    numbers: Sequence[int],
    *,
    seed: int,
    purpose: Purpose,
    taught: Sequence[int] = (),
) -> Scenes:
    """Makes the scenes of these numbers.

    Args:
        cutouts: what to paste.
        config: what scenes look like.
        numbers: any numbers, one for each scene.
        seed: the run's.
        purpose: keeps training and test scenes apart.
        taught: classes of a training task: the first object is of these, the others with the probability
            ``config.taught``. Empty: every class is equally likely.
    """
    images = np.empty((len(numbers), config.size, config.size, 3), np.uint8)
    boxes = torch.zeros(len(numbers), config.most, 4)
    labels = torch.full((len(numbers), config.most), -1)
    everything, chosen = range(len(cutouts.classes)), set(taught)
    others = [label for label in everything if label not in chosen]
    for index, number in enumerate(numbers):
        rng = np.random.default_rng(derived_seed(seed, purpose, number))
        canvas = Image.fromarray(_background(config, rng))
        placed: list[tuple[int, int, int, int]] = []
        for count in range(int(rng.integers(1, config.most + 1))):
            of_task = bool(taught) and (count == 0 or rng.random() < config.taught or not others)
            label = int(rng.choice(list(taught) if of_task else others if taught else list(everything)))
            picture = _varied(cutouts, label, config, rng)
            if (place := _place(picture.size, config.size, placed, rng)) is None:
                continue
            canvas.paste(picture, place, picture)
            box = _box_of(picture, place)
            boxes[index, len(placed)] = torch.tensor(box, dtype=torch.float32)
            labels[index, len(placed)] = label
            placed.append(box)
        images[index] = np.asarray(canvas)
    return Scenes(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), Truth(boxes, labels))


def check_backgrounds(config: ScenesConfig) -> None:
    """Refuses photographs without scikit-learn.

    Raises:
        UserError: it is not installed.
    """
    if config.background == "photographs":
        _photographs()


# --------------------------------------------------------------------------- objects


def _varied(cutouts: Cutouts, label: int, config: ScenesConfig, rng: np.random.Generator) -> Image.Image:
    """A cut-out of a class in a random size, color or brightness, and perhaps mirrored."""
    pictures = cutouts.pictures[label]
    picture = pictures[int(rng.integers(len(pictures)))]
    side = rng.integers(config.smallest, config.largest + 1)
    scale = side / max(picture.size)
    width, height = (max(2, round(length * scale)) for length in picture.size)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).astype(np.float32)
    color = rng.uniform(0.2, 1, 3) if cutouts.drawings else rng.uniform(0.7, 1.3) * np.ones(3)
    pixels[..., :3] *= color
    if not cutouts.drawings and rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return Image.fromarray(np.ascontiguousarray(pixels.clip(0, 255).astype(np.uint8)))


def _place(
    size: tuple[int, int], side: int, placed: Sequence[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int] | None:
    """A corner at which the picture hides little of what is there, and is hidden little by its neighbors' boxes."""
    width, height = size
    for _ in range(_TRIES):
        x, y = int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1))
        shares = []
        for left, top, right, bottom in placed:
            shared = max(min(right, x + width) - max(left, x), 0) * max(min(bottom, y + height) - max(top, y), 0)
            shares.append(shared / min((right - left) * (bottom - top), width * height))
        if max(shares, default=0) <= _MOST_COVERED:
            return x, y
    return None


def _box_of(picture: Image.Image, place: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of the picture's visible pixels in the scene."""
    visible = np.asarray(picture)[..., 3] >= _ALPHA_OF_OBJECT
    if not visible.any():  # strokes so thin that none is half opaque
        visible[:] = True
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    x, y = place
    return x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1


# ----------------------------------------------------------------------- backgrounds


@functools.cache
def _photographs() -> tuple[Image.Image, ...]:
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise UserError(
            f"scenes.background photographs needs scikit-learn: {installation_of('vision')}, or take plain"
        ) from None
    return tuple(Image.fromarray(pixels) for pixels in load_sample_images().images)


def _background(config: ScenesConfig, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    if config.background == "photographs" and rng.random() < 0.75:
        photographs = _photographs()
        whole = photographs[int(rng.integers(len(photographs)))]
        side = int(rng.integers(min(config.size, min(whole.size)), min(whole.size) + 1))
        x, y = (int(rng.integers(length - side + 1)) for length in whole.size)
        crop = whole.resize((config.size, config.size), Image.Resampling.BILINEAR, (x, y, x + side, y + side))
        pixels = np.asarray(crop).astype(np.float32) * rng.uniform(0.5, 1.2)
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
    else:
        ramp = np.linspace(0, 1, config.size, dtype=np.float32)
        across, down = (rng.uniform(-80, 80, 3).astype(np.float32) for _ in range(2))
        pixels = rng.uniform(40, 215, 3).astype(np.float32) + ramp[:, None] * across + ramp[:, None, None] * down
        pixels = pixels + rng.normal(size=pixels.shape).astype(np.float32) * rng.uniform(0, 20)
    return pixels.clip(0, 255).astype(np.uint8)
