"""Searches a folder of images for what a text describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from curl_rl.runs.errors import UserError
from curl_rl.text.pair_encoder import PairEncoder
from curl_rl.vision.data.decoding import decode, say_unreadable
from curl_rl.vision.data.listing import images_below

_BATCH = 256


class Indexed(NamedTuple):
    """The images of a folder, as vectors."""

    paths: list[str]
    vectors: Tensor
    """``(N, D)`` of length 1, on the CPU."""


class Hit(NamedTuple):
    """An image that was found."""

    path: str
    score: float
    """Cosine with the text, from −1 to 1."""


def index_folder(encoder: PairEncoder, folder: Path, device: torch.device) -> Indexed:
    """Encodes all images below a folder; those that cannot be read are reported and left out.

    Raises:
        UserError: there is no folder, or no image in it that can be read.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    found, size = list(images_below(str(folder))), encoder.image_size
    paths: list[str] = []
    vectors: list[Tensor] = []
    with tqdm(total=len(found), desc=f"encoding {folder}", unit="image", disable=None, leave=False) as bar:
        for begin in range(0, len(found), _BATCH):
            pixels = np.empty((_BATCH, 3, size, size), dtype=np.uint8)
            readable: list[str] = []
            for path in found[begin : begin + _BATCH]:
                problem = decode(path, size, pixels[len(readable)])
                if problem is None:
                    readable.append(path)
                else:
                    say_unreadable(path, problem)
            if readable:
                vectors.append(encoder.embed_images(torch.from_numpy(pixels[: len(readable)]).to(device)).cpu())
                paths += readable
            bar.update(min(_BATCH, len(found) - begin))
    if not paths:
        raise UserError(f"{folder} must hold images, and has none that can be read")
    return Indexed(paths, torch.cat(vectors))


def search(encoder: PairEncoder, index: Indexed, texts: Sequence[str], most: int) -> list[list[Hit]]:
    """The most similar images for each text, best first; of equal ones, the first in the folder comes first."""
    similarity = encoder.embed_texts(texts).cpu() @ index.vectors.T
    order = similarity.sort(dim=1, descending=True, stable=True)
    return [
        [Hit(index.paths[place], score) for place, score in zip(places[:most], scores[:most], strict=True)]
        for places, scores in zip(order.indices.tolist(), order.values.tolist(), strict=True)
    ]
