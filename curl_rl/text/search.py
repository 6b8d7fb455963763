"""Searches pictures for what a text describes: those of a folder, or the built-in ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from curl_rl.runs.errors import UserError
from curl_rl.text.data.pairs import SHAPES, load_pairs
from curl_rl.text.pair_encoder import PairEncoder
from curl_rl.vision.data.decoding import decode, say_unreadable
from curl_rl.vision.data.listing import images_below

_BATCH = 256


class Pictures(Protocol):
    """Pictures to search."""

    @property
    def title(self) -> str:
        """Where they are."""

    @property
    def names(self) -> Sequence[str]:
        """A name for each, as messages show it."""

    def label(self, place: int) -> str:
        """How a page that names :attr:`title` names one."""

    def read(self, place: int, size: int, target: npt.NDArray[np.uint8]) -> str | None:
        """Writes one into ``target``, ``(3, S, S)``; returns the reason if it cannot be read."""


class FolderPictures:
    """The images of a folder, at any depth; their names are their paths.

    Raises:
        UserError: there is no folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            remedy = f"name a folder of images, or {SHAPES}, the built-in ones"
            raise UserError(f"no folder {folder}{': it is a file' if folder.exists() else ''}: {remedy}")
        self.title, self.names = str(folder), tuple(images_below(str(folder)))

    def label(self, place: int) -> str:
        """See :class:`Pictures`."""
        return os.path.relpath(self.names[place], self.title)

    def read(self, place: int, size: int, target: npt.NDArray[np.uint8]) -> str | None:
        """See :class:`Pictures`."""
        return decode(self.names[place], size, target)


class ShapePictures:
    """The built-in pictures that no run is trained on; their names are numbers and what they show."""

    def __init__(self) -> None:
        pairs = load_pairs(SHAPES, "test")
        shown = (pairs.texts[own[0]] for own in pairs.captions)
        self.title, self.names = pairs.images.name, tuple(f"{place}: {text}" for place, text in enumerate(shown))
        self._pixels: dict[int, npt.NDArray[np.uint8]] = {}

    def label(self, place: int) -> str:
        """See :class:`Pictures`."""
        return self.names[place]

    def read(self, place: int, size: int, target: npt.NDArray[np.uint8]) -> str | None:
        """See :class:`Pictures`."""
        if size not in self._pixels:
            self._pixels[size] = load_pairs(SHAPES, "test", size).images.everything().images.numpy()
        target[:] = self._pixels[size][place]
        return None


def pictures_at(place: str) -> Pictures:
    """The pictures of a folder, or for ``shapes`` the built-in ones (``./shapes`` for a folder of that name).

    Raises:
        UserError: there is no folder.
    """
    return ShapePictures() if place == SHAPES else FolderPictures(Path(place))


class Index(NamedTuple):
    """Pictures as vectors."""

    names: list[str]
    """Of those that can be read."""
    places: list[int]
    """Where they are among all."""
    vectors: Tensor
    """``(N, D)`` of length 1, on the CPU."""


class Hit(NamedTuple):
    """A picture that was found."""

    name: str
    place: int
    """Where it is among all."""
    score: float
    """Cosine with the text, from −1 to 1."""


def index_pictures(encoder: PairEncoder, pictures: Pictures, device: torch.device) -> Index:
    """Encodes all pictures; those that cannot be read are reported and left out.

    Raises:
        UserError: none can be read.
    """
    count, size = len(pictures.names), encoder.image_size
    places: list[int] = []
    vectors: list[Tensor] = []
    with tqdm(total=count, desc=f"encoding {pictures.title}", unit="image", disable=None, leave=False) as bar:
        for begin in range(0, count, _BATCH):
            pixels = np.empty((_BATCH, 3, size, size), dtype=np.uint8)
            readable: list[int] = []
            for place in range(begin, min(begin + _BATCH, count)):
                problem = pictures.read(place, size, pixels[len(readable)])
                if problem is None:
                    readable.append(place)
                else:
                    say_unreadable(pictures.names[place], problem)
            if readable:
                vectors.append(encoder.embed_images(torch.from_numpy(pixels[: len(readable)]).to(device)).cpu())
                places += readable
            bar.update(min(_BATCH, count - begin))
    if not places:
        raise UserError(f"{pictures.title} must hold images, and has none that can be read")
    return Index([pictures.names[place] for place in places], places, torch.cat(vectors))


def search(encoder: PairEncoder, index: Index, texts: Sequence[str], most: int) -> list[list[Hit]]:
    """The most similar pictures for each text, best first; of equal ones, the first in order comes first."""
    similarity = encoder.embed_texts(texts).cpu() @ index.vectors.T
    order = similarity.sort(dim=1, descending=True, stable=True)
    return [
        [Hit(index.names[row], index.places[row], score) for row, score in zip(rows[:most], scores[:most], strict=True)]
        for rows, scores in zip(order.indices.tolist(), order.values.tolist(), strict=True)
    ]
