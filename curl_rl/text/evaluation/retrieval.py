"""Retrieval between images and captions: how often the right one is among the most similar.

An image may have several captions, and several images the same caption or the same picture. Every different caption and
every different picture counts once, and whatever belongs together is right: a caption is found if one of the pictures
that have it is found. Otherwise duplicates would push each other out of the first places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from curl_rl.text.data.pairs import PairSet

CUTOFFS = (1, 5, 10)


class Gallery(NamedTuple):
    """The different pictures and captions of a set, and which belong together."""

    images: Tensor
    """``(I,)`` int64: for each different picture, the position of one image in the set."""
    texts: tuple[str, ...]
    """``T`` different captions."""
    relevant: Tensor
    """``(I, T)`` booleans: the caption is one of the picture's."""


def gallery_of(pairs: PairSet, *, names_only: bool = False) -> Gallery:
    """The gallery of a set.

    Args:
        pairs: the set.
        names_only: take the first caption of each image alone.
    """
    own = [captions[:1] if names_only else captions for captions in pairs.captions]
    texts = sorted({place for places in own for place in places})
    column = {place: number for number, place in enumerate(texts)}
    images, row = pairs.contents.unique(return_inverse=True)
    relevant = torch.zeros(len(images), len(texts), dtype=torch.bool)
    for number, places in zip(row.tolist(), own, strict=True):
        relevant[number, [column[place] for place in places]] = True
    return Gallery(images, tuple(pairs.texts[place] for place in texts), relevant)


def ranks_of_the_right(similarity: Tensor, relevant: Tensor) -> Tensor:
    """The rank of the first right item for each query, from 1.

    A wrong item as similar as the best right one comes before it, so that equal embeddings earn nothing.

    Args:
        similarity: ``(Q, N)``.
        relevant: ``(Q, N)`` booleans, at least one True in each row.

    Returns:
        ``(Q,)`` int64.

    Raises:
        ValueError: the shapes differ, a query has no right item, or a similarity is NaN.
    """
    if similarity.shape != relevant.shape or not relevant.any(1).all():
        raise ValueError(
            f"similarity and relevant must be of one shape, with a right item for each query, got "
            f"{tuple(similarity.shape)} and {tuple(relevant.shape)}"
        )
    if similarity.isnan().any():
        raise ValueError("the similarities must be numbers, got NaN: the encoder has diverged")
    best = similarity.masked_fill(~relevant, -torch.inf).amax(1, keepdim=True)
    return ((similarity >= best) & ~relevant).sum(1) + 1


def recall(similarity: Tensor, relevant: Tensor, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """Recall@k: the share of the queries with a right item among the k most similar ones; and the median rank.

    Args:
        similarity: ``(Q, N)``.
        relevant: ``(Q, N)`` booleans.
        cutoffs: the values of k.

    Returns:
        ``recall@k`` in [0, 1] for each k, and ``median_rank``.

    Raises:
        ValueError: as in :func:`ranks_of_the_right`.
    """
    ranks = ranks_of_the_right(similarity, relevant)
    found = {f"recall@{k}": float((ranks <= k).double().mean()) for k in cutoffs}
    return {**found, "median_rank": float(ranks.double().median())}


def recall_both_ways(similarity: Tensor, relevant: Tensor, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """:func:`recall` of captions by images and of images by captions.

    Args:
        similarity: ``(I, T)``, images in rows.
        relevant: ``(I, T)`` booleans.
        cutoffs: the values of k.

    Returns:
        The measures by name, after ``image_to_text/`` and ``text_to_image/``.
    """
    ways = {"image_to_text": (similarity, relevant), "text_to_image": (similarity.T, relevant.T)}
    return {
        f"{way}/{name}": value for way, pair in ways.items() for name, value in recall(*pair, cutoffs=cutoffs).items()
    }


def chance_both_ways(relevant: Tensor, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """The expected :func:`recall_both_ways` of a random order, without median ranks.

    With r right items among N, none is among the first k with probability C(N − r, k) / C(N, k).
    """
    found = {}
    for way, rows in (("image_to_text", relevant), ("text_to_image", relevant.T)):
        right, count = rows.sum(1).double(), rows.shape[1]
        for k in cutoffs:
            places = torch.arange(min(k, count), dtype=torch.float64)
            none = ((count - right[:, None] - places).clamp_min(0) / (count - places)).prod(1)
            found[f"{way}/recall@{k}"] = float((1 - none).mean())
    return found


def neighbors_captions(pixels: Tensor, known: Tensor, captions: Tensor) -> Tensor:
    """A baseline without learning: a caption fits an image as well as the captions of images with similar pixels.

    The similarity is the largest product, over the known images, of the cosine of the pixels, minus the mean known
    image, and the similarity of the caption to the captions of the known image.

    Args:
        pixels: ``(I, P)`` images to judge.
        known: ``(N, P)`` images with known captions.
        captions: ``(N, T)`` similarity of a known image's captions to each caption, from 0 to 1.

    Returns:
        ``(I, T)``.
    """
    mean = known.float().mean(0)
    cosine = F.normalize(pixels.float() - mean) @ F.normalize(known.float() - mean).T
    return torch.stack([(row.clamp_min(0)[:, None] * captions).amax(0) for row in cosine])
