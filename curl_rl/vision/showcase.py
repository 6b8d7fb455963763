"""What the data of a pretraining run look like to its encoder: views, and encoded images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curl_rl.augment import center_crop
from curl_rl.encoders import Encoder
from curl_rl.objectives import ViewSpec
from curl_rl.vision.config import VisionConfig
from curl_rl.vision.data.image_sets import ImageSet
from curl_rl.vision.pictures import views_picture
from curl_rl.vision.views import make_views

_AT_ONCE = 256


@dataclass(frozen=True)
class Shown:
    """Some images and their features, on the CPU."""

    images: Tensor
    """``(N, 3, S, S)`` uint8; of a stack, the newest frame."""
    features: Tensor
    """``(N, D)``."""
    labels: Tensor | None
    """``(N,)`` positions in ``classes``; None without classes."""
    classes: tuple[str, ...]
    """Their names."""


def sample_views(config: VisionConfig, images: ImageSet, *, samples: int = 6) -> Tensor:
    """A picture of some training images next to their views, ``(3, height, width)`` uint8, drawn with the run's seed.

    All views show the same moment, even if the method compares later ones.
    """
    batch = next(images.batches(min(samples, len(images)), seed=config.seed))
    specs = tuple(ViewSpec(number) for number in range(config.augment.views + config.augment.local_views))
    generator = torch.Generator(images.device).manual_seed(config.seed)
    views = make_views(batch.images, config.augment, generator, specs)
    return views_picture(batch.images, list(views.values()), samples)


@torch.no_grad()
def encode_some(encoder: Encoder, images: ImageSet, *, count: int, seed: int) -> Shown:
    """Encodes the center crops of ``count`` images, drawn with ``seed``, in evaluation mode."""
    encoder.eval()
    batch = next(images.batches(min(count, len(images)), seed=seed))
    side = encoder.input_shape[-1]
    features = torch.cat([encoder(center_crop(part, side)) for part in batch.images.split(_AT_ONCE)])
    labels = None if batch.labels is None else batch.labels.cpu()
    return Shown(batch.images[:, -3:].cpu(), features.float().cpu(), labels, tuple(images.classes))
