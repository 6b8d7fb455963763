"""Folders of small random images, and readers for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from curl_rl.vision.data import load
from curl_rl.vision.data.image_sets import ImageSet, ResidentImages, StreamedImages


def pixels(number: int, height: int = 6, width: int | None = None) -> np.ndarray:
    """A different image ``(H, W, 3)`` for each number."""
    generator = np.random.default_rng(number)
    return generator.integers(0, 256, (height, width or height, 3), dtype=np.uint8)


def save(path: Path, image: np.ndarray | Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)  # type: ignore[arg-type]


def make_classes(folder: Path, **classes: int) -> Path:
    """Writes the given number of PNG images for each class."""
    number = 0
    for name, count in classes.items():
        for index in range(count):
            save(folder / name / f"{index:02}.png", pixels(number))
            number += 1
    return folder


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def images_of(images: ImageSet) -> torch.Tensor:
    """All images, in stored order."""
    (batch,) = images.batches(len(images), shuffle=False, drop_last=False)
    return batch.images


def loaders(folder: Path, **arguments: object) -> list[ImageSet]:
    """The same folder in memory and as a stream, decoded in this process."""
    forms = [load(folder, storage=storage, workers=0, **arguments) for storage in ("memory", "stream")]  # type: ignore[arg-type]
    assert isinstance(forms[0], ResidentImages)
    assert isinstance(forms[1], StreamedImages)
    return forms
