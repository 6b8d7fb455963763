"""Encoders' common face: what they are asked for, and the features that they return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16"]


class FeatureSpec(NamedTuple):
    """Sizes of an encoder's features, without the batch."""

    dim: int
    """Of the vector."""
    map_shape: tuple[int, int, int]
    """``(C, h, w)`` of the map."""
    middle_shape: tuple[int, int, int] | None = None
    """``(C, h, w)`` of the map from half-way, where the encoder has one."""


class Features(NamedTuple):
    """One view, encoded."""

    vector: Tensor
    """``(B, dim)``."""
    map: Tensor
    """``(B, C, h, w)``, for methods that compare places."""
    middle: Tensor | None = None
    """``(B, C, h, w)`` from half-way through the encoder, whose places see less of the image, if it has one."""

    @property
    def local(self) -> Tensor:
        """The most local features: the middle, or the map of an encoder without one."""
        return self.map if self.middle is None else self.middle


def map_features(change: Callable[[Tensor], Tensor], features: Features) -> Features:
    """``change`` applied to the vector, the map and the middle."""
    vector, map_, middle = features
    return Features(change(vector), change(map_), None if middle is None else change(middle))


def cat_features(features: Sequence[Features]) -> Features:
    """Several batches as one, in that order."""
    middles = [view.middle for view in features if view.middle is not None]
    if middles and len(middles) < len(features):
        raise ValueError("features with and without a middle cannot be joined: encode them all by one encoder")
    return Features(
        torch.cat([view.vector for view in features]),
        torch.cat([view.map for view in features]),
        torch.cat(middles) if middles else None,
    )


def chunk_features(features: Features, count: int) -> list[Features]:
    """``count`` equal, consecutive parts of a batch.

    Raises:
        ValueError: the batch does not divide.
    """
    if len(features.vector) % count:
        raise ValueError(f"the batch must divide into {count} parts, got {len(features.vector)} samples")
    vectors, maps = features.vector.chunk(count), features.map.chunk(count)
    middles = [None] * count if features.middle is None else features.middle.chunk(count)
    return [Features(*parts) for parts in zip(vectors, maps, middles, strict=True)]


def take_features(features: Features, rows: Tensor) -> Features:
    """The samples in ``rows``, ``(R,)`` indices into the batch."""
    return map_features(lambda values: values[rows], features)
