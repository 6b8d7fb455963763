"""Images with captions: a folder of images as any other, with a table of captions in it, or a built-in set.

The table, ``captions.tsv``, names each image by its path below the folder (:mod:`~curl_rl.text.data.tables`). An image
may have several captions, and several images the same one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from curl_rl.runs.console import counted
from curl_rl.runs.errors import UserError
from curl_rl.text.data.shapes import SHAPES as CLASSES
from curl_rl.text.data.shapes import SIDE, scenes
from curl_rl.text.data.tables import CAPTIONS, read_captions
from curl_rl.vision.data import load
from curl_rl.vision.data.image_sets import ImageSet, ResidentImages, SmallImages, Split, Storage

SHAPES = "shapes"
"""Name of the built-in set."""
_MADE = 1000


@dataclass(frozen=True)
class PairSet:
    """Images, and the captions of each."""

    images: ImageSet
    texts: tuple[str, ...]
    """The different captions."""
    captions: tuple[tuple[int, ...], ...]
    """Each image's captions, as positions in :attr:`texts`; the first one names it."""
    contents: Tensor
    """``(N,)`` int64, on the CPU: equal for images whose files are equal."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def identity(self) -> str:
        """Fingerprint of the images and their captions."""
        captions = [[self.texts[place] for place in own] for own in self.captions]
        return sha256(repr((self.images.identity, captions)).encode()).hexdigest()


def load_pairs(
    source: str | Path,
    split: Split = "train",
    size: int | None = None,
    *,
    captions: str = CAPTIONS,
    device: torch.device | str = "cpu",
    storage: Storage = "auto",
    workers: int | None = None,
    small_images: SmallImages = "auto",
) -> PairSet:
    """Loads the images of a folder, as :func:`curl_rl.vision.data.load` does, with their captions.

    Args:
        source: a folder of images, with or without splits and classes; or ``shapes``, 1,000 made pictures of 32×32
            pixels, whose classes are the shapes that are named first (``./shapes`` for a folder of that name).
        split: train or test.
        size: side of the images, in pixels; None: their own.
        captions: name of the table in the folder, such as that of another language.
        device: device of the images.
        storage: as in :func:`curl_rl.vision.data.load`.
        workers: likewise.
        small_images: likewise.

    Raises:
        UserError: as in that function; there is no table, or an image has no caption in it.
    """
    if source == SHAPES:
        return _shapes(split, size or SIDE, torch.device(device))
    folder = Path(source)
    table = folder / captions
    if not folder.is_dir():
        what = ": it is a file" if folder.exists() else ""
        raise UserError(f"no folder {folder}{what}: name a folder of images with {captions}, or {SHAPES}, built in")
    if not table.is_file():
        raise UserError(
            f"{folder} has no {captions}, which names the caption of each image: docs/text.md describes it, and "
            "scripts/prepare_data.py makes some"
        )
    by_file = {os.path.normpath(file): own for file, own in read_captions(table).items()}
    images = load(folder, split, size, device=device, storage=storage, workers=workers, small_images=small_images)
    files = [os.path.relpath(path, folder) for path in images.paths]
    without = [file for file in files if file not in by_file]
    if without:
        raise UserError(
            f"{table} has no caption for {len(without):,} of {counted(len(files), 'image')}, such as {without[0]}: add "
            "a line for each, or remove the images"
        )
    texts: dict[str, int] = {}
    numbered = tuple(tuple(texts.setdefault(text, len(texts)) for text in by_file[file]) for file in files)
    return PairSet(images, tuple(texts), numbered, torch.tensor(_equal_files(images.paths)))


def _shapes(split: Split, size: int, device: torch.device) -> PairSet:
    """The made pictures, all different, scaled to ``size``."""
    made = [(scene, image) for scene, image in scenes(_MADE, 0) if scene.part == split]
    resized = [image.resize((size, size), Image.Resampling.BILINEAR) for _, image in made]
    pixels = torch.stack([torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()) for image in resized])
    labels = torch.tensor([CLASSES.index(scene.first[1]) for scene, _ in made])
    images = ResidentImages(f"{SHAPES} ({split})", pixels.to(device), CLASSES, labels)
    images.identity = sha256(pixels.numpy().tobytes()).hexdigest()
    texts: dict[str, int] = {}
    captions = tuple(tuple(texts.setdefault(text, len(texts)) for text in scene.captions) for scene, _ in made)
    return PairSet(images, tuple(texts), captions, torch.arange(len(made)))


def _equal_files(paths: tuple[str, ...]) -> list[int]:
    """A number for each file, the same for files of equal bytes; only files of equal length are read."""
    by_length = defaultdict(list)
    for place, path in enumerate(paths):
        by_length[os.path.getsize(path)].append(place)
    numbers = list(range(len(paths)))
    for places in by_length.values():
        first: dict[bytes, int] = {}
        for place in places if len(places) > 1 else []:
            digest = sha256(Path(paths[place]).read_bytes()).digest()
            numbers[place] = first.setdefault(digest, place)
    return numbers
